//! Models of `scheduler/src/parts/timer_place.rs`: a worker that puts a call into its wheel, and a canceller.
//!
//! Invariant 1: a call that was cancelled leaves no entry behind.
//! Invariant 2: the runtime's number of entries on the way is right in the end.

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/timer_place.rs"]
#[allow(dead_code, reason = "the call that is never due has no model")]
mod timer_place;

use weald_loom_tests::sync as shim;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering};
use weald_loom_tests::{Model, check, thread, witness};

use self::timer_place::{Found, TimerPlace};

const KEY: u64 = 7;

struct Entry {
    place: TimerPlace,
    /// In the wheel, by its key; 0: it is not.
    wheel: AtomicUsize,
    on_the_way: AtomicUsize,
}

impl Entry {
    fn take_out(&self, key: u64) {
        assert_eq!(key, KEY, "the key is that of the entry");
        self.wheel.store(0, Ordering::Relaxed);
    }
}

#[test]
fn a_cancelled_call_leaves_no_entry_behind() {
    let model = Model::new(
        "a_cancelled_call_leaves_no_entry_behind",
        2,
        &["settled first", "cancelled first"],
    );
    check(model, || {
        let entry = Arc::new(Entry {
            place: TimerPlace::on_the_way(),
            wheel: AtomicUsize::new(0),
            on_the_way: AtomicUsize::new(1),
        });
        let worker = thread::spawn({
            let entry = Arc::clone(&entry);
            move || {
                entry.wheel.store(1, Ordering::Relaxed);
                if entry.place.settle(0, KEY) {
                    entry.on_the_way.fetch_sub(1, Ordering::Relaxed);
                } else {
                    entry.take_out(KEY);
                }
            }
        });
        let found = entry.place.withdraw();
        match found {
            Found::OnTheWay => {
                entry.on_the_way.fetch_sub(1, Ordering::Relaxed);
            }
            Found::InWheel(worker, key) => {
                assert_eq!(worker, 0);
                entry.take_out(key);
            }
            Found::Nowhere => unreachable!("it was on the way"),
        }
        worker.join().unwrap();
        witness!("settled first", found != Found::OnTheWay);
        witness!("cancelled first", found == Found::OnTheWay);
        assert_eq!(entry.wheel.load(Ordering::Relaxed), 0);
        assert_eq!(entry.on_the_way.load(Ordering::Relaxed), 0);
    });
}
