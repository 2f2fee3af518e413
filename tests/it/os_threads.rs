//! Everything works on a plain OS thread too, where a blocking call blocks that thread.

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use weald::Elapsed;

use crate::support::{
    Count, HOUR, LIMIT, MS, Mark, caught, exception_in, green_pair, loopbacks, mark_in, settle,
    source_of, v4, wait_until, was_killed, with_deadline,
};

weald::green_local! {
    static OWN: Cell<u32> = Cell::new(1);
    static LEAVES_A_MARK: Cell<Option<crate::support::Counted>> = Cell::new(None);
}

/// Runs the check on a fresh OS thread that weald does not know.
fn on_an_os_thread(check: impl FnOnce() + Send) {
    with_deadline(LIMIT, || {
        assert!(!weald::is_green());
        check();
        assert!(!weald::is_green());
    });
}

thread_local! {
    static FIRST_TO_END: AtItsEnd = const { AtItsEnd };
    static SECOND_TO_END: AtItsEnd = const { AtItsEnd };
    static THIRD_TO_END: AtItsEnd = const { AtItsEnd };
}

/// A value whose destructor blocks in all sorts of ways.
struct AtItsEnd;

impl Drop for AtItsEnd {
    fn drop(&mut self) {
        weald::spawn(|| weald::sleep(MS)).join().unwrap();
        let mine = weald::current();
        assert_eq!(weald::current().id(), mine.id());
        mine.unpark();
        weald::park();
        weald::spawn(move || mine.unpark());
        weald::park();
        weald::sleep(MS);
        let (tell, told) = weald::sync::channel::bounded(0);
        weald::spawn(move || tell.send(1).unwrap());
        assert_eq!(told.recv().unwrap(), 1);
        ENDED.fetch_add(1, SeqCst);
    }
}

static ENDED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn several_destructors_of_thread_locals_block_one_after_another() {
    with_deadline(LIMIT, || {
        let ends = std::thread::spawn(|| {
            THIRD_TO_END.with(|_| ());
            SECOND_TO_END.with(|_| ());
            FIRST_TO_END.with(|_| ());
            // The thread's header is made after these values, so it is gone before they are.
            weald::current();
        });
        ends.join().unwrap();
    });
    assert_eq!(ENDED.load(SeqCst), 3);
}

#[test]
fn current_is_a_handle_with_an_id_of_its_own_that_stays() {
    on_an_os_thread(|| {
        let mine = weald::current().id();
        assert_eq!(weald::current().id(), mine);
        weald::sleep(MS);
        assert_eq!(weald::current().id(), mine);
        let other = std::thread::spawn(|| weald::current().id()).join().unwrap();
        let green = weald::spawn(|| weald::current().id()).join().unwrap();
        assert!(mine != other && mine != green && other != green);
    });
}

#[test]
fn os_threads_and_green_threads_unpark_each_other() {
    on_an_os_thread(|| {
        let me = weald::current();
        let turns = Count::default();
        let counts = turns.clone();
        let partner = weald::spawn(move || {
            for _ in 0..1000 {
                weald::park();
                counts.add();
                me.unpark();
            }
        });
        for i in 0..1000 {
            partner.thread().unpark();
            weald::park();
            assert_eq!(turns.get(), i + 1);
        }
        partner.join().unwrap();
    });
}

#[test]
fn two_os_threads_unpark_each_other() {
    on_an_os_thread(|| {
        let me = weald::current();
        let (send, receive) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            send.send(weald::current()).unwrap();
            weald::park();
            me.unpark();
        });
        receive.recv().unwrap().unpark();
        weald::park();
        other.join().unwrap();
    });
}

#[test]
fn an_exception_is_thrown_at_an_os_thread_that_waits() {
    on_an_os_thread(|| {
        let waits: [(&str, fn()); 5] = [
            ("sleep", || weald::sleep(HOUR)),
            ("park", weald::park),
            ("park_timeout", || weald::park_timeout(Duration::MAX)),
            ("join", || {
                weald::spawn(|| weald::sleep(HOUR)).join().unwrap();
            }),
            ("yield_now", || {
                loop {
                    weald::yield_now();
                }
            }),
        ];
        for (name, wait) in waits {
            let (send, receive) = std::sync::mpsc::channel();
            let target = std::thread::spawn(move || {
                send.send(weald::current()).unwrap();
                caught(wait)
            });
            let thread = receive.recv().unwrap();
            settle();
            thread.throw(Mark(1));
            assert_eq!(mark_in(&target.join().unwrap()), Some(1), "{name}");
        }
    });
}

#[test]
fn an_os_thread_that_is_killed_unwinds_from_every_blocking_call() {
    on_an_os_thread(|| {
        let (send, receive) = std::sync::mpsc::channel();
        let target = std::thread::spawn(move || {
            send.send(weald::current()).unwrap();
            let first = caught(|| weald::sleep(HOUR));
            let second = caught(weald::checkpoint);
            was_killed(&first) && was_killed(&second)
        });
        receive.recv().unwrap().kill();
        assert!(target.join().unwrap());
    });
}

#[test]
fn an_os_thread_that_has_ended_drops_what_is_thrown_at_it() {
    on_an_os_thread(|| {
        let thread = std::thread::spawn(weald::current).join().unwrap();
        let drops = Count::default();
        thread.throw(drops.on_drop());
        thread.unpark();
        thread.kill();
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn limits_and_delayed_exceptions_interrupt_an_os_thread() {
    on_an_os_thread(|| {
        let start = Instant::now();
        assert!(weald::timeout(10 * MS, || weald::sleep(HOUR)).is_err());
        assert!(start.elapsed() >= 10 * MS);
        weald::exc_after(5 * MS, Mark(2));
        assert_eq!(weald::catch::<Mark, _>(|| weald::sleep(HOUR)), Err(Mark(2)));
        assert_eq!(weald::timeout(HOUR, || 3).unwrap(), 3);
    });
}

#[test]
fn an_overdue_exception_is_raised_by_every_blocking_call_of_an_os_thread() {
    on_an_os_thread(|| {
        let calls: [(&str, fn()); 4] = [
            ("checkpoint", weald::checkpoint),
            ("yield_now", weald::yield_now),
            ("sleep", || weald::sleep(Duration::ZERO)),
            ("blocking", || weald::blocking(|| ())),
        ];
        for (name, call) in calls {
            weald::exc_after(MS, Mark(4));
            std::thread::sleep(20 * MS);
            assert_eq!(mark_in(&caught(call)), Some(4), "{name}");
        }
    });
}

#[test]
fn sockets_work_between_os_threads_on_both_families() {
    for addr in loopbacks() {
        on_an_os_thread(|| {
            let listener = weald::tcp_listener(addr).unwrap();
            let to = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, from) = listener.accept().unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                stream.write_all(text.to_uppercase().as_bytes()).unwrap();
                from
            });
            let mut client = weald::connect_tcp(to).unwrap();
            let mine = client.local_addr().unwrap();
            client.write_all(b"from a thread").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "FROM A THREAD");
            assert_eq!(server.join().unwrap(), mine);
        });
    }
}

#[test]
fn a_passed_timeout_and_an_exception_end_the_read_of_an_os_thread() {
    on_an_os_thread(|| {
        let (mut near, mut far) = green_pair(v4());
        near.set_read_timeout(Some(10 * MS)).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        near.set_read_timeout(None).unwrap();
        weald::exc_after(5 * MS, Mark(5));
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(5)));
        let outcome = weald::timeout(5 * MS, || near.read(&mut [0]));
        assert!(outcome.is_err());
        far.write_all(b"k").unwrap();
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"k");
    });
}

#[test]
fn a_server_is_started_and_stopped_from_an_os_thread() {
    on_an_os_thread(|| {
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), |mut stream, _| {
            stream.write_all(b"hello").unwrap();
        });
        let mut client = weald::connect_tcp(server.local_addr()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(server.shutdown(Duration::from_secs(20)));
    });
}

#[test]
fn green_locals_are_thread_locals_there_and_freed_with_the_thread() {
    on_an_os_thread(|| {
        OWN.with(|own| own.set(5));
        assert_eq!(
            std::thread::spawn(|| OWN.with(Cell::get)).join().unwrap(),
            1
        );
        assert_eq!(OWN.with(Cell::get), 5);
        let drops = Count::default();
        let value = drops.on_drop();
        std::thread::spawn(move || LEAVES_A_MARK.with(|cell| cell.set(Some(value))))
            .join()
            .unwrap();
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn many_os_threads_use_one_runtime_at_once() {
    on_an_os_thread(|| {
        let rt = crate::support::runtime(2, crate::support::Mode::Pinned);
        std::thread::scope(|s| {
            for t in 0..8 {
                let rt = &rt;
                s.spawn(move || {
                    for i in 0..200 {
                        assert_eq!(rt.spawn(move || t * i).join().unwrap(), t * i);
                        assert_eq!(rt.run(|| t + i), t + i);
                    }
                });
            }
        });
    });
}

#[test]
fn an_interrupted_sleep_there_is_elapsed_only_inside_its_limit() {
    on_an_os_thread(|| {
        let outcome = weald::timeout(2 * MS, || caught(|| weald::sleep(HOUR)));
        assert!(outcome.is_err());
        let inner = caught(|| {
            weald::timeout(MS, || {
                exception_in::<Elapsed, ()>(&caught(|| weald::sleep(HOUR))).is_some()
            })
        });
        assert!(inner.unwrap().is_err());
        weald::checkpoint();
    });
}
