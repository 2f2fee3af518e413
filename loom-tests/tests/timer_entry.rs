//! Models of `timer/src/entry.rs` and `timer/src/slab.rs`: a timer's state word, the list of the
//! cancelled, and the memory that is used again.
//!
//! Invariant 1: the value of a timer goes to exactly one: fire, a cancel, or the wheel's drop.
//! Invariant 2: a cancel leaves every other timer as it is, also the next one in the same memory.
//! Invariant 3: the side that gets a value sees all of it.
//! Invariant 4: after the drain nothing is left of a cancelled timer, and its memory is free once.
//! The faults that each model must find are in `loom-tests/faults.txt`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weald_loom_tests::sync::{Arc as SharedArc, atomic::AtomicU64};
use weald_loom_tests::{Model, check, thread, witness};
use weald_timer::{Key, Tick, Wheel};

fn tick(n: u64) -> Tick {
    Tick::from_nanos_floor(n * Tick::NANOS)
}

/// A value whose drops are counted, by a counter that adds no orders to a search.
struct Token(u32, Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// Fires everything up to `now` and returns the values in their order.
fn fire(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
    let mut fired = Vec::new();
    wheel.advance(tick(now), |value| fired.push(value));
    fired
}

/// After all timers are over the wheel holds nothing, not even what was cancelled.
fn check_nothing_left<T>(wheel: &mut Wheel<T>) {
    assert_eq!(wheel.len(), 0);
    wheel.drain();
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn fire_and_a_remote_cancel_have_one_winner() {
    let witnesses = &["fired", "cancelled"];
    check(
        Model::new("fire_and_a_remote_cancel_have_one_winner", 16, witnesses),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let key = wheel.insert(tick(1), 7);
            let remote = wheel.remote();
            let peer = thread::spawn(move || remote.cancel(key));

            let fired = fire(&mut wheel, 1);
            let cancelled = peer.join().expect("it does not panic");
            match (fired.as_slice(), cancelled) {
                ([7], None) => witness!("fired"),
                ([], Some(7)) => witness!("cancelled"),
                other => panic!("not one winner: {other:?}"),
            }
            check_nothing_left(&mut wheel);
        },
    );
}

#[test]
fn owner_and_a_remote_cancel_have_one_winner() {
    let witnesses = &["the owner won", "the remote won"];
    check(
        Model::new("owner_and_a_remote_cancel_have_one_winner", 3, witnesses),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let key = wheel.insert(tick(1000), 7);
            let remote = wheel.remote();
            let peer = thread::spawn(move || remote.cancel(key));

            let own = wheel.cancel(key);
            let cancelled = peer.join().expect("it does not panic");
            assert!(own.is_some() != cancelled.is_some(), "not one winner");
            witness!("the owner won", own == Some(7));
            witness!("the remote won", cancelled == Some(7));
            check_nothing_left(&mut wheel);
        },
    );
}

#[test]
fn a_cancel_that_beats_fire_leaves_the_others_linked() {
    let witnesses = &["fired", "cancelled"];
    check(
        Model::new(
            "a_cancel_that_beats_fire_leaves_the_others_linked",
            30,
            witnesses,
        ),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let key = wheel.insert(tick(1), 0);
            wheel.insert(tick(1), 1);
            wheel.insert(tick(1), 2);
            let remote = wheel.remote();
            let peer = thread::spawn(move || remote.cancel(key));

            // One by one, so that the list of the cancelled is drained in between.
            let mut fired = Vec::new();
            while let Some(value) = wheel.pop_expired(tick(1)) {
                fired.push(value);
            }
            let cancelled = peer.join().expect("it does not panic");
            match (fired.as_slice(), cancelled) {
                ([0, 1, 2], None) => witness!("fired"),
                ([1, 2], Some(0)) => witness!("cancelled"),
                other => panic!("a timer is lost or came twice: {other:?}"),
            }
            check_nothing_left(&mut wheel);
        },
    );
}

#[test]
fn a_timer_is_cancelled_while_it_cascades_and_moves() {
    let witnesses = &["moved", "refused", "cancelled"];
    check(
        Model::new(
            "a_timer_is_cancelled_while_it_cascades_and_moves",
            80,
            witnesses,
        ),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let key = wheel.insert(tick(70), 0);
            wheel.insert(tick(71), 1);
            let remote = wheel.remote();
            let peer = thread::spawn(move || remote.cancel(key));

            // Both move from level 1 to level 0, then the first to level 1 again.
            assert!(fire(&mut wheel, 64).is_empty());
            let was_moved = wheel.reset(key, tick(200));
            witness!("moved", was_moved);
            witness!("refused", !was_moved);
            let mut fired = fire(&mut wheel, 71);
            assert_eq!(fired, [1], "the neighbour, in time, and nothing early");
            fired = fire(&mut wheel, 200);

            let cancelled = peer.join().expect("it does not panic");
            witness!("cancelled", cancelled.is_some());
            match (fired.as_slice(), cancelled) {
                ([0], None) | ([], Some(0)) => {}
                other => panic!("not one winner: {other:?}"),
            }
            check_nothing_left(&mut wheel);
        },
    );
}

#[test]
fn an_old_key_leaves_the_next_timer_alone() {
    let witnesses = &[
        "the place was used again",
        "the drain freed the place",
        "the remote came too late",
    ];
    check(
        Model::new("an_old_key_leaves_the_next_timer_alone", 14, witnesses),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let old = wheel.insert(tick(100), 1);
            let remote = wheel.remote();
            let peer = thread::spawn(move || remote.cancel(old));

            let own = wheel.cancel(old);
            let new = wheel.insert(tick(1), 2);
            let reused = new.to_bits() << 32 == old.to_bits() << 32;
            witness!("the place was used again", reused);
            witness!("the drain freed the place", reused && own.is_none());
            assert_ne!(new, old);
            assert_eq!(fire(&mut wheel, 1), [2], "the old key hit the new timer");

            let cancelled = peer.join().expect("it does not panic");
            witness!("the remote came too late", cancelled.is_none());
            match (own, cancelled) {
                (Some(1), None) | (None, Some(1)) => {}
                other => panic!("not one winner: {other:?}"),
            }
            check_nothing_left(&mut wheel);
        },
    );
}

#[test]
fn two_remotes_share_out_the_timers() {
    let witnesses = &[
        "drained while they ran",
        "the first thread won both",
        "the second thread won both",
    ];
    check(
        Model::new("two_remotes_share_out_the_timers", 190, witnesses),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let a = wheel.insert(tick(100), 'a');
            let b = wheel.insert(tick(100), 'b');
            let cancellers = [[a, b], [b, a]].map(|keys| {
                let remote = wheel.remote();
                thread::spawn(move || keys.map(|key| remote.cancel(key).is_some()))
            });

            wheel.drain();
            witness!("drained while they ran", wheel.next_deadline().is_none());
            let [one, other] = cancellers.map(|peer| peer.join().expect("it does not panic"));
            assert!(one[0] != other[1], "a went to both or to none");
            assert!(one[1] != other[0], "b went to both or to none");
            witness!("the first thread won both", one[0] && one[1]);
            witness!("the second thread won both", other[0] && other[1]);

            // Their places are free, each once.
            check_nothing_left(&mut wheel);
            let mut places = [a, b].map(|key| key.to_bits() << 32);
            let mut again = [(); 2].map(|()| wheel.insert(tick(1), 'c').to_bits() << 32);
            places.sort_unstable();
            again.sort_unstable();
            assert_eq!(places, again);
        },
    );
}

#[test]
fn a_key_that_travels_unordered_brings_its_value() {
    let witnesses = &["the other thread got it"];
    check(
        Model::new(
            "a_key_that_travels_unordered_brings_its_value",
            4,
            witnesses,
        ),
        || {
            let mut wheel = Wheel::new(Tick::ZERO);
            let remote = wheel.remote();
            let letter = SharedArc::new(AtomicU64::new(0));
            let inbox = SharedArc::clone(&letter);
            let peer = thread::spawn(move || {
                // Relaxed on purpose: nothing but the state word orders the value.
                let key = Key::from_bits(inbox.load(Ordering::Relaxed))?;
                remote.cancel(key)
            });

            let key = wheel.insert(tick(1), 7);
            letter.store(key.to_bits(), Ordering::Relaxed);
            let cancelled = peer.join().expect("it does not panic");
            witness!("the other thread got it", cancelled == Some(7));
            let fired = fire(&mut wheel, 1);
            assert_eq!(fired.len() + usize::from(cancelled.is_some()), 1);
        },
    );
}

#[test]
fn a_guessed_key_finds_an_entry_that_is_whole() {
    let witnesses = &["the other thread got it"];
    check(
        Model::new("a_guessed_key_finds_an_entry_that_is_whole", 10, witnesses),
        || {
            let first = Wheel::new(Tick::ZERO).insert(tick(1), 0);
            let mut wheel = Wheel::new(Tick::ZERO);
            let remote = wheel.remote();
            let peer = thread::spawn(move || remote.cancel(first));
            let key = wheel.insert(tick(1), 7);
            assert_eq!(key, first, "a wheel's first key is known beforehand");
            let cancelled = peer.join().expect("it does not panic");
            witness!("the other thread got it", cancelled == Some(7));
            let fired = fire(&mut wheel, 1);
            assert_eq!(fired.len() + usize::from(cancelled.is_some()), 1);
        },
    );
}

#[test]
fn dropping_the_wheel_shares_out_with_a_remote() {
    let witnesses = &["the remote took it", "the drop did"];
    check(
        Model::new("dropping_the_wheel_shares_out_with_a_remote", 8, witnesses),
        || {
            let drops = Arc::new(AtomicUsize::new(0));
            let mut wheel = Wheel::new(Tick::ZERO);
            let key = wheel.insert(tick(1), Token(1, Arc::clone(&drops)));
            wheel.insert(tick(2), Token(2, Arc::clone(&drops)));
            let remote = wheel.remote();
            let peer = thread::spawn(move || {
                let value = remote.cancel(key).map(|token| token.0);
                (value, remote)
            });
            drop(wheel);
            let (value, remote) = peer.join().expect("it does not panic");
            assert_eq!(
                drops.load(Ordering::Relaxed),
                2,
                "each value is dropped once"
            );
            assert_eq!(remote.len(), 0);
            assert!(remote.cancel(key).is_none());
            witness!("the remote took it", value == Some(1));
            witness!("the drop did", value.is_none());
        },
    );
}
