//! Models of `net/src/source/mod.rs`: a reader's calls against the events of its descriptor. The kernel
//! is a double: a count of messages, room for others, and one registered descriptor whose edges go to
//! its slot. The last models have `select!` beside the calls, as `net/src/pollable.rs` makes it.
//!
//! Invariant 1: a reader that waits is woken by a message, whenever that comes.
//! Invariant 2: a reader that finds nothing does not wipe out the edge of a later message.
//! Invariant 3: an event of a descriptor that was closed does nothing to the next one in its slot.
//! Invariant 4: a selection that waits to write is woken by room, whenever that comes; and if it does
//! something else, the edge that woke it is the next writer's.
//! Invariant 5: a descriptor whose poller closes, at any step of its registration, is registered anew.
#![cfg(loom)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../net/src/source/mod.rs"]
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
        pub(crate) use loom::sync::{Mutex, MutexGuard};
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
            /// For so many messages the other way.
            room: usize,
            registered: Option<(&'static EventSlot, u16)>,
        }

        loom::lazy_static! {
            static ref KERNEL: loom::sync::Mutex<Kernel> = loom::sync::Mutex::new(Kernel {
                messages: 0,
                room: 0,
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
                let (readable, writable) = (kernel.messages > 0, kernel.room > 0);
                drop(kernel);
                if readable {
                    event(slot, generation, Readiness::READABLE);
                }
                if writable {
                    event(slot, generation, Readiness::WRITABLE);
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

        /// The poller closes: what it has is registered nowhere, and is told so. What is registered
        /// later is with the next one.
        pub(crate) fn close() {
            let mut kernel = KERNEL.lock().unwrap();
            let told = kernel.registered.take();
            drop(kernel);
            if let Some((slot, generation)) = told {
                event(slot, generation, Readiness::ALL);
            }
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

        /// The other end makes room.
        pub(crate) fn make_room(messages: usize) {
            let mut kernel = KERNEL.lock().unwrap();
            kernel.room += messages;
            let to = kernel.registered;
            drop(kernel);
            if let Some((slot, generation)) = to {
                event(slot, generation, Readiness::WRITABLE);
            }
        }

        /// The system call.
        pub(crate) fn read() -> io::Result<()> {
            take(&mut KERNEL.lock().unwrap().messages)
        }

        /// Another.
        pub(crate) fn write() -> io::Result<()> {
            take(&mut KERNEL.lock().unwrap().room)
        }

        fn take(from: &mut usize) -> io::Result<()> {
            *from = from.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
            Ok(())
        }

        /// As poll(2).
        pub(crate) fn is_ready(writes: bool) -> bool {
            let kernel = KERNEL.lock().unwrap();
            (if writes { kernel.room } else { kernel.messages }) > 0
        }
    }
}

use weald::sync::channel::{Receiver, bounded};
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};
use weald_scheduler::io::{Pollable, Readiness, WaitQueue};

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

/// Invariant 5: a poller that closes at any step of a registration is noticed.
#[test]
fn a_poller_closes_while_a_descriptor_is_registered() {
    let witnesses = &["told", "never there"];
    check(
        Model::new(
            "a_poller_closes_while_a_descriptor_is_registered",
            20,
            witnesses,
        ),
        || {
            let reader = thread::spawn(|| read(&Source::new()));
            let told = poller::registered().is_some();
            poller::close();
            poller::send(1);
            witness!("told", told);
            witness!("never there", !told);
            reader.join().unwrap();
        },
    );
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

/// As `net/src/pollable.rs` has it for each of its sockets.
struct Socket(Source);

impl Pollable for Socket {
    fn poll_now(&self, writes: bool) -> std::io::Result<bool> {
        Ok(poller::is_ready(writes))
    }

    fn waiters(&self, writes: bool) -> &WaitQueue {
        self.0.waiters(if writes {
            Direction::Write
        } else {
            Direction::Read
        })
    }

    fn watch(&self) -> std::io::Result<()> {
        self.0.ensure_registered(FD)
    }
}

impl Socket {
    fn write(&self) {
        self.0
            .run(FD, Direction::Write, Waits::Forever, || {
                poller::write().map(Got::more)
            })
            .expect("nothing fails here");
    }
}

/// Receives, or finds the socket writable. True: it received.
fn recv_or_writable(from: &Receiver<()>, socket: &Socket) -> bool {
    weald::select! {
        recv(from) -> message => {
            message.expect("the other end is there");
            true
        },
        writable(socket) -> ready => {
            ready.expect("nothing fails here");
            false
        },
    }
}

#[test]
fn a_select_sees_a_socket_become_writable() {
    check(
        Model::new("a_select_sees_a_socket_become_writable", 26, &[]),
        || {
            let (_send, recv) = bounded(1);
            let socket = Socket(Source::new());
            let other = thread::spawn(|| poller::make_room(1));
            assert!(!recv_or_writable(&recv, &socket));
            poller::write().expect("there is room, and nobody else");
            other.join().unwrap();
        },
    );
}

#[test]
fn a_select_and_a_writer_share_one_edge() {
    let witnesses = &["it received", "it was writable"];
    check(
        Model::new("a_select_and_a_writer_share_one_edge", 4600, witnesses),
        || {
            let (send, recv) = bounded(1);
            let socket = Arc::new(Socket(Source::new()));
            socket.watch().unwrap();
            let writer = thread::spawn({
                let socket = Arc::clone(&socket);
                move || socket.write()
            });
            let other = thread::spawn(move || {
                poller::make_room(2);
                send.send(()).expect("the other end is there");
                send
            });
            let received = recv_or_writable(&recv, &socket);
            witness!("it received", received);
            witness!("it was writable", !received);
            writer.join().unwrap();
            drop(other.join().unwrap());
        },
    );
}
