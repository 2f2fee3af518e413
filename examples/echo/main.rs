//! An echo server under load, twice: on green threads, and the same code on OS threads for comparison.
//!
//! ```text
//! cargo run --release -p weald-examples                                # 10,000 connections, 5 s each
//! cargo run --release -p weald-examples -- --connections 1000 --seconds 2
//! cargo run --release -p weald-examples -- --server green              # the first half alone
//! cargo run --release -p weald-examples -- --serve-only --port 7000    # until Ctrl-C
//! ```
//!
//! A client sends, waits for the echo, notes how long that took, and sends again. All clients are green threads of the
//! same process, so that server and load share the CPUs; `benches/` is where servers are compared with more care. Each
//! half runs in a process of its own, so that neither finds memory that the other has left. Loopback only.

mod load;
mod options;
mod server;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weald::Runtime;
use weald::process::Command;

use self::load::{Results, load};
use self::options::{Kind, Options, USAGE};

/// How long the server may take to end its handlers.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(mut options: Options) -> io::Result<()> {
    options.fit_descriptors()?;
    let runtime = Runtime::builder().workers(options.workers).build()?;
    let result = runtime.run(|| match options.server {
        _ if options.serve_only => serve_only(&options),
        Kind::Both => compare(&options),
        kind => {
            let stop = Arc::new(AtomicBool::new(false));
            stop_at_ctrl_c(&stop);
            load(&options, kind, &stop).map(|results| results.print(kind))
        }
    });
    runtime.shutdown(GRACE);
    result
}

/// Runs each half in a process of its own.
fn compare(options: &Options) -> io::Result<()> {
    println!(
        "{} connections, each sends {} bytes, waits for their echo and sends again, for {} s. \
         Server and clients share {} CPUs.\n",
        options.connections, options.size_bytes, options.seconds, options.workers
    );
    println!("{}", Results::HEAD);
    // The two child processes get Ctrl-C as well, and end.
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_ctrl_c(&stop);
    let this = std::env::current_exe()?;
    for kind in [Kind::Green, Kind::Threads] {
        let mut half = Command::new(&this);
        half.args(options.arguments())
            .args(["--server", kind.name()]);
        let status = half.status()?;
        if !status.success() {
            return Err(io::Error::other(format!(
                "the {} server: {status}",
                kind.name()
            )));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    println!(
        "\nBoth servers run the same function for each connection: read, write, again. The clients, which are green \
         threads,\nare the same too, and their memory is in both rows. Not in them is what the kernel keeps for each OS \
         thread,\nsome 20 kB. Other programs at work distort the comparison: the kernel shares CPUs by thread, and the second server has \
         one\nfor each connection. `benches/` has more, with tokio, may and a bare epoll loop beside."
    );
    Ok(())
}

fn serve_only(options: &Options) -> io::Result<()> {
    let server = server::start(options, options.kind_alone())?;
    println!(
        "echo on {} with {} workers, Ctrl-C ends it",
        server.addr(),
        options.workers
    );
    weald::signal::shutdown()?;
    let text = if server.stop(GRACE) {
        ""
    } else {
        ", connections that were still open were cut"
    };
    println!("\nserver ended{text}");
    Ok(())
}

/// Sets the flag at Ctrl-C.
fn stop_at_ctrl_c(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    weald::spawn(move || {
        if weald::signal::shutdown().is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
}
