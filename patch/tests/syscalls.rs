//! How many system calls a patched server makes for each message that it echoes. strace(1) counts them; if it is not
//! installed or not allowed, nothing is counted.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

/// Makes this binary play the server.
const SERVES: &str = "WEALD_PATCHED_SYSCALLS_SERVES";

const CONNECTIONS: usize = 50;

/// Serves until standard input ends: nothing but std, each connection in a green thread.
fn serve() -> ! {
    let rt = support::runtime(4);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\nport {}", listener.local_addr().unwrap().port());
    rt.spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            weald::spawn(move || {
                let mut buffer = [0; 256];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    std::process::exit(0);
}

/// Returns the calls of a server that has echoed this many messages on each connection, with their table.
/// `one_by_one`: each message is sent when the one before has come back; otherwise each connection has one on its
/// way. `None`: strace does not work here.
fn count(test: &str, one_by_one: bool, rounds: usize) -> Option<(f64, String)> {
    let out = std::env::temp_dir().join(format!(
        "weald-patched-syscalls-{}-{one_by_one}-{rounds}",
        std::process::id()
    ));
    let mut server = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&out)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
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
            if one_by_one {
                for client in &mut clients {
                    client.write_all(&[7; 64]).unwrap();
                    client.read_exact(&mut [0; 64]).unwrap();
                }
                continue;
            }
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
    ended.success().then(|| {
        let lines = report.lines();
        (
            lines.filter_map(|line| calls_of(line, one_by_one)).sum(),
            report,
        )
    })
}

/// Returns the calls in a line of strace's table: percent, seconds, microseconds per call, calls, errors if there are
/// any, name.
///
/// Two kinds of calls are left out. One depends on the clock: strace makes the server so slow that the monitor finds
/// it late, and looks there by `poll`. The other is the waits for events when several messages are on their way: the
/// system decides how many one wait brings, as it may run server and clients in turns.
fn calls_of(line: &str, one_by_one: bool) -> Option<f64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let name = *words.last()?;
    if ["total", "futex", "poll"].contains(&name) || (name.starts_with("epoll_") && !one_by_one) {
        return None;
    }
    words.get(3)?.parse().ok()
}

fn each(test: &str, one_by_one: bool) -> Option<f64> {
    if std::env::var_os(SERVES).is_some() {
        serve();
    }
    let (few, many) = (20, 120);
    let (Some((before, _)), Some((after, table))) =
        (count(test, one_by_one, few), count(test, one_by_one, many))
    else {
        println!("strace does not work here: nothing was counted");
        return None;
    };
    let messages = f64::from(u32::try_from((many - few) * CONNECTIONS).unwrap());
    let each = (after - before) / messages;
    println!("{table}{each:.3} system calls a message");
    Some(each)
}

#[test]
fn a_message_that_is_waited_for_costs_four_system_calls() {
    let each = each("a_message_that_is_waited_for_costs_four_system_calls", true);
    assert!(each.is_none_or(|each| each < 4.3), "{each:?}");
}

#[test]
fn a_message_costs_three_system_calls_when_busy() {
    let each = each("a_message_costs_three_system_calls_when_busy", false);
    assert!(each.is_none_or(|each| each < 3.1), "{each:?}");
}
