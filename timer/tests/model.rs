//! The wheel against a model that cannot be wrong: a sorted map. By proptest, which finds a small
//! case, and by millions of random steps, which find a rare one.
#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weald_timer::{Advanced, Key, Remote, Tick, Wheel};

/// Steps of the long run: a few seconds in release, quick enough in a debug build.
const STEPS: u64 = if cfg!(debug_assertions) {
    200_000
} else {
    4_000_000
};

/// So many random programs as `PROPTEST_CASES` says, else a few.
fn cases() -> u32 {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default().cases,
        None if cfg!(debug_assertions) => 256,
        None => 4096,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { delta: u64 },
    InsertPast { back: u64 },
    InsertNever,
    Cancel { nth: usize },
    CancelRemotely { nth: usize },
    TouchStale { nth: usize },
    Reset { nth: usize, delta: u64 },
    ResetPast { nth: usize, back: u64 },
    Advance { delta: u64 },
    AdvanceLimited { delta: u64, limit: usize },
    AdvanceToNext,
    Drain,
    DrainLimited { limit: usize },
}

/// A wheel and what it should hold.
struct Pair {
    wheel: Wheel<u64>,
    remote: Remote<u64>,
    now: u64,
    next_value: u64,
    /// The living, by value.
    timers: BTreeMap<u64, Timer>,
    /// The same by deadline.
    deadlines: BTreeSet<(u64, u64)>,
    /// The values of the living in no order, to choose one from.
    living: Vec<u64>,
    /// Keys of timers that are over.
    stale: Vec<Key>,
    fired: u64,
    /// Advances that left something to do.
    unfinished: u64,
}

struct Timer {
    deadline: u64,
    /// The tick at which it becomes due: the deadline, but not before it was armed.
    due: u64,
    was_reset: bool,
    key: Key,
    /// Where in `living` its value is.
    place: usize,
}

impl Pair {
    fn new(now: u64) -> Self {
        let wheel = Wheel::new(tick(now));
        Self {
            remote: wheel.remote(),
            wheel,
            now,
            next_value: 0,
            timers: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            living: Vec::new(),
            stale: Vec::new(),
            fired: 0,
            unfinished: 0,
        }
    }

    fn check_step(&mut self, step: &Step) {
        match *step {
            Step::Insert { delta } => self.insert(self.now + delta),
            Step::InsertPast { back } => self.insert(self.now.saturating_sub(back)),
            Step::InsertNever => self.insert(NEVER),
            Step::Cancel { nth } => {
                if let Some(value) = self.choose(nth) {
                    let key = self.remove(value).key;
                    assert_eq!(self.wheel.cancel(key), Some(value));
                    assert_eq!(self.wheel.cancel(key), None);
                }
            }
            Step::CancelRemotely { nth } => {
                if let Some(value) = self.choose(nth) {
                    let key = self.remove(value).key;
                    assert_eq!(self.remote.cancel(key), Some(value));
                    assert_eq!(self.remote.cancel(key), None);
                }
            }
            Step::TouchStale { nth } => {
                if !self.stale.is_empty() {
                    let key = self.stale[nth % self.stale.len()];
                    assert_eq!(self.wheel.cancel(key), None);
                    assert_eq!(self.remote.cancel(key), None);
                    assert!(!self.wheel.reset(key, tick(self.now)));
                }
            }
            Step::Reset { nth, delta } => self.reset(nth, self.now + delta),
            Step::ResetPast { nth, back } => self.reset(nth, self.now.saturating_sub(back)),
            Step::Advance { delta } => {
                self.now += delta;
                self.advance(usize::MAX);
            }
            Step::AdvanceLimited { delta, limit } => {
                self.now += delta;
                self.advance(limit);
            }
            Step::AdvanceToNext => self.advance_to_next(),
            Step::Drain => self.wheel.drain(),
            Step::DrainLimited { limit } => {
                self.wheel.drain_limited(limit);
            }
        }
        assert_eq!(self.wheel.len(), self.timers.len());
        assert_eq!(self.remote.len(), self.timers.len());
        self.check_next_deadline();
    }

    fn insert(&mut self, deadline: u64) {
        let value = self.next_value;
        self.next_value += 1;
        let due = deadline.max(number(self.wheel.elapsed()));
        let key = self.wheel.insert(tick(deadline), value);
        let place = self.living.len();
        self.living.push(value);
        self.timers.insert(
            value,
            Timer {
                deadline,
                due,
                was_reset: false,
                key,
                place,
            },
        );
        self.deadlines.insert((deadline, value));
    }

    fn reset(&mut self, nth: usize, deadline: u64) {
        let Some(value) = self.choose(nth) else {
            return;
        };
        let due = deadline.max(number(self.wheel.elapsed()));
        let timer = self.timers.get_mut(&value).expect("it lives");
        assert!(self.wheel.reset(timer.key, tick(deadline)));
        self.deadlines.remove(&(timer.deadline, value));
        self.deadlines.insert((deadline, value));
        (timer.deadline, timer.due, timer.was_reset) = (deadline, due, true);
    }

    fn advance(&mut self, limit: usize) {
        let mut fired = Vec::new();
        let Advanced {
            fired: count,
            is_done,
        } = self
            .wheel
            .advance_limited(tick(self.now), limit, |value| fired.push(value));
        assert_eq!(count, fired.len());
        assert!(count <= limit, "more than were asked for");
        let due = self.deadlines.range(..=(self.now, u64::MAX)).count();
        if is_done {
            assert_eq!(count, due, "not as many as are due");
            assert_eq!(self.wheel.elapsed(), tick(self.now));
        } else {
            assert!(count <= due && limit < usize::MAX);
            self.unfinished += 1;
        }

        let mut last = 0;
        let mut last_in_order = (0, 0);
        for value in fired {
            let timer = self.remove(value);
            assert!(timer.deadline <= self.now, "early");
            assert!(timer.due >= last, "not in the order of the deadlines");
            last = timer.due;
            if !timer.was_reset {
                assert!(
                    (timer.due, value) >= last_in_order,
                    "not in the order of insertion"
                );
                last_in_order = (timer.due, value);
            }
            self.fired += 1;
        }
    }

    fn advance_to_next(&mut self) {
        let Some(next) = self.wheel.next_deadline() else {
            return;
        };
        if next < tick(NEVER >> 1) {
            self.now = self.now.max(number(next));
            self.advance(usize::MAX);
        }
    }

    fn check_next_deadline(&self) {
        let bound = self.wheel.next_deadline();
        // A timer that was cancelled remotely may be counted until it is drained.
        if let Some(&(first, _)) = self.deadlines.first() {
            let bound = bound.expect("a timer lives");
            assert!(bound <= tick(first), "the bound is too late");
        }
    }

    fn choose(&self, nth: usize) -> Option<u64> {
        (!self.living.is_empty()).then(|| self.living[nth % self.living.len()])
    }

    fn remove(&mut self, value: u64) -> Timer {
        let timer = self.timers.remove(&value).expect("it lived till now");
        self.deadlines.remove(&(timer.deadline, value));
        self.living.swap_remove(timer.place);
        if let Some(moved) = self.living.get(timer.place) {
            self.timers.get_mut(moved).expect("it lives").place = timer.place;
        }
        if self.stale.len() == 1000 {
            self.stale.swap_remove(timer.place % 1000);
        }
        self.stale.push(timer.key);
        timer
    }

    /// Fires everything but what never comes, and lets the wheel drop the rest.
    fn check_end(mut self) -> u64 {
        self.now = NEVER - 1;
        self.advance(usize::MAX);
        assert!(
            self.deadlines
                .iter()
                .all(|&(deadline, _)| deadline == NEVER)
        );
        self.fired
    }
}

/// The number of the tick that never comes.
const NEVER: u64 = 1 << 50;

fn tick(n: u64) -> Tick {
    if n == NEVER {
        Tick::MAX
    } else {
        Tick::from_nanos_floor(n * Tick::NANOS)
    }
}

fn number(tick: Tick) -> u64 {
    if tick == Tick::MAX {
        NEVER
    } else {
        tick.as_nanos() / Tick::NANOS
    }
}

fn any_delta() -> impl Strategy<Value = u64> {
    // Near the borders of the levels as often as between them.
    prop_oneof![
        0..200_u64,
        (0..7_u32, 0..64_u64, 0..3_u64).prop_map(|(level, n, more)| (n << (6 * level)) + more),
        (0..40_u32).prop_map(|bits| (1 << bits) - 1),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let nth = || 0..1000_usize;
    prop_oneof![
        8 => any_delta().prop_map(|delta| Step::Insert { delta }),
        1 => any_delta().prop_map(|back| Step::InsertPast { back }),
        1 => Just(Step::InsertNever),
        2 => nth().prop_map(|nth| Step::Cancel { nth }),
        2 => nth().prop_map(|nth| Step::CancelRemotely { nth }),
        1 => nth().prop_map(|nth| Step::TouchStale { nth }),
        2 => (nth(), any_delta()).prop_map(|(nth, delta)| Step::Reset { nth, delta }),
        1 => (nth(), any_delta()).prop_map(|(nth, back)| Step::ResetPast { nth, back }),
        2 => any_delta().prop_map(|delta| Step::Advance { delta }),
        2 => (any_delta(), 0..4_usize)
            .prop_map(|(delta, limit)| Step::AdvanceLimited { delta, limit }),
        2 => Just(Step::AdvanceToNext),
        1 => Just(Step::Drain),
        1 => (0..4_usize).prop_map(|limit| Step::DrainLimited { limit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_wheel_does_what_a_sorted_map_does(
        start in any_delta(),
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        let mut pair = Pair::new(start);
        for step in &steps {
            pair.check_step(step);
        }
        pair.check_end();
    }
}

/// Marsaglia's xorshift: the same steps at every run.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn nth(&mut self) -> usize {
        usize::try_from(self.below(1 << 30)).expect("30 bits")
    }

    /// Short ones often, some of days.
    fn delta(&mut self) -> u64 {
        let bits = if self.below(100) == 0 { 34 } else { 20 };
        let bits = self.below(bits) + 1;
        self.below(1 << bits)
    }

    /// While the population grows, most steps add timers; else most end them or let time pass.
    fn step(&mut self, grows: bool) -> Step {
        let insertions = if grows { 75 } else { 20 };
        if self.below(100) < insertions {
            return match self.below(200) {
                0 => Step::InsertNever,
                1..5 => Step::InsertPast { back: self.delta() },
                _ => Step::Insert {
                    delta: self.delta(),
                },
            };
        }
        match self.below(100) {
            0..18 => Step::Cancel { nth: self.nth() },
            18..36 => Step::CancelRemotely { nth: self.nth() },
            36..42 => Step::TouchStale { nth: self.nth() },
            42..60 => Step::Reset {
                nth: self.nth(),
                delta: self.delta(),
            },
            60..62 => Step::ResetPast {
                nth: self.nth(),
                back: self.delta(),
            },
            62..72 => Step::Advance {
                delta: self.below(8),
            },
            72 if !grows => Step::Advance {
                delta: self.delta(),
            },
            72..84 => Step::AdvanceLimited {
                delta: if grows { self.below(64) } else { self.delta() },
                limit: self.nth() % 4,
            },
            84..97 if !grows => Step::AdvanceToNext,
            84 => Step::AdvanceToNext,
            85..90 => Step::DrainLimited {
                limit: self.nth() % 4,
            },
            _ => Step::Drain,
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many steps; the random programs are tried")]
fn millions_of_random_steps_agree_with_a_sorted_map() {
    for seed in 1..=4 {
        let mut random = Xorshift(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut pair = Pair::new(random.delta());
        let mut grows = true;
        let mut tides = 0;
        for _ in 0..STEPS / 4 {
            let step = random.step(grows);
            pair.check_step(&step);
            let turned = if grows {
                pair.timers.len() > 1500
            } else {
                pair.timers.len() < 20
            };
            tides += u64::from(turned);
            grows ^= turned;
        }
        assert!(tides >= 2, "seed {seed} saw only {tides} tides");
        let unfinished = pair.unfinished;
        assert!(
            unfinished > STEPS / 400,
            "seed {seed}: only {unfinished} stopped"
        );
        let fired = pair.check_end();
        assert!(fired > STEPS / 40, "seed {seed} fired only {fired}");
    }
}
