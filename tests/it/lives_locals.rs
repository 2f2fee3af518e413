//! Values of `green_local!` are dropped by their own thread, which may wait meanwhile.

use std::marker::PhantomData;
use std::sync::Mutex;
use std::thread::{self, ThreadId};

use super::lives::{Drops, Waits, start_detached};
use crate::support::{
    Count, Flag, LIMIT, MODES, MS, Mode, OnDrop, in_each_mode, runtime, wait_until, was_killed,
    with_deadline,
};

struct NotSend(ThreadId, Count, PhantomData<*const ()>);

impl Drop for NotSend {
    fn drop(&mut self) {
        if thread::current().id() == self.0 {
            self.1.add();
        }
    }
}

weald::green_local! {
    static LEASE: std::cell::RefCell<Option<Waits>> = std::cell::RefCell::new(None);
    static OF_ITS_THREAD: std::cell::RefCell<Option<NotSend>> = std::cell::RefCell::new(None);
    static CHAIN: [Link; 1] = [Link(0)];
    static NEXT_LINK: [Link; 1] = [Link(1)];
    static LAST_LINK: [Link; 1] = [Link(2)];
    static AGAIN: Again = Again;
}

fn not_send(count: &Count) -> NotSend {
    NotSend(thread::current().id(), count.clone(), PhantomData)
}

/// Makes the next value when it is dropped.
struct Link(u32);

static LINKS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

impl Drop for Link {
    fn drop(&mut self) {
        weald::sleep(MS);
        LINKS.lock().unwrap().push(self.0);
        match self.0 {
            0 => NEXT_LINK.with(|_| ()),
            1 => LAST_LINK.with(|_| ()),
            _ => {}
        }
    }
}

/// Makes itself anew when it is dropped.
struct Again;

static AGAINS: Mutex<u32> = Mutex::new(0);

impl Drop for Again {
    fn drop(&mut self) {
        *AGAINS.lock().unwrap() += 1;
        AGAIN.with(|_| ());
    }
}

#[test]
fn a_kill_does_not_cut_the_destructor_of_a_green_local_short() {
    in_each_mode(|| {
        let drops = Drops::default();
        let lease = drops.sleeps();
        let stored = Flag::default();
        let tells = stored.clone();
        let thread = weald::spawn(move || {
            LEASE.with(|place| *place.borrow_mut() = Some(lease));
            tells.set();
            weald::park();
        });
        stored.wait();
        thread.thread().kill();
        assert!(was_killed(&thread.join()));
        assert!(drops.all(1), "it has ended before `join` returns");
    });
}

#[test]
fn a_green_local_that_a_result_makes_is_dropped_by_its_own_thread() {
    // With shared thread-locals std's thread is the carrier's, which may change.
    for mode in MODES.into_iter().filter(|&mode| mode != Mode::Shared) {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let count = Count::default();
            let made = count.clone();
            let thread = start_detached(&rt, move || {
                OnDrop(move || {
                    let value = not_send(&made);
                    OF_ITS_THREAD.with(|place| *place.borrow_mut() = Some(value));
                })
            });
            wait_until(|| count.get() == 1);
            drop(thread);
            assert_eq!(count.get(), 1);
        });
    }
}

#[test]
fn a_green_local_of_an_os_thread_is_dropped_by_that_before_it_ends() {
    with_deadline(LIMIT, || {
        let count = Count::default();
        let made = count.clone();
        let thread = thread::spawn(move || {
            let value = not_send(&made);
            OF_ITS_THREAD.with(|place| *place.borrow_mut() = Some(value));
            weald::current()
        });
        let kept = thread.join().unwrap();
        assert_eq!(count.get(), 1);
        drop(kept);
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn green_locals_that_destructors_make_are_dropped_in_turn() {
    in_each_mode(|| {
        let thread = weald::spawn(|| CHAIN.with(|_| ()));
        thread.join().unwrap();
        assert_eq!(*LINKS.lock().unwrap(), [0, 1, 2]);
        LINKS.lock().unwrap().clear();
    });
}

#[test]
fn a_green_local_that_makes_itself_anew_comes_to_an_end() {
    in_each_mode(|| {
        *AGAINS.lock().unwrap() = 0;
        let thread = weald::spawn(|| AGAIN.with(|_| ()));
        thread.join().unwrap();
        let made = *AGAINS.lock().unwrap();
        assert!((1..10).contains(&made), "{made} times");
    });
}

#[test]
fn a_green_local_is_refused_where_its_os_thread_would_not_drop_it() {
    thread_local! {
        static LAST: std::cell::RefCell<Option<Box<dyn std::any::Any>>> =
            const { std::cell::RefCell::new(None) };
    }
    with_deadline(LIMIT, || {
        let refused = Flag::default();
        let tells = refused.clone();
        let thread = thread::spawn(move || {
            // Registered before weald's own, so destroyed after that.
            LAST.with_borrow_mut(|last| {
                *last = Some(Box::new(OnDrop(move || {
                    let with = crate::support::caught(|| LEASE.with(|_| ()));
                    if with.is_err() {
                        tells.set();
                    }
                })));
            });
            LEASE.with(|_| ());
        });
        thread.join().unwrap();
        assert!(refused.is_set());
    });
}
