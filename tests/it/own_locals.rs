//! With `ThreadLocals::Own` a green thread looks like a thread to all code: thread-locals, errno, ids.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;

use weald::{Runtime, ThreadLocals};

use crate::support::{LIMIT, own_runtime, with_deadline};

/// Runs the check on 1 and on 2 workers, if the mode is available.
fn check(check: impl Fn(&Runtime) + Sync) {
    for workers in [1, 2] {
        with_deadline(LIMIT, || {
            if let Some(rt) = own_runtime(workers) {
                assert_eq!(rt.thread_locals(), Some(ThreadLocals::Own));
                check(&rt);
            }
        });
    }
}

/// Many green threads that give way often, so that they meet on every OS thread.
fn crowd(rt: &Runtime, body: impl Fn(usize) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let threads: Vec<_> = (0..50)
        .map(|number| {
            let body = Arc::clone(&body);
            rt.spawn(move || body(number))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

thread_local! {
    static PLAIN: Cell<usize> = const { Cell::new(1) };
    static LAZY: RefCell<Vec<usize>> = RefCell::new(Vec::with_capacity(3));
}

#[test]
fn a_thread_local_belongs_to_the_green_thread_and_begins_anew() {
    check(|rt| {
        for _ in 0..3 {
            crowd(rt, |number| {
                assert_eq!(PLAIN.get(), 1);
                assert!(LAZY.with_borrow(Vec::is_empty));
                for round in 0..20 {
                    PLAIN.set(number);
                    LAZY.with_borrow_mut(|list| list.push(number));
                    weald::yield_now();
                    assert_eq!(PLAIN.get(), number);
                    assert_eq!(LAZY.take(), vec![number], "round {round}");
                }
            });
        }
    });
}

#[test]
fn destructors_of_thread_locals_run_before_join_returns() {
    struct Bell(Arc<AtomicUsize>);
    impl Drop for Bell {
        fn drop(&mut self) {
            weald::yield_now();
            self.0.fetch_add(1, SeqCst);
        }
    }
    thread_local! { static BELL: RefCell<Option<Bell>> = const { RefCell::new(None) } }
    check(|rt| {
        let rung = Arc::new(AtomicUsize::new(0));
        let bell = || {
            let rung = Arc::clone(&rung);
            move || BELL.set(Some(Bell(rung)))
        };
        rt.spawn(bell()).join().unwrap();
        assert_eq!(rung.load(SeqCst), 1);
        let panics = rt.spawn({
            let bell = bell();
            move || {
                bell();
                std::panic::resume_unwind(Box::new(()));
            }
        });
        assert!(panics.join().is_err());
        assert_eq!(rung.load(SeqCst), 2);
        let (ready, is_ready) = mpsc::channel();
        let killed = rt.spawn({
            let bell = bell();
            move || {
                bell();
                ready.send(()).unwrap();
                weald::park();
            }
        });
        is_ready.recv().unwrap();
        killed.thread().kill();
        assert!(killed.join().is_err());
        assert_eq!(rung.load(SeqCst), 3);
    });
}

#[test]
fn nothing_is_raised_in_the_destructor_of_a_thread_local() {
    struct Waits(mpsc::Sender<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            weald::current().kill();
            weald::sleep(std::time::Duration::from_millis(1));
            self.0.send(()).unwrap();
        }
    }
    thread_local! { static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) } }
    check(|rt| {
        let (done, is_done) = mpsc::channel();
        rt.spawn(|| WAITS.set(Some(Waits(done)))).join().unwrap();
        is_done.recv().unwrap();
    });
}

#[test]
fn a_limit_that_the_destructor_of_a_thread_local_sets_is_kept() {
    struct Waits(mpsc::Sender<bool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let limit = std::time::Duration::from_millis(1);
            // Nothing is raised at the thread's end any more, neither new exceptions nor pending ones.
            weald::current().throw("in its destructors");
            weald::exc_after(std::time::Duration::ZERO, "in its destructors");
            let outer = weald::timeout(60_000 * limit, || {
                let parked = weald::timeout(limit, weald::park).is_err();
                parked && weald::blocking(|| weald::timeout(limit, weald::park)).is_err()
            });
            self.0.send(outer == Ok(true)).unwrap();
        }
    }
    thread_local! { static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) } }
    check(|rt| {
        let (tell, told) = mpsc::channel();
        let thread = rt.spawn(|| WAITS.set(Some(Waits(tell))));
        thread.join().unwrap();
        assert!(told.recv().unwrap());
    });
}

#[test]
fn errno_is_the_green_threads() {
    fn errno() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap()
    }
    check(|rt| {
        crowd(rt, |number| {
            for _ in 0..20 {
                let missing = std::fs::metadata(if number % 2 == 0 {
                    "/none"
                } else {
                    "/dev/null/x"
                });
                assert!(missing.is_err());
                let before = errno();
                weald::yield_now();
                assert_eq!(errno(), before);
            }
        });
    });
}

#[test]
fn the_standard_librarys_threads_are_distinct() {
    check(|rt| {
        let seen = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let all = Arc::clone(&seen);
        crowd(rt, move |_| {
            let id = thread::current().id();
            weald::yield_now();
            assert_eq!(thread::current().id(), id);
            assert!(all.lock().unwrap().insert(id));
        });
        assert_eq!(seen.lock().unwrap().len(), 50);
    });
}

#[test]
fn a_panic_is_seen_by_its_own_green_thread_only() {
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            assert!(thread::panicking());
            for _ in 0..20 {
                weald::yield_now();
                weald::sleep(std::time::Duration::from_micros(50));
            }
            assert!(thread::panicking());
        }
    }
    check(|rt| {
        let unwinds: Vec<_> = (0..4)
            .map(|_| {
                rt.spawn(|| {
                    let _waits = Waits;
                    std::panic::resume_unwind(Box::new(()));
                })
            })
            .collect();
        crowd(rt, |_| {
            for _ in 0..20 {
                assert!(!thread::panicking());
                weald::yield_now();
            }
        });
        for thread in unwinds {
            assert!(thread.join().is_err());
        }
    });
}

#[test]
fn a_lock_of_stdout_may_be_held_over_a_blocking_call() {
    check(|rt| {
        let first = rt.spawn(|| {
            let lock = std::io::stdout().lock();
            for _ in 0..5 {
                weald::yield_now();
            }
            drop(lock);
        });
        let other = rt.spawn(|| {
            // The lock belongs to another thread: this would succeed if both were the same thread.
            weald::blocking(|| drop(std::io::stdout().lock()));
        });
        first.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn pthread_values_and_recursive_mutexes_know_green_threads_apart() {
    check(|rt| {
        crowd(rt, |_| {
            // SAFETY: a mutex of this stack, initialised before its use and destroyed after.
            unsafe {
                let mut kind = std::mem::zeroed();
                let mut mutex = std::mem::zeroed();
                libc::pthread_mutexattr_init(&raw mut kind);
                libc::pthread_mutexattr_settype(&raw mut kind, libc::PTHREAD_MUTEX_RECURSIVE);
                libc::pthread_mutex_init(&raw mut mutex, &raw const kind);
                assert_eq!(libc::pthread_mutex_lock(&raw mut mutex), 0);
                assert_eq!(libc::pthread_mutex_lock(&raw mut mutex), 0);
                let place = &raw mut mutex as usize;
                let other = weald::spawn(move || {
                    let mutex = std::ptr::with_exposed_provenance_mut(place);
                    // SAFETY: the mutex lives until this thread is joined.
                    libc::pthread_mutex_trylock(mutex)
                });
                assert_eq!(other.join().unwrap(), libc::EBUSY);
                assert_eq!(libc::pthread_mutex_unlock(&raw mut mutex), 0);
                assert_eq!(libc::pthread_mutex_unlock(&raw mut mutex), 0);
                libc::pthread_mutex_destroy(&raw mut mutex);
            }
        });
    });
}

#[test]
fn memory_of_one_green_thread_is_freed_by_another() {
    check(|rt| {
        let (send, receive) = mpsc::channel::<Vec<Vec<u8>>>();
        let frees = rt.spawn(move || {
            let mut count = 0;
            loop {
                match receive.try_recv() {
                    Ok(blocks) => count += blocks.len(),
                    Err(mpsc::TryRecvError::Empty) => weald::yield_now(),
                    Err(mpsc::TryRecvError::Disconnected) => return count,
                }
            }
        });
        crowd(rt, move |number| {
            for size in 1..20 {
                send.send((0..10).map(|n| vec![0; n + size * number]).collect())
                    .unwrap();
                weald::yield_now();
            }
        });
        assert_eq!(frees.join().unwrap(), 50 * 19 * 10);
    });
}
