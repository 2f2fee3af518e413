//! Models of `net/src/source.rs`: a reader's calls against the events of its descriptor. The kernel
//! is a double: a count of messages, and one registered descriptor whose edges go to its slot.
//!
//! Invariant 1: a reader that waits is woken by a message, whenever that comes.
//! Invariant 2: a reader that finds nothing does not wipe out the edge of a later message.
//! Invariant 3: an event of a descriptor that was closed does nothing to the next one in its slot.
#![cfg(loom)]

#[path = "../../net/src/source.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "only calls that read have a model"
)]
mod source;

/// What a source takes from its crate's shim.
mod shim {
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
    }

    pub(crate) mod sync {
        pub(crate) use loom::sync::Mutex;
    }

    pub(crate) mod poller {
        use std::io;
        use std::os::fd::RawFd;

        use weald_scheduler::io::{EventSlot, Readiness};

        #[derive(Debug)]
        pub(crate) struct PollerHandle;

        /// What the kernel knows of the only descriptor.
        struct Kernel {
            messages: usize,
            registered: Option<(&'static EventSlot, u16)>,
        }

        loom::lazy_static! {
            static ref KERNEL: loom::sync::Mutex<Kernel> = loom::sync::Mutex::new(Kernel {
                messages: 0,
                registered: None,
            });
        }

        impl PollerHandle {
            pub(crate) fn here() -> Self {
                Self
            }

            /// Edge-triggered: what is there already is told at once.
            #[allow(
                clippy::unnecessary_wraps,
                clippy::unused_self,
                reason = "as the real one"
            )]
            pub(crate) fn register(
                &self,
                _: RawFd,
                slot: &'static EventSlot,
                generation: u16,
            ) -> io::Result<()> {
                let mut kernel = KERNEL.lock().unwrap();
                kernel.registered = Some((slot, generation));
                let tell = kernel.messages > 0;
                drop(kernel);
                if tell {
                    event(slot, generation, Readiness::READABLE);
                }
                Ok(())
            }

            #[allow(
                clippy::unnecessary_wraps,
                clippy::unused_self,
                reason = "as the real one"
            )]
            pub(crate) fn deregister(
                &self,
                _: RawFd,
                _: &'static EventSlot,
                _: u16,
            ) -> io::Result<()> {
                KERNEL.lock().unwrap().registered = None;
                Ok(())
            }
        }

        /// A poller hands an event on.
        pub(crate) fn event(slot: &'static EventSlot, generation: u16, readiness: u8) {
            (slot.on_event)(slot, generation, Readiness(readiness));
        }

        pub(crate) fn registered() -> Option<(&'static EventSlot, u16)> {
            KERNEL.lock().unwrap().registered
        }

        /// So many messages come at once.
        pub(crate) fn send(messages: usize) {
            let mut kernel = KERNEL.lock().unwrap();
            kernel.messages += messages;
            let to = kernel.registered;
            drop(kernel);
            if let Some((slot, generation)) = to {
                event(slot, generation, Readiness::READABLE);
            }
        }

        /// The system call.
        pub(crate) fn read() -> io::Result<()> {
            let mut kernel = KERNEL.lock().unwrap();
            if kernel.messages == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            kernel.messages -= 1;
            Ok(())
        }
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};
use weald_scheduler::io::Readiness;

use self::shim::poller;
use self::source::{Direction, Got, Source, Waits};

const FD: std::os::fd::RawFd = 3;

/// Reads a message; returns how many calls that took.
fn read(source: &Source) -> usize {
    let mut calls = 0;
    source
        .run(FD, Direction::Read, Waits::Forever, || {
            calls += 1;
            poller::read().map(Got::more)
        })
        .expect("nothing fails here");
    calls
}

#[test]
fn a_message_reaches_who_waits_for_it() {
    let witnesses = &["at once", "waited"];
    check(
        Model::new("a_message_reaches_who_waits_for_it", 9, witnesses),
        || {
            let reader = thread::spawn(|| read(&Source::new()));
            poller::send(1);
            let calls = reader.join().unwrap();
            witness!("at once", calls == 1);
            witness!("waited", calls > 1);
        },
    );
}

/// The replay of tokio 6133 (and of what its pull request 8331 mends): an edge that comes between a
/// call that finds nothing and the step that says so.
#[test]
fn a_late_clear_keeps_the_next_edge() {
    let witnesses = &["waited twice"];
    check(
        Model::new("a_late_clear_keeps_the_next_edge", 260, witnesses),
        || {
            let source = Arc::new(Source::new());
            source.ensure_registered(FD).unwrap();
            let reader = thread::spawn({
                let source = Arc::clone(&source);
                move || [read(&source), read(&source)]
            });
            poller::send(1);
            poller::send(1);
            let calls = reader.join().unwrap();
            witness!("waited twice", calls.iter().all(|&calls| calls > 1));
        },
    );
}

/// One edge for two messages: who is woken by it reads one, and wakes the next.
#[test]
fn two_readers_share_one_edge() {
    check(Model::new("two_readers_share_one_edge", 700, &[]), || {
        let source = Arc::new(Source::new());
        source.ensure_registered(FD).unwrap();
        let readers = [0, 1].map(|_| {
            let source = Arc::clone(&source);
            thread::spawn(move || read(&source))
        });
        poller::send(2);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// The replay of golang 59545 and moonbitlang/async 571: an event that was taken from the kernel
/// before its descriptor was closed is handed on when the next one is in its place.
#[test]
fn an_old_event_leaves_the_next_descriptor_alone() {
    let witnesses = &["waited"];
    check(
        Model::new(
            "an_old_event_leaves_the_next_descriptor_alone",
            320,
            witnesses,
        ),
        || {
            let old = Source::new();
            old.ensure_registered(FD).unwrap();
            let (slot, generation) = poller::registered().expect("it is registered");
            old.deregister(FD);
            drop(old);
            let late = thread::spawn(move || {
                poller::event(
                    slot,
                    generation,
                    Readiness::READABLE | Readiness::READ_CLOSED,
                );
            });
            let sender = thread::spawn(|| poller::send(1));
            let calls = read(&Source::new());
            witness!("waited", calls == 2);
            assert!(calls <= 2, "it was told what is not its own");
            late.join().unwrap();
            sender.join().unwrap();
        },
    );
}
