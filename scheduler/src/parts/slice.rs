//! Asks the kernel to prefer other OS threads to one whose green thread computes for long.
//!
//! Linux (EEVDF, from 6.12) lets a thread choose the length of its time slice, `sched_runtime` of
//! sched_setattr(2). The length does not change the thread's share of the CPU. But a thread that wakes up and has a
//! shorter slice runs first. So carriers with hogs get long slices: workers that serve sockets, and all other
//! threads of the machine, then wait for a CPU no longer than if there were no hogs. And carriers that took over
//! from hogs get short slices, so they do not wait for each other's slices to end.
//! Where the kernel has no such slices, or the thread is not scheduled in the ordinary way, nothing happens.
#![allow(unsafe_code, reason = "two system calls")]

/// How long an OS thread may run at a time while others want its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// The system's choice.
    Ordinary,
    /// As short as possible, 100 us. For an OS thread that serves sockets beside others that compute.
    Short,
    /// As long as possible, 100 ms. For an OS thread that computes.
    Long,
}

/// `struct sched_attr` of sched_setattr(2) in its first version.
#[cfg(target_os = "linux")]
#[derive(Default)]
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `SCHED_FLAG_RESET_ON_FORK` of sched_setattr(2), which libc names as an int.
#[cfg(target_os = "linux")]
const RESET_ON_FORK: u64 = 1;

/// Sets the time slice of the calling OS thread.
#[cfg(target_os = "linux")]
pub(crate) fn set(slice: Slice) {
    const SIZE: libc::c_uint = 48;
    let mut attr = SchedAttr::default();
    // SAFETY: the structure is as large as said, and lives over both calls.
    unsafe {
        let own = 0;
        let got = libc::syscall(libc::SYS_sched_getattr, own, &raw mut attr, SIZE, 0);
        if got != 0 || attr.policy != libc::SCHED_OTHER.cast_unsigned() {
            return;
        }
        attr.runtime = match slice {
            Slice::Ordinary => 0,
            Slice::Short => 100_000,
            Slice::Long => 100_000_000,
        };
        (attr.deadline, attr.period) = (0, 0);
        // With this flag a thread that user code starts begins with the system's slice. But it would also lose a
        // priority above the ordinary one.
        if attr.nice >= 0 {
            attr.flags |= RESET_ON_FORK;
        }
        // An older kernel ignores or refuses the call, and either does no harm.
        let _ = libc::syscall(libc::SYS_sched_setattr, own, &raw const attr, 0);
    }
}

/// Nothing to ask.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_slice: Slice) {}
