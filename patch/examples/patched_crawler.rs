//! A thousand HTTP requests at once with ureq on two workers. ureq is a blocking client that knows nothing of weald:
//! `cargo run --release -p weald-patch --example patched_crawler -- [REQUESTS]`
//!
//! The server is in this process too. It answers each request after 200 ms.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The time that the server takes for an answer.
const LATENCY: Duration = Duration::from_millis(200);

/// This function has no line of weald in it.
fn fetch(url: &str) -> Result<usize, ureq::Error> {
    let mut response = ureq::get(url).call()?;
    Ok(response.body_mut().read_to_string()?.len())
}

/// Answers one request with a page.
fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    std::thread::sleep(LATENCY);
    let page = "<p>a page</p>";
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
}

fn program(requests: usize) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/", listener.local_addr()?);
    weald::spawn(move || {
        for stream in listener.incoming().flatten() {
            weald::spawn(move || answer(&stream));
        }
    });
    let start = Instant::now();
    let fetchers: Vec<_> = (0..requests)
        .map(|_| {
            let url = url.clone();
            weald::spawn(move || fetch(&url))
        })
        .collect();
    let mut bytes = 0;
    for fetcher in fetchers {
        let fetched = fetcher.join().expect("a fetcher panicked");
        bytes += fetched.map_err(io::Error::other)?;
    }
    println!(
        "{requests} requests of {LATENCY:?}, {bytes} bytes, in {:.2?}",
        start.elapsed()
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let requests = match std::env::args().nth(1) {
        Some(number) => number.parse()?,
        None => 1000,
    };
    weald_patch::all()?;
    Ok(weald::Runtime::builder()
        .workers(2)
        .build()?
        .run(|| program(requests))?)
}
