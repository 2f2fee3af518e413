//! Models of `scheduler/src/engine/seat.rs` and of the carriers' doors: which carrier gets the worker of a green thread
//! that does not come back, and how that thread's carrier gets a worker again.
//!
//! The carriers of the first models do what `Carrier::run` and `Carrier::idle` do, over a count in
//! place of a run queue; main is the monitor. The last models have the whole scheduler.
//!
//! Invariant 1: a worker's core has one user at a time, and each sees what the one before did.
//! Invariant 2: no seat is lost: a carrier that needs one gets it. A lost seat is a deadlock here, because nothing
//! else can end the model.
//! Invariant 3: if no OS thread could be started for a seat, the next carrier that comes finds it.
//! Invariant 4: a spare that retires takes no seat along, and each OS thread is counted out once.
//! Invariant 5: a spare that is counted before its OS thread is there, and then gets none, keeps no seat.
#![cfg(loom)]
#![allow(unsafe_code, reason = "a core without a lock is what is checked")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/door.rs"]
#[allow(dead_code, reason = "what only the monitor's reports need")]
mod door;
#[path = "../../scheduler/src/parts/idle.rs"]
#[allow(dead_code, reason = "there is one worker")]
mod idle;
#[path = "../../scheduler/src/engine/seat.rs"]
#[allow(dead_code, reason = "mail has no model")]
mod seat;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod shim;

/// What a seat takes from a runtime.
mod runtime {
    use super::door::Door;
    use super::idle::Idle;
    use super::seat::{House, Seat, Seats};
    use super::shim::atomic::{AtomicBool, AtomicUsize, Ordering};
    use super::shim::sync::{Arc, Mutex};
    use weald_loom_tests::Flag;

    pub(crate) struct Worker {
        pub(crate) seat: Seat,
        core: loom::cell::UnsafeCell<usize>,
        woken: Flag,
    }

    // SAFETY: that the core is used by one thread at a time is what the models check.
    unsafe impl Sync for Worker {}
    // SAFETY: numbers.
    unsafe impl Send for Worker {}

    impl Worker {
        /// The holder uses the core.
        pub(crate) fn touch(&self) {
            // SAFETY: loom checks that nobody else is there.
            self.core.with_mut(|core| unsafe { *core += 1 });
        }

        pub(crate) fn sleep(&self) {
            self.woken.wait();
        }

        pub(crate) fn unpark(&self) {
            self.woken.set();
        }
    }

    pub(crate) struct Carrier {
        pub(crate) door: Door<Worker>,
        /// Green threads of its own that are ready.
        pub(crate) ready: AtomicUsize,
    }

    pub(crate) struct Inner {
        pub(crate) seats: Seats,
        pub(crate) workers: Vec<Worker>,
        pub(crate) carriers: Vec<Carrier>,
        pub(crate) idle: Idle,
        pub(crate) stopping: AtomicBool,
        pub(crate) threads: Mutex<Vec<loom::thread::JoinHandle<()>>>,
        /// OS threads that the system still starts.
        pub(crate) startable: AtomicUsize,
        /// Those that it did not start.
        pub(crate) refused: AtomicUsize,
        /// What the green thread of carrier 0 does.
        pub(crate) program: fn(&super::Arc<Inner>, u32) -> bool,
        pub(crate) turns: AtomicUsize,
        /// All first carriers have been started.
        pub(crate) opened: Flag,
        /// Carrier 1 has had a seat.
        pub(crate) relieved: Flag,
    }

    impl Inner {
        pub(crate) fn new(startable: usize, program: fn(&super::Arc<Inner>, u32) -> bool) -> Self {
            Self {
                seats: Seats::new(2),
                workers: vec![Worker {
                    seat: Seat::new(),
                    core: loom::cell::UnsafeCell::new(0),
                    woken: Flag::new(),
                }],
                carriers: (0..2)
                    .map(|index| Carrier {
                        door: Door::new(),
                        ready: AtomicUsize::new(usize::from(index == 0)),
                    })
                    .collect(),
                idle: Idle::new(1),
                stopping: AtomicBool::new(false),
                threads: Mutex::new(Vec::new()),
                startable: AtomicUsize::new(startable),
                refused: AtomicUsize::new(0),
                program,
                turns: AtomicUsize::new(0),
                opened: Flag::new(),
                relieved: Flag::new(),
            }
        }

        pub(crate) fn notify(&self) {
            if let Some(worker) = self.idle.notify() {
                self.workers[worker].unpark();
            }
        }

        pub(crate) fn stop(&self) {
            self.stopping.store(true, Ordering::Release);
            self.seats.stop();
            self.workers[0].unpark();
        }
    }

    impl House for Inner {
        fn workers(&self) -> usize {
            self.workers.len()
        }

        fn seat(&self, worker: usize) -> &Seat {
            &self.workers[worker].seat
        }

        fn notify(&self) {
            self.notify();
        }

        fn start(this: &Arc<Self>, carrier: usize) -> std::io::Result<()> {
            super::carrier::start(this, carrier)
        }
    }
}

/// What a seat takes from the carriers: what they do with it.
mod carrier {
    use weald_loom_tests::witness;

    use super::runtime::{Inner, Worker};
    use super::seat::Waited;
    use super::shim::atomic::Ordering;
    use super::shim::sync::Arc;

    pub(crate) fn start(inner: &Arc<Inner>, index: usize) -> std::io::Result<()> {
        let left = inner.startable.load(Ordering::Relaxed);
        if left == 0 {
            witness!("could not start");
            inner.refused.fetch_add(1, Ordering::Relaxed);
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        inner.startable.store(left - 1, Ordering::Relaxed);
        let thread = loom::thread::spawn({
            let inner = inner.clone();
            move || run(&inner, index)
        });
        inner.threads.lock().push(thread);
        Ok(())
    }

    /// As `Carrier::run`.
    fn run(inner: &Arc<Inner>, index: usize) {
        let carrier = &inner.carriers[index];
        carrier.door.enter();
        loop {
            // SAFETY: workers live as long as the model.
            let Some(worker) = (unsafe { carrier.door.seat().as_ref() }) else {
                let needs = || carrier.ready.load(Ordering::Relaxed) > 0;
                // It settles when its first thread has started.
                match inner.seats.wait(inner, index, needs, index == 0) {
                    Waited::Seated(worker) => carrier.door.sit(&raw const inner.workers[worker]),
                    Waited::Stopping => break,
                    Waited::Retired => {
                        witness!("retired");
                        inner.seats.retired(index);
                        return;
                    }
                }
                continue;
            };
            if inner.stopping.load(Ordering::Acquire) {
                carrier.door.sit(std::ptr::null());
                break;
            }
            worker.touch();
            if index == 1 {
                inner.relieved.set();
            }
            if carrier.ready.load(Ordering::Relaxed) > 0 {
                carrier.ready.store(0, Ordering::Relaxed);
                dispatch(inner, index);
            } else if !pass(inner, index, worker) {
                sleep(inner, worker);
            }
        }
        inner.seats.ended();
    }

    /// As `Carrier::dispatch`: the green thread of carrier 0 runs outside of the door.
    fn dispatch(inner: &Arc<Inner>, index: usize) {
        let carrier = &inner.carriers[index];
        let turn = inner.turns.load(Ordering::Relaxed);
        inner.turns.store(turn + 1, Ordering::Relaxed);
        carrier.door.leave();
        let goes_on = (inner.program)(inner, u32::try_from(turn).unwrap());
        witness!("was seized", !carrier.door.enter());
        if goes_on {
            carrier.ready.store(1, Ordering::Relaxed);
        } else {
            inner.stop();
        }
    }

    /// As `Carrier::pass`.
    fn pass(inner: &Inner, index: usize, worker: &Worker) -> bool {
        if !inner.seats.somebody_waits() {
            return false;
        }
        let door = &inner.carriers[index].door;
        door.sit(std::ptr::null());
        if inner.seats.pass(inner, 0) {
            witness!("passed");
            return true;
        }
        door.sit(worker);
        false
    }

    /// As `Carrier::idle`.
    fn sleep(inner: &Inner, worker: &Worker) {
        inner.idle.sleep(0, false);
        let in_sight = inner.seats.somebody_waits() || inner.stopping.load(Ordering::Acquire);
        let searches = if in_sight {
            inner.idle.stay(0);
            true
        } else {
            worker.sleep();
            inner.idle.wake(0)
        };
        if searches {
            let _ = inner.idle.found();
        }
    }

    /// As `Away::begin`, when others wait: the running thread gives the seat of carrier 0 away.
    pub(crate) fn give_up_seat(inner: &Arc<Inner>) {
        let door = &inner.carriers[0].door;
        let _inside = door.section();
        if !door.seat().is_null() && inner.seats.prepare(inner).is_ok() {
            door.sit(std::ptr::null());
            inner.seats.release(inner, 0);
        }
    }

    /// As `Carrier::give_up_seat`, whoever there is to take it.
    pub(crate) fn drop_seat(inner: &Arc<Inner>) {
        let door = &inner.carriers[0].door;
        let _inside = door.section();
        if !door.seat().is_null() {
            door.sit(std::ptr::null());
            inner.seats.release(inner, 0);
        }
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::Ordering;
use weald_loom_tests::{Flag, Model, check, witness};
use weald_scheduler::Runtime;

use self::runtime::Inner;

/// As the monitor: takes the seat of a thread that does not come back. True: it did.
fn seize(inner: &Arc<Inner>) -> bool {
    let worker = &inner.workers[0];
    let seized = inner.seats.has_taker() && inner.carriers[0].door.seize(worker);
    if seized {
        worker.touch();
        inner.seats.give(inner, 0);
    }
    seized
}

/// Until the last carrier has ended.
fn join(inner: &Inner) {
    loop {
        let thread = inner.threads.lock().pop();
        let Some(thread) = thread else { break };
        thread.join().unwrap();
    }
    assert_eq!(inner.seats.carriers(), 0, "an OS thread is counted twice");
}

#[test]
fn a_thread_comes_back_to_a_seat_that_was_taken() {
    let witnesses = &["was seized", "passed", "too late"];
    check(
        Model::new(
            "a_thread_comes_back_to_a_seat_that_was_taken",
            90,
            witnesses,
        ),
        || {
            let inner = Arc::new(Inner::new(2, |_, turn| turn == 0));
            inner.seats.open(&inner).expect("both can be started");
            witness!("too late", !seize(&inner));
            join(&inner);
        },
    );
}

#[test]
fn a_seat_that_no_thread_took_is_found() {
    let witnesses = &["could not start", "was seized"];
    check(
        Model::new("a_seat_that_no_thread_took_is_found", 90, witnesses),
        || {
            let inner = Arc::new(Inner::new(1, |_, turn| turn == 0));
            inner.seats.open(&inner).expect("the first can be started");
            seize(&inner);
            join(&inner);
            let stranded = inner.seats.counts.stranded.load(Ordering::Relaxed);
            let refused = inner.refused.load(Ordering::Relaxed);
            assert_eq!(stranded, refused as u64, "it is counted");
        },
    );
}

#[test]
fn a_spare_retires_while_its_seat_comes() {
    let witnesses = &["retired", "passed"];
    check(
        Model::new("a_spare_retires_while_its_seat_comes", 250, witnesses),
        || {
            let inner = Arc::new(Inner::new(4, |inner, turn| {
                carrier::give_up_seat(inner);
                turn < 2
            }));
            inner.seats.open(&inner).expect("all can be started");
            join(&inner);
        },
    );
}

#[test]
fn a_spare_that_gets_no_os_thread_keeps_no_seat() {
    let witnesses = &["could not start"];
    check(
        Model::new(
            "a_spare_that_gets_no_os_thread_keeps_no_seat",
            20,
            witnesses,
        ),
        || {
            // The carrier lets go of its seat while the monitor tries to start a spare, and comes back.
            let inner = Arc::new(Inner::new(1, |inner, turn| {
                if turn == 0 {
                    inner.opened.wait();
                }
                carrier::drop_seat(inner);
                turn == 0
            }));
            inner.seats.open(&inner).expect("the first can be started");
            inner.opened.set();
            let prepared = inner.seats.prepare(&inner);
            assert!(prepared.is_err(), "the system starts no other");
            join(&inner);
        },
    );
}

#[test]
fn a_seat_that_is_nobodys_goes_to_an_os_thread_that_can_be_started_later() {
    let witnesses = &["could not start"];
    let name = "a_seat_that_is_nobodys_goes_to_an_os_thread_that_can_be_started_later";
    check(Model::new(name, 4, witnesses), || {
        // The thread comes back only when another carrier has had its seat.
        let inner = Arc::new(Inner::new(1, |inner, _| {
            inner.opened.wait();
            carrier::drop_seat(inner);
            inner.relieved.wait();
            false
        }));
        inner.seats.open(&inner).expect("the first can be started");
        inner.opened.set();
        while inner.seats.counts.stranded.load(Ordering::Relaxed) == 0 {
            weald_loom_tests::thread::yield_now();
        }
        inner.startable.store(1, Ordering::Relaxed);
        shim::clock::advance(std::time::Duration::from_secs(1));
        // As the monitor, look after look.
        while inner.startable.load(Ordering::Relaxed) > 0 {
            inner.seats.retry(&inner);
            weald_loom_tests::thread::yield_now();
        }
        join(&inner);
    });
}

#[test]
fn a_blocking_call_gives_the_worker_to_a_spare() {
    let model = Model::new("a_blocking_call_gives_the_worker_to_a_spare", 400, &[]).bounded(1);
    check(model, || {
        let runtime = Runtime::builder()
            .workers(1)
            .spare_threads(1)
            .build()
            .expect("a model starts");
        runtime.run(|| {
            let done = Arc::new(Flag::new());
            let other = Arc::clone(&done);
            drop(weald_scheduler::spawn(move || other.set()));
            // The other one runs meanwhile, so it is not this carrier that runs it.
            weald_scheduler::blocking(|| done.wait());
        });
    });
}
