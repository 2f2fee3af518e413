//! `on_os_thread` runs its closure as the OS thread. The closure must not wait.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weald::sync::channel;
use weald::{on_os_thread, on_os_thread_unsend};

use crate::support::{
    Count, Flag, MS, OnDrop, caught, each_mode, each_mode_on, everywhere, green_pair, in_each_mode,
    panic_text, v4, wait_until, was_killed,
};

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static LAZY: Vec<usize> = vec![1, 2, 3];
}

weald::green_local! { static GREEN: Cell<usize> = Cell::new(0); }

fn call() -> usize {
    CALLS.set(CALLS.get() + 1);
    CALLS.get()
}

fn place_of_calls() -> usize {
    CALLS.with(|cell| std::ptr::from_ref(cell) as usize)
}

#[test]
fn it_sees_the_thread_locals_of_the_os_thread() {
    each_mode_on(1, |rt| {
        let count = |_| rt.spawn(|| on_os_thread(call));
        let all: Vec<_> = (0..10).map(count).collect();
        let calls: HashSet<_> = all.into_iter().map(|it| it.join().unwrap()).collect();
        // There is one OS thread.
        assert_eq!(calls, (1..=10).collect());
        if rt.thread_locals() == Some(weald::ThreadLocals::Own) {
            rt.run(|| {
                assert_eq!(CALLS.get(), 0);
                assert_ne!(place_of_calls(), on_os_thread(place_of_calls));
                assert_eq!(on_os_thread(|| LAZY.with(Vec::len)), 3);
            });
        }
    });
    // On a plain OS thread the two are the same.
    assert_eq!(place_of_calls(), on_os_thread(place_of_calls));
}

#[test]
fn it_runs_as_the_os_thread() {
    each_mode_on(1, |rt| {
        let look = || {
            let green = weald::current().id();
            GREEN.with(|it| it.set(5));
            let (os, os_green_local) = on_os_thread(|| {
                assert!(!weald::is_green());
                GREEN.with(|it| it.set(it.get() + 1));
                (weald::current().id(), GREEN.with(Cell::get))
            });
            assert!(weald::is_green());
            assert_ne!(os, green);
            assert_eq!(weald::current().id(), green);
            assert_eq!(GREEN.with(Cell::get), 5);
            (os, os_green_local)
        };
        let (first, one) = rt.run(look);
        let (second, two) = rt.spawn(look).join().unwrap();
        assert_eq!(first, second);
        assert_eq!((one, two), (1, 2));
    });
}

type Call = Box<dyn Fn() + Send + Sync>;

/// Calls that wait or may wait, each with its name.
fn blocking_calls() -> Vec<(&'static str, Call)> {
    let (send, receive) = channel::bounded::<u32>(10);
    send.send(1).unwrap();
    let (mutex, semaphore) = (weald::sync::Mutex::new(()), weald::sync::Semaphore::new(5));
    let rt = weald::Runtime::builder().workers(1).build().unwrap();
    let event = weald::sync::Event::new();
    event.set();
    let (near, far) = green_pair(v4());
    let server = weald::tcp_listener(v4()).unwrap();
    vec![
        ("sleep", Box::new(|| weald::sleep(MS))),
        (
            "sleep not at all",
            Box::new(|| weald::sleep(Duration::ZERO)),
        ),
        ("yield_now", Box::new(weald::yield_now)),
        ("checkpoint", Box::new(weald::checkpoint)),
        ("park", Box::new(|| weald::park_timeout(MS))),
        ("lock", Box::new(move || drop(mutex.lock()))),
        ("acquire", Box::new(move || drop(semaphore.acquire()))),
        ("wait", Box::new(move || event.wait())),
        ("send", Box::new(move || send.send(2).unwrap())),
        (
            "recv",
            Box::new(move || assert_eq!(receive.recv_timeout(MS), Ok(1))),
        ),
        ("blocking", Box::new(|| weald::blocking(|| ()))),
        ("run", Box::new(move || rt.run(|| ()))),
        ("scope", Box::new(|| weald::scope(|_| ()))),
        ("join", Box::new(|| weald::spawn(|| ()).join().unwrap())),
        (
            "read",
            Box::new(move || {
                near.set_read_timeout(Some(MS)).unwrap();
                let _ = (&near).read(&mut [0]);
                let _ = far.peer_addr();
            }),
        ),
        ("accept", Box::new(move || drop(server.accept()))),
        (
            "block_on",
            Box::new(|| weald::block_on(std::future::ready(()))),
        ),
    ]
}

#[test]
fn a_blocking_call_in_it_panics_with_a_sentence() {
    everywhere(|| {
        for (name, call) in blocking_calls() {
            let payload = caught(|| on_os_thread(call));
            let text = panic_text(&*payload.expect_err(name));
            assert!(text.contains("must not wait"), "{name}: {text}");
            assert!(!std::thread::panicking());
        }
        // Afterwards all is as before.
        weald::sleep(MS);
        weald::yield_now();
        weald::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn what_does_not_wait_works_in_it() {
    everywhere(|| {
        let (send, receive) = channel::unbounded::<u32>();
        let mutex = weald::sync::Mutex::new(1);
        let me = weald::current();
        let spawned = on_os_thread(|| {
            assert_eq!(*mutex.try_lock().unwrap(), 1);
            send.try_send(5).unwrap();
            assert_eq!(receive.try_recv(), Ok(5));
            me.unpark();
            weald::spawn(|| 6)
        });
        weald::park();
        assert_eq!(spawned.join().unwrap(), 6);
    });
}

#[test]
fn a_panic_in_it_goes_on_in_the_caller() {
    everywhere(|| {
        for _ in 0..3 {
            let payload = caught(|| on_os_thread(|| panic!("five"))).unwrap_err();
            assert_eq!(panic_text(&*payload), "five");
            assert!(!std::thread::panicking());
            assert!(!on_os_thread(std::thread::panicking));
        }
        // This also holds in a destructor that runs because of another panic.
        let seen = Flag::default();
        let cleans_up = OnDrop(|| {
            let caught = caught(|| on_os_thread(|| panic!("six")));
            assert_eq!(panic_text(&*caught.unwrap_err()), "six");
            assert!(std::thread::panicking());
            seen.set();
        });
        let payload = caught(|| {
            let _cleans_up = cleans_up;
            panic!("seven");
        });
        assert_eq!(panic_text(&*payload.unwrap_err()), "seven");
        assert!(seen.is_set());
    });
}

#[test]
fn calls_may_be_nested() {
    everywhere(|| {
        let place = on_os_thread(place_of_calls);
        let (inner, value) = on_os_thread(|| {
            let inner = on_os_thread(place_of_calls);
            assert_eq!(place_of_calls(), inner);
            let waits = caught(|| on_os_thread(weald::yield_now));
            assert!(waits.is_err());
            // It is still not allowed.
            assert!(caught(weald::yield_now).is_err());
            (inner, 7)
        });
        assert_eq!((inner, value), (place, 7));
        weald::yield_now();
    });
}

#[test]
fn an_exception_that_is_due_is_raised_after_it() {
    in_each_mode(|| {
        let thread = weald::spawn(|| {
            let me = weald::current();
            let mutex = weald::sync::Mutex::new(());
            on_os_thread(|| {
                me.kill();
                assert!(mutex.try_lock().is_ok());
            });
            weald::yield_now();
            unreachable!();
        });
        assert!(was_killed(&thread.join()));
    });
}

#[test]
fn what_need_not_be_send_works_where_the_caller_answers_for_it() {
    everywhere(|| {
        let calls = Cell::new(0);
        // SAFETY: a number is counted.
        unsafe { on_os_thread_unsend(|| calls.set(calls.get() + 1)) };
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn threads_that_migrate_find_each_os_threads_own_values() {
    each_mode(|rt| {
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let before = Count::default();
        let body = |_| {
            let (seen, before) = (Arc::clone(&seen), before.clone());
            rt.spawn(move || {
                for _ in 0..200 {
                    let (calls, place) = on_os_thread(|| {
                        let before = CALLS.get();
                        std::thread::yield_now();
                        assert_eq!(call(), before + 1);
                        (before + 1, place_of_calls())
                    });
                    // No two calls of one OS thread have the same number.
                    assert!(seen.lock().unwrap().insert((place, calls)));
                    before.add();
                    weald::yield_now();
                }
            })
        };
        let all: Vec<_> = (0..32).map(body).collect();
        for thread in all {
            thread.join().unwrap();
        }
        assert_eq!(before.get(), 32 * 200);
    });
}

struct CallsAtTheEnd;

impl Drop for CallsAtTheEnd {
    fn drop(&mut self) {
        assert!(on_os_thread(call) > 0);
        AT_THE_END.with(|it| assert!(it.is_some()));
    }
}

thread_local! {
    static ENDS: Cell<Option<CallsAtTheEnd>> = const { Cell::new(None) };
    static AT_THE_END: Option<u32> = const { Some(1) };
}

#[test]
fn it_works_in_the_destructors_of_thread_locals() {
    each_mode(|rt| {
        for _ in 0..20 {
            rt.spawn(|| ENDS.set(Some(CallsAtTheEnd))).join().unwrap();
        }
    });
    let ends = std::thread::spawn(|| ENDS.set(Some(CallsAtTheEnd)));
    ends.join().unwrap();
}

#[test]
fn one_that_takes_long_holds_up_nobody() {
    each_mode_on(2, |rt| {
        let (begun, goes_on) = (Flag::default(), Flag::default());
        let long = {
            let (begun, goes_on) = (begun.clone(), goes_on.clone());
            rt.spawn(move || {
                on_os_thread(|| {
                    begun.set();
                    while !goes_on.is_set() {
                        std::thread::sleep(MS);
                    }
                });
                weald::yield_now();
            })
        };
        wait_until(|| begun.is_set());
        // These run on any OS thread there is.
        let others: Vec<_> = (0..10).map(|_| rt.spawn(weald::yield_now)).collect();
        for thread in others {
            thread.join().unwrap();
        }
        goes_on.set();
        long.join().unwrap();
    });
}
