//! Models of `sync/src/once.rs`, `once_lock.rs` and `lazy_lock.rs`, with the wait queue and all that
//! stands behind it. The threads are OS threads, which wait in place.
//!
//! Invariant 1: one caller at a time does it, and nobody does it again once it was done.
//! Invariant 2: a thread that comes later, or has waited, sees what was done.
//! Invariant 3: the end ends every wait, also if it is an unwinding; then another may do it.
#![allow(unsafe_code, reason = "what is done once has no lock of its own")]

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use weald::sync::{LazyLock, Once, OnceLock};
use weald_loom_tests::cell::Cell;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Deliberate, Model, check, thread, witness};

/// Something that is done once. The cell is loom's: two users that are not ordered are a race.
struct Work {
    once: Once,
    done: Cell<usize>,
}

// SAFETY: that its cell is written by one thread at a time is what the models check.
unsafe impl Sync for Work {}
// SAFETY: a number.
unsafe impl Send for Work {}

impl Work {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            once: Once::new(),
            done: Cell::new(0),
        })
    }

    fn work(&self) {
        self.done.set(self.done.get() + 1);
    }

    fn do_once(&self) {
        self.once.call_once(|| self.work());
        assert_eq!(self.done.get(), 1);
    }
}

#[test]
fn one_does_it_and_the_others_see_it() {
    check(
        Model::new("one_does_it_and_the_others_see_it", 5800, &[]),
        || {
            let work = Work::new();
            let others = [0, 1].map(|_| {
                let work = Arc::clone(&work);
                thread::spawn(move || work.do_once())
            });
            work.do_once();
            for other in others {
                other.join().unwrap();
            }
        },
    );
}

#[test]
fn who_only_looks_sees_all_or_nothing() {
    let witnesses = &["it was done", "it was not"];
    check(
        Model::new("who_only_looks_sees_all_or_nothing", 70, witnesses),
        || {
            let work = Work::new();
            let other = thread::spawn({
                let work = Arc::clone(&work);
                move || work.do_once()
            });
            if work.once.is_completed() {
                witness!("it was done");
                assert_eq!(work.done.get(), 1);
            } else {
                witness!("it was not");
            }
            work.once.wait();
            assert_eq!(work.done.get(), 1);
            other.join().unwrap();
        },
    );
}

#[test]
fn one_that_unwinds_leaves_it_to_the_next() {
    let witnesses = &["it unwound first", "it came too late"];
    check(
        Model::new("one_that_unwinds_leaves_it_to_the_next", 5500, witnesses),
        || {
            let work = Work::new();
            let unwinds = thread::spawn({
                let work = Arc::clone(&work);
                move || {
                    let call = || work.once.call_once_force(|_| panic_any(Deliberate));
                    catch_unwind(AssertUnwindSafe(call)).is_err()
                }
            });
            let waits = thread::spawn({
                let work = Arc::clone(&work);
                move || {
                    work.once.wait_force();
                    assert_eq!(work.done.get(), 1);
                }
            });
            work.once.call_once_force(|_| work.work());
            assert_eq!(work.done.get(), 1);
            let unwound = unwinds.join().unwrap();
            witness!("it unwound first", unwound);
            witness!("it came too late", !unwound);
            waits.join().unwrap();
        },
    );
}

#[test]
fn an_exception_leaves_the_work_to_others() {
    let witnesses = &["interrupted", "saw it done"];
    check(
        Model::new("an_exception_leaves_the_work_to_others", 870, witnesses),
        || {
            let work = Work::new();
            let me = weald_scheduler::current();
            let other = thread::spawn({
                let work = Arc::clone(&work);
                move || {
                    work.once.call_once(|| {
                        me.throw("enough");
                        work.work();
                    });
                }
            });
            let seen = catch_unwind(AssertUnwindSafe(|| work.once.wait())).is_ok();
            witness!("saw it done", seen);
            witness!("interrupted", !seen);
            other.join().unwrap();
            assert_eq!(work.done.get(), 1);
        },
    );
}

/// A value that is written by one thread and read by others.
struct Value(Cell<usize>);

// SAFETY: that reads are ordered after the write is what the models check.
unsafe impl Sync for Value {}
// SAFETY: a number.
unsafe impl Send for Value {}

impl Value {
    fn new(number: usize) -> Self {
        let value = Self(Cell::new(0));
        value.0.set(number);
        value
    }
}

#[test]
fn a_cell_is_written_once_and_seen_whole() {
    let witnesses = &["the first", "the second"];
    check(
        Model::new("a_cell_is_written_once_and_seen_whole", 7700, witnesses),
        || {
            let cell = Arc::new(OnceLock::new());
            let others = [1, 2].map(|number| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || cell.get_or_init(|| Value::new(number)).0.get())
            });
            let seen = cell.wait().0.get();
            witness!("the first", seen == 1);
            witness!("the second", seen == 2);
            for other in others {
                assert_eq!(other.join().unwrap(), seen);
            }
        },
    );
}

#[test]
fn a_value_that_comes_too_late_comes_back() {
    let witnesses = &["it was set", "it came back"];
    check(
        Model::new("a_value_that_comes_too_late_comes_back", 180, witnesses),
        || {
            let cell = Arc::new(OnceLock::new());
            let other = thread::spawn({
                let cell = Arc::clone(&cell);
                move || cell.set(Value::new(1)).is_ok()
            });
            let mine = cell.set(Value::new(2));
            witness!("it was set", mine.is_ok());
            let expected = if let Err(value) = mine {
                witness!("it came back");
                assert_eq!(value.0.get(), 2);
                1
            } else {
                2
            };
            assert_eq!(cell.get().map(|value| value.0.get()), Some(expected));
            assert_eq!(other.join().unwrap(), expected == 1);
        },
    );
}

#[test]
fn a_lazy_value_is_made_once() {
    let witnesses = &["made here", "made there"];
    check(
        Model::new("a_lazy_value_is_made_once", 100, witnesses),
        || {
            let here = thread::current().id();
            let made = Cell::new(0);
            let lazy = Arc::new(LazyLock::new(move || {
                made.set(made.get() + 1);
                assert_eq!(made.get(), 1);
                let made_here = thread::current().id() == here;
                witness!("made here", made_here);
                witness!("made there", !made_here);
                Value::new(7)
            }));
            let other = thread::spawn({
                let lazy = Arc::clone(&lazy);
                move || lazy.0.get()
            });
            assert_eq!(lazy.0.get(), 7);
            assert_eq!(other.join().unwrap(), 7);
        },
    );
}
