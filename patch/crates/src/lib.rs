//! Helpers of the tests of this package. Published crates are tried by [`all_at_once`]. The server of each test (OS
//! threads, or a real server) answers no client before all clients have asked. So a client that blocked the worker
//! would wait for ever, and the tests need no clock.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

/// The number of clients of each test.
pub const MANY: usize = 50;

/// A test that hangs ends after this time.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the body in a green thread. Its runtime has one worker and everything patched.
///
/// # Panics
/// If nothing can be patched here. Ends the process if the body takes more than a minute.
pub fn in_green<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    weald_patch::all().expect("thread-locals of their own");
    let (done, is_done) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("HANGS after {LIMIT:?}");
            std::process::abort();
        }
    });
    // There are as few OS threads as possible: if a client blocks one, one is left for the others.
    let rt = weald::Runtime::builder()
        .workers(1)
        .spare_threads(1)
        .build()
        .expect("a runtime");
    let value = rt.run(body);
    drop(done);
    watch.join().expect("the watch");
    value
}

/// Runs the body in [`MANY`] green threads on one worker, and waits for all of them.
///
/// # Panics
/// If one of them panics.
pub fn all_at_once(body: impl Fn(usize) + Send + Sync + 'static) {
    let body = Arc::new(body);
    in_green(|| {
        let threads: Vec<_> = (0..MANY)
            .map(|n| {
                let body = Arc::clone(&body);
                weald::spawn(move || body(n))
            })
            .collect();
        for thread in threads {
            thread.join().expect("a client");
        }
    });
}

/// Starts a server on OS threads, which are not patched. `talk` gets each connection and the barrier at which all
/// [`MANY`] conversations meet.
///
/// # Panics
/// If there is no port.
pub fn serve(
    talk: impl Fn(TcpStream, &Barrier) -> io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (talk, all_here) = (Arc::new(talk), Arc::new(Barrier::new(MANY)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let (talk, all_here) = (Arc::clone(&talk), Arc::clone(&all_here));
            thread::spawn(move || {
                if let Err(error) = talk(stream, &all_here) {
                    eprintln!("the server: {error}");
                }
            });
        }
    });
    addr
}

/// Reads the head of a request, line by line, up to the empty line.
///
/// # Errors
/// The error of the connection.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<()> {
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(())
}

/// The page that [`http`] serves.
pub const PAGE: &str = "a page";

/// Reads one request and writes its answer.
///
/// # Errors
/// The error of the connection.
pub fn answer(stream: impl Read + Write, all_here: &Barrier) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    read_head(&mut reader)?;
    all_here.wait();
    let length = PAGE.len();
    write!(
        reader.get_mut(),
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}"
    )?;
    reader.get_mut().flush()
}

/// Starts a web server that answers when all clients have asked, and returns its address.
pub fn http() -> String {
    format!(
        "http://{}/",
        serve(|stream, all_here| answer(stream, all_here))
    )
}
