//! The depot: the stacks of the process that no worker has. `cache.rs` says what its lists hold, and by which rules.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::count::{count_in, count_out};
use super::region::{self, Fresh};
use super::slot::{CLASSES, Guard, MIN_STACK, Stack};
use crate::shim::plain::{Mutex, MutexGuard};

/// Stacks that go between a cache and the depot at a time, unless they are large.
pub(super) const BATCH: usize = 16;

/// Bytes that such a batch may have; one stack is always allowed.
const BATCH_BYTES: usize = 4 << 20;

/// Stacks in the depot whose pages have not been given back.
pub(super) static RESIDENT: AtomicUsize = AtomicUsize::new(0);

/// The reason why there is no stack.
#[derive(Debug)]
pub(crate) struct NoStack {
    /// The message names the bound and how to raise it.
    pub(crate) error: io::Error,
    /// Other workers have stacks of this size and may give them back.
    pub(crate) may_come: bool,
}

/// Stacks in a batch of this class.
pub(super) const fn batch(class: usize) -> usize {
    let fit = (BATCH_BYTES / MIN_STACK) >> class;
    match fit {
        0 => 1,
        1..BATCH => fit,
        _ => BATCH,
    }
}

/// Stacks of one class and guard in the depot. The table at the head of `cache.rs` says what the lists
/// hold.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) guard: Guard,
    /// The hottest last.
    pub(super) resident: VecDeque<Stack>,
    /// How many of these were not needed since the last mark, and how many of those must be given back.
    pub(super) low: usize,
    pub(super) excess: usize,
    pub(super) clean: Vec<Stack>,
    pub(super) bare: Vec<Stack>,
    pub(super) fresh: Fresh,
    /// Bytes in all regions of this class and guard.
    pub(super) mapped: usize,
    /// Stacks that are outside the depot.
    pub(super) out: usize,
}

/// One class of the depot: a shelf for each guard that a runtime had.
static DEPOT: [Mutex<Vec<Shelf>>; CLASSES] = [const { Mutex::new(Vec::new()) }; CLASSES];

pub(super) fn lock(class: usize) -> MutexGuard<'static, Vec<Shelf>> {
    // A panic while it is held (an allocation that failed) may leak slots, but never doubles one.
    DEPOT[class].lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shelf of a guard; mostly it is the first.
pub(super) fn shelf(shelves: &mut Vec<Shelf>, guard: Guard) -> &mut Shelf {
    let found = shelves.iter().position(|shelf| shelf.guard == guard);
    let index = found.unwrap_or_else(|| {
        shelves.push(Shelf::new(guard));
        shelves.len() - 1
    });
    &mut shelves[index]
}

/// Moves up to a batch of stacks, at least one, from the depot to an empty hot list.
pub(super) fn withdraw(class: usize, guard: Guard, hot: &mut Vec<Stack>) -> Result<(), NoStack> {
    debug_assert!(hot.is_empty(), "what is in the list would be guarded again");
    let want = batch(class);
    let mut shelves = lock(class);
    let depot = shelf(&mut shelves, guard);
    depot.take_resident(want, hot);
    if hot.is_empty() {
        let clean = depot.clean.len().saturating_sub(want);
        hot.extend(depot.clean.drain(clean..));
    }
    let guarded = !hot.is_empty();
    if !guarded {
        // Only slots without a guard are left.
        depot.take_bare(MIN_STACK << class, want, hot)?;
    }
    depot.out += hot.len();
    drop(shelves);
    if guarded {
        count_out(class, hot.len());
        return Ok(());
    }
    let result = match region::guard(hot) {
        // Stacks of another class may have guards that they do not need.
        Err(error) => match take_guards(want).then(|| region::guard(hot)) {
            Some(result) => result,
            None => Err(error),
        },
        result => result,
    };
    let guarded = *result.as_ref().unwrap_or(&0);
    if guarded < hot.len() {
        let mut shelves = lock(class);
        let depot = shelf(&mut shelves, guard);
        depot.out -= hot.len() - guarded;
        depot.bare.extend(hot.drain(guarded..));
    }
    count_out(class, hot.len());
    if let Err(error) = result {
        // `live` would be wrong here: another worker may just have taken stacks and not counted them yet.
        let may_come = (0..CLASSES).any(|class| lock(class).iter().any(|shelf| shelf.out > 0));
        return Err(NoStack { error, may_come });
    }
    hot.iter().for_each(Stack::register_with_valgrind);
    // The lowest address comes out first.
    hot.reverse();
    Ok(())
}

/// Takes away the guards of up to so many unused stacks, where guards are counted. False: there were none.
#[cold]
fn take_guards(most: usize) -> bool {
    for class in 0..CLASSES {
        let mut idle = Vec::new();
        let mut guard = None;
        for shelf in lock(class).iter_mut() {
            let clean = shelf.clean.len().saturating_sub(most);
            idle.extend(shelf.clean.drain(clean..));
            if idle.is_empty() {
                shelf.take_resident(most, &mut idle);
            }
            if !idle.is_empty() {
                guard = Some(shelf.guard);
                break;
            }
        }
        let Some(guard) = guard else { continue };
        region::discard(&mut idle);
        let bare = region::unprotect(&idle);
        let mut shelves = lock(class);
        let shelf = shelf(&mut shelves, guard);
        shelf.bare.extend(idle.drain(..bare));
        shelf.clean.append(&mut idle);
        if bare > 0 {
            return true;
        }
    }
    false
}

impl Shelf {
    const fn new(guard: Guard) -> Self {
        Self {
            guard,
            resident: VecDeque::new(),
            low: 0,
            excess: 0,
            clean: Vec::new(),
            bare: Vec::new(),
            fresh: Fresh::EMPTY,
            mapped: 0,
            out: 0,
        }
    }

    /// Takes up to so many resident stacks, the hottest last.
    fn take_resident(&mut self, want: usize, into: &mut Vec<Stack>) {
        let rest = self.resident.len().saturating_sub(want);
        RESIDENT.fetch_sub(self.resident.len() - rest, Ordering::Relaxed);
        into.extend(self.resident.drain(rest..));
        self.low = self.low.min(rest);
        self.excess = self.excess.min(rest);
    }

    fn take_bare(&mut self, size: usize, want: usize, hot: &mut Vec<Stack>) -> Result<(), NoStack> {
        let bare = self.bare.len().saturating_sub(want);
        hot.extend(self.bare.drain(bare..));
        if !hot.is_empty() {
            return Ok(());
        }
        let guard = self.guard;
        hot.extend(std::iter::from_fn(|| self.fresh.take(size, guard)).take(want));
        if !hot.is_empty() {
            return Ok(());
        }
        let (fresh, bytes) = region::map(size, guard, self.mapped).map_err(|error| NoStack {
            error,
            may_come: self.out > 0,
        })?;
        self.fresh = fresh;
        self.mapped += bytes;
        hot.extend(std::iter::from_fn(|| self.fresh.take(size, guard)).take(want));
        Ok(())
    }

    /// Marks stacks that nobody has needed since the last mark as excess.
    pub(super) fn mark(&mut self) {
        self.excess = self.low;
        self.low = self.resident.len();
    }
}

/// Puts stacks of a class and one guard, the coldest first, into the depot.
pub(super) fn deposit(class: usize, mut stacks: impl ExactSizeIterator<Item = Stack>) {
    let count = stacks.len();
    let Some(first) = stacks.next() else { return };
    count_in(class, count);
    RESIDENT.fetch_add(count, Ordering::Relaxed);
    let mut shelves = lock(class);
    let shelf = shelf(&mut shelves, first.guard());
    shelf.out -= count;
    shelf.resident.push_back(first);
    shelf.resident.extend(stacks);
}
