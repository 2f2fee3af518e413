//! Where and when a thread left its stack. The thread notes it for those that take its trace (`trace/mod.rs`).
#![allow(unsafe_code, reason = "reads registers")]

use crate::green::awaited::On;
use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The time is a stamp.
const STAMP: usize = 1 << (usize::BITS - 1);
/// The stamp is that of a thread that has not begun.
const NEW: usize = 1 << (usize::BITS - 2);

/// Where and when a thread left its stack, and what for.
#[derive(Debug)]
pub(crate) struct LeftAt {
    pub(crate) code: AtomicUsize,
    pub(crate) stack: AtomicUsize,
    pub(crate) frame: AtomicUsize,
    /// The end of the part of the stack that belongs to the thread.
    pub(crate) end: AtomicUsize,
    /// Milliseconds since its runtime's start. Or a stamp: the thread is ready since then, in nanoseconds
    /// (`engine/worker/latency.rs`). A thread that is parked has no stamp.
    pub(super) time: AtomicUsize,
    /// What the thread waits for: an [`On`].
    pub(super) on: AtomicU64,
}

impl LeftAt {
    pub(crate) fn new() -> Self {
        Self {
            code: AtomicUsize::new(0),
            stack: AtomicUsize::new(0),
            frame: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            time: AtomicUsize::new(0),
            on: AtomicU64::new(0),
        }
    }

    /// The thread itself notes what the wait that begins is for.
    #[inline(always)]
    pub(crate) fn set_on(&self, on: On) {
        // No model dumps.
        if !cfg!(loom) {
            self.on.store(on.word(), Ordering::Relaxed);
        }
    }

    /// What the last wait that began is for.
    pub(crate) fn on(&self) -> On {
        On::from_word(self.on.load(Ordering::Relaxed))
    }

    /// Notes the place of the call. Always inlined: only the caller's frame is there during the
    /// wait.
    #[inline(always)]
    pub(crate) fn note(&self) {
        if let Some([code, stack, frame]) = here() {
            self.code.store(code, Ordering::Relaxed);
            self.stack.store(stack, Ordering::Relaxed);
            self.frame.store(frame, Ordering::Relaxed);
        }
    }

    /// The thread begins to run. Its part of the stack ends at this address.
    #[inline]
    pub(crate) fn begin(&self, end: usize) {
        // No model takes traces.
        if !cfg!(loom) {
            self.end.store(end, Ordering::Relaxed);
        }
    }

    /// Notes the time, by the clock as the worker last saw it.
    #[inline(always)]
    pub(crate) fn set_time(&self, millis: usize) {
        self.time.store(millis, Ordering::Relaxed);
    }

    /// When it left its stack. A thread that is being sampled has just been woken: now.
    pub(crate) fn time(&self) -> usize {
        let time = self.time.load(Ordering::Relaxed);
        if time & STAMP == 0 { time } else { !STAMP }
    }

    /// Leaves a stamp: the thread is ready from now on, by the nanoseconds of its runtime's life. For the owner of
    /// the running reference.
    #[cfg(target_pointer_width = "64")]
    pub(crate) fn stamp(&self, nanos: u64, is_new: bool) {
        let new = if is_new { NEW } else { 0 };
        let nanos = usize::try_from(nanos).unwrap_or(0) & !(STAMP | NEW);
        self.time.store(STAMP | new | nanos, Ordering::Relaxed);
    }

    /// There is no room for it.
    #[cfg(not(target_pointer_width = "64"))]
    pub(crate) fn stamp(&self, _: u64, _: bool) {}

    /// It has a stamp.
    #[inline(always)]
    pub(crate) fn is_stamped(&self) -> bool {
        self.time.load(Ordering::Relaxed) & STAMP != 0
    }

    /// Takes the stamp away: its nanoseconds, and whether the thread was new.
    pub(crate) fn take_stamp(&self) -> (u64, bool) {
        let stamp = self.time.load(Ordering::Relaxed);
        self.time.store(0, Ordering::Relaxed);
        ((stamp & !(STAMP | NEW)) as u64, stamp & NEW != 0)
    }
}

/// Code address, stack and frame pointer of the caller.
#[cfg(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
))]
#[inline(always)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere nothing is known")]
fn here() -> Option<[usize; 3]> {
    use std::arch::asm;

    let (code, stack, frame): (usize, usize, usize);
    // SAFETY: reads three registers.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "lea {code}, [rip]",
            "mov {stack}, rsp",
            "mov {frame}, rbp",
            code = out(reg) code,
            stack = out(reg) stack,
            frame = out(reg) frame,
            options(nomem, nostack, preserves_flags)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "adr {code}, .",
            "mov {stack}, sp",
            "mov {frame}, x29",
            code = out(reg) code,
            stack = out(reg) stack,
            frame = out(reg) frame,
            options(nomem, nostack, preserves_flags)
        );
    }
    Some([code, stack, frame])
}

/// Where no traces are taken, nothing is noted.
#[cfg(not(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
)))]
#[inline(always)]
fn here() -> Option<[usize; 3]> {
    None
}
