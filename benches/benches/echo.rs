//! What does a TCP echo server cost, with 1000 and 5000 connections, on one and two workers? Units:
//! seconds of server CPU per million requests, ms of latency, requests per second.
//!
//! `cargo bench -p weald-benches --bench echo`
//!
//! The server is a process of its own on the first CPU, the load one thread on the second: 64 bytes
//! to and fro on each connection, the next request as soon as the answer is there. With two workers
//! they share both CPUs. The load is often at the end of its core, so the rate is a lower bound: compare the CPU of
//! the server. The floor is a bare epoll loop for each worker; its cost is the kernel's share. Loopback only.

mod rivals;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use weald_benches::{
    Case, Contestant, Epoll, Lifetime, Load, Metric, Process, Role, answer, compare_by, cpu_time,
    memory, percentile, pin_to_nth_cpu, raise_descriptor_limit, repetitions, seconds_per_million,
    unless_quick, weald_runtime,
};

/// What each connection of a server reads into.
const BUFFER_BYTES: usize = 4096;

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    match raise_descriptor_limit() {
        Ok(limit) if limit < 5200 => println!("only {limit} descriptors: this will fail"),
        Ok(_) => {}
        Err(error) => println!("the descriptor limit stays: {error}"),
    }
    match on_a_thread(|| pin_to_nth_cpu(1)) {
        Ok(cpu) => println!("1 worker: the load runs on CPU {cpu}, each server on the first one"),
        Err(error) => println!("server and load share the CPUs: {error}"),
    }
    let case = |connections: usize, workers| Case {
        name: format!("{connections} connections"),
        workers,
        amount: unless_quick(3000, 300),
        metrics: vec![
            Metric::less("server CPU (s per million)"),
            Metric::less("of it in user mode (s per million)"),
            Metric::less("p50 (ms)"),
            Metric::less("p99 (ms)"),
            Metric::more("requests per second"),
            Metric::less("server memory (MB)"),
        ],
        contestants: &[
            Contestant::WealdShared,
            Contestant::WealdPinned,
            Contestant::WealdOwn,
            Contestant::May,
            Contestant::Tokio,
            Contestant::Epoll,
        ],
        lifetime: Lifetime::Repetition,
    };
    let cases = [case(1000, 1), case(1000, 2), case(5000, 1), case(5000, 2)];
    compare_by(&cases, repetitions(5), |case, contestant| {
        measure(case, contestant).map_err(|error| error.to_string())
    });
}

// The load: one thread, one epoll.

/// Runs `body` on a thread of its own and waits for it. Threads and servers that this thread starts would otherwise
/// inherit the load's CPU.
fn on_a_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(body).join()).expect("the load returns its errors")
}

/// One repetition: `case.amount` is its length in milliseconds.
fn measure(case: &Case, contestant: Contestant) -> io::Result<Vec<f64>> {
    let role = Role {
        contestant,
        case: case.name.clone(),
        workers: case.workers,
    };
    let mut server = Process::start(&role, Duration::from_secs(20)).map_err(io::Error::other)?;
    let connections = case
        .name
        .split(' ')
        .next()
        .and_then(|count| count.parse().ok());
    let connections = connections.ok_or_else(|| io::Error::other("the case tells no count"))?;
    on_a_thread(|| {
        if case.workers == 1 {
            // If that is not possible, `main` has said that the CPUs are shared.
            let _ = pin_to_nth_cpu(1);
        }
        measure_server(&mut server, connections, Duration::from_millis(case.amount))
    })
}

fn measure_server(
    server: &mut Process,
    connections: usize,
    length: Duration,
) -> io::Result<Vec<f64>> {
    // The child answers [port, user seconds, system seconds, resident bytes].
    let mut ask = || match server.ask(0) {
        Ok(values) if values.len() == 4 => Ok(values),
        Ok(_) => Err(io::Error::other("the server answers nonsense")),
        Err(reason) => Err(io::Error::other(reason)),
    };
    let mut load = Load::connect(port(ask()?[0])?, connections)?;
    load.run(length / 6, &mut Vec::new())?;
    let mut latencies_us = Vec::with_capacity(4_000_000);
    let before = ask()?;
    let start = Instant::now();
    load.run(length, &mut latencies_us)?;
    let elapsed = start.elapsed();
    let after = ask()?;
    let requests = latencies_us.len() as u64;
    let (user_s, system_s) = (after[1] - before[1], after[2] - before[2]);
    Ok(vec![
        seconds_per_million(user_s + system_s, requests),
        seconds_per_million(user_s, requests),
        f64::from(percentile(&mut latencies_us, 500)) / 1e3,
        f64::from(percentile(&mut latencies_us, 990)) / 1e3,
        1e6 / seconds_per_million(elapsed.as_secs_f64(), requests),
        after[3] / 1e6,
    ])
}

fn port(value: f64) -> io::Result<u16> {
    value
        .to_string()
        .parse()
        .map_err(|_| io::Error::other("the server tells no port"))
}

// The servers, each in a process of its own.

fn serve(role: &Role) -> ! {
    if role.workers == 1 {
        // This comes before the contestant starts a thread, as its threads inherit the CPU. If it is not possible,
        // the parent has said that the CPUs are shared.
        let _ = pin_to_nth_cpu(0);
    }
    let _ = raise_descriptor_limit();
    match role.contestant {
        Contestant::Epoll => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
            let address = listener.local_addr();
            for _ in 0..role.workers {
                let listener = listener.try_clone().expect("a descriptor is left");
                thread::spawn(move || epoll_echo(&listener).expect("epoll serves"));
            }
            report(address)
        }
        Contestant::May => {
            may::config().set_workers(role.workers);
            let listener =
                may::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
            let address = listener.local_addr();
            may::go!(move || may_echo(&listener));
            report(address)
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            let listener = runtime
                .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
                .expect("loopback is there");
            let address = listener.local_addr();
            runtime.spawn(tokio_echo(listener));
            report(address)
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            let server = runtime.run(|| {
                let listener =
                    weald::tcp_listener((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
                weald::tcp_server(listener, |stream, _peer| weald_echo(&stream))
            });
            report(Ok(server.local_addr()))
        }
    }
}

/// Tells the parent where the server listens and what it has used, as often as it asks.
fn report(address: io::Result<SocketAddr>) -> ! {
    let port = address.expect("a bound listener has an address").port();
    answer(|_| {
        let cpu = cpu_time();
        // The number goes as text and back: no cast, and exact far beyond any memory there is.
        let resident = memory().resident_bytes.to_string();
        vec![
            f64::from(port),
            cpu.user_s,
            cpu.system_s,
            resident.parse().unwrap_or(f64::NAN),
        ]
    })
}

fn weald_echo(mut stream: &weald::net::TcpStream) {
    let mut buffer = [0; BUFFER_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn may_echo(listener: &may::net::TcpListener) {
    for mut stream in listener.incoming().flatten() {
        may::go!(move || {
            let mut buffer = [0; BUFFER_BYTES];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        });
    }
}

async fn tokio_echo(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    while let Ok((mut stream, _peer)) = listener.accept().await {
        tokio::spawn(async move {
            let mut buffer = [0; BUFFER_BYTES];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The floor: level-triggered, one read and one write an event, one buffer for all.
fn epoll_echo(listener: &TcpListener) -> io::Result<()> {
    const LISTENER: usize = usize::MAX;
    let poll = Epoll::new()?;
    listener.set_nonblocking(true)?;
    poll.add(listener, LISTENER)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut tokens = Vec::new();
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        poll.wait(&mut tokens, Duration::from_secs(3600))?;
        for &token in &tokens {
            if token == LISTENER {
                if let Ok((stream, _peer)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    poll.add(&stream, streams.len())?;
                    streams.push(Some(stream));
                }
                continue;
            }
            let Some(stream) = &mut streams[token] else {
                continue;
            };
            let served = match stream.read(&mut buffer) {
                Ok(count @ 1..) => stream.write_all(&buffer[..count]).is_ok(),
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
            if !served {
                streams[token] = None;
            }
        }
    }
}
