//! What an idle TLS connection costs, with both ends in one process: the server's parked thread, and what the two
//! ends remember.

#![cfg(all(target_os = "linux", feature = "tls"))]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(unsafe_code, reason = "the modes and children of the other tests")]

#[path = "it/support.rs"]
mod support;
#[path = "it/tls_support.rs"]
#[allow(dead_code, reason = "it has more than this needs")]
mod tls_support;

use std::io::{Read as _, Write as _};

use support::{MODES, Mode, in_child, runtime, v4};

/// The most bytes of a connection. In `Own` the server's thread also has thread-locals of its own, of 6 KiB.
const MOST: usize = 40 * 1024;

const CONNECTIONS: usize = 300;

/// Names the mode that a child has.
const MODE: &str = "WEALD_IDLE_MEMORY_MODE";

/// Resident memory in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Makes connections and sends a few bytes in both directions over each of them.
fn connect(to: &str, count: usize) -> Vec<weald::net::SslStream> {
    let connector = tls_support::connector();
    let connect = |_| {
        let mut stream = weald::connect_ssl_with(to, &connector).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

#[test]
fn an_idle_tls_connection_costs_no_more_than_is_said_with_both_ends() {
    let name = "an_idle_tls_connection_costs_no_more_than_is_said_with_both_ends";
    for (number, mode) in MODES.into_iter().enumerate() {
        // Each mode runs in a process of its own, because memory that was freed would not count in the next mode.
        let child = in_child(name, &[(MODE, &number.to_string())], || {
            let number: usize = std::env::var(MODE).unwrap().parse().unwrap();
            let each = in_mode(MODES[number]);
            assert!(each <= MOST, "{each} bytes a connection");
            println!("{each} bytes: small enough");
        });
        assert!(
            child.success && child.stdout.contains("small enough"),
            "{mode:?}: {}\n{}",
            child.stdout,
            child.stderr
        );
        println!("{mode:?}: {}", child.stdout);
    }
}

/// Returns what a connection costs.
fn in_mode(mode: Mode) -> usize {
    let rt = runtime(1, mode);
    rt.run(|| {
        let listener = weald::ssl_listener_with(v4(), &tls_support::acceptor()).unwrap();
        let server = weald::ssl_server(listener, |mut stream, _| {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..count]).unwrap();
            }
        });
        let to = server.local_addr().to_string();
        // Caches, pools and the sessions of the first ones are filled.
        let first = connect(&to, CONNECTIONS / 4);
        let before = resident();
        let all = connect(&to, CONNECTIONS);
        let each = resident().saturating_sub(before) / CONNECTIONS;
        drop((first, all));
        each
    })
}
