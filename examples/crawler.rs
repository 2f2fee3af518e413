//! A crawler: follows the links of a small web of its own, by a pool of green threads, each page once.
//!
//! `cargo run --release -p weald-examples --bin crawler`

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald::GreenPool;
use weald::net::TcpStream;
use weald::sync::Mutex;

const PAGES: u64 = 500;
/// The number of connections at a time.
const AT_ONCE: usize = 50;
/// How long the server takes for a page, and a client waits for one.
const LATENCY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let listener = weald::tcp_listener("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = weald::tcp_server(listener, |stream, peer| {
        if let Err(error) = serve(&stream) {
            eprintln!("{peer}: {error}");
        }
    });
    let start = Instant::now();
    let crawler = Arc::new(Crawler {
        addr,
        pool: GreenPool::new(AT_ONCE),
        seen: Mutex::new(HashSet::new()),
    });
    crawler.visit(1);
    crawler.pool.wait_all();
    let pages = crawler.seen.lock().map_or(0, |seen| seen.len());
    println!(
        "{pages} pages of {LATENCY:?} each in {:.2?}, {AT_ONCE} at a time",
        start.elapsed()
    );
    server.shutdown(PATIENCE);
    Ok(())
}

struct Crawler {
    addr: SocketAddr,
    pool: GreenPool,
    seen: Mutex<HashSet<u64>>,
}

impl Crawler {
    /// Fetches a page, if no other thread has, and visits the pages that it links to. If a thread of the pool finds
    /// the pool full, it lends its own place to the new thread. So this cannot lock up, however the pages are linked.
    fn visit(self: &Arc<Self>, page: u64) {
        let is_new = self.seen.lock().is_ok_and(|mut seen| seen.insert(page));
        if !is_new {
            return;
        }
        let this = Arc::clone(self);
        self.pool.spawn(move || {
            let fetched = weald::timeout(PATIENCE, || fetch(this.addr, page));
            match fetched {
                Ok(Ok(links)) => links.into_iter().for_each(|link| this.visit(link)),
                Ok(Err(error)) => eprintln!("page {page}: {error}"),
                Err(elapsed) => eprintln!("page {page}: {elapsed}"),
            }
        });
    }
}

/// Returns the links of a page.
fn fetch(addr: SocketAddr, page: u64) -> io::Result<Vec<u64>> {
    let mut stream = weald::connect_tcp(addr)?;
    writeln!(stream, "{page}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Answers with the page's links, a line each.
fn serve(mut stream: &TcpStream) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let page: u64 = line.trim_end().parse().map_err(io::Error::other)?;
    weald::sleep(LATENCY);
    for link in [page * 2, page * 2 + 1, page / 3 + 1] {
        if link <= PAGES {
            writeln!(stream, "{link}")?;
        }
    }
    Ok(())
}
