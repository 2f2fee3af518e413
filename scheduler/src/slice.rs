//! Asks the kernel to let others onto the CPU sooner while this OS thread runs a green thread that
//! computes for long.
//!
//! Linux (EEVDF, from 6.12) lets a thread choose the length of its time slice, `sched_runtime` of
//! sched_setattr(2). It changes nothing of its share; but who wakes up and asks for less at a time
//! comes first. So with long slices for those that compute, the workers that serve sockets, and
//! everybody else on the machine, wait for a CPU no longer than without them. Where there is no
//! such thing, or the thread is not scheduled in the ordinary way, nothing happens.
#![allow(unsafe_code, reason = "two system calls")]

/// As long as a slice may be.
#[cfg(target_os = "linux")]
const LONG_NS: u64 = 100_000_000;

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

/// The calling OS thread's slices are long from now on; false: of ordinary length.
#[cfg(target_os = "linux")]
pub(crate) fn lengthen(long: bool) {
    const SIZE: libc::c_uint = 48;
    let mut attr = SchedAttr::default();
    // SAFETY: the structure is as large as said, and lives over both calls.
    unsafe {
        let own = 0;
        let got = libc::syscall(libc::SYS_sched_getattr, own, &raw mut attr, SIZE, 0);
        if got != 0 || attr.policy != libc::SCHED_OTHER.cast_unsigned() {
            return;
        }
        attr.runtime = if long { LONG_NS } else { 0 };
        (attr.deadline, attr.period) = (0, 0);
        // An older kernel ignores or refuses it, and both is fine.
        let _ = libc::syscall(libc::SYS_sched_setattr, own, &raw const attr, 0);
    }
}

/// Nothing to ask.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lengthen(_long: bool) {}
