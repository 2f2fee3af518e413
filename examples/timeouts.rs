//! Limits on blocking code: `timeout`, `exc_after` with `catch`, `call_after`, `kill`.
//!
//! `cargo run --release -p weald-examples --bin timeouts`

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use weald::{Exception, Killed};

const MOMENT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

/// An error of our own, to be raised in a green thread that takes too long.
#[derive(Debug)]
struct OutOfPatience;

impl fmt::Display for OutOfPatience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("out of patience")
    }
}

impl Error for OutOfPatience {}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();

    // A limit around any code that blocks, however deep the blocking call is.
    let slow = weald::timeout(MOMENT, || weald::sleep(LONG));
    println!("a long sleep with a short limit: {slow:?}");
    let fast = weald::timeout(LONG, || 6 * 7);
    println!("a short computation with a long limit: {fast:?}");

    // The inner limit ends the inner call; the outer limit is not affected.
    let nested = weald::timeout(LONG, || {
        weald::timeout(MOMENT, || weald::sleep(LONG)).is_err()
    });
    println!("only the inner limit passed: {nested:?}");

    // A call that returns `io::Result` reports the exception there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut stream = weald::connect_tcp(silent.local_addr()?)?;
    let timer = weald::exc_after(MOMENT, OutOfPatience);
    let error = stream
        .read(&mut [0; 16])
        .expect_err("the other side never writes");
    println!(
        "a silent peer: {error} ({:?}), the timer has fired: {}",
        error.kind(),
        !timer.cancel()
    );
    stream.set_read_timeout(Some(MOMENT))?;
    let error = stream.read(&mut [0; 16]).expect_err("still silent");
    println!(
        "timed out as std's would: {}",
        error.kind() == io::ErrorKind::TimedOut
    );

    // Any other blocking call unwinds with it, and `catch` ends the unwinding.
    let caught: Result<(), OutOfPatience> = weald::catch(|| {
        let _timer = weald::exc_after(MOMENT, OutOfPatience);
        weald::sleep(LONG);
    });
    println!("caught: {caught:?}");

    // A function to be called later, and one that is cancelled in time.
    let main_thread = weald::current();
    weald::call_after(MOMENT, move || main_thread.unpark());
    let never = weald::call_after(LONG, || println!("this is never printed"));
    weald::park();
    println!("call_after woke us; called off in time: {}", never.cancel());

    // `kill` ends a green thread at its next blocking call, and `join` says so.
    let sleeper = weald::spawn(|| weald::sleep(LONG));
    sleeper.thread().kill();
    let payload = sleeper.join().expect_err("it was killed");
    let killed = payload
        .downcast_ref::<Exception>()
        .is_some_and(|exception| exception.downcast_ref::<Killed>().is_some());
    println!("killed: {killed}");

    println!("all of it took {:?}", start.elapsed());
    Ok(())
}
