//! Faults that a program may meet. Each fault is an error at the right call, disturbs no other thread, and leaves
//! nothing behind. If a machine cannot run a test, the test prints SKIPPED on its standard error.
//!
//! | fault | tests |
//! |-------|-------|
//! | EMFILE, no descriptors left in the process | `tests/descriptor_exhaustion.rs`; `refusals::emfile_*` |
//! | ENFILE, none in the system | `refusals::enfile_*` |
//! | ENOBUFS, ENOMEM of the kernel | `refusals::{enobufs_*, enomem_a_runtime_*}` |
//! | ENOMEM for stacks | `refusals::enomem_a_green_thread_*`; `scheduler/src/parts/stack/cache.rs` |
//! | EAGAIN, no OS thread to be had | `refusals::eagain_*` |
//! | EINTR | `signals::eintr_*`; ten times as often: `tests/it/net_faults.rs`, `a_storm_of_signals_*` |
//! | ECONNABORTED | `refusals::econnaborted_*` |
//! | RST in the middle | `peers::a_proxy_that_cuts_*`; `tests/it/net_faults.rs`, `a_reset_*` |
//! | a half-open peer | `peers::half_open_*` |
//! | short reads and writes | `peers::{a_proxy_that_crumbles_*, short_writes_*}` |
//! | peers that are slow on purpose | `tests/it/net_faults.rs`, `a_peer_that_*`; `tests/it/tls_hostile.rs` |
//! | signals on a green stack | `signals::*`; `tests/it/own_system.rs` |
//! | stack overflow | `tests/stack_overflow.rs` |
//! | fork | `signals::fork_*`; `tests/it/own_system.rs` |
//! | a descriptor that somebody else closes | `tests/it/net_faults.rs` |
//! | a green thread that blocks or computes for ever | `tests/it/hogs.rs` |

#![allow(
    unsafe_code,
    reason = "limits, signals and dying peers are the kernel's"
)]
#![allow(
    clippy::similar_names,
    reason = "`client` and `clients`, `served` and `server` read well"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "../it/support.rs"]
mod support;

mod peers;
mod refusals;
mod signals;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use weald::net::TcpStream;

/// Prints that this machine cannot run a test. It bypasses the harness, which would keep the output to itself.
fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "!! SKIPPED: {test}: {reason}");
}

fn echo(mut stream: TcpStream, _: SocketAddr) {
    let mut buffer = [0; 1000];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}
