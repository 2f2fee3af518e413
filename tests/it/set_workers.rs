//! `Runtime::set_workers`: more and fewer workers while green threads compute, wait for times and talk over sockets, in all modes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use weald::sync::channel::bounded;
use weald::{Builder, Runtime};

use crate::support::{
    Count, Flag, LIMIT, MODES, MS, check_names, each_mode_on, runtime, v4, wait_until, was_killed,
    with_deadline,
};

/// So many threads compute at the same time, each without giving way, until all of them do.
fn meet(rt: &Runtime, threads: usize) {
    let arrived = Count::default();
    let meet = |_| {
        let arrived = arrived.clone();
        rt.spawn(move || {
            arrived.add();
            arrived.spin(threads);
        })
    };
    let threads: Vec<_> = (0..threads).map(meet).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_number_out_of_its_range_is_an_error_and_changes_nothing() {
    each_mode_on(2, |rt| {
        for wrong in [0, 1025, usize::MAX] {
            let error = rt.set_workers(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            check_names(&error.to_string(), &wrong.to_string(), &["1024"]);
            assert_eq!(rt.metrics().workers, 2);
        }
    });
}

#[test]
fn workers_that_come_later_take_what_the_first_one_has_queued() {
    each_mode_on(1, |rt| {
        rt.run(|| weald::spawn(|| ()).join().unwrap());
        rt.set_workers(4).unwrap();
        assert_eq!(rt.metrics().workers, 4);
        // Spawned from a green thread of the first one.
        let arrived = Count::default();
        rt.run(|| {
            let compute = |_| {
                let arrived = arrived.clone();
                weald::spawn(move || {
                    arrived.add();
                    arrived.spin(4);
                })
            };
            let others: Vec<_> = (0..3).map(compute).collect();
            arrived.add();
            arrived.spin(4);
            for other in others {
                other.join().unwrap();
            }
        });
        meet(rt, 4);
    });
}

#[test]
fn threads_that_wait_for_a_time_or_a_peer_go_on_when_their_worker_has_retired() {
    each_mode_on(4, |rt| {
        let (woken, begun) = (Count::default(), Count::default());
        let (tell, told) = bounded::<()>(0);
        let wait = |n: u32| {
            let (woken, begun, told) = (woken.clone(), begun.clone(), told.clone());
            rt.spawn(move || {
                begun.add();
                match n % 3 {
                    0 => weald::sleep(20 * MS),
                    1 => drop(told.recv().unwrap_err()),
                    _ => drop(weald::timeout(20 * MS, weald::park)),
                }
                // And once more, where it is now.
                weald::sleep(MS);
                woken.add();
            })
        };
        let threads: Vec<_> = (0..120).map(wait).collect();
        let calls = Count::default();
        rt.run(|| {
            for _ in 0..20 {
                let calls = calls.clone();
                weald::call_after(20 * MS, move || {
                    calls.add();
                });
            }
            wait_until(|| begun.get() == 120);
        });
        rt.set_workers(1).unwrap();
        assert_eq!(rt.metrics().workers, 1);
        drop(tell);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(woken.get(), 120);
        rt.run(|| wait_until(|| calls.get() == 20));
        assert_eq!(rt.run(|| weald::spawn(|| 7).join().unwrap()), 7);
    });
}

fn echo(address: SocketAddr, rounds: usize, done: &AtomicUsize) {
    let mut stream = weald::connect_tcp(address).unwrap();
    for n in 0..rounds {
        let sent = n.to_le_bytes();
        stream.write_all(&sent).unwrap();
        let mut got = [0; 8];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(sent, got);
        done.fetch_add(1, SeqCst);
    }
}

#[test]
fn sockets_and_queues_go_on_while_the_number_goes_up_and_down() {
    each_mode_on(2, |rt| {
        const CLIENTS: usize = 20;
        const ROUNDS: usize = 60;
        let done = Arc::new(AtomicUsize::new(0));
        let (address, server) = rt.run(|| {
            let listener = weald::tcp_listener(v4()).unwrap();
            let address = listener.local_addr().unwrap();
            let server = weald::spawn(move || {
                weald::scope(|scope| {
                    for _ in 0..CLIENTS {
                        let (mut stream, _) = listener.accept().unwrap();
                        scope.spawn(move || {
                            let mut bytes = [0; 8];
                            while stream.read_exact(&mut bytes).is_ok() {
                                weald::yield_now();
                                stream.write_all(&bytes).unwrap();
                            }
                        });
                    }
                });
            });
            (address, server)
        });
        let client = |_| {
            let done = Arc::clone(&done);
            rt.spawn(move || echo(address, ROUNDS, &done))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        for step in 1..12 {
            let workers = [1, 3, 2, 5, 1, 4][step % 6];
            rt.set_workers(workers).unwrap();
            assert_eq!(rt.metrics().workers, workers);
            let enough = CLIENTS * ROUNDS * step / 12;
            while done.load(SeqCst) < enough {
                std::thread::sleep(MS / 5);
            }
        }
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
        rt.set_workers(3).unwrap();
        meet(rt, 3);
    });
}

#[test]
fn threads_that_were_to_begin_on_a_worker_that_is_gone_begin_elsewhere() {
    each_mode_on(3, |rt| {
        let ran = Count::default();
        let threads: Vec<_> = rt.run(|| {
            let spawn = |n| {
                let ran = ran.clone();
                Builder::new().worker(n % 3).spawn(move || ran.add())
            };
            let threads = (0..90_usize).map(spawn).map(Result::unwrap).collect();
            rt.set_workers(1).unwrap();
            for gone in [1, 2] {
                let error = Builder::new().worker(gone).spawn(|| ()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
            threads
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(ran.get(), 90);
        rt.set_workers(2).unwrap();
        let back = rt.run(|| Builder::new().worker(1).spawn(|| 5).unwrap().join());
        assert_eq!(back.unwrap(), 5);
    });
}

#[test]
fn a_worker_whose_green_thread_does_not_come_back_retires_all_the_same() {
    each_mode_on(2, |rt| {
        let (computes, stop) = (Count::default(), Flag::default());
        let compute = |_| {
            let (computes, stop) = (computes.clone(), stop.clone());
            rt.spawn(move || {
                computes.add();
                stop.spin();
                weald::sleep(MS);
            })
        };
        let hogs: Vec<_> = (0..2).map(compute).collect();
        computes.spin(2);
        rt.set_workers(1).unwrap();
        for n in 0..20 {
            assert_eq!(rt.spawn(move || n).join().unwrap(), n);
        }
        stop.set();
        for hog in hogs {
            hog.join().unwrap();
        }
    });
}

#[test]
fn a_pinned_thread_goes_on_when_the_worker_has_retired_that_it_began_on() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            let (turns, stop) = (Count::default(), Flag::default());
            let (counts, until) = (turns.clone(), stop.clone());
            let goes_on = move || {
                while !until.is_set() {
                    counts.add();
                    weald::yield_now();
                    weald::sleep(MS / 10);
                }
            };
            let thread = Builder::new()
                .worker(1)
                .pinned(true)
                .spawn(goes_on)
                .unwrap();
            wait_until(|| turns.get() > 0);
            rt.set_workers(1).unwrap();
            let before = turns.get();
            wait_until(|| turns.get() > before + 20);
            stop.set();
            thread.join().unwrap();
        });
    });
}

#[test]
fn a_runtime_ends_as_ever_whose_workers_have_come_and_gone() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(2, mode);
            let waits = |_| rt.spawn(weald::park);
            let threads: Vec<_> = (0..20).map(waits).collect();
            rt.set_workers(6).unwrap();
            rt.run(|| wait_until(|| weald::metrics().parked >= 20));
            rt.set_workers(1).unwrap();
            assert!(!rt.shutdown(Duration::ZERO));
            assert!(threads.into_iter().all(|thread| was_killed(&thread.join())));
        });
    }
}

#[test]
fn calls_from_several_threads_at_once_leave_one_of_their_numbers() {
    each_mode_on(2, |rt| {
        std::thread::scope(|scope| {
            for workers in 1..=4 {
                scope.spawn(move || {
                    for _ in 0..10 {
                        rt.set_workers(workers).unwrap();
                    }
                });
            }
        });
        let workers = rt.metrics().workers;
        assert!((1..=4).contains(&workers));
        meet(rt, workers);
    });
}

/// The descriptors of pollers that tell of this one: proc_pid_fdinfo(5).
#[cfg(target_os = "linux")]
fn tellers(fd: i32) -> Vec<std::path::PathBuf> {
    let tells = |path: &std::path::PathBuf| {
        let of = |line: &str| {
            Some(line.strip_prefix("tfd:")?.split_whitespace().next()? == fd.to_string())
        };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| of(line) == Some(true))
    };
    let all = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    all.map(|entry| entry.unwrap().path())
        .filter(tells)
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn bytes_arrive_though_the_worker_that_waits_for_them_retires_and_has_always_something_to_run() {
    use std::os::fd::AsRawFd as _;
    each_mode_on(2, |rt| {
        let (near, mut far) = rt.run(|| crate::support::std_pair(v4()));
        let fd = near.as_raw_fd();
        let stop = Flag::default();
        let until = stop.clone();
        let on_the_last = || Builder::new().worker(1);
        let (busy, reads) = rt.run(|| {
            let read = move || {
                let mut near = near;
                let mut byte = [0];
                near.read_exact(&mut byte).unwrap();
                byte[0]
            };
            let reads = on_the_last().spawn(read).unwrap();
            wait_until(|| !tellers(fd).is_empty());
            let yields = move || {
                while !until.is_set() {
                    weald::yield_now();
                }
            };
            let busy = on_the_last().pinned(true).spawn(yields).unwrap();
            (busy, reads)
        });
        // Then the socket leaves the poller of the last worker. Where it is registered next depends on where its reader runs.
        rt.set_workers(1).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(reads.join().unwrap(), b'x');
        stop.set();
        busy.join().unwrap();
    });
}
