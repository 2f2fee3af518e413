//! The places where the poller delivers events. `mod.rs` tells how slots are used again, and has the invariants.
//!
//! Checked by `loom-tests/tests/readiness.rs`.
#![allow(unsafe_code, reason = "event slots are found by their address")]

use std::sync::PoisonError;

use weald_scheduler::io::{EventSlot, Readiness};

use super::way::Way;
use crate::shim::atomic::{AtomicU16, AtomicU32, Ordering};
use crate::shim::sync::{Mutex, MutexGuard};

pub(super) const NOWHERE: u32 = 0;
pub(super) const REGISTERING: u32 = 1;
pub(super) const REGISTERED: u32 = 2;
/// Where the generation begins in a home word.
const GENERATION: u32 = 4;

/// Where events of a descriptor arrive.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SourceSlot {
    pub(super) event: EventSlot,
    pub(super) generation: AtomicU16,
    pub(super) home: AtomicU32,
    pub(super) read: Way,
    pub(super) write: Way,
    /// Where the slot is while it has no user.
    shard: usize,
}

impl SourceSlot {
    /// Returns a slot without a user: one that was used before, or a new one.
    pub(super) fn take() -> &'static Self {
        let first = first_shard();
        let mut shards = FREE[first..].iter().chain(&FREE[..first]);
        let free = shards.find_map(|shard| shard.slots().pop());
        free.unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                shard: first,
                event: EventSlot { on_event },
                generation: AtomicU16::new(0),
                home: AtomicU32::new(NOWHERE),
                read: Way::new(),
                write: Way::new(),
            }))
        })
    }

    /// Keeps the slot for its next user.
    pub(super) fn give_back(&'static self) {
        FREE[self.shard].slots().push(self);
    }

    /// Notes that the poller of the slot has closed. The two states are left in one step: between two steps `register`
    /// could go from one state to the other, and both steps would miss it.
    fn evict(&self, generation: u16) {
        let [nowhere, registering, registered] =
            [NOWHERE, REGISTERING, REGISTERED].map(|state| home(generation, state));
        if fault!("source_evicts_in_two_steps") {
            for from in [registered, registering] {
                let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
                let _ = self.home.compare_exchange(from, nowhere, success, failure);
            }
            return;
        }
        // The poller's lock orders the store of REGISTERING before this step, so the step reads nothing older.
        let step = |word: u32| (word == registering || word == registered).then_some(nowhere);
        let _ = self
            .home
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, step);
    }
}

pub(super) fn home(generation: u16, state: u32) -> u32 {
    u32::from(generation) * GENERATION + state
}

/// Slots without a user. Sockets that are made on different cores at the same time take them from different shards.
#[cfg(not(loom))]
static FREE: [Shard; SHARDS] = [const { Shard(Mutex::new(Vec::new())) }; SHARDS];
#[cfg(loom)]
loom::lazy_static! {
    static ref FREE: [Shard; SHARDS] = [Shard(Mutex::new(Vec::new()))];
}

/// A guess: a socket costs some ten microseconds of system calls beside two of these locks.
const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };

/// It lies on cache lines of its own. 128 bytes, as processors fetch lines in pairs.
#[repr(align(128))]
struct Shard(Mutex<Vec<&'static SourceSlot>>);

impl Shard {
    fn slots(&self) -> MutexGuard<'_, Vec<&'static SourceSlot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard in which the caller looks first. Threads that run at the same time have different stacks.
fn first_shard() -> usize {
    const ODD: usize = 0x9e37_79b9_7f4a_7c15;
    let here = 0_u8;
    let page = std::ptr::from_ref(&here).addr() >> 12;
    (page.wrapping_mul(ODD) >> (usize::BITS - 8)) % FREE.len()
}

fn on_event(event: &'static EventSlot, generation: u16, readiness: Readiness) {
    // SAFETY: only slots carry this function, `event` is the first field of a `repr(C)` slot, and
    // slots live for ever.
    let slot: &'static SourceSlot = unsafe { &*std::ptr::from_ref(event).cast::<SourceSlot>() };
    if slot.generation.load(Ordering::Acquire) != generation
        && !fault!("source_takes_any_generation")
    {
        return;
    }
    let has = |bits: u8| readiness.0 & bits != 0;
    if has(Readiness::CLOSED) {
        // It tells nothing of the socket. The next poller tells what is there, an end too.
        slot.evict(generation);
        slot.read.look_again();
        slot.write.look_again();
        return;
    }
    let (failed, urgent) = (has(Readiness::ERROR), has(Readiness::PRIORITY));
    let (read_end, write_end) = (has(Readiness::READ_CLOSED), has(Readiness::WRITE_CLOSED));
    if failed || urgent || read_end || has(Readiness::READABLE) {
        slot.read.note_event(failed || urgent || read_end);
    }
    if failed || write_end || has(Readiness::WRITABLE) {
        slot.write.note_event(failed || write_end);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Direction, Source, Way};
    use weald_scheduler::io::Readiness;

    #[test]
    #[cfg_attr(
        miri,
        ignore = "Stacked Borrows knows no way from a field to the slot around it"
    )]
    fn a_socket_whose_poller_has_closed_is_drained_again_when_nothing_is_there() {
        for direction in [Direction::Read, Direction::Write] {
            let source = Source::new();
            let way = source.way(direction);
            let tell = |bits| {
                (source.slot.event.on_event)(
                    &source.slot.event,
                    source.generation,
                    Readiness(bits),
                );
            };
            tell(Readiness::ALL);
            let seen = source.seen(direction);
            assert!(!Way::is_drained(seen));
            way.clear(seen);
            assert!(Way::is_drained(source.seen(direction)));
            // An end that was told before is not forgotten.
            tell(Readiness::ERROR);
            tell(Readiness::ALL);
            way.clear(source.seen(direction));
            assert!(!Way::is_drained(source.seen(direction)));
        }
    }
}
