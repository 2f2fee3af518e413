//! How many system calls an echoed message costs when there is work: one to read it, one to write it. And how many a short
//! connection costs, with both ends in one process. Counted by strace(1), and not at all where that is not installed or not allowed.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Makes this binary play the server.
const SERVES: &str = "WEALD_SYSCALLS_SERVES";

/// Makes this binary open and close so many connections to itself.
const CONNECTS: &str = "WEALD_SYSCALLS_CONNECTS";

/// Each with one message on its way. The server, which strace holds up at every call, is slower than its clients: it always has
/// work.
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

/// The calls of a server that has echoed so many messages on each connection. `None`: strace does not work here.
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
    Some(report.lines().filter_map(calls_of).sum())
}

/// The calls in one line of strace's table: percent, seconds, microseconds per call, calls, errors if there are any, name.
///
/// Not those that go by the clock: strace makes the server so slow that 100 us, after which a worker looks into its poller though it
/// has work, pass with every message, and on a busy machine the monitor finds it late and looks there by `poll` each millisecond.
fn calls_of(line: &str) -> Option<f64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = *words.last()?;
    if ["total", "epoll_wait", "futex", "poll"].contains(&name) {
        return None;
    }
    words.get(3)?.parse().ok()
}

/// So many connections one after the other: a byte there, a byte back, both ends closed.
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

/// The calls of a process that makes so many connections to itself, all of them. `None`: strace does not work here.
fn count_connections(count: usize) -> Option<f64> {
    let out = std::env::temp_dir().join(format!("weald-connects-{}-{count}", std::process::id()));
    let ended = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&out)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_short_connection_costs_twenty_system_calls",
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
    Some(report.lines().filter_map(calls_of).sum())
}

#[test]
fn a_short_connection_costs_twenty_system_calls() {
    if let Ok(count) = std::env::var(CONNECTS) {
        connect_to_oneself(count.parse().unwrap());
    }
    let (few, many) = (100, 600);
    let (Some(before), Some(after)) = (count_connections(few), count_connections(many)) else {
        println!("strace does not work here: nothing was counted");
        return;
    };
    let each = (after - before) / f64::from(u32::try_from(many - few).unwrap());
    println!("{each:.2} system calls a connection");
    assert!(each < 20.0, "{each:.2} system calls a connection");
}

#[test]
fn an_echoed_message_costs_two_system_calls_when_busy() {
    if std::env::var_os(SERVES).is_some() {
        serve();
    }
    let (few, many) = (20, 120);
    let (Some(before), Some(after)) = (count(few), count(many)) else {
        println!("strace does not work here: nothing was counted");
        return;
    };
    let messages = f64::from(u32::try_from((many - few) * CONNECTIONS).unwrap());
    let each = (after - before) / messages;
    println!("{each:.3} system calls per message");
    assert!(each < 2.02, "{each:.3} system calls per message");
}
