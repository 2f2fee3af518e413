//! What does an echo server cost over Unix streams, and over UDP, on one worker? Units: seconds of
//! server CPU per million requests, ms of latency, requests per second.
//!
//! `cargo bench -p weald-benches --bench echo_local`
//!
//! As `echo`: the server is a process of its own on the first CPU, the load one thread on the second;
//! 64 bytes to and fro for each of 100 clients, the next request as soon as the answer is there. UDP
//! is one socket, and one green thread or task, for all clients. The floor is a bare epoll loop.

mod rivals;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use weald_benches::{
    Case, Contestant, Epoll, Lifetime, Metric, Process, Role, answer, compare_by, cpu_time,
    percentile, pin_to_nth_cpu, repetitions, seconds_per_million, unless_quick, weald_runtime,
};

const MESSAGE_BYTES: usize = 64;
const BUFFER_BYTES: usize = 4096;
const CLIENTS: usize = 100;

/// A server that stays silent for this long has failed.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

const UNIX: &str = "unix streams, 100 connections";
const UDP: &str = "udp, 100 clients";

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let cases = [UNIX, UDP].map(|name| Case {
        name: name.into(),
        workers: 1,
        amount: unless_quick(1000, 300),
        metrics: vec![
            Metric::less("server CPU (s per million)"),
            Metric::less("of it in user mode (s per million)"),
            Metric::less("p50 (ms)"),
            Metric::less("p99 (ms)"),
            Metric::more("requests per second"),
        ],
        contestants: &[
            Contestant::WealdShared,
            Contestant::WealdPinned,
            Contestant::Tokio,
            Contestant::Epoll,
        ],
        lifetime: Lifetime::Repetition,
    });
    compare_by(&cases, repetitions(3), |case, contestant| {
        measure(case, contestant).map_err(|error| error.to_string())
    });
}

// The load: one thread, one epoll.

enum Client {
    Unix(UnixStream),
    Udp(UdpSocket),
}

impl Client {
    fn connect(case: &Case, place: Place) -> io::Result<Self> {
        if case.name == UNIX {
            let stream = UnixStream::connect(place.path())?;
            stream.set_nonblocking(true)?;
            return Ok(Self::Unix(stream));
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, place.port))?;
        socket.set_nonblocking(true)?;
        Ok(Self::Udp(socket))
    }

    /// 64 bytes always fit, because the answer to the last ones is back.
    fn send(&self) -> io::Result<()> {
        let message = [0; MESSAGE_BYTES];
        match self {
            Self::Unix(stream) => {
                let mut stream = stream;
                stream.write_all(&message)
            }
            Self::Udp(socket) => socket.send(&message).map(drop),
        }
    }

    /// Returns false if the answer is not there yet.
    fn receive(&self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_BYTES];
        let received = match self {
            Self::Unix(stream) => {
                let mut stream = stream;
                stream.read(&mut buffer)
            }
            Self::Udp(socket) => socket.recv(&mut buffer),
        };
        match received {
            Ok(MESSAGE_BYTES) => Ok(true),
            Ok(_) => Err(io::Error::other("the server answers in pieces")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Where a server is: a process for the path, a port for UDP.
#[derive(Clone, Copy)]
struct Place {
    process: u32,
    port: u16,
}

impl Place {
    fn path(self) -> PathBuf {
        std::env::temp_dir().join(format!("weald-echo-{}", self.process))
    }
}

/// One repetition: `case.amount` is its length in milliseconds.
fn measure(case: &Case, contestant: Contestant) -> io::Result<Vec<f64>> {
    let role = Role {
        contestant,
        case: case.name.clone(),
        workers: case.workers,
    };
    let mut server = Process::start(&role, Duration::from_secs(20)).map_err(io::Error::other)?;
    // It has a thread of its own: the next server would inherit the load's CPU.
    let measured = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let _ = pin_to_nth_cpu(1);
            measure_server(case, &mut server)
        });
        load.join()
    });
    measured.expect("the load returns its errors")
}

fn measure_server(case: &Case, server: &mut Process) -> io::Result<Vec<f64>> {
    // The child answers [process, port, user seconds, system seconds].
    let mut ask = || match server.ask(0) {
        Ok(values) if values.len() == 4 => Ok(values),
        Ok(_) => Err(io::Error::other("the server answers nonsense")),
        Err(reason) => Err(io::Error::other(reason)),
    };
    let values = ask()?;
    let nonsense = |_| io::Error::other("the server tells no place");
    let place = Place {
        process: values[0].to_string().parse().map_err(nonsense)?,
        port: values[1].to_string().parse().map_err(nonsense)?,
    };
    let clients = (0..CLIENTS).map(|_| Client::connect(case, place));
    let clients: Vec<Client> = clients.collect::<io::Result<_>>()?;
    if case.name == UNIX {
        // Nobody else connects.
        std::fs::remove_file(place.path())?;
    }
    let mut sent = vec![Instant::now(); CLIENTS];
    let poll = Epoll::new()?;
    for (token, client) in clients.iter().enumerate() {
        poll.add(client, token)?;
        client.send()?;
    }
    let length = Duration::from_millis(case.amount);
    run(&poll, &clients, &mut sent, length / 6, &mut Vec::new())?;
    let mut latencies_us = Vec::with_capacity(1_000_000);
    let before = ask()?;
    let start = Instant::now();
    run(&poll, &clients, &mut sent, length, &mut latencies_us)?;
    let elapsed = start.elapsed();
    let after = ask()?;
    let requests = latencies_us.len() as u64;
    let (user_s, system_s) = (after[2] - before[2], after[3] - before[3]);
    Ok(vec![
        seconds_per_million(user_s + system_s, requests),
        seconds_per_million(user_s, requests),
        f64::from(percentile(&mut latencies_us, 500)) / 1e3,
        f64::from(percentile(&mut latencies_us, 990)) / 1e3,
        1e6 / seconds_per_million(elapsed.as_secs_f64(), requests),
    ])
}

/// Keeps all clients busy for `length`, and appends the microseconds of each request.
fn run(
    poll: &Epoll,
    clients: &[Client],
    sent: &mut [Instant],
    length: Duration,
    latencies_us: &mut Vec<u32>,
) -> io::Result<()> {
    let deadline = Instant::now() + length;
    let mut tokens = Vec::new();
    while Instant::now() < deadline {
        poll.wait(&mut tokens, SILENCE_LIMIT)?;
        if tokens.is_empty() {
            return Err(io::Error::other("the server has fallen silent"));
        }
        for &token in &tokens {
            if clients[token].receive()? {
                let waited = sent[token].elapsed().as_micros();
                latencies_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
                sent[token] = Instant::now();
                clients[token].send()?;
            }
        }
    }
    Ok(())
}

// The servers, each in a process of its own.

/// Tells the parent where the server is and what it has used, as often as it asks.
fn report(port: u16) -> ! {
    answer(|_| {
        let cpu = cpu_time();
        vec![
            f64::from(std::process::id()),
            f64::from(port),
            cpu.user_s,
            cpu.system_s,
        ]
    })
}

fn port_of(addr: io::Result<SocketAddr>) -> u16 {
    addr.expect("a bound socket has an address").port()
}

fn serve(role: &Role) -> ! {
    let _ = pin_to_nth_cpu(0);
    let path = Place {
        process: std::process::id(),
        port: 0,
    }
    .path();
    let over_unix = role.case == UNIX;
    let anywhere = (Ipv4Addr::LOCALHOST, 0);
    match role.contestant {
        Contestant::Epoll if over_unix => {
            let listener = UnixListener::bind(path).expect("the path is new");
            thread::spawn(move || epoll_unix(&listener).expect("epoll serves"));
            report(0)
        }
        Contestant::Epoll => {
            let socket = UdpSocket::bind(anywhere).expect("loopback is there");
            let port = port_of(socket.local_addr());
            thread::spawn(move || epoll_udp(&socket).expect("epoll serves"));
            report(port)
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            let _inside = runtime.enter();
            if over_unix {
                let listener = tokio::net::UnixListener::bind(path).expect("the path is new");
                runtime.spawn(tokio_unix(listener));
                report(0)
            }
            let socket = runtime.block_on(tokio::net::UdpSocket::bind(anywhere));
            let socket = socket.expect("loopback is there");
            let port = port_of(socket.local_addr());
            runtime.spawn(tokio_udp(socket));
            report(port)
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            if over_unix {
                let listener = weald::net::unix::UnixListener::bind(path);
                let listener = listener.expect("the path is new");
                runtime.spawn(move || weald_unix(&listener));
                report(0)
            }
            let socket = weald::net::UdpSocket::bind(anywhere).expect("loopback is there");
            let port = port_of(socket.local_addr());
            runtime.spawn(move || weald_udp(&socket));
            report(port)
        }
    }
}

fn weald_unix(listener: &weald::net::unix::UnixListener) {
    for mut stream in listener.incoming().flatten() {
        weald::spawn(move || {
            let mut buffer = [0; BUFFER_BYTES];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        });
    }
}

fn weald_udp(socket: &weald::net::UdpSocket) {
    let mut buffer = [0; BUFFER_BYTES];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..count], from);
    }
}

async fn tokio_unix(listener: tokio::net::UnixListener) {
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

async fn tokio_udp(socket: tokio::net::UdpSocket) {
    let mut buffer = [0; BUFFER_BYTES];
    while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(&buffer[..count], from).await;
    }
}

/// The floor: level-triggered, one read and one write an event.
fn epoll_unix(listener: &UnixListener) -> io::Result<()> {
    const LISTENER: usize = usize::MAX;
    let poll = Epoll::new()?;
    poll.add(listener, LISTENER)?;
    let mut streams: Vec<UnixStream> = Vec::new();
    let mut tokens = Vec::new();
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        poll.wait(&mut tokens, Duration::from_secs(3600))?;
        for &token in &tokens {
            if token == LISTENER {
                let (stream, _peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                poll.add(&stream, streams.len())?;
                streams.push(stream);
                continue;
            }
            let count = streams[token].read(&mut buffer)?;
            streams[token].write_all(&buffer[..count])?;
        }
    }
}

/// The floor: reads until there is nothing, as the others do.
fn epoll_udp(socket: &UdpSocket) -> io::Result<()> {
    let poll = Epoll::new()?;
    poll.add(socket, 0)?;
    socket.set_nonblocking(true)?;
    let mut tokens = Vec::new();
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        poll.wait(&mut tokens, Duration::from_secs(3600))?;
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((count, from)) => socket.send_to(&buffer[..count], from).map(drop)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}
