//! How the depot gives memory back.
//!
//! `low` is the number of resident stacks that were not needed since the last *mark*. At each mark, once in a
//! [`WINDOW`], that many become `excess`. Workers that are about to sleep give the pages of the excess back, the
//! coldest first and a little at a time ([`trim`]). So a process keeps what it has used within the last window, and one that has
//! become idle keeps nothing after two windows.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::depot::{BATCH, RESIDENT, Shelf, lock, shelf};
use super::region;
use super::slot::CLASSES;
use crate::shim::plain::Mutex;

/// Stacks that were not needed for so long are given back. It is longer than the pauses between the bursts of a
/// server, because a page that is given back and needed again costs some 0.5 us. It is short for a person who watches
/// the process's memory.
pub(super) const WINDOW: Duration = Duration::from_millis(500);

/// The pause between two steps of [`trim`].
const PAUSE: Duration = Duration::from_millis(4);

/// When the next mark is, and how far the excess of the last mark was given back.
struct Excess {
    next_mark: Option<Instant>,
    /// The first class that may have excess.
    class: usize,
    /// All stacks count as excess, whatever was marked.
    all: bool,
}

static EXCESS: Mutex<Excess> = Mutex::new(Excess {
    next_mark: None,
    class: CLASSES,
    all: false,
});

impl Excess {
    /// Whatever is resident.
    fn all() -> Self {
        Self {
            next_mark: None,
            class: 0,
            all: true,
        }
    }

    fn mark(&mut self, now: Instant) {
        for class in 0..CLASSES {
            lock(class).iter_mut().for_each(Shelf::mark);
        }
        self.class = 0;
        self.next_mark = Some(now + WINDOW);
    }
}

/// Gives back the pages of stacks that nobody has needed for a while, until `stop` returns true. For a worker that is
/// about to sleep. Returns after how long to call this again; `None`: nothing is left to give back.
///
/// If there is no stack that could be given back, it costs one load.
pub(crate) fn trim(now: Instant, stop: impl Fn() -> bool) -> Option<Duration> {
    if RESIDENT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let Ok(mut excess) = EXCESS.try_lock() else {
        // Another worker does this now, but it may stop before it is done.
        return Some(WINDOW);
    };
    let due = excess.next_mark.is_none_or(|mark| mark <= now);
    if excess.class == CLASSES && due {
        excess.mark(now);
    }
    if !give_back(&mut excess, stop) {
        return Some(PAUSE);
    }
    if RESIDENT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mark = excess.next_mark.unwrap_or(now);
    Some(mark.saturating_duration_since(now).max(PAUSE))
}

/// Gives back the pages of all stacks in the depot.
pub(crate) fn give_back_all() {
    give_back(&mut Excess::all(), || false);
}

/// Gives the excess back, until `stop` returns true. True: no excess is left.
fn give_back(excess: &mut Excess, stop: impl Fn() -> bool) -> bool {
    let mut cold = Vec::with_capacity(BATCH);
    while excess.class < CLASSES {
        let class = excess.class;
        let mut shelves = lock(class);
        let found = shelves.iter_mut().find_map(|shelf| {
            let excess = if excess.all {
                shelf.resident.len()
            } else {
                shelf.excess
            };
            let count = excess.min(BATCH);
            cold.extend(shelf.resident.drain(..count));
            shelf.excess = shelf.excess.saturating_sub(count);
            shelf.low = shelf.low.saturating_sub(count);
            if shelf.resident.is_empty() {
                shelf.resident.shrink_to(2 * BATCH);
            }
            (count > 0).then_some(shelf.guard)
        });
        drop(shelves);
        let Some(guard) = found else {
            excess.class += 1;
            continue;
        };
        RESIDENT.fetch_sub(cold.len(), Ordering::Relaxed);
        region::discard(&mut cold);
        // The lowest address comes out first, so that the stacks in use stay close together.
        let mut shelves = lock(class);
        shelf(&mut shelves, guard)
            .clean
            .extend(cold.drain(..).rev());
        drop(shelves);
        if stop() {
            return false;
        }
    }
    true
}
