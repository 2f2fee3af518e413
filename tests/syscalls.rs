//! How many system calls an echoed message costs when there is work: one to read it, one to write it. And how many a
//! short connection costs, with both ends in one process. strace(1) counts them; if it is not installed or not
//! allowed, nothing is counted.
//!
//! Calls that depend on the clock are counted too, if a process cannot do without them. So each test counts several
//! times and takes the smallest number: on a busy machine the monitor sees a worker that was late, and others take
//! its work over.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Makes this binary play the server.
const SERVES: &str = "WEALD_SYSCALLS_SERVES";

/// Makes this binary open and close this many connections to itself.
const CONNECTS: &str = "WEALD_SYSCALLS_CONNECTS";

/// How many connections there are, each with one message on its way. strace holds the server up at every call, so the
/// server is slower than its clients and always has work.
const CONNECTIONS: usize = 100;

/// Serves until standard input ends.
fn serve() -> ! {
    let rt = weald::Runtime::builder().workers(1).build().unwrap();
    let server = rt.run(|| {
        let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
        weald::tcp_server(listener, |mut stream, _| {
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        })
    });
    println!("\nport {}", server.local_addr().port());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    std::process::exit(0);
}

/// Returns the calls of a server that has echoed this many messages on each connection. `None`: strace does not work
/// here.
fn count(rounds: usize) -> Option<f64> {
    let out = std::env::temp_dir().join(format!("weald-syscalls-{}-{rounds}", std::process::id()));
    let mut server = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&out)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "an_echoed_message_costs_two_system_calls_when_busy",
            "--nocapture",
        ])
        .env(SERVES, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("port ").map(str::to_owned));
    if let Some(port) = port {
        let port: u16 = port.parse().unwrap();
        let connect = |_| TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(connect).collect();
        for _ in 0..rounds {
            for client in &mut clients {
                client.write_all(&[7; 64]).unwrap();
            }
            for client in &mut clients {
                client.read_exact(&mut [0; 64]).unwrap();
            }
        }
    }
    drop(server.stdin.take());
    let ended = server.wait().unwrap();
    let report = std::fs::read_to_string(&out).ok()?;
    let _ = std::fs::remove_file(&out);
    if !ended.success() {
        return None;
    }
    println!("{report}");
    Some(count_lines(&report, &["epoll_wait", "futex", "poll"]))
}

/// Returns the calls in strace's table, without some of them. A line has percent, seconds, microseconds per call,
/// calls, errors if there are any, and the name.
fn count_lines(report: &str, without: &[&str]) -> f64 {
    let calls = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.last()?;
        let counts = name != "total" && !without.contains(&name);
        counts.then(|| words.get(3)?.parse::<f64>().ok()).flatten()
    };
    report.lines().filter_map(calls).sum()
}

/// Returns the smallest of some counts. The first one below the bound is enough.
fn least(bound: f64, count: impl Fn() -> Option<f64>) -> Option<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..4 {
        least = least.min(count()?);
        if least < bound {
            break;
        }
    }
    Some(least)
}

/// Makes this many connections one after the other: a byte there, a byte back, both ends closed.
fn connect_to_oneself(count: usize) -> ! {
    let rt = weald::Runtime::builder().workers(1).build().unwrap();
    rt.run(|| {
        let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        weald::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                weald::spawn(move || {
                    let mut byte = [0; 16];
                    let count = stream.read(&mut byte).unwrap();
                    stream.write_all(&byte[..count]).unwrap();
                });
            }
        });
        for _ in 0..count {
            let mut stream = weald::connect_tcp(to).unwrap();
            stream.write_all(b"!").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    });
    std::process::exit(0);
}

/// Returns the calls of a process that makes this many connections to itself, as strace tells them. `None`: strace
/// does not work here.
fn count_connections(count: usize) -> Option<String> {
    let out = std::env::temp_dir().join(format!("weald-connects-{}-{count}", std::process::id()));
    let ended = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&out)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_short_connection_costs_sixteen_system_calls_and_waits_four_times",
            "--nocapture",
        ])
        .env(CONNECTS, count.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .ok()?;
    let report = std::fs::read_to_string(&out).ok()?;
    let _ = std::fs::remove_file(&out);
    if !ended.success() {
        return None;
    }
    println!("{report}");
    Some(report)
}

/// Both ends together make sixteen calls for the connection. Beside them the worker asks for events each time that no
/// thread is left to run (for the connection, the request, the answer), and 100 us after it has last asked, which
/// happens more often under strace. `futex` and `poll` are left out: the monitor makes these by the clock to look
/// after the worker.
#[test]
fn a_short_connection_costs_sixteen_system_calls_and_waits_four_times() {
    if let Ok(count) = std::env::var(CONNECTS) {
        connect_to_oneself(count.parse().unwrap());
    }
    let (few, many) = (100, 600);
    let each = |without: &'static [&'static str], bound| {
        least(bound, || {
            let (before, after) = (count_connections(few)?, count_connections(many)?);
            let calls = count_lines(&after, without) - count_lines(&before, without);
            Some(calls / f64::from(u32::try_from(many - few).unwrap()))
        })
    };
    let (Some(made), Some(with_waits)) = (
        each(&["epoll_wait", "futex", "poll"], 16.5),
        each(&["futex", "poll"], 21.0),
    ) else {
        println!("strace does not work here: nothing was counted");
        return;
    };
    println!("{made:.2} system calls a connection, {with_waits:.2} with waits for events");
    assert!(made < 16.5, "{made:.2} system calls a connection");
    assert!(with_waits < 21.0, "{with_waits:.2} with waits for events");
}

/// Waits for events are not counted, as there are none as long as there is work: strace makes the server so slow that
/// each message takes longer than 100 us, after which a worker asks for events though it has work.
#[test]
fn an_echoed_message_costs_two_system_calls_when_busy() {
    if std::env::var_os(SERVES).is_some() {
        serve();
    }
    let (few, many) = (20, 120);
    let messages = f64::from(u32::try_from((many - few) * CONNECTIONS).unwrap());
    let bound = 2.02;
    let Some(each) = least(bound, || Some((count(many)? - count(few)?) / messages)) else {
        println!("strace does not work here: nothing was counted");
        return;
    };
    println!("{each:.3} system calls per message");
    assert!(each < bound, "{each:.3} system calls per message");
}
