//! What the kernel counts and grants: CPU time, memory, affinity, descriptors.
#![allow(
    unsafe_code,
    reason = "getrusage, getrlimit and sched_setaffinity have no safe form in std"
)]

use std::{fs, io, mem};

/// CPU time that this process has used, all its threads together.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    /// Seconds in user mode.
    pub user_s: f64,
    /// Seconds in the kernel.
    pub system_s: f64,
}

impl CpuTime {
    /// Seconds in both.
    pub fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }
}

/// The CPU time of this process so far, see getrusage(2).
///
/// # Panics
///
/// Never on Linux: the arguments are right by construction.
pub fn cpu_time() -> CpuTime {
    // SAFETY: all bytes zero is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `usage` is a live `rusage` that the kernel may fill.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(status, 0, "getrusage of the own process cannot fail");
    CpuTime {
        user_s: seconds(usage.ru_utime),
        system_s: seconds(usage.ru_stime),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds of a process's life fit in 52 bits"
)]
fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// Memory of this process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident pages, in bytes.
    pub resident_bytes: u64,
    /// Page tables, in bytes; they are not part of the resident pages.
    pub page_table_bytes: u64,
}

/// The memory of this process now, from `/proc/self/status`.
///
/// # Panics
///
/// If `/proc` is not mounted.
pub fn memory() -> Memory {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let bytes = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
            .and_then(|kibibytes| kibibytes.parse::<u64>().ok())
            .map_or(0, |kibibytes| kibibytes * 1024)
    };
    Memory {
        resident_bytes: bytes("VmRSS:"),
        page_table_bytes: bytes("VmPTE:"),
    }
}

/// Binds the calling thread, and those it will start, to the `nth` CPU of those it may use.
///
/// # Errors
///
/// `NotFound` if it may not use that many; else what `sched_setaffinity(2)` says.
pub fn pin_to_nth_cpu(nth: usize) -> io::Result<usize> {
    // SAFETY: all bytes zero is a valid `cpu_set_t`, the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { mem::zeroed() };
    let size = mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `allowed` is a live set of `size` bytes that the kernel may fill; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size, &raw mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let capacity = size * 8;
    let cpu = (0..capacity)
        // SAFETY: `cpu` is below the number of bits in the set.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) })
        .nth(nth)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("fewer than {} CPUs", nth + 1),
            )
        })?;
    // SAFETY: as above, the empty set.
    let mut chosen: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is below the number of bits in the set.
    unsafe { libc::CPU_SET(cpu, &mut chosen) };
    // SAFETY: `chosen` is a live set of `size` bytes that the kernel only reads.
    if unsafe { libc::sched_setaffinity(0, size, &raw const chosen) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cpu)
}

/// Raises the limit of open descriptors as far as allowed and returns it.
///
/// # Errors
///
/// What getrlimit(2) or setrlimit(2) says.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live `rlimit` that the kernel may fill.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live `rlimit` that the kernel only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}
