//! `JoinHandle`: the value or the payload comes back once, to the caller of `join`, wherever it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::{
    Count, Flag, LIMIT, Mark, Mode, caught, each_mode, everywhere, in_each_mode, mark_in, runtime,
    settle, wait_until, with_deadline,
};

#[test]
fn join_waits_for_a_green_thread_that_still_runs() {
    everywhere(|| {
        let (go, ended) = (Flag::default(), Flag::default());
        let (waits, tells) = (go.clone(), ended.clone());
        let handle = weald::spawn(move || {
            waits.wait();
            tells.set();
            5
        });
        weald::spawn(move || {
            settle();
            go.set();
        });
        assert_eq!(handle.join().unwrap(), 5);
        assert!(ended.is_set());
    });
}

#[test]
fn join_returns_at_once_when_the_green_thread_has_ended() {
    everywhere(|| {
        let handle = weald::spawn(|| "value");
        wait_until(|| handle.is_finished());
        assert_eq!(handle.join().unwrap(), "value");
    });
}

#[test]
fn is_finished_turns_true_when_the_body_has_ended_and_not_before() {
    everywhere(|| {
        let go = Flag::default();
        let waits = go.clone();
        let handle = weald::spawn(move || waits.wait());
        settle();
        assert!(!handle.is_finished());
        go.set();
        wait_until(|| handle.is_finished());
        handle.join().unwrap();
    });
}

#[test]
fn an_os_thread_joins_a_green_thread_and_the_other_way_round() {
    each_mode(|rt| {
        let go = Flag::default();
        let waits = go.clone();
        let handle = rt.spawn(move || {
            waits.wait();
            17
        });
        let joiner = std::thread::spawn(move || handle.join().unwrap());
        go.set();
        assert_eq!(joiner.join().unwrap(), 17);
    });
}

#[test]
fn a_handle_may_be_joined_by_another_green_thread_than_the_spawner() {
    in_each_mode(|| {
        let handle = weald::spawn(|| vec![1, 2, 3]);
        let joiner = weald::spawn(move || handle.join().unwrap());
        assert_eq!(joiner.join().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_handle_is_shared_by_reference_among_green_threads() {
    in_each_mode(|| {
        let (go, done) = (Flag::default(), Flag::default());
        let (waits, tells) = (go.clone(), done.clone());
        let handle = Arc::new(weald::spawn(move || {
            waits.wait();
            tells.set();
            9
        }));
        let watchers: Vec<_> = (0..4)
            .map(|_| {
                let handle = Arc::clone(&handle);
                weald::spawn(move || wait_until(|| handle.is_finished()))
            })
            .collect();
        go.set();
        for w in watchers {
            w.join().unwrap();
        }
        assert!(done.is_set());
        wait_until(|| Arc::strong_count(&handle) == 1);
        assert_eq!(Arc::into_inner(handle).unwrap().join().unwrap(), 9);
    });
}

#[test]
fn a_chain_of_a_thousand_joins_unwinds_from_its_end() {
    in_each_mode(|| {
        let mut last = weald::spawn(|| 0_u32);
        for _ in 0..1000 {
            let before = last;
            last = weald::spawn(move || before.join().unwrap() + 1);
        }
        assert_eq!(last.join().unwrap(), 1000);
    });
}

#[test]
fn a_green_thread_joins_one_of_another_runtime() {
    with_deadline(LIMIT, || {
        let (here, there) = (runtime(1, Mode::Pinned), runtime(2, Mode::Shared));
        for round in 0..200 {
            let handle = there.spawn(move || {
                weald::yield_now();
                round
            });
            assert_eq!(here.run(|| handle.join().unwrap()), round);
        }
    });
}

#[test]
fn a_joined_value_is_handed_over_and_not_copied_or_leaked() {
    in_each_mode(|| {
        let drops = Count::default();
        let value = drops.on_drop();
        let back = weald::spawn(move || value).join().unwrap();
        assert_eq!(drops.get(), 0);
        drop(back);
        assert_eq!(drops.get(), 1);
    });
}

#[test]
fn an_interrupted_join_detaches_the_thread_and_unwinds_the_joiner() {
    in_each_mode(|| {
        let (go, ended) = (Flag::default(), Flag::default());
        let (waits, tells) = (go.clone(), ended.clone());
        let child = weald::spawn(move || {
            waits.wait();
            tells.set();
        });
        let about_to_wait = Flag::default();
        let tells_so = about_to_wait.clone();
        let joiner = weald::spawn(move || {
            tells_so.set();
            child.join().unwrap();
        });
        about_to_wait.wait();
        settle();
        joiner.thread().throw(Mark(3));
        assert_eq!(mark_in(&joiner.join()), Some(3));
        assert!(!ended.is_set());
        go.set();
        ended.wait();
    });
}

#[test]
fn a_join_with_a_limit_gives_up_and_the_thread_goes_on() {
    everywhere(|| {
        let (go, ended) = (Flag::default(), Flag::default());
        let (waits, tells) = (go.clone(), ended.clone());
        let child = weald::spawn(move || {
            waits.wait();
            tells.set();
        });
        let limit = std::time::Duration::from_millis(20);
        assert!(weald::timeout(limit, || child.join()).is_err());
        assert!(!ended.is_set());
        go.set();
        ended.wait();
    });
}

#[test]
fn threads_that_end_while_they_are_joined_are_all_seen() {
    in_each_mode(|| {
        let sum = Arc::new(AtomicUsize::new(0));
        for round in 0..3000 {
            let sum = Arc::clone(&sum);
            let handle = weald::spawn(move || {
                if round % 3 == 0 {
                    weald::yield_now();
                }
                sum.fetch_add(1, SeqCst);
            });
            if round % 2 == 0 {
                weald::yield_now();
            }
            handle.join().unwrap();
        }
        assert_eq!(sum.load(SeqCst), 3000);
    });
}

#[test]
fn joining_oneself_can_be_interrupted() {
    in_each_mode(|| {
        let own = Arc::new(std::sync::Mutex::new(None::<weald::JoinHandle<()>>));
        let takes = Arc::clone(&own);
        let ended = Flag::default();
        let tells = ended.clone();
        let handle = weald::spawn(move || {
            let mine = loop {
                let there = takes.lock().unwrap().take();
                match there {
                    Some(mine) => break mine,
                    None => weald::sleep(crate::support::MS),
                }
            };
            let joined = caught(|| mine.join());
            assert!(joined.is_err(), "only the exception ends it");
            tells.set();
        });
        let thread = handle.thread().clone();
        *own.lock().unwrap() = Some(handle);
        settle();
        thread.throw(Mark(1));
        ended.wait();
    });
}
