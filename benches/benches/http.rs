//! What does a short answer by HTTP/1.1 cost: weald-http, hyper on tokio, and a bare epoll loop that looks for the ends of
//! heads? Units: microseconds of server CPU a request, ms of latency, requests per second, KiB of memory.
//!
//! `cargo bench -p weald-benches --bench http`; a part of a case's name as an argument: only that.
//!
//! The server is a process of its own on the first CPU, the load one thread on the second. The load is often at the end of its core,
//! so the rate is a lower bound: compare the CPU of the server. Beside burners (green threads, or tasks, that compute 100 ms and
//! give way, again and again) server and load share both CPUs, and each connection pauses for a millisecond between
//! requests. Loopback only.
//!
//! | case | connections | what they do |
//! |---|---|---|
//! | plain | 50, 1000 | the next request when the answer is there |
//! | pipelined | 50 | 16 requests at once |
//! | churn | 50 | 10 requests, then a new connection |
//! | burners | 16 | a request each millisecond, beside 1 and 4 burners |
//! | idle | 1000 | one request, and three seconds later the memory of the server, for each |

#[path = "http/load.rs"]
mod load;
mod rivals;
#[path = "http/servers.rs"]
mod servers;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Process, Role, answer, compare_by, cpu_time, memory,
    percentile, pin_to_nth_cpu, raise_descriptor_limit, repetitions, seconds_per_million,
    unless_quick,
};

use crate::load::{Habit, Load};

const FOREVER: usize = usize::MAX;

/// Each case: its name, workers, and what the clients do. The number of burners is the last word of a name, if there are any.
const HABITS: [(&str, usize, Habit); 7] = [
    ("plain, 50 connections", 1, habit(50, 1, FOREVER, 0)),
    ("plain, 1000 connections", 1, habit(1000, 1, FOREVER, 0)),
    ("pipelined by 16", 1, habit(50, 16, FOREVER, 0)),
    ("churn, 10 requests", 1, habit(50, 1, 10, 0)),
    ("beside burners: 1", 2, habit(16, 1, FOREVER, 1)),
    ("beside burners: 4", 2, habit(16, 1, FOREVER, 1)),
    ("idle", 1, habit(1000, 1, FOREVER, 0)),
];

const fn habit(connections: usize, pipelined: usize, requests: usize, pause_ms: u64) -> Habit {
    Habit {
        connections,
        pipelined,
        requests,
        pause: Duration::from_millis(pause_ms),
    }
}

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    if let Err(error) = raise_descriptor_limit() {
        println!("the descriptor limit stays: {error}");
    }
    let part = std::env::args().skip(1).find(|one| !one.starts_with('-'));
    let part = part.unwrap_or_default();
    let cases: Vec<_> = HABITS
        .iter()
        .filter(|(name, ..)| name.contains(&part))
        .map(|&(name, workers, _)| Case {
            name: name.into(),
            workers,
            amount: unless_quick(3000, 300),
            metrics: if name == "idle" {
                vec![Metric::less("server memory a connection (KiB)")]
            } else {
                vec![
                    Metric::less("server CPU (us a request)"),
                    Metric::less("p50 (ms)"),
                    Metric::less("p99 (ms)"),
                    Metric::more("requests per second"),
                ]
            },
            contestants: if name.contains("burners") {
                // The loop has no burners.
                &[
                    Contestant::WealdShared,
                    Contestant::WealdPinned,
                    Contestant::WealdOwn,
                    Contestant::Tokio,
                ]
            } else {
                &[
                    Contestant::WealdShared,
                    Contestant::WealdPinned,
                    Contestant::WealdOwn,
                    Contestant::Tokio,
                    Contestant::Epoll,
                ]
            },
            lifetime: Lifetime::Repetition,
        })
        .collect();
    compare_by(&cases, repetitions(5), |case, contestant| {
        measure(case, contestant).map_err(|error| error.to_string())
    });
}

/// One repetition: `case.amount` is its length in milliseconds.
fn measure(case: &Case, contestant: Contestant) -> io::Result<Vec<f64>> {
    let role = Role {
        contestant,
        case: case.name.clone(),
        workers: case.workers,
    };
    let found = HABITS.iter().find(|(name, ..)| *name == case.name);
    let &(_, workers, habit) = found.ok_or_else(|| io::Error::other("there is no such case"))?;
    let mut server = Process::start(&role, Duration::from_secs(20)).map_err(io::Error::other)?;
    let length = Duration::from_millis(case.amount);
    // A thread of its own: servers that are started later would inherit its CPU.
    let measured = thread::scope(|scope| {
        scope
            .spawn(|| {
                if workers == 1 {
                    // Where it cannot be, the CPUs are shared.
                    let _ = pin_to_nth_cpu(1);
                }
                if case.name == "idle" {
                    return idle(&mut server, habit);
                }
                busy(&mut server, habit, length)
            })
            .join()
    });
    measured.expect("the load returns its errors")
}

/// The child answers [port, CPU seconds, KiB of memory].
fn ask(server: &mut Process) -> io::Result<[f64; 3]> {
    let values = server.ask(0).map_err(io::Error::other)?;
    let nonsense = |_| io::Error::other("the server answers nonsense");
    values.try_into().map_err(nonsense)
}

fn port(value: f64) -> io::Result<u16> {
    let nonsense = |_| io::Error::other("the server tells no port");
    value.to_string().parse().map_err(nonsense)
}

fn busy(server: &mut Process, habit: Habit, length: Duration) -> io::Result<Vec<f64>> {
    let mut load = Load::connect(port(ask(server)?[0])?, habit)?;
    load.run(length / 6, &mut Vec::new())?;
    let mut latencies_us = Vec::with_capacity(4_000_000);
    let before = ask(server)?;
    let start = Instant::now();
    let requests = load.run(length, &mut latencies_us)?;
    let elapsed = start.elapsed();
    let after = ask(server)?;
    Ok(vec![
        seconds_per_million(after[1] - before[1], requests),
        f64::from(percentile(&mut latencies_us, 500)) / 1e3,
        f64::from(percentile(&mut latencies_us, 990)) / 1e3,
        1e6 / seconds_per_million(elapsed.as_secs_f64(), requests),
    ])
}

fn idle(server: &mut Process, habit: Habit) -> io::Result<Vec<f64>> {
    let first = ask(server)?;
    let port = port(first[0])?;
    // What the first connections make for all.
    drop(Load::connect(port, habit_of(10))?);
    let before = ask(server)?;
    let load = Load::connect(port, habit)?;
    thread::sleep(unless_quick(Duration::from_secs(3), Duration::ZERO));
    let after = ask(server)?;
    let connections = f64::from(u32::try_from(habit.connections).unwrap_or(u32::MAX));
    drop(load);
    Ok(vec![(after[2] - before[2]) / connections])
}

const fn habit_of(connections: usize) -> Habit {
    habit(connections, 1, FOREVER, 0)
}

/// The server, in a process of its own. Tells where it listens and what it has used, as often as it is asked.
fn serve(role: &Role) -> ! {
    if role.workers == 1 {
        // Before the contestant starts a thread: they inherit the CPU.
        let _ = pin_to_nth_cpu(0);
    }
    let _ = raise_descriptor_limit();
    let burners = role.case.strip_prefix("beside burners: ");
    let burners = burners.and_then(|count| count.parse().ok()).unwrap_or(0);
    let address = servers::start(role, burners).expect("loopback is there");
    answer(|_| {
        let memory = memory();
        // As text and back: no cast, and exact far beyond any memory there is.
        let kib = (memory.resident_bytes + memory.page_table_bytes) / 1024;
        vec![
            f64::from(address.port()),
            cpu_time().total_s(),
            kib.to_string().parse().unwrap_or(f64::NAN),
        ]
    })
}
