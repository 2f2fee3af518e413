//! Time stamps of events: the processor's counter, if it runs evenly and is the same on all CPUs, else the clock.
//!
//! A look at the counter costs 7 to 20 ns, depending on the machine; a look at the clock costs 25 to 40.
#![allow(unsafe_code, reason = "reads the processor's counter")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The counter can be used.
static COUNTS: AtomicBool = AtomicBool::new(false);

/// Finds out whether the counter can be used. Called before the first [`now`].
pub(crate) fn prepare() {
    COUNTS.store(has_counter(), Ordering::Relaxed);
}

/// Whether the processor says that its counter runs evenly. If so, the kernel makes it the same on all CPUs.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn has_counter() -> bool {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    #[allow(unused_unsafe, reason = "newer versions of Rust have it safe")]
    // SAFETY: each x86-64 has the instruction.
    unsafe {
        __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx & INVARIANT != 0
    }
}

/// The architecture promises it.
#[cfg(all(target_arch = "aarch64", not(miri)))]
fn has_counter() -> bool {
    true
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn has_counter() -> bool {
    false
}

/// Ticks of an unknown length, read after all that the caller has seen. Otherwise the processor might read the counter
/// before the step that the event is about. Then a wake-up could seem to come before the wait that it ends.
#[inline(always)]
pub(crate) fn after_all() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[allow(unused_unsafe, reason = "newer versions of Rust have it safe")]
    // SAFETY: each x86-64 has the instruction.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    now()
}

/// As `after_all`, for an event that follows from nothing that another thread has done. It costs a third less.
#[inline(always)]
pub(crate) fn now() -> u64 {
    if COUNTS.load(Ordering::Relaxed) {
        counter()
    } else {
        by_clock()
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn counter() -> u64 {
    #[allow(unused_unsafe, reason = "newer versions of Rust have it safe")]
    // SAFETY: each x86-64 has the instruction.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline(always)]
fn counter() -> u64 {
    let ticks: u64;
    // The barrier is for `after_all`.
    // SAFETY: reads a register that programs may read.
    unsafe {
        std::arch::asm!("isb", "mrs {ticks}, cntvct_el0", ticks = out(reg) ticks, options(nomem, nostack));
    }
    ticks
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn counter() -> u64 {
    by_clock()
}

#[cold]
fn by_clock() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The same moment by the counter and by the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    ticks: u64,
    at: Instant,
    date: SystemTime,
    since_boot: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            ticks: now(),
            at: Instant::now(),
            date: SystemTime::now(),
            since_boot: since_boot(),
        }
    }

    /// The same moment by the calendar, and by the clock that most traces use.
    pub(crate) fn as_dates(&self) -> (SystemTime, Duration) {
        (self.date, self.since_boot)
    }

    /// The time from here to an event, if the counter ran evenly from here to `later`.
    pub(crate) fn until(&self, later: &Self) -> impl Fn(u64) -> Duration + use<> {
        let ticks = later.ticks.saturating_sub(self.ticks).max(1);
        let nanos = later
            .at
            .saturating_duration_since(self.at)
            .as_nanos()
            .max(1);
        let first = self.ticks;
        move |event| {
            let passed = u128::from(event.saturating_sub(first)) * nanos / u128::from(ticks);
            Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
        }
    }
}

/// What `CLOCK_BOOTTIME` shows, or the monotonic clock where there is none.
fn since_boot() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: there is room for the answer; if the call fails, the time is zero.
    unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
