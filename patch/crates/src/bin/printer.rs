//! Many green threads print to a pipe that is full most of the time: a program for `tests/std.rs`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    weald_patch::all()?;
    let rt = weald::Runtime::builder().workers(2).build()?;
    rt.run(|| {
        let printers: Vec<_> = (0..20)
            .map(|printer| {
                weald::spawn(move || {
                    for line in 0..1000 {
                        println!("{printer} {line} {}", "x".repeat(200));
                    }
                })
            })
            .collect();
        for printer in printers {
            printer.join().expect("a printer panicked");
        }
    });
    Ok(())
}
