//! `green_local!`: each green thread has its own value, made at its first use and freed when the thread ends. On an
//! OS thread it is a thread-local.

use std::cell::{Cell, RefCell};
use std::sync::Mutex;

use crate::support::{
    Count, Counted, Flag, HOUR, each_mode, everywhere, in_each_mode, settle, wait_until, was_killed,
};

weald::green_local! {
    static NUMBER: Cell<u32> = Cell::new(7);
    pub(crate) static WORDS: RefCell<Vec<String>> = RefCell::new(Vec::new());
    static OWNED: RefCell<Option<Counted>> = RefCell::new(None);
}

static MADE: Mutex<u32> = Mutex::new(0);

weald::green_local! {
    static COUNTS_ITS_MAKING: u32 = {
        let mut made = MADE.lock().unwrap();
        *made += 1;
        *made
    };
}

#[test]
fn every_green_thread_starts_with_the_initial_value() {
    everywhere(|| {
        for round in 0..20 {
            let own = weald::spawn(move || {
                let first = NUMBER.with(Cell::get);
                NUMBER.with(|n| n.set(100 + round));
                first
            });
            assert_eq!(own.join().unwrap(), 7);
        }
        assert_eq!(NUMBER.with(Cell::get), 7);
    });
}

#[test]
fn a_local_keeps_its_value_over_every_wait() {
    in_each_mode(|| {
        let own = |i: u32| {
            weald::spawn(move || {
                NUMBER.with(|n| n.set(i));
                for round in 0..100 {
                    WORDS.with(|w| w.borrow_mut().push(format!("{i}/{round}")));
                    if round % 10 == 0 {
                        weald::sleep(std::time::Duration::from_micros(100));
                    } else {
                        weald::yield_now();
                    }
                    assert_eq!(NUMBER.with(Cell::get), i);
                }
                WORDS.with(|w| {
                    assert_eq!(w.borrow().len(), 100);
                    assert!(
                        w.borrow()
                            .iter()
                            .all(|word| word.starts_with(&format!("{i}/")))
                    );
                });
            })
        };
        let handles: Vec<_> = (0..50).map(own).collect();
        for h in handles {
            h.join().unwrap();
        }
    });
}

#[test]
fn a_local_is_freed_when_its_green_thread_ends() {
    everywhere(|| {
        let drops = Count::default();
        let (stored, go) = (Flag::default(), Flag::default());
        let own = {
            let (value, stored, go) = (drops.on_drop(), stored.clone(), go.clone());
            weald::spawn(move || {
                OWNED.with(|o| *o.borrow_mut() = Some(value));
                stored.set();
                go.wait();
            })
        };
        stored.wait();
        assert_eq!(drops.get(), 0);
        go.set();
        own.join().unwrap();
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn a_local_is_freed_when_its_green_thread_panics_or_is_killed() {
    everywhere(|| {
        let drops = Count::default();
        let value = drops.on_drop();
        let panics = weald::spawn(move || {
            OWNED.with(|o| *o.borrow_mut() = Some(value));
            panic!("with a local");
        });
        assert!(panics.join().is_err());
        wait_until(|| drops.get() == 1);
        let (value, stored) = (drops.on_drop(), Flag::default());
        let tells = stored.clone();
        let killed = weald::spawn(move || {
            OWNED.with(|o| *o.borrow_mut() = Some(value));
            tells.set();
            weald::sleep(HOUR);
        });
        stored.wait();
        settle();
        killed.thread().kill();
        assert!(was_killed(&killed.join()));
        wait_until(|| drops.get() == 2);
    });
}

#[test]
fn a_local_is_made_at_first_use_and_only_there() {
    each_mode(|rt| {
        let before = *MADE.lock().unwrap();
        rt.spawn(|| ()).join().unwrap();
        assert_eq!(*MADE.lock().unwrap(), before);
        rt.spawn(|| {
            let first = COUNTS_ITS_MAKING.with(|n| *n);
            weald::yield_now();
            assert_eq!(COUNTS_ITS_MAKING.with(|n| *n), first);
        })
        .join()
        .unwrap();
        assert_eq!(*MADE.lock().unwrap(), before + 1);
    });
}

#[test]
fn with_hands_on_what_the_closure_returns_and_may_use_another_local() {
    everywhere(|| {
        let thread =
            weald::spawn(|| NUMBER.with(|n| WORDS.with(|w| n.get() as usize + w.borrow().len())));
        assert_eq!(thread.join().unwrap(), 7);
    });
}

#[test]
fn green_threads_on_one_os_thread_share_nothing_with_its_thread_local_twin() {
    in_each_mode(|| {
        NUMBER.with(|n| n.set(1));
        let other = weald::spawn(|| NUMBER.with(Cell::get));
        assert_eq!(other.join().unwrap(), 7);
        let os_thread = std::thread::spawn(|| NUMBER.with(Cell::get));
        assert_eq!(os_thread.join().unwrap(), 7);
        assert_eq!(NUMBER.with(Cell::get), 1);
    });
}
