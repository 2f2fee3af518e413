//! What the tests of this folder share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use weald::Runtime;

/// A second number of the file, from `least` on: no other test that runs beside this one opens a file there when it is closed.
#[allow(unsafe_code, reason = "fcntl(2)")]
pub(crate) fn number_of_its_own(fd: &impl AsRawFd, least: RawFd) -> RawFd {
    // SAFETY: no pointers.
    let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    assert!(number >= least);
    number
}

/// A runtime of one worker, with everything patched, and so many carriers in reserve for calls that
/// block their OS thread.
pub(crate) fn runtime(spares: usize) -> Runtime {
    weald_patch::all().unwrap();
    Runtime::builder()
        .workers(1)
        .spare_threads(spares)
        .build()
        .unwrap()
}

/// Runs the body in a green thread on the one OS thread that there is: one call that blocked it would
/// stop everything.
pub(crate) fn in_green<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let rt = runtime(1);
    let (release, released) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    // Takes the other carrier, and the right to block one.
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

/// As `in_green`, with carriers in reserve: for what is to block its OS thread.
pub(crate) fn in_green_with_spares<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    runtime(8).run(body)
}

/// Runs the body in many green threads on one worker, and says how long all of them took.
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

/// For so long the CPU is watched.
const WATCHED: Duration = Duration::from_millis(250);
/// So much of a core those who wait may use, all together.
pub(crate) const SHARE: f64 = 0.02;

/// The CPU time that this process has used.
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

/// The part of a core that this process uses, the best of some tries: other programs of the machine make this one use more.
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
