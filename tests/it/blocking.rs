//! `blocking`: a call that holds its OS thread, in place, while the others go on.

use std::io::{Read as _, Write as _};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MS, Mark, Mode, caught, each_mode, each_mode_on, everywhere,
    green_pair, in_each_mode, mark_in, os_thread, panic_text, runtime, settle, v4, wait_until,
    was_killed, with_deadline,
};

#[test]
fn it_returns_the_value_and_the_closure_may_borrow_and_hold_what_is_not_send() {
    everywhere(|| {
        let local = Rc::new(5);
        let mut text = String::from("a");
        let back = weald::blocking(|| {
            text.push('b');
            Rc::clone(&local)
        });
        assert_eq!(
            (*back, text.as_str(), Rc::strong_count(&local)),
            (5, "ab", 2)
        );
    });
}

#[test]
fn the_closure_runs_on_the_os_thread_that_its_caller_was_on() {
    everywhere(|| {
        let before = os_thread();
        weald::blocking(|| {
            assert_eq!(os_thread(), before);
            std::thread::sleep(5 * MS);
            assert_eq!(os_thread(), before);
        });
    });
}

#[test]
fn what_has_not_started_runs_while_the_only_workers_os_thread_blocks() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (send, receive) = mpsc::channel();
            weald::spawn(move || send.send("from a neighbour").unwrap());
            assert_eq!(
                weald::blocking(|| receive.recv().unwrap()),
                "from a neighbour"
            );
        });
    });
}

#[test]
fn what_comes_from_outside_runs_while_the_only_workers_os_thread_blocks() {
    each_mode_on(1, |rt| {
        let inside = Flag::default();
        let (send, receive) = mpsc::channel();
        let tells = inside.clone();
        let blocked = rt.spawn(move || {
            weald::blocking(|| {
                tells.set();
                receive.recv().unwrap()
            })
        });
        inside.spin();
        rt.spawn(move || send.send(11).unwrap()).join().unwrap();
        assert_eq!(blocked.join().unwrap(), 11);
    });
}

#[test]
fn timers_fire_while_the_only_workers_os_thread_blocks() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (send, receive) = mpsc::channel();
            weald::call_after(5 * MS, move || send.send(()).unwrap());
            weald::blocking(|| receive.recv().unwrap());
        });
    });
}

#[test]
fn sockets_are_served_while_the_only_workers_os_thread_blocks() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let listener = weald::tcp_listener(v4()).unwrap();
            let addr = listener.local_addr().unwrap();
            let (send, receive) = mpsc::channel();
            weald::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                send.send(byte[0]).unwrap();
            });
            let byte = weald::blocking(|| {
                let mut client = std::net::TcpStream::connect(addr).unwrap();
                std::thread::sleep(20 * MS);
                client.write_all(b"!").unwrap();
                receive.recv().unwrap()
            });
            assert_eq!(byte, b'!');
        });
    });
}

#[test]
fn started_neighbours_go_on_too_where_they_may_migrate() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Shared);
        rt.run(|| {
            let started = Flag::default();
            let tells = started.clone();
            let (send, receive) = mpsc::channel();
            let neighbour = weald::spawn(move || {
                tells.set();
                for _ in 0..10 {
                    weald::sleep(MS);
                    weald::yield_now();
                }
                weald::park();
                send.send(()).unwrap();
            });
            started.wait();
            neighbour.thread().unpark();
            weald::blocking(|| receive.recv().unwrap());
            neighbour.join().unwrap();
        });
    });
}

#[test]
fn twenty_green_threads_block_at_once_on_one_worker() {
    each_mode_on(1, |rt| {
        let meet = Arc::new(Barrier::new(20));
        let blocks = |_| {
            let meet = Arc::clone(&meet);
            rt.spawn(move || weald::blocking(|| meet.wait()).is_leader())
        };
        let handles: Vec<_> = (0..20).map(blocks).collect();
        let leaders = handles
            .into_iter()
            .map(|h| h.join().unwrap())
            .filter(|&leader| leader);
        assert_eq!(leaders.count(), 1);
    });
}

#[test]
fn wealds_own_calls_work_inside_as_outside() {
    everywhere(|| {
        let outside = (weald::is_green(), weald::current().id());
        let sum = weald::blocking(|| {
            assert_eq!((weald::is_green(), weald::current().id()), outside);
            weald::sleep(MS);
            weald::yield_now();
            weald::checkpoint();
            weald::current().unpark();
            weald::park();
            assert!(weald::timeout(5 * MS, || weald::sleep(HOUR)).is_err());
            let child = weald::spawn(|| {
                weald::sleep(MS);
                20
            });
            let scoped = weald::scope(|s| s.spawn(|| 2).join().unwrap());
            let nested = weald::blocking(|| 1);
            let (mut near, mut far) = green_pair(v4());
            near.write_all(b"over").unwrap();
            far.read_exact(&mut [0; 4]).unwrap();
            child.join().unwrap() + scoped + nested
        });
        assert_eq!(sum, 23);
    });
}

#[test]
fn a_kill_is_held_until_the_closure_has_ended() {
    each_mode(|rt| {
        let (inside, go) = (Flag::default(), Flag::default());
        let (whole, after) = (Flag::default(), Flag::default());
        let blocked = {
            let (inside, go, whole, after) =
                (inside.clone(), go.clone(), whole.clone(), after.clone());
            rt.spawn(move || {
                weald::blocking(|| {
                    inside.set();
                    go.spin();
                    weald::checkpoint();
                    weald::sleep(MS);
                    whole.set();
                });
                weald::checkpoint();
                after.set();
            })
        };
        inside.spin();
        blocked.thread().kill();
        go.set();
        assert!(was_killed(&blocked.join()));
        assert!(whole.is_set(), "killed inside the closure");
        assert!(!after.is_set(), "the kill was lost");
    });
}

#[test]
fn a_pending_exception_is_raised_before_the_closure_starts() {
    everywhere(|| {
        weald::current().throw(Mark(4));
        let started = Flag::default();
        assert_eq!(
            mark_in(&caught(|| weald::blocking(|| started.set()))),
            Some(4)
        );
        assert!(!started.is_set());
        weald::blocking(|| started.set());
        assert!(started.is_set());
    });
}

#[test]
fn a_panic_of_the_closure_goes_on_in_the_caller() {
    everywhere(|| {
        let outcome = caught(|| weald::blocking(|| panic!("in the closure")));
        assert_eq!(panic_text(&*outcome.unwrap_err()), "in the closure");
        weald::sleep(MS);
    });
}

#[test]
fn many_short_blocking_calls_leave_nothing_stuck() {
    in_each_mode(|| {
        let calls = Count::default();
        let thread = |i: u64| {
            let calls = calls.clone();
            weald::spawn(move || {
                for round in 0..50 {
                    weald::blocking(|| {
                        std::thread::sleep(std::time::Duration::from_micros((i + round) % 100));
                    });
                    calls.add();
                    weald::yield_now();
                }
            })
        };
        let handles: Vec<_> = (0..20).map(thread).collect();
        let naps = AtomicUsize::new(0);
        while handles.iter().any(|h| !h.is_finished()) {
            weald::sleep(MS);
            naps.fetch_add(1, SeqCst);
        }
        wait_until(|| calls.get() == 1000);
        for h in handles {
            h.join().unwrap();
        }
        settle();
    });
}
