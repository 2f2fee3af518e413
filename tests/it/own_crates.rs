//! With `ThreadLocals::Own` what other crates keep per thread (guards, contexts, owners of locks) is as on a thread.
//!
//! The same bodies go wrong where green threads share the thread-locals of OS threads, so each check is known to be able to fail.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::span;
use tracing_subscriber::Registry;
use weald::{Runtime, ThreadLocals};

use crate::support::{Flag, LIMIT, in_child, os_thread, own_runtime, with_deadline};

/// Green threads that run a body at a time; they share one OS thread or two.
const CROWD: usize = 6;
/// How often each of them gives way with its hands full.
const ROUNDS: usize = 6;

/// The others run meanwhile; in the modes that let green threads migrate the caller goes on upon another OS thread.
fn go_elsewhere() {
    weald::yield_now();
    let here = os_thread();
    let mut tries = 0;
    // Where all are pinned it gives up.
    while os_thread() == here && tries < 20 {
        // The OS thread is kept until the caller runs on another: an idle worker's, or a spare one that takes this seat over.
        let moved = Flag::default();
        let keeps = moved.clone();
        drop(weald::spawn(move || {
            while os_thread() == here && !keeps.is_set() {
                thread::yield_now();
            }
        }));
        weald::yield_now();
        moved.set();
        tries += 1;
    }
}

/// How many of a crowd did not find things as on a thread of their own, or panicked.
fn anomalies(rt: &Runtime, body: fn(usize) -> bool) -> usize {
    let threads: Vec<_> = (0..CROWD)
        .map(|number| rt.spawn(move || body(number)))
        .collect();
    let outcomes = threads.into_iter().map(weald::JoinHandle::join);
    outcomes
        .filter(|outcome| !matches!(outcome, Ok(true)))
        .count()
}

/// Right in `Own`, wrong where thread-locals are shared.
fn check(test: &str, body: fn(usize) -> bool) {
    let test = format!("own_crates::{test}");
    let child = in_child(&test, &[], || {
        // SAFETY: none, which is what the test shows; the process is the test's own.
        let rt = unsafe { Runtime::builder().workers(1).share_thread_locals() };
        println!("anomalies: {}", anomalies(&rt.build().unwrap(), body));
    });
    // It may die of it.
    let died = !child.success && !child.stderr.contains("HANGS");
    let told = child.stdout.contains("anomalies: ") && !child.stdout.contains("anomalies: 0\n");
    assert!(
        died || told,
        "nothing went wrong with shared thread-locals: {child:?}"
    );
    check_own(body);
}

fn check_own(body: fn(usize) -> bool) {
    for workers in [1, 2] {
        with_deadline(LIMIT, || {
            if let Some(rt) = own_runtime(workers) {
                assert_eq!(anomalies(&rt, body), 0, "with {workers} workers");
            }
        });
    }
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

#[test]
fn a_guard_of_tokios_context_is_held_over_migrations() {
    check("a_guard_of_tokios_context_is_held_over_migrations", |_| {
        let rt = tokio_runtime();
        let is_here = || Handle::try_current().is_ok_and(|now| now.id() == rt.handle().id());
        let mut right = Handle::try_current().is_err();
        let guard = rt.enter();
        for _ in 0..ROUNDS {
            right &= is_here();
            go_elsewhere();
            right &= is_here();
        }
        drop(guard);
        right && Handle::try_current().is_err()
    });
}

#[test]
fn tokios_block_on_runs_in_several_green_threads_at_once() {
    check(
        "tokios_block_on_runs_in_several_green_threads_at_once",
        |_| {
            let rt = tokio_runtime();
            let id = rt.handle().id();
            rt.block_on(async {
                let mut right = true;
                for _ in 0..ROUNDS {
                    // A task of tokio's own, which runs while this one waits.
                    let task = tokio::spawn(async {
                        go_elsewhere();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        Handle::current().id()
                    });
                    go_elsewhere();
                    right &= task.await.unwrap() == id && Handle::current().id() == id;
                }
                right
            })
        },
    );
}

/// A subscriber that can be told from the others.
struct Numbered(usize);

impl tracing::Subscriber for Numbered {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        false
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_default_subscriber_of_tracing_is_the_green_threads() {
    check(
        "a_default_subscriber_of_tracing_is_the_green_threads",
        |number| {
            let is_mine = || {
                tracing::dispatcher::get_default(|now| {
                    now.downcast_ref::<Numbered>()
                        .is_some_and(|now| now.0 == number)
                })
            };
            let mut right = !is_mine();
            let guard = tracing::subscriber::set_default(Numbered(number));
            for _ in 0..ROUNDS {
                right &= is_mine();
                go_elsewhere();
                right &= is_mine();
            }
            drop(guard);
            right && !is_mine()
        },
    );
}

#[test]
fn a_span_of_tracing_is_entered_by_its_green_thread_alone() {
    static REGISTRY: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(Registry::default()));
    check(
        "a_span_of_tracing_is_entered_by_its_green_thread_alone",
        |_| {
            // One registry for all, as a program has it; it keeps the spans that are entered per thread.
            let _default = tracing::dispatcher::set_default(&REGISTRY);
            let outer = tracing::info_span!("outer");
            let inner = tracing::info_span!("inner");
            let is_in = |span: &tracing::Span| tracing::Span::current().id() == span.id();
            let mut right = outer.id().is_some() && tracing::Span::current().is_none();
            for _ in 0..ROUNDS {
                let in_outer = outer.enter();
                go_elsewhere();
                right &= is_in(&outer);
                let in_inner = inner.enter();
                go_elsewhere();
                right &= is_in(&inner);
                drop(in_inner);
                right &= is_in(&outer);
                drop(in_outer);
                right &= tracing::Span::current().is_none();
            }
            right
        },
    );
}

#[test]
fn scoped_thread_locals_are_left_by_who_entered_them() {
    scoped_tls::scoped_thread_local!(static NUMBER: usize);
    check(
        "scoped_thread_locals_are_left_by_who_entered_them",
        |number| {
            // What dangles with shared thread-locals is not let go.
            let number: &'static usize = Box::leak(Box::new(number));
            let is_mine = || NUMBER.is_set() && NUMBER.with(|now| now == number);
            let mut right = !NUMBER.is_set();
            NUMBER.set(number, || {
                for _ in 0..ROUNDS {
                    right &= is_mine();
                    go_elsewhere();
                    right &= is_mine();
                }
            });
            right && !NUMBER.is_set()
        },
    );
}

/// How many are in the critical section.
#[derive(Default)]
struct Inside(AtomicUsize);

impl Inside {
    /// Gives way inside, and says whether the caller was alone there.
    fn visit(&self) -> bool {
        let alone = self.0.fetch_add(1, SeqCst) == 0;
        go_elsewhere();
        self.0.fetch_sub(1, SeqCst) == 1 && alone
    }
}

#[test]
fn a_reentrant_lock_of_parking_lot_is_one_green_threads() {
    static LOCK: parking_lot::ReentrantMutex<Inside> =
        parking_lot::const_reentrant_mutex(Inside(AtomicUsize::new(0)));
    check(
        "a_reentrant_lock_of_parking_lot_is_one_green_threads",
        |_| {
            let inside = LOCK.lock();
            inside.visit() && LOCK.try_lock().is_some()
        },
    );
}

#[test]
fn the_lock_of_stdout_is_one_green_threads() {
    static INSIDE: Inside = Inside(AtomicUsize::new(0));
    check("the_lock_of_stdout_is_one_green_threads", |_| {
        // Elsewhere somebody may hold it who has not to do with this.
        let _lock = std::io::stdout().lock();
        INSIDE.visit()
    });
}

#[test]
fn errno_is_kept_over_migrations() {
    check("errno_is_kept_over_migrations", |number| {
        let mine = i32::try_from(number).unwrap() + 1000;
        // SAFETY: the place is the running thread's.
        let set = || unsafe { *libc::__errno_location() = mine };
        (0..ROUNDS).all(|_| {
            set();
            go_elsewhere();
            // The calls in between may set it, but not to what is another's.
            let now = std::io::Error::last_os_error().raw_os_error().unwrap();
            now == mine || now < 1000
        })
    });
}

#[test]
fn the_standard_librarys_thread_is_kept_over_migrations() {
    static SEEN: Mutex<Option<HashSet<thread::ThreadId>>> = Mutex::new(None);
    check(
        "the_standard_librarys_thread_is_kept_over_migrations",
        |_| {
            let own = thread::current().id();
            let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = seen.get_or_insert_default().insert(own);
            drop(seen);
            let mut right = is_new;
            for _ in 0..ROUNDS {
                go_elsewhere();
                right &= thread::current().id() == own;
            }
            // A token of std's own, which its thread alone can take; with shared ones this would wait for ever.
            if right {
                thread::current().unpark();
                go_elsewhere();
                thread::park();
            }
            right
        },
    );
}

/// Says in its drop, while others run, whether its thread is still the one that panics.
struct Unwinds<'a>(&'a Cell<bool>);

impl Drop for Unwinds<'_> {
    fn drop(&mut self) {
        let before = thread::panicking();
        weald::sleep(Duration::from_millis(3));
        self.0.set(before && thread::panicking());
    }
}

/// Odd ones unwind and wait meanwhile; the others must not be told of it.
fn panics_apart(number: usize) -> bool {
    if number.is_multiple_of(2) {
        return (0..200).all(|_| {
            weald::sleep(Duration::from_micros(100));
            !thread::panicking()
        });
    }
    let right = Cell::new(false);
    (0..ROUNDS).all(|_| {
        let unwound = crate::support::caught(|| {
            let _unwinds = Unwinds(&right);
            std::panic::resume_unwind(Box::new(()));
        });
        unwound.is_err() && right.get() && !thread::panicking()
    })
}

/// In `Pinned` too: a thread takes its panics off the OS thread that it leaves.
#[test]
fn an_unwinding_that_waits_is_seen_by_nobody_else() {
    let test = "own_crates::an_unwinding_that_waits_is_seen_by_nobody_else";
    let child = in_child(test, &[], || {
        let builder = Runtime::builder().workers(1);
        let rt = builder.thread_locals(ThreadLocals::Pinned).build().unwrap();
        println!("anomalies: {}", anomalies(&rt, panics_apart));
    });
    assert!(child.success, "{child:?}");
    assert!(child.stdout.contains("anomalies: 0\n"), "{child:?}");
    check_own(panics_apart);
}

/// Right with spare OS threads; with a single one somebody waits in vain.
fn check_brought_through(test: &str, body: fn(usize, Duration) -> bool) {
    let test = format!("own_crates::{test}");
    let crowd = |rt: &Runtime, patience| {
        let threads: Vec<_> = (0..CROWD)
            .map(|number| rt.spawn(move || body(number, patience)))
            .collect();
        let outcomes = threads.into_iter().map(weald::JoinHandle::join);
        outcomes
            .filter(|outcome| !matches!(outcome, Ok(true)))
            .count()
    };
    let child = in_child(&test, &[], || {
        let builder = Runtime::builder().workers(1).spare_threads(1);
        let rt = builder.build().unwrap();
        let alone = crowd(&rt, Duration::from_millis(50));
        println!("anomalies: {alone}");
    });
    assert!(child.success, "{child:?}");
    assert!(!child.stdout.contains("anomalies: 0\n"), "{child:?}");
    for workers in [1, 2] {
        with_deadline(LIMIT, || {
            if let Some(rt) = own_runtime(workers) {
                let wrong = crowd(&rt, Duration::from_secs(LIMIT));
                assert_eq!(wrong, 0, "with {workers} workers");
            }
        });
    }
}

#[test]
fn who_blocks_in_a_lock_of_parking_lot_is_brought_through() {
    static MUTEX: parking_lot::Mutex<u64> = parking_lot::const_mutex(0);
    static RWLOCK: parking_lot::RwLock<u64> = parking_lot::const_rwlock(0);
    static CHANGED: parking_lot::Condvar = parking_lot::Condvar::new();
    check_brought_through(
        "who_blocks_in_a_lock_of_parking_lot_is_brought_through",
        |number, patience| {
            for _ in 0..ROUNDS {
                let Some(mut count) = MUTEX.try_lock_for(patience) else {
                    return false;
                };
                weald::yield_now();
                *count += 1;
                drop(count);
                if number % 2 == 0 {
                    let Some(mut count) = RWLOCK.try_write_for(patience) else {
                        return false;
                    };
                    weald::yield_now();
                    *count += 1;
                } else {
                    let Some(count) = RWLOCK.try_read_for(patience) else {
                        return false;
                    };
                    let before = *count;
                    weald::yield_now();
                    if *count != before {
                        return false;
                    }
                }
            }
            // All wait until each has come here.
            let mut count = MUTEX.lock();
            *count += 1000;
            CHANGED.notify_all();
            let mut waited = false;
            while !waited && !(*count / 1000).is_multiple_of(CROWD as u64) {
                waited = CHANGED.wait_for(&mut count, patience).timed_out();
            }
            !waited
        },
    );
}

#[test]
fn who_blocks_in_a_channel_of_std_is_brought_through() {
    type Ends = (mpsc::SyncSender<usize>, Option<mpsc::Receiver<usize>>);
    static RING: Mutex<Vec<Ends>> = Mutex::new(Vec::new());
    // Rendezvous in a ring: each hands to the next, so that nobody gets on unless all run.
    fn ends(number: usize) -> (mpsc::SyncSender<usize>, mpsc::Receiver<usize>) {
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.len() < CROWD {
            let (send, receive) = mpsc::sync_channel(0);
            ring.push((send, Some(receive)));
        }
        let receive = ring[number].1.take().unwrap();
        let send = ring[(number + 1) % CROWD].0.clone();
        if ring.iter().all(|(_, receive)| receive.is_none()) {
            ring.clear();
        }
        (send, receive)
    }
    check_brought_through(
        "who_blocks_in_a_channel_of_std_is_brought_through",
        |number, patience| {
            let (send, receive) = ends(number);
            for round in 0..ROUNDS {
                let before = (number + CROWD - 1) % CROWD * 100 + round;
                if number != 0 && receive.recv_timeout(patience) != Ok(before) {
                    return false;
                }
                weald::yield_now();
                if send.send(number * 100 + round).is_err() {
                    return false;
                }
                if number == 0 && receive.recv_timeout(patience) != Ok(before) {
                    return false;
                }
            }
            true
        },
    );
}

/// A future of tokio's is driven by weald's `block_on` with tokio's context, one thread after the other.
#[test]
fn block_on_with_tokios_context_polls_in_it_each_time() {
    check("block_on_with_tokios_context_polls_in_it_each_time", |_| {
        let rt = tokio_runtime();
        let id = rt.handle().id();
        let _guard = rt.enter();
        let mut polls = 0;
        weald::block_on(poll_fn(|context| {
            let right = Handle::try_current().is_ok_and(|now| now.id() == id);
            polls += 1;
            if polls > ROUNDS || !right {
                return Poll::Ready(right);
            }
            go_elsewhere();
            let waker = context.waker().clone();
            drop(weald::spawn(move || waker.wake()));
            Poll::Pending
        }))
    });
}

#[test]
fn the_alternate_signal_stack_of_a_green_threads_os_thread_has_room_for_wasmtimes_handler() {
    // Else wasmtime sets one of its own for the green thread's life, on an OS thread that goes on with it.
    let Some(rt) = own_runtime(1) else { return };
    let told = rt.run(|| {
        // SAFETY: the call only fills the place in.
        unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            if libc::sigaltstack(std::ptr::null(), &raw mut stack) != 0 {
                return None;
            }
            Some((stack.ss_size, stack.ss_flags))
        }
    });
    let Some((size, flags)) = told else {
        eprintln!("not tested: the call is refused here");
        return;
    };
    assert!(size >= 256 << 10, "{size}");
    assert_eq!(flags & libc::SS_DISABLE, 0);
}
