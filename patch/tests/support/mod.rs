//! What the tests of this folder share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use weald::Runtime;

/// Returns a second number of the file, at least `least`. No other test that runs at the same time opens a file there
/// when it is closed.
#[allow(unsafe_code, reason = "fcntl(2)")]
pub(crate) fn number_of_its_own(fd: &impl AsRawFd, least: RawFd) -> RawFd {
    // SAFETY: no pointers.
    let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    assert!(number >= least);
    number
}

/// Returns a runtime of one worker with everything patched, and this many carriers in reserve for calls that block
/// their OS thread.
pub(crate) fn runtime(spares: usize) -> Runtime {
    weald_patch::all().unwrap();
    Runtime::builder()
        .workers(1)
        .spare_threads(spares)
        .build()
        .unwrap()
}

/// Runs the body in a green thread on the only OS thread. A call that blocked the OS thread would stop everything.
pub(crate) fn in_green<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let rt = runtime(1);
    let (release, released) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    // This takes the other carrier, and the right to block a carrier.
    let occupant = rt.spawn(move || {
        weald::blocking(|| {
            tell.send(()).unwrap();
            let _ = released.recv();
        });
    });
    told.recv().unwrap();
    let value = rt.run(body);
    drop(release);
    occupant.join().unwrap();
    value
}

/// Runs the body as `in_green` does, with carriers in reserve for calls that are to block their OS thread.
pub(crate) fn in_green_with_spares<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    runtime(8).run(body)
}

/// Runs the body in many green threads on one worker. Returns how long all of them took.
pub(crate) fn at_once(many: usize, body: impl Fn(usize) + Send + Sync + 'static) -> Duration {
    let body = Arc::new(body);
    in_green(move || {
        let start = Instant::now();
        let threads: Vec<_> = (0..many)
            .map(|n| {
                let body = Arc::clone(&body);
                weald::spawn(move || body(n))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        start.elapsed()
    })
}

/// How long the CPU time is measured.
const WATCHED: Duration = Duration::from_millis(250);
/// How much of a core all waiting threads together may use.
pub(crate) const SHARE: f64 = 0.02;

/// Returns the CPU time that this process has used.
#[allow(unsafe_code, reason = "getrusage(2)")]
fn cpu() -> Duration {
    // SAFETY: all zeros is a valid record, and the pointer is to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let of = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Returns the part of a core that this process uses, the smallest of some tries: other programs on the machine make
/// this process use more.
pub(crate) fn share_of(rounds: usize) -> f64 {
    let once = || {
        let (before, begun) = (cpu(), Instant::now());
        std::thread::sleep(WATCHED);
        cpu().saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64()
    };
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        best = best.min(once());
        if best < SHARE {
            break;
        }
    }
    best
}
