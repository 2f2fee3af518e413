//! Waiting for several things of which one happens: the loop under `select!` and `Select`.
//!
//! 1. The quick pass: the arms that seem to be ready, at a look without locks, are tried one after the
//!    other in a random order, each as a `try_recv` or `try_send` would, under its own lock alone. The
//!    first that is ready commits, and that is all.
//! 2. None was: the locks of all channels are taken, in the order of their addresses. A random one of
//!    the channels' arms that are ready now commits, and that is all.
//! 3. None is: the selection is registered with every channel, in a random order, and the locks let
//!    go. It enters the queues of the events.
//! 4. It looks at the events (threads, sockets, timers) once more, and takes nothing. If one is ready, it
//!    gives up to wait: from here on no partner can choose.
//! 5. None is: it waits. A partner chooses an arm (`selection.rs`), or an event, the clock or an exception
//!    ends the wait.
//! 6. It takes itself out everywhere, whatever ended the wait. A wake-up of an event that is not used
//!    is passed on. If a partner has chosen, that arm is settled, and that is all; else it begins anew with 1.
//!
//! | the selection      | who may do an arm's part                          | leaves by                    |
//! |--------------------|---------------------------------------------------|------------------------------|
//! | chooses (1, 2)     | itself: registered nowhere, it is found by nobody | an arm committed; or 3       |
//! | waits (3 to 5)     | a partner, by its claim; itself must not          | a claim, or it gives up      |
//! | was claimed        | the partner, for the arm that it has chosen       | 6, and the arm is settled    |
//! | has given up       | nobody                                            | 6, and it chooses again      |
//!
//! Invariant 1: while it chooses it is registered nowhere, so it cannot be chosen meanwhile, and never
//! meets itself.
//! Invariant 2: an arm that was not chosen has no effect: a registered one does nothing by itself, and
//! after one has committed no other is tried.
//! Invariant 3: between the look that found no channel ready and the registering no lock is let go, so
//! a selection that waits was seen by whoever made an arm ready. The quick pass is no such look, and
//! none that says "none is ready" for a `default`, as what it has passed may be ready by its end.
//! Invariant 4: while it waits it takes nothing, as a partner may have chosen another arm already. The message
//! of a timer, which has no partner, is taken only while it chooses; so who was claimed has it still there.
//!
//! Checked by `loom-tests/tests/select.rs`, and events by `loom-tests/tests/select_pairs.rs`.
#![allow(unsafe_code, reason = "locks of several channels at once")]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Place, Pollable, Selected, Selection, WaitQueue, Waitable};

use crate::shim::clock;
use crate::shim::random;
use crate::shim::sync::{Mutex, MutexGuard};

/// One arm.
///
/// # Safety
/// What `register` tells others of stays where it is until `forget`.
pub unsafe trait Arm {
    /// The lock of the channel; an event has none.
    fn mutex(&self) -> Option<&Mutex<()>> {
        None
    }

    /// When it becomes ready by the clock.
    fn time(&self) -> Option<Instant> {
        None
    }

    /// Does its part, if it can at once; or begins it, if a partner that waits is to end it.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn try_commit(&mut self) -> bool;

    /// As `try_commit`, and takes the lock for it.
    fn try_alone(&mut self) -> bool;

    /// A guess, without the lock, whether `try_alone` is worth while.
    fn seems_ready(&self) -> bool {
        true
    }

    /// True if `try_commit` would do its part.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn is_ready(&self) -> bool;

    /// Lets partners find the selection.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn register(&mut self, selection: &Selection, index: usize);

    /// Lets the selection be told that the arm is ready, without taking part.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn watch(&mut self, selection: &Selection, index: usize);

    /// Undoes `register` and `watch`.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn forget(&mut self);

    /// Ends what was begun; after it was chosen, without the lock. False: it came to nothing.
    fn settle(&mut self) -> bool {
        true
    }
}

/// How long a selection waits.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Not at all: a `default` arm.
    Now,
    /// Until then; `None`: for ever.
    Until(Option<Instant>),
}

impl Limit {
    /// That long from now.
    pub fn within(limit: Duration) -> Self {
        Self::Until(io::deadline(limit))
    }

    fn is_over(self) -> bool {
        match self {
            Self::Now => true,
            Self::Until(deadline) => deadline.is_some_and(|at| clock::now() >= at),
        }
    }

    /// The earlier of this and of the arms' own times.
    fn first(self, arms: &[&mut dyn Arm]) -> Option<Instant> {
        let Self::Until(deadline) = self else {
            return None;
        };
        let times = arms.iter().filter_map(|arm| arm.time());
        times.chain(deadline).min()
    }
}

/// So many locks lie on the stack.
const INLINE: usize = 16;

/// The locks of all arms, each once.
struct Locks<'a> {
    inline: [MaybeUninit<MutexGuard<'a, ()>>; INLINE],
    /// How many of `inline` there are.
    count: usize,
    more: Vec<MutexGuard<'a, ()>>,
}

impl Locks<'_> {
    /// None yet.
    #[inline(always)]
    fn new() -> Self {
        Self {
            inline: [const { MaybeUninit::uninit() }; INLINE],
            count: 0,
            more: Vec::new(),
        }
    }

    /// Takes them all, in the order of their addresses.
    ///
    /// # Safety
    /// The mutexes outlive the value.
    unsafe fn take(&mut self, arms: &[&mut dyn Arm]) {
        let mut inline = [ptr::null(); INLINE];
        let mut more = Vec::new();
        let order: &mut [*const Mutex<()>] = if arms.len() <= INLINE {
            &mut inline
        } else {
            more.resize(arms.len(), ptr::null());
            &mut more
        };
        let mut count = 0;
        for arm in arms {
            let Some(mutex) = arm.mutex().map(ptr::from_ref) else {
                continue;
            };
            // Insertion: they are few.
            let mut place = count;
            while place > 0
                && order[place - 1] > mutex
                && !cfg!(weald_fault = "select_locks_in_the_order_of_its_arms")
            {
                order[place] = order[place - 1];
                place -= 1;
            }
            order[place] = mutex;
            count += 1;
        }
        let mut last: *const Mutex<()> = ptr::null();
        for &mutex in &order[..count] {
            if mutex != last {
                // SAFETY: by contract.
                self.keep(unsafe { lock(mutex) });
                last = mutex;
            }
        }
    }
}

impl<'a> Locks<'a> {
    fn keep(&mut self, guard: MutexGuard<'a, ()>) {
        match self.inline.get_mut(self.count) {
            Some(place) => {
                place.write(guard);
                self.count += 1;
            }
            None => self.more.push(guard),
        }
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        for guard in &mut self.inline[..self.count] {
            // SAFETY: `keep` has written so many, and they are dropped once.
            unsafe { guard.assume_init_drop() };
        }
    }
}

/// # Safety
/// The mutex outlives the guard.
unsafe fn lock<'a>(mutex: *const Mutex<()>) -> MutexGuard<'a, ()> {
    // SAFETY: by contract.
    let mutex = unsafe { &*mutex };
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random choice.
fn below(bound: usize) -> usize {
    // The random number is a fraction of 2^64.
    let choice = (u128::from(random()) * bound as u128) >> 64;
    usize::try_from(choice).unwrap_or(0)
}

/// The order of so many arms needs no memory.
const INLINE_ORDER: usize = 64;

/// Tries those of the arms that `worth` admits in a random order until one has committed: which.
#[inline]
fn choose(
    arms: &mut [&mut dyn Arm],
    biased: bool,
    worth: impl Fn(&dyn Arm) -> bool,
    mut commits: impl FnMut(&mut dyn Arm) -> bool,
) -> Option<usize> {
    if arms.len() > INLINE_ORDER {
        let mut order = long_order(arms.len(), biased).into_iter();
        return order.find(|&index| worth(arms[index]) && commits(arms[index]));
    }
    let mut admitted: u64 = 0;
    for (index, arm) in arms.iter().enumerate() {
        admitted |= u64::from(worth(*arm)) << index;
    }
    first_of(admitted, biased, |index| commits(arms[index]))
}

/// Visits the arms in a random order, or in theirs if `biased`, until `visit` says true: where.
fn visit_all(
    arms: &mut [&mut dyn Arm],
    biased: bool,
    mut visit: impl FnMut(&mut dyn Arm, usize) -> bool,
) -> Option<usize> {
    if arms.len() > INLINE_ORDER {
        let mut order = long_order(arms.len(), biased).into_iter();
        return order.find(|&index| visit(arms[index], index));
    }
    let all = (0..arms.len()).fold(0, |all: u64, _| all << 1 | 1);
    first_of(all, biased, |index| visit(arms[index], index))
}

/// Visits the numbers of the bits in a random order, or in theirs, until `visit` says true: at which.
#[inline(always)]
fn first_of(mut left: u64, biased: bool, mut visit: impl FnMut(usize) -> bool) -> Option<usize> {
    while left != 0 {
        let rest = left & (left - 1);
        let bit = if biased || rest == 0 {
            left ^ rest
        } else {
            random_bit(left)
        };
        let index = bit.trailing_zeros() as usize;
        if visit(index) {
            return Some(index);
        }
        left ^= bit;
    }
    None
}

/// The numbers below `count` in a random order, or in theirs if `biased`.
#[cold]
fn long_order(count: usize, biased: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if !biased {
        for last in (1..count).rev() {
            order.swap(last, below(last + 1));
        }
    }
    order
}

fn random_bit(mut bits: u64) -> u64 {
    for _ in 0..below(bits.count_ones() as usize) {
        bits &= bits - 1;
    }
    bits & bits.wrapping_neg()
}

/// Waits until one of the arms has committed, and says which; `None`: the limit was first.
pub fn run(arms: &mut [&mut dyn Arm], limit: Limit) -> Option<usize> {
    io::enter_and_spend();
    select(arms, limit, false)
}

#[inline]
pub(crate) fn select(arms: &mut [&mut dyn Arm], limit: Limit, biased: bool) -> Option<usize> {
    match quick_pass(arms, biased) {
        Some(chosen) if arms[chosen].settle() => Some(chosen),
        Some(_) => select_slow(arms, limit, biased, true),
        None => select_slow(arms, limit, biased, false),
    }
}

#[inline]
fn quick_pass(arms: &mut [&mut dyn Arm], biased: bool) -> Option<usize> {
    let mut pass = || choose(arms, biased, |arm| arm.seems_ready(), |arm| arm.try_alone());
    let mut chosen = pass();
    if cfg!(weald_fault = "select_goes_on_after_its_choice") {
        chosen = chosen.max(pass());
    }
    chosen
}

/// What follows the quick pass. `again`: another one, because the last came to nothing.
#[inline(never)]
fn select_slow(
    arms: &mut [&mut dyn Arm],
    limit: Limit,
    biased: bool,
    mut again: bool,
) -> Option<usize> {
    loop {
        if std::mem::replace(&mut again, true)
            && let Some(chosen) = quick_pass(arms, biased)
        {
            if arms[chosen].settle() {
                return Some(chosen);
            }
            continue;
        }
        if matches!(limit, Limit::Now) && channels(arms) < 2 {
            // There was nothing between the looks at two of them that could have changed.
            return None;
        }
        let mut locks = Locks::new();
        // SAFETY: the arms outlive the locks, and do not change their channels.
        unsafe { locks.take(arms) };
        // The events are looked at again once their wake-ups reach the selection.
        let worth = |arm: &dyn Arm| {
            arm.mutex().is_some() && !cfg!(weald_fault = "select_registers_after_its_quick_pass")
        };
        // SAFETY: the locks are held.
        let chosen = choose(arms, biased, worth, |arm| unsafe { arm.try_commit() });
        if let Some(chosen) = chosen {
            drop(locks);
            if arms[chosen].settle() {
                return Some(chosen);
            }
            continue;
        }
        if limit.is_over() {
            return None;
        }
        if cfg!(weald_fault = "select_lets_go_to_register") {
            drop(locks);
            locks = Locks::new();
            // SAFETY: as above.
            unsafe { locks.take(arms) };
        }
        let selection = Selection::begin();
        // A partner takes the first that it finds of two arms of the same channel.
        visit_all(arms, biased, |arm, index| {
            // SAFETY: the locks are held.
            unsafe { arm.register(&selection, index) };
            false
        });
        drop(locks);
        match wait(arms, &selection, limit) {
            Ended::Chosen(chosen) => {
                if arms[chosen].settle() {
                    return Some(chosen);
                }
            }
            Ended::Again => {}
        }
    }
}

/// How many of the arms are channels'.
fn channels(arms: &[&mut dyn Arm]) -> usize {
    arms.iter().filter(|arm| arm.mutex().is_some()).count()
}

/// Waits until one of the arms is ready, and says which; `None`: the limit was first.
pub(crate) fn ready(arms: &mut [&mut dyn Arm], limit: Limit, biased: bool) -> Option<usize> {
    loop {
        let mut locks = Locks::new();
        // SAFETY: the arms outlive the locks, and do not change their channels.
        unsafe { locks.take(arms) };
        // SAFETY: the locks are held.
        let found = visit_all(arms, biased, |arm, _| unsafe { arm.is_ready() });
        if found.is_some() {
            return found;
        }
        if limit.is_over() {
            return None;
        }
        let selection = Selection::begin();
        for (index, arm) in arms.iter_mut().enumerate() {
            if cfg!(weald_fault = "select_readies_by_channels_alone") && arm.mutex().is_none() {
                continue;
            }
            // SAFETY: the locks are held.
            unsafe { arm.watch(&selection, index) };
        }
        drop(locks);
        // Whoever told it has done nothing for it: it looks again.
        wait(arms, &selection, limit);
    }
}

enum Ended {
    Chosen(usize),
    Again,
}

/// Waits for a selection that is registered, and takes it out everywhere. An event that is ready is only
/// looked at (invariant 4): what it brings is taken by who looks again.
fn wait(arms: &mut [&mut dyn Arm], selection: &Selection, limit: Limit) -> Ended {
    let takes = cfg!(weald_fault = "select_takes_in_its_second_look");
    let event = arms.iter_mut().position(|arm| {
        // SAFETY: an event has no lock.
        arm.mutex().is_none()
            && !cfg!(weald_fault = "select_waits_without_a_second_look")
            && unsafe {
                if takes {
                    arm.try_commit()
                } else {
                    arm.is_ready()
                }
            }
    });
    let ended = if event.is_some() {
        selection.end().map_or(Selected::Again, Selected::Arm)
    } else {
        selection.park(limit.first(arms))
    };
    let chosen = match ended {
        Selected::Arm(_) if event.is_some() && cfg!(weald_fault = "select_prefers_its_event") => {
            None
        }
        Selected::Arm(_)
            if cfg!(weald_fault = "select_leaves_over_its_choice") && limit.is_over() =>
        {
            None
        }
        Selected::Arm(arm) | Selected::Done(arm) => Some(arm),
        _ => event.filter(|_| takes),
    };
    {
        let mut locks = Locks::new();
        // SAFETY: the arms outlive the locks, and do not change their channels.
        unsafe { locks.take(arms) };
        for arm in arms.iter_mut() {
            // SAFETY: the locks are held.
            unsafe { arm.forget() };
        }
    }
    if ended == Selected::Pending || cfg!(weald_fault = "select_raises_over_its_choice") {
        io::enter_unwinding();
    }
    chosen.map_or(Ended::Again, Ended::Chosen)
}

/// `join(&h) -> _`.
#[derive(Debug)]
pub struct JoinArm<'a, W: ?Sized> {
    thread: &'a W,
    place: Place,
}

impl<'a, W: Waitable + ?Sized> JoinArm<'a, W> {
    /// An arm that waits for a thread's end.
    pub fn new(thread: &'a W) -> Self {
        Self {
            thread,
            place: Place::new(),
        }
    }

    /// Nothing: the result is taken by `join`.
    #[allow(clippy::unused_self, reason = "as the other arms")]
    pub fn finish(&mut self) {}
}

// SAFETY: the place stays in the arm, which the selection borrows from registering to forgetting.
unsafe impl<W: Waitable + ?Sized> Arm for JoinArm<'_, W> {
    unsafe fn try_commit(&mut self) -> bool {
        self.thread.has_ended()
    }

    fn try_alone(&mut self) -> bool {
        self.thread.has_ended()
    }

    unsafe fn is_ready(&self) -> bool {
        self.thread.has_ended()
    }

    unsafe fn register(&mut self, selection: &Selection, _index: usize) {
        // SAFETY: the place stays until `forget`.
        unsafe { selection.enter(&mut self.place, self.thread.joiners()) };
        self.thread.announce();
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        // SAFETY: by contract.
        unsafe { self.register(selection, index) };
    }

    unsafe fn forget(&mut self) {
        // The end wakes all, so there is nothing to pass on.
        self.thread.joiners().leave(&mut self.place);
    }
}

/// `readable(&s) -> p` and `writable(&s) -> p`.
#[derive(Debug)]
pub struct PollArm<'a, P: ?Sized> {
    socket: &'a P,
    writes: bool,
    place: Place,
    found: Option<std::io::Result<()>>,
}

impl<'a, P: Pollable + ?Sized> PollArm<'a, P> {
    /// An arm that waits for readiness.
    pub fn new(socket: &'a P, writes: bool) -> Self {
        Self {
            socket,
            writes,
            place: Place::new(),
            found: None,
        }
    }

    /// What was found; once it was chosen.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&mut self) -> std::io::Result<()> {
        self.found.take().unwrap_or(Ok(()))
    }

    /// Where it waits.
    fn waiters(&self) -> &'a WaitQueue {
        let writes = self.writes && !cfg!(weald_fault = "select_waits_to_read");
        self.socket.waiters(writes)
    }
}

// SAFETY: as for `JoinArm`.
unsafe impl<P: Pollable + ?Sized> Arm for PollArm<'_, P> {
    unsafe fn try_commit(&mut self) -> bool {
        if self.found.is_none() {
            self.found = match self.socket.poll_now(self.writes) {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            };
        }
        self.found.is_some()
    }

    fn try_alone(&mut self) -> bool {
        // SAFETY: an event has no lock.
        unsafe { self.try_commit() }
    }

    unsafe fn is_ready(&self) -> bool {
        self.found.is_some() || self.socket.poll_now(self.writes).unwrap_or(true)
    }

    unsafe fn register(&mut self, selection: &Selection, _index: usize) {
        let queue = self.waiters();
        // SAFETY: the place stays until `forget`.
        unsafe { selection.enter(&mut self.place, queue) };
        if cfg!(weald_fault = "select_watches_nothing") {
            return;
        }
        if let Err(error) = self.socket.watch() {
            self.found = Some(Err(error));
        }
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        // SAFETY: by contract.
        unsafe { self.register(selection, index) };
    }

    unsafe fn forget(&mut self) {
        let queue = self.waiters();
        if queue.leave(&mut self.place)
            && !cfg!(weald_fault = "select_keeps_the_wake_up_of_an_event")
        {
            // Readiness is not used up by being told of: somebody else may wait for it too.
            queue.wake_one();
        }
    }
}
