//! Models of `sync/src/barrier.rs`, with the mutex, the condition variable and all that stands behind
//! them. The threads are OS threads, which wait in place.
//!
//! Invariant 1: no thread leaves a round before all have come, and then all leave.
//! Invariant 2: one of them leads.
//! Invariant 3: it can be used again at once: a thread that is late to leave a round is not kept by the next one.

use weald::sync::Barrier;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

#[test]
fn two_meet_in_two_rounds() {
    let witnesses = &["this one leads", "the other one leads"];
    check(Model::new("two_meet_in_two_rounds", 350, witnesses), || {
        let barrier = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let barrier = Arc::clone(&barrier);
            move || [0, 1].map(|_| barrier.wait().is_leader())
        });
        let mine = [0, 1].map(|_| barrier.wait().is_leader());
        let theirs = other.join().unwrap();
        witness!("this one leads", mine[0]);
        witness!("the other one leads", theirs[0]);
        for (mine, theirs) in mine.into_iter().zip(theirs) {
            assert!(mine != theirs, "one leads");
        }
    });
}

#[test]
fn three_meet_once() {
    check(Model::new("three_meet_once", 3900, &[]), || {
        let barrier = Arc::new(Barrier::new(3));
        let others = [0, 1].map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || barrier.wait().is_leader())
        });
        let mine = barrier.wait().is_leader();
        let leaders = others.map(|other| other.join().unwrap());
        let leaders = leaders.iter().filter(|&&leads| leads).count();
        assert_eq!(leaders + usize::from(mine), 1, "one leads");
    });
}
