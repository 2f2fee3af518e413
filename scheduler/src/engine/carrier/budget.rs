//! The budget of the running thread: a thread whose blocking calls do not wait gives way now and then.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// After so many blocking calls that did not wait a thread gives way. tokio's figure.
const BUDGET: u32 = 128;

/// A thread whose calls never wait gives way after this time too. Other threads wait no longer than this.
pub(crate) const SLICE: Duration = Duration::from_micros(200);

/// While calls come quicker than this, only every [`STRIDE`]th call reads the clock.
const QUICK: Duration = Duration::from_micros(25);

/// The call that is the first to read the clock. A thread that answers a peer and waits again makes two
/// or three; reading the clock would cost it a third as much as the switch does.
const FIRST_LOOK: u32 = 4;

/// Calls between two looks at the clock. Twice as many after a stretch that took at most a quarter of [`QUICK`], but
/// no more: if the calls become slow, the thread holds the worker for that many of them.
const STRIDE: u32 = 8;

/// What is left of the budget when the first look is due.
const AT_FIRST: u32 = BUDGET + 1 - FIRST_LOOK;

/// What is left of the running thread's turn.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Calls that are left. Always above zero.
    left: Cell<u32>,
    /// What is left when the next look is due. At least one, so the last call of a turn always looks.
    next_look: Cell<u32>,
    since: Cell<Option<Instant>>,
    last: Cell<Option<Instant>>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            left: Cell::new(BUDGET),
            next_look: Cell::new(AT_FIRST),
            since: Cell::new(None),
            last: Cell::new(None),
        }
    }

    #[inline(always)]
    pub(crate) fn reset(&self) {
        self.left.set(BUDGET);
        self.next_look.set(AT_FIRST);
    }

    /// Spends a call that need not look at the clock. False: it is time for the look.
    #[inline]
    pub(super) fn passes(&self) -> bool {
        let left = self.left.get();
        if left <= self.next_look.get() {
            return false;
        }
        self.left.set(left - 1);
        true
    }

    /// Spends a call that looks at the clock. True: the turn is over. `began`: when the turn began, if that is known.
    pub(super) fn look(
        &self,
        now: impl FnOnce() -> Instant,
        began: impl FnOnce() -> Option<Instant>,
    ) -> bool {
        let left = self.left.get() - 1;
        self.left.set(left);
        if left > 0
            && let Some(calls) = self.calls_until_next_look(now(), began)
        {
            self.next_look.set(left.saturating_sub(calls).max(1));
            return false;
        }
        self.reset();
        true
    }

    /// As `look`, for calls of which a turn may have any number, because only the time counts.
    pub(super) fn look_at_time(
        &self,
        now: Instant,
        began: impl FnOnce() -> Option<Instant>,
    ) -> bool {
        let Some(calls) = self.calls_until_next_look(now, began) else {
            self.reset();
            return true;
        };
        let mut left = self.left.get() - 1;
        if left <= calls {
            left = BUDGET;
        }
        self.left.set(left);
        self.next_look.set(left - calls);
        false
    }

    /// `None`: the turn is over.
    fn calls_until_next_look(
        &self,
        now: Instant,
        began: impl FnOnce() -> Option<Instant>,
    ) -> Option<u32> {
        if self.next_look.get() == AT_FIRST {
            self.since.set(Some(began().unwrap_or(now)));
            self.last.set(None);
        }
        let since = self.since.get().unwrap_or(now);
        let last = self.last.replace(Some(now));
        if now.saturating_duration_since(since) >= SLICE {
            return None;
        }
        let took = last.map(|last| now.saturating_duration_since(last));
        Some(match took {
            Some(took) if took < QUICK / 4 => 2 * STRIDE,
            Some(took) if took >= QUICK => 1,
            _ => STRIDE,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BUDGET, Budget, SLICE};

    /// A turn of so many quick calls and then slow ones. Returns how many of these it had.
    fn slow_calls_after(quick: u32) -> u32 {
        let budget = Budget::new();
        let began = Instant::now();
        let mut now = began;
        let mut goes_on = |took| {
            now += took;
            budget.passes() || !budget.look(|| now, || Some(began))
        };
        for _ in 0..quick {
            assert!(goes_on(Duration::from_nanos(50)));
        }
        let slow = (1..=BUDGET).find(|_| !goes_on(Duration::from_millis(1)));
        slow.expect("a turn has no more calls than its budget")
    }

    #[test]
    fn calls_that_become_slow_come_sixteen_at_most_between_two_looks_at_the_clock() {
        let most = (0..BUDGET).map(slow_calls_after).max();
        assert_eq!(most, Some(16 + 1), "the last one is the second look");
    }

    #[test]
    fn where_only_time_counts_a_turn_has_as_many_quick_calls_as_there_is_time_for() {
        let budget = Budget::new();
        let began = Instant::now();
        let mut now = began;
        let each = Duration::from_nanos(50);
        let calls = (1..100_000_u32).find(|_| {
            now += each;
            !budget.passes() && budget.look_at_time(now, || Some(began))
        });
        let calls = calls.expect("the turn ends");
        let most = u32::try_from(SLICE.as_nanos() / each.as_nanos()).expect("a few thousand");
        assert!((most..most + 20).contains(&calls), "{calls} of {most}");
    }

    #[test]
    fn a_turn_of_quick_calls_has_its_whole_budget() {
        assert_eq!(slow_calls_after(BUDGET - 1), 1);
    }
}
