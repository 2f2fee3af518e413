//! `Builder::own_thread` gives a green thread an OS thread for itself. Tests its promises in all modes, and that
//! everything of weald works in such a thread.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use weald::sync::channel::{bounded, unbounded};
use weald::{Builder, Doing, Elapsed, JoinHandle, Runtime};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mark, Mode, OnDrop, caught, each_mode_on, in_each_mode,
    mark_in, os_thread, panic_text, runtime, settle, v4, wait_until, was_killed, with_deadline,
};

fn own<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    named("own", body)
}

fn named<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let builder = Builder::new().name(name.to_owned()).own_thread(true);
    builder.spawn(body).unwrap()
}

fn doing(name: &str) -> Option<Doing> {
    let dump = weald::dump();
    let found = dump
        .threads
        .iter()
        .find(|t| t.name.as_deref() == Some(name));
    found.map(|thread| thread.doing)
}

#[test]
fn it_stays_on_one_os_thread_that_no_other_green_thread_ever_uses() {
    in_each_mode(|| {
        let others = Arc::new(Mutex::new(HashSet::new()));
        let (tell, told) = unbounded();
        let owner = named("painter", move || {
            assert!(weald::is_green());
            assert_eq!(std::thread::current().name(), Some("painter"));
            assert_eq!(weald::current().name(), Some("painter"));
            let first = os_thread();
            for n in told {
                weald::yield_now();
                weald::sleep(MS / 10);
                let _: usize = n;
                assert_eq!(os_thread(), first);
            }
            first
        });
        let crowd: Vec<_> = (0..100)
            .map(|n| {
                let (tell, others) = (tell.clone(), Arc::clone(&others));
                weald::spawn(move || {
                    tell.send(n).unwrap();
                    weald::yield_now();
                    others.lock().unwrap().insert(os_thread());
                })
            })
            .collect();
        drop(tell);
        for thread in crowd {
            thread.join().unwrap();
        }
        let first = owner.join().unwrap();
        assert!(!others.lock().unwrap().contains(&first));
    });
}

/// Waits in several ways when its OS thread ends.
struct AtTheEnd(Flag);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        assert!(weald::is_green());
        weald::sleep(MS);
        weald::spawn(|| weald::sleep(MS)).join().unwrap();
        MADE_AT_THE_END.with(|_| ());
        self.0.set();
    }
}

thread_local! {
    static KEPT: Cell<u32> = const { Cell::new(0) };
    static ENDS: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
}

weald::green_local! {
    static MADE_AT_THE_END: Cell<u32> = Cell::new(0);
}

#[test]
fn thread_locals_are_its_os_threads_and_are_gone_when_a_join_returns() {
    in_each_mode(|| {
        let gone = Flag::default();
        let ends = AtTheEnd(gone.clone());
        let thread = own(move || {
            ENDS.set(Some(ends));
            // The OS thread has a header too from here on; its end comes before that of `ENDS`.
            weald::on_os_thread(|| ());
            for n in 0..10 {
                assert_eq!(KEPT.replace(n + 1), n);
                weald::sleep(MS / 10);
                weald::spawn(|| KEPT.set(100)).join().unwrap();
            }
            KEPT.get()
        });
        assert_eq!(thread.join().unwrap(), 10);
        assert!(gone.is_set());
    });
}

/// A result with a destructor that waits.
struct Waits(Flag);

impl Drop for Waits {
    fn drop(&mut self) {
        weald::sleep(MS);
        weald::spawn(|| weald::sleep(MS)).join().unwrap();
        self.0.set();
    }
}

/// A result with a destructor that waits for limits. They need the runtime's workers.
struct WaitsForLimits(mpsc::Sender<()>, Flag);

impl Drop for WaitsForLimits {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
        for _ in 0..20 {
            assert!(weald::timeout(MS, weald::park).is_err());
        }
        self.1.set();
    }
}

/// Leaves the handle to a value of `green_local!`, when the OS thread ends.
struct LeavesHandle(Option<Box<dyn Any + Send>>);

impl Drop for LeavesHandle {
    fn drop(&mut self) {
        DROPPED_LAST.with(|handle| handle.replace(self.0.take()));
    }
}

thread_local! {
    static LEAVES: RefCell<Option<LeavesHandle>> = const { RefCell::new(None) };
}

weald::green_local! {
    static DROPPED_LAST: RefCell<Option<Box<dyn Any + Send>>> = RefCell::new(None);
}

/// Starts a thread whose handle is dropped when all else of the thread is gone, so its result is nobody's.
fn leave<T: Send + 'static>(result: T) {
    let (give, take) = bounded::<Box<dyn Any + Send>>(1);
    let thread = own(move || {
        LEAVES.set(Some(LeavesHandle(take.recv().ok())));
        result
    });
    give.send(Box::new(thread)).unwrap();
}

#[test]
fn a_result_whose_handle_is_dropped_at_the_very_end_may_wait_in_its_destructor() {
    in_each_mode(|| {
        let dropped = Flag::default();
        leave(Waits(dropped.clone()));
        wait_until(|| dropped.is_set());
    });
}

#[test]
fn a_shutdown_waits_for_the_destructor_of_a_result_that_is_nobodys() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let dropped = Flag::default();
            let (begin, begun) = mpsc::channel();
            rt.run(|| leave(WaitsForLimits(begin, dropped.clone())));
            begun.recv().unwrap();
            assert!(rt.shutdown(Duration::from_secs(LIMIT)));
            assert!(dropped.is_set());
        });
    }
}

#[test]
fn locks_channels_select_and_sockets_work_between_it_and_the_others() {
    in_each_mode(|| {
        let sum = Arc::new(weald::sync::Mutex::new(0));
        let (there, back) = (bounded::<usize>(0), bounded::<usize>(1));
        let listener = weald::tcp_listener(v4()).unwrap();
        let address = listener.local_addr().unwrap();
        let adds = Arc::clone(&sum);
        let server = own(move || {
            let mut rounds = 0;
            loop {
                weald::select! {
                    recv(there.1) -> n => match n {
                        Ok(n) => {
                            *adds.lock().unwrap() += n;
                            back.0.send(n).unwrap();
                            rounds += 1;
                        }
                        Err(_) => break,
                    },
                    recv(weald::sync::channel::after(HOUR)) -> _ => unreachable!(),
                }
            }
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            rounds
        });
        for n in 1..=50 {
            there.0.send(n).unwrap();
            *sum.lock().unwrap() += 1;
            assert_eq!(back.1.recv().unwrap(), n);
        }
        drop(there.0);
        let mut stream = weald::connect_tcp(address).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(server.join().unwrap(), 50);
        assert_eq!(*sum.lock().unwrap(), 50 + 51 * 25);
    });
}

#[test]
fn children_scopes_joins_limits_and_tokens_work_in_it() {
    in_each_mode(|| {
        let spawned = weald::metrics().spawned;
        let parent = weald::current();
        let thread = own(move || {
            // The thread's children are of the same runtime.
            assert!(weald::metrics().spawned > spawned);
            assert_eq!(weald::spawn(|| 7).join().unwrap(), 7);
            let words = ["a", "bc"];
            let letters: usize = weald::scope(|scope| {
                let each = words.map(|word| scope.spawn(move || word.len()));
                each.into_iter().map(|child| child.join().unwrap()).sum()
            });
            assert_eq!(letters, 3);
            assert_eq!(weald::join(|| 1, || 2), (1, 2));
            assert_eq!(weald::blocking(|| 3), 3);
            weald::checkpoint();
            let limited = weald::timeout(MS, weald::park);
            assert!(matches!(limited, Err(Elapsed { .. })));
            let raised = caught(|| {
                weald::exc_after(MS, Mark(4));
                weald::sleep(HOUR);
            });
            assert_eq!(mark_in(&raised), Some(4));
            let me = weald::current();
            weald::call_after(MS, move || me.unpark());
            weald::park();
            parent.unpark();
        });
        weald::park();
        thread.join().unwrap();
    });
}

#[test]
fn it_borrows_in_a_scope_and_what_it_panics_with_is_told() {
    in_each_mode(|| {
        let text = String::from("borrowed");
        weald::scope(|scope| {
            let builder = Builder::new().own_thread(true);
            let length = builder.spawn_scoped(scope, || text.len()).unwrap();
            assert_eq!(length.join().unwrap(), 8);
        });
        let waited = Flag::default();
        let waits = waited.clone();
        let panics = own(move || {
            let _waits = OnDrop(|| {
                weald::sleep(MS);
                weald::spawn(|| ()).join().unwrap();
                waits.set();
            });
            panic!("on purpose");
        });
        assert_eq!(panic_text(&*panics.join().unwrap_err()), "on purpose");
        assert!(waited.is_set());
    });
}

#[test]
fn what_is_raised_in_it_ends_its_waits() {
    in_each_mode(|| {
        let (_keep, never) = unbounded::<()>();
        let waits: [fn(weald::sync::channel::Receiver<()>); 4] = [
            |_| weald::park(),
            |_| weald::sleep(HOUR),
            |never| assert!(never.recv().is_err()),
            |_| drop(weald::spawn(|| weald::sleep(HOUR)).join()),
        ];
        for wait in waits {
            let unwound = Count::default();
            let counts = unwound.on_drop();
            let never = never.clone();
            let thread = own(move || {
                let _counts = counts;
                wait(never);
            });
            settle();
            thread.thread().kill();
            assert!(was_killed(&thread.join()));
            assert_eq!(unwound.get(), 1);
        }
        let computes = Flag::default();
        let until = computes.clone();
        let thrown = own(move || {
            until.spin();
            weald::checkpoint();
        });
        thrown.thread().throw(Mark(9));
        computes.set();
        assert_eq!(mark_in(&thrown.join()), Some(9));
    });
}

#[test]
fn many_that_block_their_os_threads_use_up_no_spare_thread_and_stall_nobody() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let builder = Runtime::builder().workers(1).spare_threads(1);
            let rt = match mode {
                Mode::Pinned => builder.thread_locals(weald::ThreadLocals::Pinned),
                Mode::Own => builder.thread_locals(weald::ThreadLocals::Own),
                // SAFETY: the threads of this test use no thread-locals.
                Mode::Shared => unsafe { builder.share_thread_locals() },
            };
            let rt = rt.build().unwrap();
            let (blocked, until) = (Count::default(), Flag::default());
            let owners: Vec<_> = rt.run(|| {
                let block = |_| {
                    let (blocked, until) = (blocked.clone(), until.clone());
                    own(move || {
                        let (_sender, receiver) = mpsc::channel::<()>();
                        blocked.add();
                        while !until.is_set() {
                            let nothing = receiver.recv_timeout(MS);
                            assert!(nothing.is_err());
                        }
                    })
                };
                (0..30).map(block).collect()
            });
            rt.run(|| {
                wait_until(|| blocked.get() == 30);
                assert_eq!(weald::metrics().own_threads, 30);
                for n in 0..100 {
                    assert_eq!(weald::spawn(move || n).join().unwrap(), n);
                    weald::sleep(MS / 10);
                }
                assert_eq!(weald::blocking(|| 5), 5);
                let metrics = weald::metrics();
                assert_eq!((metrics.stalled, metrics.waiting_to_block), (0, 0));
                assert!(metrics.carriers <= 2);
            });
            until.set();
            for owner in owners {
                owner.join().unwrap();
            }
            assert_eq!(rt.metrics().own_threads, 0);
        });
    }
}

#[test]
fn a_dump_tells_what_it_does_and_where() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let until = Flag::default();
            let spins = until.clone();
            let runs = named("runs", move || spins.spin());
            let parks = named("parks", weald::park);
            let sleeps = named("sleeps", || weald::sleep(HOUR));
            wait_until(|| doing("runs") == Some(Doing::Runs));
            wait_until(|| doing("parks") == Some(Doing::Parks));
            wait_until(|| doing("sleeps") == Some(Doing::Waits));
            if cfg!(all(target_os = "linux", feature = "traces")) {
                let traced = || {
                    let dump = weald::dump();
                    let mut threads = dump.threads.iter();
                    threads.any(|t| t.name.as_deref() == Some("sleeps") && !t.trace.is_empty())
                };
                wait_until(traced);
            }
            until.set();
            parks.thread().unpark();
            sleeps.thread().kill();
            runs.join().unwrap();
            parks.join().unwrap();
            assert!(was_killed(&sleeps.join()));
            assert_eq!(doing("runs"), None);
        });
    });
}

#[test]
fn a_shutdown_ends_it_as_it_ends_the_others() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let (ended, waits) = (Count::default(), Count::default());
                let owners: Vec<_> = rt.run(|| {
                    let wait = |n| {
                        let (ended, waits) = (ended.clone(), waits.clone());
                        own(move || {
                            let _ended = OnDrop(|| {
                                weald::sleep(MS);
                                ended.add();
                            });
                            waits.add();
                            if n % 2 == 0 {
                                weald::park();
                            } else {
                                weald::sleep(HOUR);
                            }
                        })
                    };
                    let owners = (0..10).map(wait).collect();
                    wait_until(|| waits.get() == 10);
                    owners
                });
                assert!(!rt.shutdown(Duration::ZERO));
                assert_eq!(ended.get(), 10);
                assert!(owners.into_iter().all(|owner| was_killed(&owner.join())));
            });
        }
    }
}

#[test]
fn a_runtime_that_ends_waits_for_one_that_ends_by_itself() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let owner = rt.run(|| own(|| std::thread::sleep(20 * MS)));
            assert!(rt.shutdown(HOUR));
            assert!(owner.is_finished());
        });
    }
}

#[test]
fn settings_that_exclude_each_other_are_errors_and_its_stack_is_as_large_as_was_said() {
    in_each_mode(|| {
        for wrong in [Builder::new().worker(0), Builder::new().patched(true)] {
            let error = wrong.own_thread(true).spawn(|| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let large = Builder::new().own_thread(true).stack_size(16 << 20);
        let fits = large.spawn(|| {
            let room = std::hint::black_box([1_u8; 4 << 20]);
            room.iter().map(|&byte| usize::from(byte)).sum::<usize>()
        });
        assert_eq!(fits.unwrap().join().unwrap(), 4 << 20);
        let name = Builder::new().own_thread(true).name("a\0zero".to_owned());
        name.spawn(|| ()).unwrap().join().unwrap();
    });
}

#[test]
fn an_os_thread_starts_one_in_the_default_runtime() {
    with_deadline(LIMIT, || {
        let owner = own(|| (weald::is_green(), os_thread()));
        let (is_green, thread) = owner.join().unwrap();
        assert!(is_green);
        assert_ne!(thread, os_thread());
    });
}
