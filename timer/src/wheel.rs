//! The wheel: nine levels of 64 slots, and a list of what is due.
//!
//! A tick is a number of nine digits of six bits. A timer lies on the level of the highest digit
//! in which its deadline differs from the wheel's time, in the slot of that digit:
//!
//! ```text
//! time          0 0 0 0 0 0 2 7 5
//! deadline      0 0 0 0 0 0 2 9 1     differs at level 1: slot 9 of level 1
//! level         8 7 6 5 4 3 2 1 0
//! one slot is   146 y  2.3 y  13 d  4.9 h  275 s  4.3 s  67 ms  1 ms  16 us
//! ```
//!
//! So all timers on a level come before all timers on the levels above it, and on one level the
//! slots come in the order of their numbers. The next slot is that of the lowest bit of the lowest level
//! that is not empty. When time reaches a slot of level 0, its timers are due. When time reaches a slot
//! of a higher level, that slot *cascades*: its timers differ from the time in a lower digit now,
//! and move down. A timer moves at most eight times, however far time jumps. Time jumps over
//! empty slots.
//!
//! A slot may hold a million timers, so its cascade can stop after any of them. Until the last timer
//! has moved, time stands one tick before the slot. Timers that are inserted for the slot meanwhile
//! still go to its end. The timers that have moved are where they will belong when time reaches the slot
//! ([`Wheel::spot_below`]).
//!
//! Invariant 1: a timer with a deadline at or before `elapsed` is in `due`. Any other timer is in the slot
//! that [`Wheel::spot`] computes. There is one exception: while that slot cascades, the timer may already be where
//! `spot_below` says. So an entry need not say where it is, and nothing fires early.
//! Invariant 2: `elapsed` moves only while `due` is empty, and never over an occupied slot.
//! Invariant 3: bit `l` of `occupied` is set exactly if level `l` holds an entry.
//! Invariant 4: no deadline in `due` is before `due_first`.
//! Invariant 5: while a slot cascades, the levels below its own hold only timers that have moved out
//! of it, and `elapsed` is the last tick before it.
//! An entry that another thread has cancelled stays where it is until it is drained, and the invariants hold
//! for it, too. An entry that is detached (`slab.rs`) is in no list.
//!
//! Where a timer is follows from its deadline and the time alone. So timers of one tick are in
//! one list, in the order of their insertion, and cascading keeps that order. While their slot
//! cascades they are in two lists, and those on the lower level were inserted first.
//!
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7.
//! Rejected: Linux' wheel that does not cascade (it fires an eighth of the duration late, which is fine for
//! timeouts and not for sleeps); a heap (Go's is 3 to 4 times as slow with a million timers); a list for the far
//! future (nine levels reach as far as the clock).

mod memory;
mod step;

use std::fmt;

use crate::level::{Level, List, SLOT_BITS};
use crate::slab::Owner;
use crate::{Key, Remote, Tick};

/// Nine levels are enough for 54 bits, and a tick has 51.
const LEVELS: usize = 9;

const _: () = assert!((Tick::MAX.get().ilog2() / SLOT_BITS) as usize == LEVELS - 1);

/// In a limited advance so many timers that move down a level count as much as one that fires. To move a timer
/// costs some 10 ns, to fire one some 100 with what the caller does.
const MOVES: usize = 8;

/// An insertion takes out at most so many timers that other threads have cancelled.
const DRAINED_BY_INSERT: usize = 16;

/// A hierarchical timing wheel: any number of timers, each a deadline and a value.
///
/// It knows no clock and no thread. The owner says what time it is by calling
/// [`advance`](Wheel::advance), and may cancel timers; other threads cancel through a
/// [`Remote`]. Nothing here blocks, locks or makes a system call. A timer never fires early, and
/// no later than the first `advance` whose `now` has reached its deadline.
///
/// A timer takes 24 bytes and its value. The memory of timers that have ended is used for new ones.
/// All memory is given back when the wheel and all its remotes are gone.
///
/// Dropping a wheel drops the values of its timers.
///
/// # Examples
/// ```
/// use weald_timer::{Tick, Wheel};
///
/// let millis = |n: u64| n * 1_000_000;
/// let mut wheel = Wheel::new(Tick::ZERO);
/// wheel.insert(Tick::from_nanos_ceil(millis(30)), "third");
/// wheel.insert(Tick::from_nanos_ceil(millis(10)), "first");
/// let second = wheel.insert(Tick::from_nanos_ceil(millis(20)), "second");
/// wheel.cancel(second);
///
/// let mut fired = Vec::new();
/// wheel.advance(Tick::from_nanos_floor(millis(25)), |value| fired.push(value));
/// assert_eq!(fired, ["first"]);
/// assert_eq!(wheel.len(), 1);
/// ```
pub struct Wheel<T> {
    /// The wheel's time. All timers up to it are due or have ended.
    elapsed: Tick,
    /// A lower bound of the deadlines in `due`; `Tick::MAX` after each step.
    due_first: Tick,
    due: List,
    occupied: u32,
    /// The slot that cascades (invariant 5).
    cascading: Option<Cascading>,
    /// Boxed because they take 4.6 KiB, and a wheel is moved with its worker.
    levels: Box<[Level; LEVELS]>,
    owner: Owner<T>,
}

/// Where in the wheel a deadline belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Due,
    Slot { level: usize, slot: u32 },
}

/// A slot whose timers move down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cascading {
    level: usize,
    slot: u32,
    /// Its first tick.
    start: Tick,
}

impl Cascading {
    fn spot(self) -> Spot {
        Spot::Slot {
            level: self.level,
            slot: self.slot,
        }
    }
}

/// What [`Wheel::advance_limited`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Timers that fired.
    pub fired: usize,
    /// The wheel's time is `now`, and nothing is due. Else there may be more to do.
    pub is_done: bool,
}

impl<T> Wheel<T> {
    /// Makes a wheel without timers. Its time is `now`. It allocates 4.6 KiB, and memory for timers
    /// when the first ones come.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    /// let wheel = Wheel::<String>::new(Tick::from_nanos_floor(1_000_000_000));
    /// assert!(wheel.is_empty());
    /// ```
    pub fn new(now: Tick) -> Self {
        Self {
            elapsed: now,
            due_first: Tick::MAX,
            due: List::new(),
            occupied: 0,
            cascading: None,
            levels: Box::new([const { Level::new() }; LEVELS]),
            owner: Owner::new(),
        }
    }

    /// Adds a timer, in constant time. If its deadline has passed, it fires at the next advance,
    /// whatever time is given there.
    ///
    /// # Panics
    /// If the wheel holds 2^26 - 64 timers already.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::from_nanos_floor(5_000_000));
    /// wheel.insert(Tick::ZERO, "late already");
    /// assert_eq!(wheel.pop_expired(Tick::from_nanos_floor(5_000_000)), Some("late already"));
    /// ```
    #[inline]
    pub fn insert(&mut self, deadline: Tick, value: T) -> Key {
        if self.owner.has_cancelled() {
            self.drain_cancelled(DRAINED_BY_INSERT);
        }
        let (index, key) = self.owner.insert(value);
        self.link(index, deadline);
        key
    }

    /// Cancels a timer, in constant time, and returns its value. `None`: the timer has fired, or was
    /// cancelled before by any thread.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let key = wheel.insert(Tick::MAX, 1);
    /// assert_eq!(wheel.cancel(key), Some(1));
    /// assert_eq!(wheel.cancel(key), None);
    /// ```
    #[inline]
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        let (index, value) = self.owner.claim(key)?;
        self.unlink(index, self.owner.links(index));
        self.owner.free(index, key.generation());
        Some(value)
    }

    /// Gives a timer another deadline, earlier or later, in constant time. Returns whether the timer
    /// is alive. If another thread cancels it at the same time, either answer is right.
    ///
    /// If the deadline moves by less than the width of its slot, such as the timeout of a busy
    /// socket, this costs one store. Among timers of the same tick, this timer may then fire in the order of
    /// its first insertion.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let key = wheel.insert(Tick::from_nanos_ceil(1_000_000), "timeout");
    /// assert!(wheel.reset(key, Tick::from_nanos_ceil(9_000_000)));
    /// assert_eq!(wheel.pop_expired(Tick::from_nanos_floor(5_000_000)), None);
    /// ```
    #[inline]
    pub fn reset(&mut self, key: Key, deadline: Tick) -> bool {
        let Some(index) = self.owner.find_armed(key) else {
            return false;
        };
        let links = self.owner.links(index);
        let from = self.spot(links.deadline);
        let cascades = self.cascading.is_some_and(|slot| slot.spot() == from);
        if from == self.spot(deadline) && !cascades {
            if from == Spot::Due {
                self.due_first = self.due_first.min(deadline);
            }
            self.owner
                .edit_links(index, |links| links.deadline = deadline);
        } else {
            self.unlink(index, links);
            self.link(index, deadline);
        }
        true
    }

    /// Moves the wheel's time to `now`. Hands the value of each timer whose deadline is not
    /// after `now` to `fire`, in the order of their deadlines; timers of the same tick come in the order of
    /// their insertion. Returns how many timers fired.
    ///
    /// Timers whose deadline had passed when they were inserted come before all others. If `now`
    /// is before the wheel's time, that time counts instead. If `fire` panics, its timer has ended, and the
    /// others fire at the next call.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// for hour in 1..=48 {
    ///     wheel.insert(Tick::from_nanos_ceil(hour * 3_600_000_000_000), hour);
    /// }
    /// let mut hours = Vec::new();
    /// let now = Tick::from_nanos_floor(4 * 3_600_000_000_000 - 1);
    /// assert_eq!(wheel.advance(now, |hour| hours.push(hour)), 3);
    /// assert_eq!(hours, [1, 2, 3]);
    /// ```
    pub fn advance(&mut self, now: Tick, fire: impl FnMut(T)) -> usize {
        self.advance_limited(now, usize::MAX, fire).fired
    }

    /// Does what [`advance`](Self::advance) does, in steps. A step fires at most `limit` timers. It stops earlier if it has
    /// moved many timers down the wheel, so that it takes no longer than firing `limit` timers. The next call goes on
    /// with the rest. Timers that have not fired can still be cancelled. Timers that are inserted meanwhile with a deadline
    /// that has passed may fire before them.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// for n in 0..10 {
    ///     wheel.insert(Tick::ZERO, n);
    /// }
    /// let mut fired = Vec::new();
    /// while !wheel.advance_limited(Tick::ZERO, 4, |n| fired.push(n)).is_done {
    ///     // Here the caller looks after others.
    /// }
    /// assert_eq!(fired, (0..10).collect::<Vec<_>>());
    /// ```
    pub fn advance_limited(
        &mut self,
        now: Tick,
        limit: usize,
        mut fire: impl FnMut(T),
    ) -> Advanced {
        let mut left = limit.saturating_mul(MOVES);
        if self.owner.has_cancelled() {
            // Half of the step at most, so that a flood of cancellations holds up no timer.
            left -= self.drain_cancelled(left / 2);
        }
        let mut fired = 0;
        loop {
            while left > 0 && !self.due.is_empty() {
                match self.pop_due() {
                    Some(value) => {
                        left = left.saturating_sub(MOVES);
                        fired += 1;
                        fire(value);
                    }
                    None => left -= 1,
                }
            }
            if left == 0 {
                let is_done = false;
                return Advanced { fired, is_done };
            }
            self.due_first = Tick::MAX;
            if !self.step(now, &mut left) {
                let is_done = true;
                return Advanced { fired, is_done };
            }
        }
    }

    /// Takes the value of the first timer whose deadline is not after `now`, for a caller that
    /// does something between one timer and the next. `None` means that the wheel's time is `now`
    /// and nothing is due.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// wheel.insert(Tick::from_nanos_ceil(20_000), "once");
    /// let now = Tick::from_nanos_floor(50_000);
    /// while let Some(value) = wheel.pop_expired(now) {
    ///     if value == "once" {
    ///         wheel.insert(now, "again");
    ///     }
    /// }
    /// assert!(wheel.is_empty());
    /// ```
    pub fn pop_expired(&mut self, now: Tick) -> Option<T> {
        self.drain();
        let mut unlimited = usize::MAX;
        loop {
            while !self.due.is_empty() {
                if let Some(value) = self.pop_due() {
                    return Some(value);
                }
            }
            self.due_first = Tick::MAX;
            if !self.step(now, &mut unlimited) {
                return None;
            }
        }
    }

    /// Takes the first entry out of `due`. `None`: another thread has cancelled that timer.
    #[inline]
    fn pop_due(&mut self) -> Option<T> {
        let (index, _) = self.due.pop_front(&mut self.owner)?;
        if let Some((generation, value)) = self.owner.claim_any(index) {
            self.owner.free(index, generation);
            return Some(value);
        }
        // Another thread was first. It has put the entry on the list of the cancelled, or will.
        unless!("timer_not_detached", self.owner.detach(index));
        None
    }

    /// A lower bound of the deadlines of all timers; `None`: there is no timer. The owner may sleep
    /// until then.
    ///
    /// The bound is exact for a timer that is less than a millisecond away or alone in its slot. Else it
    /// may be too early by the width of a slot; then `advance` finds nothing to fire, but
    /// the next bound is closer. The bound also takes timers for living that other threads have cancelled, until they
    /// are drained. It is never too late. The call looks at two bitmaps and at most one timer.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// assert_eq!(wheel.next_deadline(), None);
    /// let deadline = Tick::from_nanos_ceil(500_000);
    /// wheel.insert(deadline, ());
    /// assert_eq!(wheel.next_deadline(), Some(deadline));
    /// ```
    #[inline]
    pub fn next_deadline(&self) -> Option<Tick> {
        if !self.due.is_empty() {
            return Some(self.due_first);
        }
        if let Some(slot) = self.cascading {
            return Some(slot.start);
        }
        let (level, slot) = self.first_slot()?;
        let sole = self.levels[level].slot(slot).sole_deadline(&self.owner);
        Some(sole.unwrap_or_else(|| self.start(level, slot)))
    }

    /// The time up to which the wheel has been advanced. After an advance that was limited, it is between the
    /// deadline of the last timer that fired and that of the next one.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::<()>::new(Tick::ZERO);
    /// let now = Tick::from_nanos_floor(1_000_000);
    /// wheel.advance(now, |()| ());
    /// assert_eq!(wheel.elapsed(), now);
    /// ```
    #[inline]
    pub fn elapsed(&self) -> Tick {
        self.elapsed
    }

    /// The number of living timers. A timer that another thread has cancelled is not counted, once that thread's
    /// call has returned.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let key = wheel.insert(Tick::MAX, ());
    /// assert_eq!(wheel.len(), 1);
    /// wheel.remote().cancel(key);
    /// assert_eq!(wheel.len(), 0);
    /// ```
    #[inline]
    pub fn len(&self) -> usize {
        self.owner.slab().len()
    }

    /// Whether no timer lives.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    /// assert!(Wheel::<()>::new(Tick::ZERO).is_empty());
    /// ```
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The handle with which other threads cancel timers of this wheel.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let remote = wheel.remote();
    /// let key = wheel.insert(Tick::MAX, 'x');
    /// let other = std::thread::spawn(move || remote.cancel(key));
    /// assert_eq!(other.join().expect("no panic"), Some('x'));
    /// ```
    pub fn remote(&self) -> Remote<T> {
        Remote::new(self.owner.slab())
    }
}

impl<T> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("elapsed", &self.elapsed)
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}
