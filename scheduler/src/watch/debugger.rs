//! The table by which a debugger finds the green threads of a process. `gdb/weald-gdb.py` reads it.
//!
//! A debugger sees memory. Where fields lie it knows only if the program has debug information for weald. So the table says
//! it. The table is in a section of its own, `weald_debugger`, which is found by its name also in a program without symbols; a second copy
//! of weald in the process adds its own table to the section. Nothing in the process reads the table.
//!
//! The list of runtimes changes when a runtime starts or stops. A debugger may stop the process in between: then it sees no runtimes
//! (the count is zero), or one that is about to go.
#![allow(
    unsafe_code,
    reason = "a section of its own, and a list that is given back"
)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::engine::inner::Inner;
use crate::green::green_thread::Places;
use crate::shim::sync::{Arc, Weak};

/// Counted up when something is added or moved in the table, in what it leads to, or in the meaning of these words.
const VERSION: u32 = 1;

#[repr(C)]
struct Table {
    magic: [u8; 12],
    version: u32,
    /// Of the table, in bytes: so the next one in the section can be found.
    size: usize,
    runtimes: AtomicPtr<Shown>,
    count: AtomicUsize,
    places: Places,
}

/// What the table has of a runtime.
#[repr(C)]
struct Shown {
    name: *const u8,
    name_length: usize,
    /// The registry of its threads: see `Registry::places`.
    shards: [usize; 3],
    /// When it started, in milliseconds of `CLOCK_MONOTONIC`.
    started: usize,
}

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = "weald_debugger"))]
static TABLE: Table = Table {
    magic: *b"weald table\0",
    version: VERSION,
    size: size_of::<Table>(),
    runtimes: AtomicPtr::new(ptr::null_mut()),
    count: AtomicUsize::new(0),
    places: Places::new(),
};

/// Has the table show these runtimes from now on.
///
/// The caller holds the lock of the list of running runtimes, and takes each one from the list before its memory goes.
pub(crate) fn show(running: &[Weak<Inner>]) {
    let running = running.iter().filter_map(Weak::upgrade);
    let shown: Box<[Shown]> = running.map(|inner| shown(&inner)).collect();
    let count = shown.len();
    let old_count = TABLE.count.swap(0, Ordering::Release);
    let old = (TABLE.runtimes).swap(Box::into_raw(shown).cast(), Ordering::AcqRel);
    TABLE.count.store(count, Ordering::Release);
    if !old.is_null() {
        // SAFETY: an earlier call has left it there with this count, and the lock of the caller admits one call at a time.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(old, old_count)) });
    }
}

fn shown(inner: &Arc<Inner>) -> Shown {
    let name = inner.settings.name.as_bytes();
    let now = monotonic_millis();
    let age = usize::try_from(inner.start.elapsed().as_millis()).unwrap_or(0);
    Shown {
        name: name.as_ptr(),
        name_length: name.len(),
        shards: inner.registry.places(),
        started: now.saturating_sub(age),
    }
}

fn monotonic_millis() -> usize {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: there is room for a time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let millis = i128::from(now.tv_sec) * 1000 + i128::from(now.tv_nsec) / 1_000_000;
    usize::try_from(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::VERSION;
    use crate::green::awaited::Awaited;

    #[test]
    fn the_script_knows_the_same_version_and_kinds() {
        let script = include_str!("../../gdb/weald-gdb.py");
        assert!(script.contains(&format!("\nVERSION = {VERSION}\n")));
        let list = script
            .split("AWAITED = [")
            .nth(1)
            .and_then(|rest| rest.split(']').next());
        let names: Vec<&str> = list.unwrap_or("").split('"').skip(1).step_by(2).collect();
        let known: Vec<&str> = Awaited::all().map(Awaited::name).collect();
        assert_eq!(names, known);
    }
}
