//! Regions: large mappings that are cut into slots. For a slot's pages this file makes a guard, gives their memory
//! back, and finds out to which guard an address belongs.
//!
//! A region holds slots of one class and one size of guards. A slot is a guard and the usable bytes above
//! it. A region is one private anonymous mapping without reserved swap and without huge pages. If
//! the guards are markers in the page table, it stays one mapping, however many slots it has. With
//! `mprotect` every guard costs the process two mappings, however large it is.
//!
//! | guard      | by                   | where                         | bound                |
//! |------------|----------------------|-------------------------------|----------------------|
//! | marker     | `MADV_GUARD_INSTALL` | Linux from 6.13               | memory               |
//! | protection | `mprotect`           | older Linux, other Unix       | `vm.max_map_count`   |
//!
//! 1. When a marker is refused for the first time, the process uses `mprotect` from then on. (`EINVAL` comes from an
//!    old kernel or locked memory; `EPERM`, `ENOSYS` and others come from a filter of system calls.) Only
//!    if memory is short, no guard is made at all. Both kinds of guards side by side do no harm.
//! 2. A guard of either kind stays when pages are given back. The number of protections is bounded. So they are taken
//!    from stacks in the depot when stacks of another class need them ([`unprotect`]).
//! 3. The table of regions only grows. An entry's `base` is stored last (Release) and read first
//!    (Acquire). So a signal handler sees a whole entry or none, without a lock.
//!
//! `WEALD_STACK_GUARD=mprotect` makes a process use `mprotect` where it need not, and
//! `WEALD_STACK_GUARD=mprotect:N` does so with a bound of N stacks. They are there to test what an
//! older kernel does; read once, at the first stack.
//!
//! Many slots are guarded or given back in one call of `process_madvise(2)` on this very process,
//! where the kernel can (6.14); elsewhere it is one `madvise(2)` each. Measured for 16: 0.9 instead
//! of 1.5 us a guard, 1.0 instead of 2.6 us a slot given back.
#![allow(unsafe_code, reason = "maps memory and changes what is mapped")]

use std::io;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::count::live;
use super::settings::{max_map_count, settings};
use super::slot::{Guard, Stack};

/// How many regions a process may have. With the largest regions this is 128 TiB of stacks: all the addresses
/// that a process has on x86-64.
const REGIONS: usize = 4096;

/// The greatest size of a region in bytes, unless it is for a single slot. A kernel that counts
/// every mapped byte (overcommit mode 2) may refuse it, and then is asked for less.
const REGION_MAX: usize = 32 << 30;

/// Slots in the first region of a class: 16 MiB of default stacks.
const FIRST_SLOTS: usize = 64;

/// The greatest size of a class's first region in bytes, unless it is for a single slot.
const FIRST_MAX: usize = 64 << 20;

/// Ranges in one call of `process_madvise`: what the depot hands out at a time. More was no faster.
const BATCH: usize = 16;

/// Whether guards are markers. It becomes false once, for good (invariant 1).
static MARKERS: AtomicBool = AtomicBool::new(cfg!(any(target_os = "linux", target_os = "android")));

/// Some stacks have markers.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether the kernel takes many ranges in one call. It becomes false once, for good.
#[cfg(any(target_os = "linux", target_os = "android"))]
static VECTORED: AtomicBool = AtomicBool::new(true);

/// Slots guarded by `mprotect`, ever; at most `Settings::bound`.
static PROTECTED: AtomicUsize = AtomicUsize::new(0);

/// Slots that are mapped and have not been handed out yet.
#[derive(Debug)]
pub(super) struct Fresh {
    /// Where the next slot begins.
    next: usize,
    /// Where the region ends.
    end: usize,
}

impl Fresh {
    pub(super) const EMPTY: Self = Self { next: 0, end: 0 };

    /// Takes the next slot. It has no guard yet.
    pub(super) fn take(&mut self, size: usize, guard: Guard) -> Option<Stack> {
        if self.next == self.end {
            return None;
        }
        self.next += size + guard.bytes();
        let base = NonZeroUsize::new(self.next).expect("a slot does not end at address 0");
        // SAFETY: the slot ends inside the region, and because `next` has moved on nobody else gets it.
        // The depot makes its guard before it hands the slot out.
        Some(unsafe { Stack::from_slot(base, size, guard) })
    }
}

/// Maps a region for slots of this size. It is as large as all regions before it together (`before` bytes), within the
/// bounds, or as large a part of that as the system grants. Returns its slots and its bytes.
///
/// # Errors
/// `OutOfMemory` if there is no address space, or not as much as is counted, for a single slot.
pub(super) fn map(size: usize, guard: Guard, before: usize) -> io::Result<(Fresh, usize)> {
    let stride = size + guard.bytes();
    let first = (FIRST_SLOTS * stride).min(FIRST_MAX);
    let mut slots = (before.clamp(first, REGION_MAX) / stride).max(1);
    loop {
        match map_pages(slots * stride) {
            Ok(base) => {
                let (end, bytes) = (base + slots * stride, slots * stride);
                if let Err(error) = enter(base, end, stride, guard) {
                    // SAFETY: the mapping is new, and nobody was told of it.
                    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(base), bytes) };
                    return Err(error);
                }
                return Ok((Fresh { next: base, end }, bytes));
            }
            Err(_) if slots > 1 => slots /= 2,
            Err(error) => {
                let (kib, live) = (stride >> 10, live());
                return Err(io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    format!(
                        "cannot map {kib} KiB for the stack of a green thread: {error}; {live} \
                         stacks are in use; look at RLIMIT_AS (ulimit -v) and \
                         vm.overcommit_memory, or make stacks smaller with \
                         RuntimeBuilder::stack_size or Builder::stack_size"
                    ),
                ));
            }
        }
    }
}

fn map_pages(bytes: usize) -> io::Result<usize> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // With huge pages a parked stack of one page could cost 2 MiB. A kernel that has none says
    // EINVAL, which is as good.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: these are the bytes mapped just now, and the advice changes none of them.
    unsafe {
        libc::madvise(base, bytes, libc::MADV_NOHUGEPAGE);
    }
    Ok(base.expose_provenance())
}

/// Makes the guards of stacks that have none. Returns how many of them, counted from the front, have one
/// now. An error only if none has.
///
/// # Errors
/// `OutOfMemory` past the bound of the protections or of the process's page tables, `InvalidInput`
/// if `WEALD_STACK_GUARD` cannot be understood.
pub(super) fn guard(stacks: &[Stack]) -> io::Result<usize> {
    let settings = settings()?;
    if !settings.protect && MARKERS.load(Ordering::Relaxed) {
        match install_markers(stacks) {
            Ok(()) => {
                INSTALLED.store(true, Ordering::Relaxed);
                return Ok(stacks.len());
            }
            Err(error) if is_shortage(&error) => return Err(no_guard(&error)),
            // Invariant 1.
            Err(_) => MARKERS.store(false, Ordering::Relaxed),
        }
    }
    protect(stacks, settings.bound)
}

/// Whether the error says that memory is short. Any other error of an optional call means that there is no such call
/// here.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOMEM | libc::EAGAIN | libc::EINTR)
    )
}

/// Whether the process could have a stack of this size if no other stack were in use.
///
/// # Errors
/// `OutOfMemory` if the process may not have as much address space as one stack takes.
pub(crate) fn check_limit(size: usize, guard: Guard) -> io::Result<()> {
    /// Small stacks are not tried, because that costs a system call.
    const ASK: usize = 4 << 20;
    if size < ASK {
        return Ok(());
    }
    let stride = size + guard.bytes();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the place is valid.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    if asked == 0 && limit.rlim_cur < stride as libc::rlim_t {
        let (kib, most) = (stride >> 10, limit.rlim_cur >> 10);
        return Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!(
                "a stack of {kib} KiB with its guard is more than the process may map: RLIMIT_AS \
                 is {most} KiB (ulimit -v)"
            ),
        ));
    }
    Ok(())
}

fn install_markers(stacks: &[Stack]) -> io::Result<()> {
    /// `MADV_GUARD_INSTALL` of `linux/mman.h`. It works on private anonymous memory only.
    const GUARD_INSTALL: libc::c_int = 102;
    let guards = stacks.iter().map(|stack| Range {
        start: stack.slot(),
        len: stack.guard().bytes(),
    });
    // SAFETY: nobody uses the pages below the usable bytes, which is all the advice takes away.
    unsafe { advise(guards, GUARD_INSTALL) }
}

fn protect(stacks: &[Stack], bound: usize) -> io::Result<usize> {
    let mut allowed = 0;
    PROTECTED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            allowed = stacks.len().min(bound.saturating_sub(count));
            Some(count + allowed)
        })
        .expect("the closure always gives a new count");
    if allowed == 0 {
        return Err(past_bound(bound));
    }
    for (done, stack) in stacks[..allowed].iter().enumerate() {
        if let Err(error) = set_protection(stack, libc::PROT_NONE) {
            PROTECTED.fetch_sub(allowed - done, Ordering::Relaxed);
            return if done == 0 {
                Err(no_guard(&error))
            } else {
                Ok(done)
            };
        }
    }
    Ok(allowed)
}

/// Removes the guards of stacks that were guarded by `mprotect`, so that as many other stacks can have one.
/// Returns how many of them, counted from the front, have none now.
pub(super) fn unprotect(stacks: &[Stack]) -> usize {
    // A stack with a marker is not counted, and nothing tells which ones have markers.
    if INSTALLED.load(Ordering::Relaxed) {
        return 0;
    }
    let usable = libc::PROT_READ | libc::PROT_WRITE;
    let done = stacks
        .iter()
        .take_while(|stack| set_protection(stack, usable).is_ok())
        .count();
    PROTECTED.fetch_sub(done, Ordering::Relaxed);
    done
}

fn set_protection(stack: &Stack, protection: libc::c_int) -> io::Result<()> {
    let start = ptr::with_exposed_provenance_mut(stack.slot());
    // SAFETY: nobody uses the pages below the usable bytes, which is all that is changed.
    if unsafe { libc::mprotect(start, stack.guard().bytes(), protection) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Looks at `WEALD_STACK_GUARD`.
///
/// # Errors
/// `InvalidInput` if it cannot be understood.
pub(crate) fn check_settings() -> io::Result<()> {
    settings().map(drop)
}

fn past_bound(bound: usize) -> io::Error {
    let (maps, live) = (max_map_count(), live());
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "no stack for another green thread: {live} are in use, and {bound} is the most whose \
             guards fit in vm.max_map_count = {maps}, as each takes two mappings where the kernel \
             has no MADV_GUARD_INSTALL (before Linux 6.13) or a filter of system calls refuses it; \
             raise it with sysctl -w vm.max_map_count=N"
        ),
    )
}

fn no_guard(error: &io::Error) -> io::Error {
    let (maps, live) = (max_map_count(), live());
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "cannot make the guard of a green thread's stack: {error}; {live} stacks are in \
             use and vm.max_map_count = {maps}"
        ),
    )
}

/// Gives the memory of these stacks back to the system and sorts them by address. They read as
/// zeros then. This is optional: if something prevents it (locked memory, for instance), the pages stay as they are.
pub(super) fn discard(stacks: &mut [Stack]) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const DISCARD: libc::c_int = libc::MADV_DONTNEED;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const DISCARD: libc::c_int = libc::MADV_FREE;
    stacks.sort_unstable_by_key(Stack::top);
    // Neighbours become one range, across the guards between them (invariant 2).
    let runs = stacks
        .chunk_by(|low, high| low.top() == high.slot())
        .map(|run| {
            let (low, high) = (&run[0], &run[run.len() - 1]);
            Range {
                start: low.bottom(),
                len: high.top() - low.bottom(),
            }
        });
    // SAFETY: whoever owns a stack may change its bytes, and these are borrowed mutably.
    if unsafe { advise(runs, DISCARD) }.is_ok() {
        return;
    }
    // An error may concern one stack only, and then the others are given back all the same.
    for stack in stacks {
        let bottom = ptr::with_exposed_provenance_mut(stack.bottom());
        // SAFETY: as above.
        unsafe { libc::madvise(bottom, stack.top() - stack.bottom(), DISCARD) };
    }
}

#[derive(Clone, Copy)]
struct Range {
    start: usize,
    len: usize,
}

/// Gives one piece of advice about many ranges.
///
/// # Safety
/// The ranges are mapped, and the caller may do to their bytes what the advice does.
unsafe fn advise(mut ranges: impl Iterator<Item = Range>, advice: libc::c_int) -> io::Result<()> {
    loop {
        let mut batch = [Range { start: 0, len: 0 }; BATCH];
        let mut count = 0;
        for (place, range) in batch.iter_mut().zip(ranges.by_ref()) {
            *place = range;
            count += 1;
        }
        let batch = &batch[..count];
        // SAFETY: the caller's word goes for each of the ranges.
        if count > 1 && unsafe { advise_at_once(batch, advice) } {
            continue;
        }
        for range in batch {
            let start = ptr::with_exposed_provenance_mut(range.start);
            // SAFETY: as above.
            if unsafe { libc::madvise(start, range.len, advice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if count < BATCH {
            return Ok(());
        }
    }
}

/// Gives advice about at most [`BATCH`] ranges in one call. Returns whether that worked for all of them. If
/// not, it may have worked for some. To give the advice used here once more does no harm.
///
/// # Safety
/// As [`advise`].
#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn advise_at_once(ranges: &[Range], advice: libc::c_int) -> bool {
    /// `PIDFD_SELF_THREAD_GROUP` of `linux/pidfd.h`, since 6.14: this process, without a descriptor
    /// that after a fork would name the parent.
    const PIDFD_SELF: libc::c_int = -10001;
    if !VECTORED.load(Ordering::Relaxed) {
        return false;
    }
    let mut vector = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    let mut bytes = 0;
    for (place, range) in vector.iter_mut().zip(ranges) {
        place.iov_base = ptr::with_exposed_provenance_mut(range.start);
        place.iov_len = range.len;
        bytes += range.len;
    }
    // SAFETY: the caller's word for the ranges; the vector outlives the call.
    let advised = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            PIDFD_SELF,
            vector.as_ptr(),
            ranges.len(),
            advice,
            0_u32,
        )
    };
    let done = usize::try_from(advised).is_ok_and(|advised| advised == bytes);
    if advised < 0 {
        VECTORED.store(false, Ordering::Relaxed);
    }
    done
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn advise_at_once(_ranges: &[Range], _advice: libc::c_int) -> bool {
    false
}

/// One region as a signal handler sees it.
struct Entry {
    /// Zero until the entry is complete (invariant 3).
    base: AtomicUsize,
    end: AtomicUsize,
    /// Bytes from one slot to the next.
    stride: AtomicUsize,
    /// Bytes of a slot that are its guard.
    guard: AtomicUsize,
}

static TABLE: [Entry; REGIONS] = [const {
    Entry {
        base: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        stride: AtomicUsize::new(0),
        guard: AtomicUsize::new(0),
    }
}; REGIONS];

/// Entries given out; some of them may not be complete yet. Above [`REGIONS`] after a refusal.
static ENTRIES: AtomicUsize = AtomicUsize::new(0);

fn enter(base: usize, end: usize, stride: usize, guard: Guard) -> io::Result<()> {
    let index = ENTRIES.fetch_add(1, Ordering::Relaxed);
    let Some(entry) = TABLE.get(index) else {
        let live = live();
        return Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!(
                "no more than {REGIONS} regions of stacks fit into this process; {live} stacks are \
                 in use; make stacks smaller with RuntimeBuilder::stack_size or \
                 Builder::stack_size"
            ),
        ));
    };
    entry.end.store(end, Ordering::Relaxed);
    entry.stride.store(stride, Ordering::Relaxed);
    entry.guard.store(guard.bytes(), Ordering::Relaxed);
    // Release: completes the entry for `guard_at`.
    entry.base.store(base, Ordering::Release);
    Ok(())
}

/// If the address lies in the guard of a slot: the size in bytes of the stack above it. Safe
/// to call in a signal handler.
pub(super) fn guard_at(address: usize) -> Option<usize> {
    TABLE
        .iter()
        .take(ENTRIES.load(Ordering::Relaxed))
        .find_map(|entry| {
            // Acquire: pairs with `enter`; what is not zero is complete.
            let base = entry.base.load(Ordering::Acquire);
            if base == 0 || address < base || address >= entry.end.load(Ordering::Relaxed) {
                return None;
            }
            let stride = entry.stride.load(Ordering::Relaxed);
            let guard = entry.guard.load(Ordering::Relaxed);
            ((address - base) % stride < guard).then_some(stride - guard)
        })
}
