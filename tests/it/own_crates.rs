//! With `ThreadLocals::Own` the data that other crates keep per thread (guards, contexts, owners of locks) are as on
//! a thread.
//!
//! The same bodies go wrong if green threads share the thread-locals of OS threads, so each check is known to be able
//! to fail.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::span;
use tracing_subscriber::Registry;
use weald::{Runtime, ThreadLocals};

use crate::support::{Flag, LIMIT, in_child, os_thread, own_runtime, with_deadline};

/// How many green threads run a body at a time. They share one OS thread or two.
pub(super) const CROWD: usize = 6;
/// How often each of them gives way while it holds something.
pub(super) const ROUNDS: usize = 6;

/// Lets the others run. In the modes that let green threads migrate, the caller continues on another OS thread.
fn go_elsewhere() {
    weald::yield_now();
    let here = os_thread();
    let mut tries = 0;
    // If all are pinned, it gives up.
    while os_thread() == here && tries < 20 {
        // A thread keeps this OS thread until the caller runs on another one: an idle worker's, or a spare one that
        // takes this seat over.
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

/// Returns how many threads of a crowd panicked, or did not find things as on a thread of their own.
fn anomalies(rt: &Runtime, body: fn(usize) -> bool) -> usize {
    let threads: Vec<_> = (0..CROWD)
        .map(|number| rt.spawn(move || body(number)))
        .collect();
    let outcomes = threads.into_iter().map(weald::JoinHandle::join);
    outcomes
        .filter(|outcome| !matches!(outcome, Ok(true)))
        .count()
}

/// Checks that the body works in `Own`, and goes wrong with shared thread-locals.
fn check(test: &str, body: fn(usize) -> bool) {
    let test = format!("own_crates::{test}");
    let child = in_child(&test, &[], || {
        // SAFETY: none, which is what the test shows; the process is the test's own.
        let rt = unsafe { Runtime::builder().workers(1).share_thread_locals() };
        println!("anomalies: {}", anomalies(&rt.build().unwrap(), body));
    });
    // The process may die of it.
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
            // There is one registry for all threads, as in a program. It keeps the entered spans per thread.
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
            // A value that dangles with shared thread-locals is never freed.
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

/// How many threads are in the critical section.
#[derive(Default)]
struct Inside(AtomicUsize);

impl Inside {
    /// Gives way inside, and returns if the caller was alone there.
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
        // In the other modes a thread that has nothing to do with this test may hold it.
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
            // The calls in between may set it, but not to a value of another thread.
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
            // The token is std's own, and only its thread can take it. With shared thread-locals this would wait for
            // ever.
            if right {
                thread::current().unpark();
                go_elsewhere();
                thread::park();
            }
            right
        },
    );
}

/// In its drop, while others run, it tells if its thread is still the one that panics.
struct Unwinds<'a>(&'a Cell<bool>);

impl Drop for Unwinds<'_> {
    fn drop(&mut self) {
        let before = thread::panicking();
        weald::sleep(Duration::from_millis(3));
        self.0.set(before && thread::panicking());
    }
}

/// Odd threads unwind and wait meanwhile; the others must not notice.
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

/// This holds in `Pinned` too: a thread takes its panics off the OS thread that it leaves.
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
    // Otherwise wasmtime sets one of its own for the green thread's life, on an OS thread that lives longer.
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
