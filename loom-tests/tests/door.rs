//! Models of `scheduler/src/door.rs`: a carrier that enters and leaves against a monitor that takes
//! its seat.
//!
//! Invariant 1: the seat has one user at a time, and each sees what the one before did.
//! Invariant 2: the seat is never nobody's: either the owner still has it or the monitor got it.
//! Invariant 3: an owner that gave its seat away is not robbed of it.
//! Invariant 4: while an owner is held out, it touches nothing.
#![allow(unsafe_code, reason = "a seat without a lock is what is checked")]

#[path = "../../scheduler/src/door.rs"]
#[allow(dead_code, reason = "the hints have no model")]
mod door;

/// What the door takes from the scheduler's shim.
mod shim {
    pub(crate) mod atomic {
        pub(crate) use weald_loom_tests::sync::atomic::{
            AtomicBool, AtomicPtr, AtomicUsize, Ordering,
        };
    }

    pub(crate) mod barrier {
        use weald_loom_tests::sync::atomic::{Ordering, fence};

        pub(crate) fn light() {
            fence(Ordering::SeqCst);
        }

        pub(crate) fn heavy() -> bool {
            fence(Ordering::SeqCst);
            true
        }
    }

    pub(crate) mod sync {
        #[cfg(loom)]
        use loom::sync as real;
        #[cfg(not(loom))]
        use std::sync as real;

        #[derive(Debug)]
        pub(crate) struct Mutex<T>(real::Mutex<T>);

        impl<T> Mutex<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(real::Mutex::new(value))
            }

            pub(crate) fn lock(&self) -> real::MutexGuard<'_, T> {
                self.0.lock().expect("nobody panics under the lock")
            }
        }
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::door::Door;

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
