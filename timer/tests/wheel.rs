//! What a wheel promises to its owner: order, never early, cheap jumps, a bound for sleeping.
#![cfg(not(loom))]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use weald_timer::{Key, Remote, Tick, Wheel};

const HOUR: u64 = 3_600_000_000_000;

fn tick(n: u64) -> Tick {
    Tick::from_nanos_floor(n * Tick::NANOS)
}

fn check_fired<T>(wheel: &mut Wheel<T>, now: Tick) -> Vec<T> {
    let mut fired = Vec::new();
    let count = wheel.advance(now, |value| fired.push(value));
    assert_eq!(count, fired.len());
    fired
}

#[test]
fn a_timer_fires_at_its_tick_and_not_before_wherever_it_lies() {
    for start in [0, 1, 62, 63, 64, 4095, 4096, 123_456_789] {
        for level in 0..8 {
            for delta in [1, 2, 63, 64, 65] {
                let deadline = start + (delta << (6 * level));
                let mut wheel = Wheel::new(tick(start));
                wheel.insert(tick(deadline), ());
                assert_eq!(check_fired(&mut wheel, tick(deadline - 1)).len(), 0);
                assert_eq!(
                    wheel.next_deadline(),
                    Some(tick(deadline)),
                    "it is alone in its slot"
                );
                assert_eq!(check_fired(&mut wheel, tick(deadline)).len(), 1);
            }
        }
    }
}

#[test]
fn sleeping_until_next_deadline_finds_every_timer_at_its_tick() {
    let mut wheel = Wheel::new(tick(7));
    let mut deadlines = Vec::new();
    for n in 0..200_u64 {
        let deadline = 7 + n * n * n % 300_007;
        deadlines.push(deadline);
        wheel.insert(tick(deadline), deadline);
    }
    deadlines.sort_unstable();
    let mut fired = Vec::new();
    let mut turns = 0;
    while let Some(next) = wheel.next_deadline() {
        wheel.advance(next, |deadline| {
            assert_eq!(tick(deadline), next, "neither early nor late");
            fired.push(deadline);
        });
        turns += 1;
    }
    assert_eq!(fired, deadlines);
    assert!(turns < 1000, "{turns} turns for 200 timers");
}

#[test]
fn timers_of_one_tick_fire_in_the_order_of_insertion() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let deadline = 5000;
    for n in 0..30 {
        // Each ten of them see the deadline from a level of its own.
        match n {
            10 => wheel.advance(tick(4096), |_| panic!("early")),
            20 => wheel.advance(tick(deadline - 1), |_| panic!("early")),
            _ => 0,
        };
        wheel.insert(tick(deadline), n);
    }
    assert_eq!(
        check_fired(&mut wheel, tick(u64::from(u32::MAX))),
        (0..30).collect::<Vec<_>>()
    );
}

#[test]
fn a_deadline_in_the_past_fires_at_the_next_advance() {
    let mut wheel = Wheel::new(tick(100));
    wheel.insert(tick(100), 'b');
    wheel.insert(tick(3), 'a');
    assert_eq!(wheel.next_deadline(), Some(tick(3)));
    assert_eq!(check_fired(&mut wheel, tick(100)), ['b', 'a']);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn the_last_tick_never_comes() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let key = wheel.insert(Tick::from_nanos_ceil(u64::MAX), ());
    assert!(check_fired(&mut wheel, Tick::from_nanos_floor(u64::MAX)).is_empty());
    assert_eq!(wheel.cancel(key), Some(()));
}

#[test]
fn time_that_goes_back_is_ignored() {
    let mut wheel = Wheel::new(tick(50));
    wheel.insert(tick(60), ());
    assert!(check_fired(&mut wheel, tick(55)).is_empty());
    assert!(check_fired(&mut wheel, tick(5)).is_empty());
    assert_eq!(wheel.elapsed(), tick(55));
    assert_eq!(check_fired(&mut wheel, tick(60)).len(), 1);
}

#[test]
fn a_jump_of_years_costs_a_few_turns() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for years in 0..100 {
        wheel.insert(Tick::from_nanos_ceil(years * 8766 * HOUR + 1), years);
    }
    let now = Tick::from_nanos_floor(50 * 8766 * HOUR);
    assert_eq!(check_fired(&mut wheel, now), (0..50).collect::<Vec<_>>());
    assert_eq!(wheel.len(), 50);
}

#[test]
fn a_limited_batch_leaves_the_rest_in_order() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for n in 0..100_u64 {
        wheel.insert(tick(n / 10 * 100), n);
    }
    let mut fired = Vec::new();
    loop {
        let before = fired.len();
        let step = wheel.advance_limited(tick(10_000), 7, |n| fired.push(n));
        assert_eq!(step.fired, fired.len() - before);
        assert!(step.fired <= 7);
        if step.is_done {
            break;
        }
        if let Some(next) = wheel.next_deadline() {
            assert!(
                next <= tick(fired.len() as u64 / 10 * 100),
                "the bound is never too late"
            );
        }
    }
    assert_eq!(fired, (0..100).collect::<Vec<_>>());
    assert_eq!(wheel.elapsed(), tick(10_000));
}

/// A wheel whose first slot of level 2 holds 1000 timers in no order and cascades: so many steps of
/// it were made. Returns the keys by value; the deadline of value `n` is that of `deadline(n)`.
fn cascading(steps: usize) -> (Wheel<u64>, Vec<Key>) {
    let mut wheel = Wheel::new(Tick::ZERO);
    let keys = (0..1000).map(|n| wheel.insert(deadline(n), n)).collect();
    for _ in 0..steps {
        let step = wheel.advance_limited(tick(4096), 1, |n| panic!("{n} is early or out of order"));
        assert!(!step.is_done);
    }
    (wheel, keys)
}

/// Some of them at the first tick of the slot.
fn deadline(n: u64) -> Tick {
    tick(4096 + n * 7 % 5 * (n % 800))
}

/// Fires all, and compares with what is expected: sorted by deadline, then by insertion.
fn check_rest(mut wheel: Wheel<u64>, mut rest: Vec<(Tick, u64)>) {
    assert_eq!(wheel.len(), rest.len());
    rest.sort_by_key(|&(deadline, _)| deadline);
    let rest: Vec<_> = rest.into_iter().map(|(_, n)| n).collect();
    assert_eq!(check_fired(&mut wheel, tick(100_000)), rest);
    assert!(wheel.is_empty());
}

#[test]
fn a_slot_of_many_timers_moves_down_in_short_steps() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for n in 0..1000 {
        wheel.insert(deadline(n), n);
    }
    let (mut fired, mut steps) = (0, 0);
    loop {
        steps += 1;
        let step = wheel.advance_limited(tick(100_000), 10, |_| ());
        fired += step.fired;
        if step.is_done {
            break;
        }
        let next = wheel.next_deadline();
        assert!(next.is_none_or(|next| next <= tick(100_000)));
    }
    assert_eq!(fired, 1000);
    // Each timer moved at least once: a step that fires ten moves eighty at most.
    assert!(steps >= 1000 / 80 + 1000 / 10, "only {steps} steps");
}

#[test]
fn every_timer_of_a_slot_that_cascades_can_be_cancelled_by_anybody() {
    for steps in [0, 1, 2, 60, 100, 124, 125] {
        for n in (0..1000).filter(|n| n % 8 < 2 || *n > 990) {
            let (mut wheel, keys) = cascading(steps);
            let index = usize::try_from(n).expect("it is small");
            if n % 2 == 0 {
                assert_eq!(wheel.cancel(keys[index]), Some(n));
            } else {
                assert_eq!(wheel.remote().cancel(keys[index]), Some(n));
            }
            let others = (0..1000).filter(|&other| other != n);
            check_rest(wheel, others.map(|n| (deadline(n), n)).collect());
        }
    }
}

#[test]
fn all_timers_of_a_slot_that_cascades_can_be_cancelled_in_any_order() {
    for steps in [1, 60, 124, 125] {
        for stride in [1, 3, 7, 499, 999] {
            let (mut wheel, keys) = cascading(steps);
            let mut rest: Vec<_> = (0..1000).map(|n| (deadline(n), n)).collect();
            for nth in 0..600 {
                let n = nth * stride % 1000;
                assert_eq!(wheel.cancel(keys[n]), Some(n as u64));
                rest.retain(|&(_, other)| other != n as u64);
            }
            check_rest(wheel, rest);
        }
    }
}

#[test]
fn timers_that_come_while_their_slot_cascades_come_behind_those_of_the_same_tick() {
    for steps in [1, 60, 124, 125] {
        let (mut wheel, keys) = cascading(steps);
        let mut all: Vec<_> = (0..1000).map(|n| (deadline(n), n)).collect();
        for n in 1000..2000 {
            let at = deadline(n - 1000);
            wheel.insert(at, n);
            all.push((at, n));
        }
        // As if inserted now.
        for n in (0..1000).step_by(3) {
            assert!(wheel.reset(keys[n], tick(5000)));
            all.retain(|&(_, other)| other != n as u64);
            all.push((tick(5000), n as u64));
        }
        check_rest(wheel, all);
    }
}

#[test]
fn what_others_have_cancelled_is_drained_in_short_steps() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let keys: Vec<_> = (0..1000).map(|n| wheel.insert(tick(50 + n), n)).collect();
    let remote = wheel.remote();
    for &key in &keys {
        assert!(remote.cancel(key).is_some());
    }
    let kept = wheel.insert(tick(2000), 1000);
    assert!(!wheel.drain_limited(900), "an insertion drains a few only");
    assert!(wheel.drain_limited(100));
    assert_eq!(wheel.next_deadline(), Some(tick(2000)));
    assert_eq!(wheel.cancel(kept), Some(1000));
}

#[test]
fn reset_moves_a_timer_in_both_directions() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let late = wheel.insert(tick(100), "late");
    let soon = wheel.insert(tick(1_000_000), "soon");
    assert!(wheel.reset(late, tick(2_000_000)));
    assert!(wheel.reset(soon, tick(10)));
    assert_eq!(wheel.next_deadline(), Some(tick(10)));
    assert_eq!(check_fired(&mut wheel, tick(1000)), ["soon"]);
    assert!(!wheel.reset(soon, tick(5000)), "it has fired");
    assert!(wheel.reset(late, tick(0)), "a deadline in the past is due");
    assert!(wheel.reset(late, tick(5)));
    assert_eq!(wheel.next_deadline(), Some(tick(0)), "too early is fine");
    assert_eq!(check_fired(&mut wheel, tick(1000)), ["late"]);
}

#[test]
fn a_due_timer_that_has_not_fired_can_be_cancelled_and_reset() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let keys: Vec<Key> = (0..4).map(|n| wheel.insert(tick(10), n)).collect();
    assert_eq!(wheel.pop_expired(tick(20)), Some(0));
    assert_eq!(wheel.cancel(keys[0]), None);
    assert_eq!(wheel.cancel(keys[1]), Some(1));
    assert!(wheel.reset(keys[2], tick(30)));
    assert_eq!(check_fired(&mut wheel, tick(20)), [3]);
    assert_eq!(wheel.next_deadline(), Some(tick(30)));
}

#[test]
fn an_old_key_does_not_touch_the_timer_that_has_its_memory() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let remote = wheel.remote();
    let mut old = Vec::new();
    for n in 0..100 {
        let key = wheel.insert(tick(n + 1), n);
        for &stale in &old {
            assert_eq!(wheel.cancel(stale), None);
            assert_eq!(remote.cancel(stale), None);
            assert!(!wheel.reset(stale, Tick::MAX));
        }
        assert_eq!(check_fired(&mut wheel, tick(n + 1)), [n]);
        old.push(key);
    }
}

#[test]
fn a_panic_in_fire_loses_no_other_timer() {
    let mut wheel = Wheel::new(Tick::ZERO);
    for n in 0..3 {
        wheel.insert(tick(1), n);
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        wheel.advance(tick(1), |n| assert_ne!(n, 1));
    }));
    assert!(result.is_err());
    assert_eq!(wheel.len(), 1);
    assert_eq!(check_fired(&mut wheel, tick(1)), [2]);
}

#[test]
fn each_value_is_dropped_exactly_once() {
    struct Counted(Rc<Cell<usize>>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    let drops = Rc::new(Cell::new(0));
    let mut wheel = Wheel::new(Tick::ZERO);
    let keys: Vec<Key> = (0..1000)
        .map(|n| wheel.insert(tick(n), Counted(Rc::clone(&drops))))
        .collect();
    assert_eq!(drops.get(), 0);
    for key in &keys[500..600] {
        drop(wheel.cancel(*key));
    }
    assert_eq!(drops.get(), 100);
    let remote = wheel.remote();
    for key in &keys[550..700] {
        drop(remote.cancel(*key));
    }
    assert_eq!(drops.get(), 200);
    wheel.advance(tick(299), drop);
    assert_eq!(drops.get(), 500);
    drop(wheel);
    assert_eq!(drops.get(), 1000);
    assert!(remote.cancel(keys[999]).is_none());
    drop(remote);
    assert_eq!(drops.get(), 1000);
}

#[test]
fn dropping_a_wheel_drops_all_values_though_one_panics() {
    struct Panics(Rc<Cell<usize>>, bool);
    impl Drop for Panics {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            assert!(!self.1, "a value's drop panics");
        }
    }

    let drops = Rc::new(Cell::new(0));
    let mut wheel = Wheel::new(Tick::ZERO);
    for n in 0..10 {
        wheel.insert(tick(n), Panics(Rc::clone(&drops), n == 4));
    }
    assert!(catch_unwind(AssertUnwindSafe(|| drop(wheel))).is_err());
    assert_eq!(drops.get(), 10);
}

#[test]
fn values_of_any_size_and_alignment_work() {
    #[derive(Debug, PartialEq)]
    #[repr(align(256))]
    struct Wide(u8);

    let mut wheel = Wheel::new(Tick::ZERO);
    for n in 0..200 {
        wheel.insert(tick(n), Wide(1));
    }
    assert!(
        check_fired(&mut wheel, tick(200))
            .iter()
            .all(|value| *value == Wide(1))
    );
    let mut wheel = Wheel::new(Tick::ZERO);
    let key = wheel.insert(tick(1), ());
    assert_eq!(wheel.cancel(key), Some(()));
}

#[test]
fn a_wheel_can_be_sent_but_not_shared_and_a_remote_both() {
    check_send::<Wheel<Cell<u8>>>();
    check_send_and_sync::<Remote<Cell<u8>>>();
    check_send_and_sync::<Key>();

    // These compile only while the type lacks the trait: else two impls would fit.
    <Wheel<u8> as NotSync<_>>::check();
    <Wheel<Rc<u8>> as NotSend<_>>::check();
    <Remote<Rc<u8>> as NotSend<_>>::check();
    <Remote<Rc<u8>> as NotSync<_>>::check();
}

fn check_send<T: Send>() {}

fn check_send_and_sync<T: Send + Sync>() {}

struct Second;

trait NotSync<Which> {
    fn check() {}
}

impl<T> NotSync<()> for T {}
impl<T: Sync> NotSync<Second> for T {}

trait NotSend<Which> {
    fn check() {}
}

impl<T> NotSend<()> for T {}
impl<T: Send> NotSend<Second> for T {}
