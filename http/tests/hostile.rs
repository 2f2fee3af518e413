//! Thousands of connections that break off, reset, send half of a request or nothing leave the server as it was: with
//! no more descriptors, OS threads or green threads, and with little more memory. The test has a process of its own,
//! so that nothing else changes the numbers.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weald_http::{Body, Limits, Request, Response, Server};

/// How many connections each of the clients makes.
const EACH: u64 = 625;
const CLIENTS: u64 = 8;

/// xorshift64*: Marsaglia, Vigna.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}

const REQUESTS: [&str; 7] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntree\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\ntree",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

/// Returns bytes that may be a request, a part of one, a request with a fault, or random bytes.
fn bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        let kind = usize::try_from(random.below(REQUESTS.len() as u64)).unwrap();
        bytes.extend_from_slice(REQUESTS[kind].as_bytes());
    }
    match random.below(4) {
        0 => {
            let length = random.below(400);
            bytes = (0..length)
                .map(|_| random.below(256).to_le_bytes()[0])
                .collect();
        }
        1 => bytes.truncate(usize::try_from(random.below(bytes.len() as u64)).unwrap()),
        2 => {
            for _ in 0..=random.below(4) {
                let place = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                bytes[place] = random.below(256).to_le_bytes()[0];
            }
        }
        _ => {}
    }
    bytes
}

fn misbehave(addr: SocketAddr, random: &mut Random) {
    let Ok(mut stream) = TcpStream::connect(addr) else {
        return;
    };
    let _ = stream.write_all(&bytes(random));
    let moment = Duration::from_millis(1 + random.below(10));
    stream.set_read_timeout(Some(moment)).unwrap();
    match random.below(4) {
        // The client resets the connection.
        0 => {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        // The client reads for a while.
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0; 4096]);
        }
        2 => {
            let _ = stream.read(&mut [0; 10]);
        }
        _ => {}
    }
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Resident memory, in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn what_clients_do_wrong_leaves_nothing_behind() {
    let second = Duration::from_secs(1);
    let short = second / 5;
    let limits = Limits::new()
        .head_time(short)
        .body_time(short)
        .keep_alive(short)
        .write_time(short);
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    let server = Server::new(listener)
        .limits(limits)
        .serve(|mut request: Request| {
            if request.path() == "/stream" {
                return Ok(Response::new(Body::writer(|out| {
                    (0..100).try_for_each(|_| out.write_all(&[b'x'; 10_000]))
                })));
            }
            request.read_text().map(Response::new)
        });
    let addr = server.local_addr();
    let round = |seed: u64| {
        std::thread::scope(|scope| {
            for client in 1..=CLIENTS {
                scope.spawn(move || {
                    let mut random = Random(seed * CLIENTS + client);
                    (0..EACH).for_each(|_| misbehave(addr, &mut random));
                });
            }
        });
        let start = Instant::now();
        while server.connections() > 0 {
            assert!(start.elapsed() < 30 * second, "{server:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The thread-locals of a green thread are given back a little later than the connection.
        std::thread::sleep(second);
    };
    let counts = || {
        let live = weald::spawn(|| weald::dump().threads.len()).join().unwrap();
        (
            count("/proc/self/fd"),
            count("/proc/self/task"),
            live,
            memory(),
        )
    };
    // The first round makes what is made only once.
    round(1);
    let before = counts();
    round(2);
    // On a busy machine some of it is given back later.
    let start = Instant::now();
    let after = loop {
        let after = counts();
        let is_back = after.0 <= before.0
            && after.1 <= before.1 + 4
            && after.2 <= before.2
            && after.3 < before.3 + 8 * 1024;
        if is_back || start.elapsed() > 20 * second {
            assert!(
                is_back,
                "descriptors, OS threads, green threads, KiB: {before:?}, then {after:?}"
            );
            break after;
        }
        std::thread::sleep(second / 10);
    };
    println!("descriptors, OS threads, green threads, KiB: {before:?}, then {after:?}");
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(server.shutdown(30 * second));
}
