//! How long do other threads wait beside green threads that do not give way? Units: ms.
//!
//! `cargo bench -p weald-benches --bench hogs`
//!
//! | case                | one worker, or two          | measured                                        |
//! |---------------------|-----------------------------|-------------------------------------------------|
//! | gap, computing      | one that computes 300 ms    | worst gap between two turns of 100 that yield   |
//! | gap, raw call       | one that sleeps 300 ms in a raw system call | the same                        |
//! | echo, n burners     | n that compute 100 ms and yield, again and again | 16 clients, a request each |
//! |                     |                             | millisecond or so: p50 and p99                  |
//!
//! The clients are OS threads of the same process: with two CPUs all compete, as on a busy server.
//! Loopback only.

mod rivals;

use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, percentile, repetitions,
    unless_quick, weald_runtime,
};

const HOG: Duration = Duration::from_millis(300);
const SLICE: Duration = Duration::from_millis(100);
const CLIENTS: usize = 16;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(1);

fn main() {
    if let Some(role) = Role::of_this_process() {
        answer(|amount| match role.case.as_str() {
            "gap, computing" => vec![gap(&role, || spin(HOG))],
            "gap, raw call" => vec![gap(&role, || thread::sleep(HOG))],
            "echo, 1 burner" => echo(&role, 1, amount),
            "echo, 4 burners" => echo(&role, 4, amount),
            other => panic!("no case {other}"),
        });
    }
    let gap = |name: &str| Case {
        name: name.into(),
        workers: 1,
        amount: 1,
        metrics: vec![Metric::less("worst gap (ms)")],
        contestants: &[
            Contestant::WealdShared,
            Contestant::WealdPinned,
            Contestant::WealdOwn,
            Contestant::Tokio,
        ],
        lifetime: Lifetime::Case,
    };
    let echo = |name: &str| Case {
        name: name.into(),
        workers: 2,
        amount: unless_quick(4000, 500),
        metrics: vec![Metric::less("p50 (ms)"), Metric::less("p99 (ms)")],
        contestants: &[
            Contestant::WealdShared,
            Contestant::WealdPinned,
            Contestant::WealdOwn,
            Contestant::Tokio,
        ],
        lifetime: Lifetime::Case,
    };
    compare(
        &[
            gap("gap, computing"),
            gap("gap, raw call"),
            echo("echo, 1 burner"),
            echo("echo, 4 burners"),
        ],
        repetitions(5),
    );
}

fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        spin_loop();
    }
}

// The worst gap between two turns.

/// What threads that yield note: when one of them last had a turn, and the worst gap so far.
struct Turns {
    start: Instant,
    last_us: AtomicU64,
    worst_us: AtomicU64,
    stop: AtomicBool,
}

impl Turns {
    fn turn(&self) -> bool {
        let now = micros(self.start.elapsed());
        let last = self.last_us.swap(now, Ordering::Relaxed);
        self.worst_us
            .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn gap(role: &Role, hog: impl FnOnce() + Send + 'static) -> f64 {
    const OTHERS: usize = 100;
    let turns = Arc::new(Turns {
        start: Instant::now(),
        last_us: AtomicU64::new(0),
        worst_us: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let measure = |hog: Box<dyn FnOnce()>| {
        thread::sleep(Duration::from_millis(20));
        turns.worst_us.store(0, Ordering::Relaxed);
        hog();
        turns.stop.store(true, Ordering::Relaxed);
    };
    if role.contestant == Contestant::Tokio {
        let runtime = rivals::tokio_runtime(role.workers);
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let turns = Arc::clone(&turns);
                runtime.spawn(async move {
                    while turns.turn() {
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        measure(Box::new(|| {
            rivals::tokio_run(&runtime, async move { hog() });
        }));
        runtime.block_on(async {
            for other in others {
                other.await.expect("it ends");
            }
        });
    } else {
        let runtime = weald_runtime(role.contestant, role.workers);
        let others: Vec<_> = (0..OTHERS)
            .map(|_| {
                let turns = Arc::clone(&turns);
                runtime.spawn(move || {
                    while turns.turn() {
                        weald::yield_now();
                    }
                })
            })
            .collect();
        measure(Box::new(|| runtime.run(hog)));
        for other in others {
            other.join().expect("it ends");
        }
    }
    Duration::from_micros(turns.worst_us.load(Ordering::Relaxed)).as_secs_f64() * 1e3
}

// Echo beside burners.

/// Computes for a slice without looking at the clock all the time.
fn burn() {
    let end = Instant::now() + SLICE;
    while Instant::now() < end {
        for n in 0..1000_u64 {
            black_box(n);
        }
    }
}

fn echo(role: &Role, burners: usize, length_ms: u64) -> Vec<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let length = Duration::from_millis(length_ms);
    let mut latencies_us = if role.contestant == Contestant::Tokio {
        let runtime = rivals::tokio_runtime(role.workers);
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(tokio_echo(listener));
        let connected = connect(address);
        for _ in 0..burners {
            let stop = Arc::clone(&stop);
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    burn();
                    tokio::task::yield_now().await;
                }
            });
        }
        let latencies = load(connected, length);
        stop.store(true, Ordering::Relaxed);
        latencies
    } else {
        let runtime = weald_runtime(role.contestant, role.workers);
        let server = runtime.run(|| {
            let listener =
                weald::tcp_listener((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
            weald::tcp_server(listener, |mut stream, _peer| {
                let mut byte = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut byte) {
                    if stream.write_all(&byte[..count]).is_err() {
                        return;
                    }
                }
            })
        });
        let connected = connect(server.local_addr());
        for _ in 0..burners {
            let stop = Arc::clone(&stop);
            runtime.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    burn();
                    weald::yield_now();
                }
            });
        }
        let latencies = load(connected, length);
        stop.store(true, Ordering::Relaxed);
        if std::env::var_os("WEALD_BENCH_METRICS").is_some() {
            eprintln!("{:?}", runtime.metrics());
        }
        latencies
    };
    vec![
        f64::from(percentile(&mut latencies_us, 500)) / 1e3,
        f64::from(percentile(&mut latencies_us, 990)) / 1e3,
    ]
}

async fn tokio_echo(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    while let Ok((mut stream, _peer)) = listener.accept().await {
        tokio::spawn(async move {
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The clients. Each of them was served once.
fn connect(address: SocketAddr) -> Vec<TcpStream> {
    (0..CLIENTS)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).expect("a socket has options");
            round_trip(&mut stream);
            stream
        })
        .collect()
}

fn round_trip(stream: &mut TcpStream) {
    stream.write_all(&[7; 64]).expect("the server is there");
    stream.read_exact(&mut [0; 64]).expect("the server answers");
}

/// All clients at once; the microseconds of each request, from when it was due.
fn load(clients: Vec<TcpStream>, length: Duration) -> Vec<u32> {
    let end = Instant::now() + length;
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    thread::sleep(PAUSE);
                    let sent = Instant::now();
                    round_trip(&mut stream);
                    latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                latencies
            })
        })
        .collect();
    threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("a client ends"))
        .collect()
}
