//! Models of `sync/src/raw_rwlock.rs`: the lock of one word and two queues, with these and all that
//! stands behind them. The threads are OS threads, which wait in place.
//!
//! Invariant 1: the lock has readers or one writer, and each sees what the writers before did.
//! Invariant 2: nobody waits for a lock that admits it.
//! Invariant 3: a waiter that gives up lets in the threads that waited because of it.
#![allow(unsafe_code, reason = "what the lock guards has no lock of its own")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../sync/src/raw_mutex.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "`mutex.rs` has its models; outside it is public"
)]
mod raw_mutex;
#[path = "../../sync/src/raw_rwlock.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "much has no model; outside it is public"
)]
mod raw_rwlock;
mod shim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use weald_loom_tests::cell::UnsafeCell;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::raw_rwlock::RawRwLock;

/// Something that a lock guards; loom reports a writer beside others as a race.
struct Guarded {
    lock: RawRwLock,
    writes: UnsafeCell<usize>,
}

// SAFETY: that it has readers or one writer is what the models check.
unsafe impl Sync for Guarded {}
// SAFETY: a number.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new() -> Arc<Self> {
        shim::clock::LOOKS.store(0, Ordering::Relaxed);
        Arc::new(Self {
            lock: RawRwLock::new(),
            writes: UnsafeCell::new(0),
        })
    }

    /// With the lock to read.
    fn look(&self) -> usize {
        // SAFETY: what is checked: the caller may read.
        self.writes.with(|writes| unsafe { *writes })
    }

    /// With the lock to write.
    fn touch(&self) {
        // SAFETY: what is checked: the caller may write.
        self.writes.with_mut(|writes| unsafe { *writes += 1 });
    }

    fn read(&self) -> usize {
        self.lock.read(None);
        let writes = self.look();
        self.lock.release_read();
        writes
    }

    fn write(&self) {
        self.lock.write(None);
        self.touch();
        self.lock.release();
    }

    fn check_free(&self, writes: usize) {
        assert!(self.lock.try_read(), "somebody writes or waits still");
        assert_eq!(self.look(), writes, "a write is not seen");
        self.lock.release_read();
        assert!(self.lock.try_write(), "somebody reads still");
        self.lock.release();
    }
}

fn spawn<T: Send + 'static>(
    guarded: &Arc<Guarded>,
    body: impl FnOnce(&Guarded) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let guarded = Arc::clone(guarded);
    thread::spawn(move || body(&guarded))
}

#[test]
fn a_writer_meets_a_reader() {
    let witnesses = &["read before", "read after"];
    check(Model::new("a_writer_meets_a_reader", 20, witnesses), || {
        let guarded = Guarded::new();
        let other = spawn(&guarded, Guarded::write);
        let seen = guarded.read();
        witness!("read before", seen == 0);
        witness!("read after", seen == 1);
        other.join().unwrap();
        guarded.check_free(1);
    });
}

#[test]
fn two_writers_meet() {
    check(Model::new("two_writers_meet", 13, &[]), || {
        let guarded = Guarded::new();
        let other = spawn(&guarded, Guarded::write);
        guarded.write();
        other.join().unwrap();
        guarded.check_free(2);
    });
}

#[test]
fn a_writer_waits_for_two_readers() {
    check(
        Model::new("a_writer_waits_for_two_readers", 630, &[]),
        || {
            let guarded = Guarded::new();
            guarded.lock.read(None);
            let writer = spawn(&guarded, Guarded::write);
            let reader = spawn(&guarded, Guarded::read);
            guarded.look();
            guarded.lock.release_read();
            writer.join().unwrap();
            reader.join().unwrap();
            guarded.check_free(1);
        },
    );
}

#[test]
fn a_writer_lets_in_readers_and_a_writer() {
    check(
        Model::new("a_writer_lets_in_readers_and_a_writer", 1250, &[]),
        || {
            let guarded = Guarded::new();
            guarded.lock.write(None);
            let writer = spawn(&guarded, Guarded::write);
            let reader = spawn(&guarded, Guarded::read);
            guarded.touch();
            guarded.lock.release();
            writer.join().unwrap();
            assert_ne!(reader.join().unwrap(), 0, "the first write comes before");
            guarded.check_free(2);
        },
    );
}

#[test]
fn a_writer_that_becomes_a_reader_lets_readers_in() {
    check(
        Model::new("a_writer_that_becomes_a_reader_lets_readers_in", 13, &[]),
        || {
            let guarded = Guarded::new();
            guarded.lock.write(None);
            let reader = spawn(&guarded, Guarded::read);
            guarded.touch();
            guarded.lock.downgrade();
            assert_eq!(reader.join().unwrap(), 1);
            assert_eq!(guarded.look(), 1);
            guarded.lock.release_read();
            guarded.check_free(1);
        },
    );
}

#[test]
fn a_writer_whose_time_is_up_lets_readers_in() {
    check(
        Model::new("a_writer_whose_time_is_up_lets_readers_in", 300, &[]),
        || {
            let guarded = Guarded::new();
            guarded.lock.read(None);
            let writer = spawn(&guarded, |guarded| {
                let limit = Duration::from_millis(1);
                guarded.lock.write(weald_scheduler::io::deadline(limit))
            });
            let reader = spawn(&guarded, Guarded::read);
            assert!(!writer.join().unwrap(), "somebody reads all the time");
            reader.join().unwrap();
            guarded.lock.release_read();
            guarded.check_free(0);
        },
    );
}

#[test]
fn an_exception_ends_the_wait_of_a_writer() {
    let witnesses = &["interrupted", "wrote"];
    check(
        Model::new("an_exception_ends_the_wait_of_a_writer", 640, witnesses),
        || {
            let guarded = Guarded::new();
            guarded.lock.write(None);
            let me = weald_scheduler::current();
            let owner = spawn(&guarded, move |guarded| {
                me.throw("enough");
                guarded.touch();
                guarded.lock.release();
            });
            let wrote = catch_unwind(AssertUnwindSafe(|| guarded.write())).is_ok();
            witness!("wrote", wrote);
            witness!("interrupted", !wrote);
            owner.join().unwrap();
            guarded.check_free(1 + usize::from(wrote));
        },
    );
}

#[test]
fn who_has_waited_for_long_gets_its_turn_and_leaves_no_trace() {
    shim::clock::PASSES.store(1, Ordering::Relaxed);
    check(
        Model::new(
            "who_has_waited_for_long_gets_its_turn_and_leaves_no_trace",
            310,
            &[],
        ),
        || {
            let guarded = Guarded::new();
            let other = spawn(&guarded, |guarded| {
                guarded.write();
                guarded.write();
            });
            guarded.write();
            guarded.read();
            other.join().unwrap();
            guarded.check_free(3);
        },
    );
}
