//! Models of `scheduler/src/parts/door.rs`: a carrier that enters and leaves against a monitor that takes
//! its seat.
//!
//! Invariant 1: the seat has one user at a time, and each sees what the one before did.
//! Invariant 2: the seat is never lost: either the owner still has it or the monitor got it.
//! Invariant 3: an owner that gave its seat away is not robbed of it.
//! Invariant 4: while an owner is held out, it touches nothing.
//! Invariant 5: the thread in a worker's `RunNext` (`scheduler/src/green/queue/run_next.rs`) is found once: by the
//! owner, or by the monitor, which holds the owner out and moves the thread to where thieves find it.
#![allow(unsafe_code, reason = "a seat without a lock is what is checked")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/door.rs"]
#[allow(dead_code, reason = "the hints have no model")]
mod door;
mod message;
#[path = "../../scheduler/src/green/queue/run_next.rs"]
#[allow(
    dead_code,
    clippy::drop_non_drop,
    reason = "who only asks has no model; a double counts nothing when it is dropped"
)]
mod run_next;

/// The floor that a slot is on.
mod green {
    pub(crate) use super::green_thread;
}

/// What lies in a slot.
mod green_thread {
    pub(crate) type Header = super::Message;

    /// One of the model's, which outlive it.
    #[derive(Debug)]
    pub(crate) struct Task(*mut Header);

    impl Task {
        pub(crate) fn new(header: &Header) -> Self {
            Self(std::ptr::from_ref(header).cast_mut())
        }

        pub(crate) fn into_raw(self) -> *mut Header {
            self.0
        }

        pub(crate) unsafe fn from_raw(header: *mut Header) -> Self {
            Self(header)
        }

        pub(crate) fn run(self) {
            // SAFETY: it outlives the slot.
            unsafe { &*self.0 }.add(1);
        }
    }
}

#[path = "door_shim/mod.rs"]
mod shim;

use weald_loom_tests::cell::UnsafeCell;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::door::Door;
use self::green_thread::Task;
use self::message::Message;
use self::run_next::RunNext;

/// Something with one user at a time and no lock: loom reports two as a race.
#[derive(Debug)]
struct Seat {
    #[cfg(loom)]
    touches: loom::cell::UnsafeCell<usize>,
    #[cfg(not(loom))]
    touches: std::cell::UnsafeCell<usize>,
    /// Seats are aligned as pointers are.
    _align: usize,
}

// SAFETY: that it is used by one thread at a time is what the models check.
unsafe impl Sync for Seat {}
// SAFETY: a number.
unsafe impl Send for Seat {}

impl Seat {
    #[cfg(loom)]
    fn touch(&self) -> usize {
        // SAFETY: loom checks that nobody else is there.
        self.touches.with_mut(|touches| unsafe {
            *touches += 1;
            *touches
        })
    }

    #[cfg(not(loom))]
    fn touch(&self) -> usize {
        // SAFETY: what is checked: nobody else is there.
        unsafe {
            let touches = self.touches.get();
            *touches += 1;
            *touches
        }
    }
}

/// A door whose owner, the caller, is outside and holds the seat.
fn seated() -> (Arc<Door<Seat>>, Arc<Seat>) {
    let seat = Arc::new(Seat {
        #[cfg(loom)]
        touches: loom::cell::UnsafeCell::default(),
        #[cfg(not(loom))]
        touches: std::cell::UnsafeCell::default(),
        _align: 0,
    });
    let door = Arc::new(Door::new());
    door.enter();
    door.sit(&raw const *seat);
    seat.touch();
    door.leave();
    (door, seat)
}

#[test]
fn a_seat_has_one_user() {
    let witnesses = &["seized", "kept", "lost at once", "lost later"];
    check(Model::new("a_seat_has_one_user", 20, witnesses), || {
        let (door, seat) = seated();
        let monitor = thread::spawn({
            let (door, seat) = (Arc::clone(&door), Arc::clone(&seat));
            move || {
                let seized = door.seize(&raw const *seat);
                if seized {
                    seat.touch();
                }
                seized
            }
        });
        let mut had = [false; 2];
        for had in &mut had {
            door.enter();
            if !door.seat().is_null() {
                *had = true;
                seat.touch();
            }
            door.leave();
        }
        let seized = monitor.join().unwrap();
        witness!("seized", seized);
        witness!("kept", !seized);
        witness!("lost at once", !had[0]);
        witness!("lost later", had[0] && !had[1]);
        assert!(had[0] || !had[1], "a seat that was lost does not come back");
        assert!(seized || had[1], "the seat is somebody's");
        door.enter();
        assert_eq!(door.seat().is_null(), seized, "the owner knows");
        assert_eq!(door.losses(), usize::from(seized));
        let touches = 2 + usize::from(seized) + had.iter().filter(|&&had| had).count();
        if !seized {
            assert_eq!(seat.touch(), touches);
        }
    });
}

#[test]
fn a_seat_that_was_given_away_is_not_seized() {
    let witnesses = &["seized", "given away"];
    check(
        Model::new("a_seat_that_was_given_away_is_not_seized", 10, witnesses),
        || {
            let (door, seat) = seated();
            let monitor = thread::spawn({
                let (door, seat) = (Arc::clone(&door), Arc::clone(&seat));
                move || {
                    let seized = door.seize(&raw const *seat);
                    if seized {
                        seat.touch();
                    }
                    seized
                }
            });
            door.enter();
            let mine = !door.seat().is_null();
            if mine {
                door.sit(std::ptr::null());
            }
            door.leave();
            if mine {
                // Whoever was given it.
                seat.touch();
            }
            let seized = monitor.join().unwrap();
            witness!("seized", seized);
            witness!("given away", mine);
            assert!(mine != seized, "it has one user");
            assert!(door.held().is_null());
        },
    );
}

#[test]
fn a_seat_that_was_given_away_and_back_is_one_users() {
    let witnesses = &["seized", "kept"];
    check(
        Model::new(
            "a_seat_that_was_given_away_and_back_is_one_users",
            10,
            witnesses,
        ),
        || {
            let (door, seat) = seated();
            let monitor = thread::spawn({
                let (door, seat) = (Arc::clone(&door), Arc::clone(&seat));
                move || {
                    let seized = door.seize(&raw const *seat);
                    if seized {
                        seat.touch();
                    }
                    seized
                }
            });
            door.enter();
            if !door.seat().is_null() {
                door.sit(std::ptr::null());
                seat.touch();
                door.sit(&raw const *seat);
            }
            door.leave();
            door.enter();
            let kept = !door.seat().is_null();
            if kept {
                seat.touch();
            }
            door.leave();
            let seized = monitor.join().unwrap();
            witness!("seized", seized);
            witness!("kept", kept);
            assert!(kept || seized, "it is somebody's");
        },
    );
}

#[test]
fn an_owner_that_is_held_out_touches_nothing() {
    let witnesses = &["held out", "was inside"];
    check(
        Model::new("an_owner_that_is_held_out_touches_nothing", 10, witnesses),
        || {
            let (door, seat) = seated();
            let monitor = thread::spawn({
                let (door, seat) = (Arc::clone(&door), Arc::clone(&seat));
                move || door.hold_out(|| seat.touch()).is_some()
            });
            door.enter();
            seat.touch();
            assert!(!door.seat().is_null(), "the seat was only looked at");
            door.leave();
            let held_out = monitor.join().unwrap();
            witness!("held out", held_out);
            witness!("was inside", !held_out);
            door.enter();
            assert_eq!(seat.touch(), 3 + usize::from(held_out));
        },
    );
}

/// As far as its slot goes.
struct Worker {
    slot: RunNext,
    /// Where thieves look; the owner's to push to.
    ready: UnsafeCell<Vec<Task>>,
}

// SAFETY: that it is used by one thread at a time is what the models check.
unsafe impl Sync for Worker {}
// SAFETY: as above.
unsafe impl Send for Worker {}

impl Worker {
    /// As the real one. True: something was there.
    fn share_slot(&self) -> bool {
        // SAFETY: that the caller is the owner for the time is what is checked.
        let task = unsafe { self.slot.take() };
        let is_some = task.is_some();
        if let Some(task) = task {
            self.push(task);
        }
        is_some
    }

    fn push(&self, task: Task) {
        // SAFETY: loom checks that nobody else is there.
        self.ready.with_mut(|ready| unsafe { (*ready).push(task) });
    }

    /// The owner wakes a thread.
    fn put(&self, task: Task) {
        // SAFETY: as in `share_slot`.
        if let Some(old) = unsafe { self.slot.put(task) } {
            self.push(old);
        }
    }

    /// The owner runs all there is.
    fn run_all(&self) {
        // SAFETY: as in `share_slot`.
        if let Some(task) = unsafe { self.slot.take() } {
            task.run();
        }
        // SAFETY: as in `push`.
        let ready = self
            .ready
            .with_mut(|ready| unsafe { std::mem::take(&mut *ready) });
        ready.into_iter().for_each(Task::run);
    }
}

/// A carrier with a worker in whose slot the first of two threads is; the carrier, the caller, is outside.
fn with_a_full_slot() -> (Arc<Door<Worker>>, Arc<Worker>, Arc<[Message; 2]>) {
    let tasks = Arc::new([Message::new(0), Message::new(0)]);
    let worker = Arc::new(Worker {
        slot: RunNext::new(),
        ready: UnsafeCell::new(Vec::new()),
    });
    let door = Arc::new(Door::new());
    door.enter();
    door.sit(&raw const *worker);
    worker.put(Task::new(&tasks[0]));
    door.leave();
    (door, worker, tasks)
}

/// As the monitor. `None`: the carrier is inside, or has the seat no more.
fn share_slot(door: &Arc<Door<Worker>>, worker: &Arc<Worker>) -> thread::JoinHandle<Option<bool>> {
    let (door, worker) = (Arc::clone(door), Arc::clone(worker));
    thread::spawn(move || door.hold_out_of(&raw const *worker, || worker.share_slot()))
}

#[test]
fn what_is_in_a_slot_is_found_once() {
    let witnesses = &["shared", "was inside", "too late"];
    check(
        Model::new("what_is_in_a_slot_is_found_once", 78, witnesses),
        || {
            let (door, worker, tasks) = with_a_full_slot();
            let monitor = share_slot(&door, &worker);
            door.enter();
            worker.put(Task::new(&tasks[1]));
            door.leave();
            door.enter();
            worker.run_all();
            door.leave();
            let shared = monitor.join().unwrap();
            witness!("shared", shared == Some(true));
            witness!("too late", shared == Some(false));
            witness!("was inside", shared.is_none());
            door.enter();
            worker.run_all();
            assert_eq!(tasks.each_ref().map(Message::look), [1, 1]);
        },
    );
}

#[test]
fn a_slot_goes_with_its_seat() {
    let witnesses = &["shared", "has another holder"];
    check(
        Model::new("a_slot_goes_with_its_seat", 28, witnesses),
        || {
            let (door, worker, tasks) = with_a_full_slot();
            let monitor = share_slot(&door, &worker);
            door.enter();
            door.sit(std::ptr::null());
            door.leave();
            // Whoever was given the seat.
            worker.put(Task::new(&tasks[1]));
            worker.run_all();
            let shared = monitor.join().unwrap();
            witness!("shared", shared.is_some());
            witness!("has another holder", shared.is_none());
            assert_eq!(tasks.each_ref().map(Message::look), [1, 1]);
        },
    );
}
