//! The double of the run queue's deque, and crossbeam's deque, held to the same assertions.
//!
//! Under `--cfg loom` the scenarios search the double, `deque_loom.rs`: its orderings are those of
//! crossbeam-deque 0.8.8, and its seeded faults must be found (`loom-tests/faults.txt`). Without
//! it they run over crossbeam's deque itself, on OS threads.
//!
//! Invariant 1: what was pushed is taken once, by one side, and nothing else is ever taken.
//! Invariant 2: a thief that takes a task sees what its owner did before the push.
//! Invariant 3: a batch keeps the order of the deque it comes from.
//! Invariant 4: of a pusher that looks for sleepers and a sleeper that looks for work, both with a
//! fence between, one sees the other.

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[cfg_attr(
    any(loom, miri),
    path = "../../scheduler/src/green/queue/deque_loom.rs"
)]
#[cfg_attr(
    not(any(loom, miri)),
    path = "../../scheduler/src/green/queue/deque.rs"
)]
mod deque;

/// What the double takes from the scheduler's shim.
#[cfg(any(loom, miri))]
mod shim {
    pub(crate) mod atomic {
        pub(crate) use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering, fence};
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering, fence};
use weald_loom_tests::thread::{self, JoinHandle};
use weald_loom_tests::{Model, check, witness};

use self::deque::{Owner, Stealer};

/// The scheduler's `queue::Steal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steal<T> {
    Empty,
    Success(T),
    Retry,
}

type NewDeque = fn() -> Owner<usize>;

/// Looks `tries` times for a task and returns what it got.
fn thief(stealer: Stealer<usize>, tries: usize) -> JoinHandle<Vec<usize>> {
    thread::spawn(move || {
        (0..tries)
            .filter_map(|_| success(stealer.steal()))
            .collect()
    })
}

fn success(steal: Steal<usize>) -> Option<usize> {
    match steal {
        Steal::Success(task) => Some(task),
        Steal::Empty => None,
        Steal::Retry => {
            witness!("lost a race");
            None
        }
    }
}

fn drain(worker: &Owner<usize>) -> Vec<usize> {
    std::iter::from_fn(|| worker.pop()).collect()
}

/// Invariant 1, for tasks that were numbered from 1 when pushed.
fn check_each_taken_once(pushed: usize, takers: &[&[usize]]) {
    let mut taken = takers.concat();
    taken.sort_unstable();
    assert!(
        taken.iter().copied().eq(1..=pushed),
        "pushed 1..={pushed}, taken {takers:?}"
    );
}

fn join(thread: JoinHandle<Vec<usize>>) -> Vec<usize> {
    thread.join().expect("a thief does not panic")
}

/// The owner pops two tasks while a thief looks twice: the newer one is popped without an exchange,
/// unless the owner sees that it has become the last.
fn owner_pops_against_thief(new: NewDeque) {
    let worker = new();
    worker.push(1);
    worker.push(2);
    let thief = thief(worker.stealer(), 2);
    let popped: Vec<usize> = [worker.pop(), worker.pop()].into_iter().flatten().collect();
    let stolen = join(thief);
    witness!("stole", !stolen.is_empty());
    witness!("popped both", popped.len() == 2);
    let left = drain(&worker);
    check_each_taken_once(2, &[&popped, &stolen, &left]);
    assert!(worker.is_empty());
}

#[test]
fn fifo_owner_pops_against_thief() {
    check(
        Model::new(
            "fifo_owner_pops_against_thief",
            30,
            &["stole", "popped both", "lost a race"],
        ),
        || owner_pops_against_thief(Owner::new_fifo),
    );
}

#[test]
fn lifo_owner_pops_against_thief() {
    check(
        Model::new(
            "lifo_owner_pops_against_thief",
            110,
            &["stole", "popped both"],
        ),
        || owner_pops_against_thief(Owner::new_lifo),
    );
}

/// One task; the owner and two thieves are after it.
fn race_for_last_task(new: NewDeque) {
    let worker = new();
    worker.push(1);
    let thieves = [thief(worker.stealer(), 1), thief(worker.stealer(), 1)];
    let popped: Vec<usize> = worker.pop().into_iter().collect();
    let [first, second] = thieves.map(join);
    witness!("popped", !popped.is_empty());
    witness!("stole", !first.is_empty());
    let left = drain(&worker);
    check_each_taken_once(1, &[&popped, &first, &second, &left]);
}

#[test]
fn fifo_race_for_last_task() {
    check(
        Model::new(
            "fifo_race_for_last_task",
            110,
            &["stole", "popped", "lost a race"],
        ),
        || race_for_last_task(Owner::new_fifo),
    );
}

#[test]
fn lifo_race_for_last_task() {
    check(
        Model::new(
            "lifo_race_for_last_task",
            460,
            &["stole", "popped", "lost a race"],
        ),
        || race_for_last_task(Owner::new_lifo),
    );
}

/// The owner pushes while a thief looks; the task leads to what the owner wrote before.
fn push_against_thief(new: NewDeque) {
    let worker = new();
    let written = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let thief = thread::spawn({
        let stealer = worker.stealer();
        let written = Arc::clone(&written);
        move || {
            let stolen: Vec<usize> = (0..2).filter_map(|_| success(stealer.steal())).collect();
            for &task in &stolen {
                let seen = written[task - 1].load(Ordering::Relaxed);
                assert_eq!(seen, task, "what was written before the push");
            }
            stolen
        }
    });
    for task in 1..=2 {
        written[task - 1].store(task, Ordering::Relaxed);
        worker.push(task);
    }
    let stolen = join(thief);
    witness!("stole none", stolen.is_empty());
    witness!("stole both", stolen.len() == 2);
    let left = drain(&worker);
    check_each_taken_once(2, &[&stolen, &left]);
}

#[test]
fn fifo_push_against_thief() {
    check(
        Model::new("fifo_push_against_thief", 30, &["stole none", "stole both"]),
        || push_against_thief(Owner::new_fifo),
    );
}

/// An owner that overshot a FIFO's end must put the index back before it pushes again.
#[test]
fn fifo_push_after_lost_pop() {
    check(
        Model::new("fifo_push_after_lost_pop", 50, &["stole", "popped"]),
        || {
            let worker = Owner::new_fifo();
            worker.push(1);
            let thief = thief(worker.stealer(), 1);
            let popped: Vec<usize> = worker.pop().into_iter().collect();
            worker.push(2);
            let left = drain(&worker);
            let stolen = join(thief);
            witness!("popped", !popped.is_empty());
            witness!("stole", stolen == [1]);
            let rest = drain(&worker);
            check_each_taken_once(2, &[&popped, &left, &stolen, &rest]);
        },
    );
}

/// The thief takes half of four tasks while the owner pops two.
fn batch_against_owner(new: NewDeque, new_into: NewDeque) {
    let worker = new();
    for task in 1..=4 {
        worker.push(task);
    }
    let thief = thread::spawn({
        let stealer = worker.stealer();
        move || {
            let into = new_into();
            let first = success(stealer.steal_batch_and_pop(&into));
            let moved = drain(&into);
            first.into_iter().chain(moved).collect::<Vec<usize>>()
        }
    });
    let popped: Vec<usize> = [worker.pop(), worker.pop(), worker.pop()]
        .into_iter()
        .flatten()
        .collect();
    let stolen = join(thief);
    witness!("stole one", stolen.len() == 1);
    witness!("stole two", stolen.len() == 2);
    let left = drain(&worker);
    check_each_taken_once(4, &[&popped, &stolen, &left]);
}

#[test]
fn fifo_batch_against_owner() {
    check(
        Model::new(
            "fifo_batch_against_owner",
            35,
            &["stole two", "lost a race"],
        ),
        || batch_against_owner(Owner::new_fifo, Owner::new_fifo),
    );
}

#[test]
fn lifo_batch_against_owner() {
    check(
        Model::new("lifo_batch_against_owner", 65, &["stole one", "stole two"]),
        || batch_against_owner(Owner::new_lifo, Owner::new_lifo),
    );
}

/// A thief moves a batch into its own deque, from where the next thief takes.
#[test]
fn batch_is_passed_on() {
    check(Model::new("batch_is_passed_on", 3, &["passed on"]), || {
        let worker = Owner::new_fifo();
        for task in 1..=3 {
            worker.push(task);
        }
        let into = Owner::new_fifo();
        let second = thief(into.stealer(), 1);
        let first: Vec<usize> = success(worker.stealer().steal_batch_and_pop(&into))
            .into_iter()
            .collect();
        let passed = join(second);
        witness!("passed on", passed == [2]);
        let (left, moved) = (drain(&worker), drain(&into));
        check_each_taken_once(3, &[&first, &passed, &left, &moved]);
    });
}

/// Invariant 3. No race here: crossbeam's order of a batch, for all pairs of flavours.
#[test]
fn batch_keeps_the_order() {
    check(Model::new("batch_keeps_the_order", 1, &[]), || {
        // The deque stolen from, the one stolen into, what is returned, what was moved, and
        // what stealing from oneself returns then: that is popping.
        let cases: [(NewDeque, NewDeque, usize, usize, usize); 4] = [
            (Owner::new_fifo, Owner::new_fifo, 1, 2, 3),
            (Owner::new_fifo, Owner::new_lifo, 1, 2, 3),
            (Owner::new_lifo, Owner::new_lifo, 2, 1, 4),
            (Owner::new_lifo, Owner::new_fifo, 2, 1, 4),
        ];
        for (new, new_into, first, moved, own) in cases {
            let (worker, into) = (new(), new_into());
            for task in 1..=4 {
                worker.push(task);
            }
            assert_eq!(worker.len(), 4);
            let stealer = worker.stealer().clone();
            assert_eq!(stealer.steal_batch_and_pop(&into), Steal::Success(first));
            assert_eq!((into.len(), into.is_empty()), (1, false));
            assert_eq!(drain(&into), [moved]);
            assert_eq!(stealer.len(), 2);
            assert_eq!(stealer.steal_batch_and_pop(&worker), Steal::Success(own));
        }
    });
}

/// More tasks than the ring has slots go through it, while a thief reads slots that the owner
/// fills anew.
fn ring_wraps_around(new: NewDeque) {
    let worker = new();
    let thief = thief(worker.stealer(), 2);
    let mut popped = Vec::new();
    for task in 1..=6 {
        worker.push(task);
        if task >= 3 {
            popped.extend(worker.pop());
        }
    }
    let stolen = join(thief);
    witness!("stole", !stolen.is_empty());
    let left = drain(&worker);
    check_each_taken_once(6, &[&popped, &stolen, &left]);
}

#[test]
fn fifo_ring_wraps_around() {
    check(
        Model::new("fifo_ring_wraps_around", 3600, &["stole", "lost a race"]),
        || ring_wraps_around(Owner::new_fifo),
    );
}

#[test]
fn lifo_ring_wraps_around() {
    check(
        Model::new("lifo_ring_wraps_around", 1100, &["stole"]),
        || ring_wraps_around(Owner::new_lifo),
    );
}

/// No race here either: tasks that nobody took go with the deque, the others with their takers.
#[test]
#[cfg_attr(
    miri,
    ignore = "the double keeps a task as a number, and a pointer loses its provenance"
)]
fn dropped_deque_drops_its_tasks() {
    check(Model::new("dropped_deque_drops_its_tasks", 1, &[]), || {
        let task = std::sync::Arc::new(());
        let worker = Owner::new_fifo();
        for _ in 0..3 {
            worker.push(std::sync::Arc::clone(&task));
        }
        let stealer = worker.stealer();
        drop(worker.pop());
        assert_eq!(std::sync::Arc::strong_count(&task), 3);
        drop(worker);
        assert!(matches!(stealer.steal(), Steal::Success(_)));
        assert_eq!(std::sync::Arc::strong_count(&task), 2);
        drop(stealer);
        assert_eq!(std::sync::Arc::strong_count(&task), 1);
    });
}

/// Invariant 4. The sleeper's fence is the one inside the emptiness test.
#[test]
fn sleeper_or_pusher_sees_the_other() {
    check(
        Model::new(
            "sleeper_or_pusher_sees_the_other",
            5,
            &["saw the task", "saw the sleeper"],
        ),
        || {
            let worker = Owner::new_fifo();
            let sleeping = Arc::new(AtomicUsize::new(0));
            let sleeper = thread::spawn({
                let stealer = worker.stealer();
                let sleeping = Arc::clone(&sleeping);
                move || {
                    sleeping.store(1, Ordering::Relaxed);
                    stealer.is_empty()
                }
            });
            worker.push(1);
            fence(Ordering::SeqCst);
            let sees_sleeper = sleeping.load(Ordering::Relaxed) == 1;
            let sees_no_task = sleeper.join().expect("the sleeper does not panic");
            witness!("saw the task", !sees_no_task);
            witness!("saw the sleeper", sees_sleeper);
            assert!(sees_sleeper || !sees_no_task, "the wake-up is lost");
        },
    );
}
