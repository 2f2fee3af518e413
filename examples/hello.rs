//! Green threads in the shape of `std::thread`: spawn, join, scope, park.
//!
//! `cargo run --release -p weald-examples --bin hello`

use std::time::{Duration, Instant};

fn main() -> std::io::Result<()> {
    // The default runtime starts at first use, with as many workers as there are cores. `run` on a
    // runtime of your own does the same with settings of yours.
    let greeting = weald::spawn(|| {
        weald::sleep(Duration::from_millis(10));
        "hello from a green thread"
    });
    println!("{}", greeting.join().expect("it does not panic"));

    // A panic ends its green thread and nothing else; `join` hands its payload over.
    let sum = weald::spawn(|| (1..=10).sum::<u32>());
    let careless = weald::Builder::new()
        .name("careless".into())
        .spawn(|| panic!("this one goes wrong, on purpose"))?;
    println!("1 + 2 + ... + 10 = {}", sum.join().expect("it adds"));
    println!("careless ended well: {}", careless.join().is_ok());

    // Ten thousand at once, each asleep for 100 ms: a blocking call suspends the green thread, never
    // the core.
    let start = Instant::now();
    let sleepers: Vec<_> = (0..10_000_u32)
        .map(|number| {
            weald::spawn(move || {
                weald::sleep(Duration::from_millis(100));
                number
            })
        })
        .collect();
    let woken = sleepers
        .into_iter()
        .filter_map(|sleeper| sleeper.join().ok())
        .count();
    println!("{woken} sleepers of 100 ms took {:?}", start.elapsed());

    // A scope joins its children, so they may borrow.
    let text = String::from("borrowed words count too");
    let (words, letters) = weald::scope(|scope| {
        let words = scope.spawn(|| text.split(' ').count());
        let letters = scope.spawn(|| text.chars().filter(|letter| *letter != ' ').count());
        (
            words.join().expect("it counts"),
            letters.join().expect("it counts"),
        )
    });
    println!("{words} words, {letters} letters");

    // `park` and `unpark` are the two calls on which every lock and channel is built.
    let waiting = weald::spawn(|| {
        weald::park();
        println!("unparked");
    });
    waiting.thread().unpark();
    waiting.join().expect("it was woken");
    Ok(())
}
