//! Fairness on one worker: whatever one green thread does with blocking calls, nothing else starves.
//!
//! The crowds below never end by themselves, and the victims must finish beside them. The test promises that they do,
//! not how fast.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as StdStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weald::net::UdpSocket;
use weald::net::unix::{UnixDatagram, UnixStream};
use weald::{GreenThread, JoinHandle, Runtime};

use crate::support::{Count, Flag, MS, each_mode_on, green_pair, std_pair, v4, wait_until};
#[cfg(feature = "tls")]
use crate::tls_support::tls_pair;

/// Starts a crowd on the only worker, and checks that each kind of neighbour still gets its turns.
fn check_that_nothing_starves_beside(crowd: impl Fn(&Flag) -> Vec<JoinHandle<()>> + Sync) {
    each_mode_on(1, |rt| {
        let stop = Flag::default();
        let crowd = rt.run(|| crowd(&stop));
        check_what_comes_from_outside(rt);
        check_timers(rt);
        check_other_green_threads(rt, false);
        check_other_green_threads(rt, true);
        check_sockets(rt, false);
        check_sockets(rt, true);
        stop.set();
        for h in crowd {
            h.join().unwrap();
        }
    });
}

fn check_what_comes_from_outside(rt: &Runtime) {
    for i in 0..20 {
        assert_eq!(rt.spawn(move || i).join().unwrap(), i);
        assert_eq!(rt.run(|| i), i);
    }
}

fn check_timers(rt: &Runtime) {
    rt.run(|| {
        (0..10).for_each(|_| weald::sleep(MS));
        let fired = Flag::default();
        let tells = fired.clone();
        weald::call_after(MS, move || tells.set());
        fired.wait();
        assert!(weald::timeout(2 * MS, weald::park).is_err());
    });
}

/// Starts a green thread. `bound`: it stays on the carrier that starts it, in every mode.
fn start(bound: bool, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    weald::Builder::new().pinned(bound).spawn(body).unwrap()
}

fn check_other_green_threads(rt: &Runtime, bound: bool) {
    rt.run(|| {
        let turns = Count::default();
        let others: Vec<_> = (0..5)
            .map(|_| {
                let turns = turns.clone();
                start(bound, move || {
                    for _ in 0..20 {
                        turns.add();
                        weald::yield_now();
                    }
                })
            })
            .collect();
        for h in others {
            h.join().unwrap();
        }
        assert_eq!(turns.get(), 100);
    });
}

fn check_sockets(rt: &Runtime, bound: bool) {
    let listener = rt.run(|| weald::tcp_listener(v4()).unwrap());
    let addr = listener.local_addr().unwrap();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 {
            stream.write_all(&byte).unwrap();
        }
    };
    let server = rt.run(|| start(bound, serve));
    let mut client = StdStream::connect(addr).unwrap();
    for i in 0..20 {
        client.write_all(&[i]).unwrap();
        let mut back = [0];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back[0], i);
    }
    drop(client);
    server.join().unwrap();
}

/// Starts a green thread that repeats `turn` until it is told to stop.
fn round_and_round(stop: &Flag, mut turn: impl FnMut() + Send + 'static) -> JoinHandle<()> {
    let until = stop.clone();
    weald::spawn(move || {
        while !until.is_set() {
            turn();
        }
    })
}

#[test]
fn a_loop_of_yields_starves_nothing() {
    check_that_nothing_starves_beside(|stop| vec![round_and_round(stop, weald::yield_now)]);
}

#[test]
fn a_crowd_of_yielding_threads_starves_nothing() {
    check_that_nothing_starves_beside(|stop| {
        (0..200)
            .map(|_| round_and_round(stop, weald::yield_now))
            .collect()
    });
}

#[test]
fn a_loop_of_checkpoints_starves_nothing() {
    check_that_nothing_starves_beside(|stop| vec![round_and_round(stop, weald::checkpoint)]);
}

#[test]
fn a_loop_of_parks_that_find_their_token_starves_nothing() {
    check_that_nothing_starves_beside(|stop| {
        vec![round_and_round(stop, || {
            weald::current().unpark();
            weald::park();
        })]
    });
}

#[test]
fn a_loop_of_sleeps_of_no_length_starves_nothing() {
    check_that_nothing_starves_beside(|stop| {
        vec![round_and_round(stop, || weald::sleep(Duration::ZERO))]
    });
}

/// Two green threads that wake each other in turns.
fn pair(stop: &Flag, bound: bool) -> Vec<JoinHandle<()>> {
    let seats: Arc<[OnceLock<GreenThread>; 2]> = Arc::default();
    let player = |me: usize| {
        let (seats, until) = (Arc::clone(&seats), stop.clone());
        start(bound, move || {
            seats[me].set(weald::current()).unwrap();
            wait_until(|| seats[1 - me].get().is_some());
            let partner = seats[1 - me].get().unwrap();
            while !until.is_set() {
                partner.unpark();
                weald::park();
            }
            partner.unpark();
        })
    };
    vec![player(0), player(1)]
}

/// Green threads each of which starts the next one and ends.
fn chain(stop: &Flag, bound: bool) -> Vec<JoinHandle<()>> {
    fn link(bound: bool, stop: Flag, ended: Flag) {
        if stop.is_set() {
            ended.set();
        } else {
            start(bound, move || link(bound, stop, ended));
        }
    }
    let (until, ended) = (stop.clone(), Flag::default());
    let waits = ended.clone();
    start(bound, move || link(bound, until, ended));
    vec![weald::spawn(move || waits.wait())]
}

/// Green threads that only yield.
fn yielders(stop: &Flag, bound: bool) -> Vec<JoinHandle<()>> {
    let yielder = |_| {
        let until = stop.clone();
        start(bound, move || {
            while !until.is_set() {
                weald::yield_now();
            }
        })
    };
    (0..20).map(yielder).collect()
}

#[test]
fn a_pair_that_unparks_each_other_starves_nothing() {
    check_that_nothing_starves_beside(|stop| pair(stop, false));
}

/// Each sort of crowd whose threads stay on their carrier runs beside each sort whose threads may migrate.
#[test]
fn threads_that_stay_on_their_carrier_and_others_do_not_starve_each_other() {
    let crowds = [pair, chain, yielders];
    for bound in crowds {
        for unbound in crowds {
            check_that_nothing_starves_beside(|stop| {
                let mut crowd = bound(stop, true);
                crowd.extend(unbound(stop, false));
                crowd
            });
        }
    }
    check_that_nothing_starves_beside(|stop| {
        let all = crowds.iter().flat_map(|crowd| {
            let mut both = crowd(stop, true);
            both.extend(crowd(stop, false));
            both
        });
        all.collect()
    });
}

#[test]
fn a_loop_of_spawns_and_joins_starves_nothing() {
    check_that_nothing_starves_beside(|stop| {
        vec![round_and_round(stop, || {
            weald::spawn(|| ()).join().unwrap();
        })]
    });
}

#[test]
fn a_chain_in_which_each_thread_spawns_the_next_starves_nothing() {
    check_that_nothing_starves_beside(|stop| chain(stop, false));
}

#[test]
fn a_socket_that_is_always_ready_starves_nothing() {
    check_that_nothing_starves_beside(|stop| {
        let (stream, mut peer) = std_pair(v4());
        peer.write_all(b"never read").unwrap();
        vec![round_and_round(stop, move || {
            let _open = &peer;
            assert!(stream.peek(&mut [0; 4]).unwrap() > 0);
        })]
    });
}

#[test]
fn the_reader_of_an_endless_stream_starves_nothing() {
    check_that_nothing_starves_beside(|stop| {
        let (mut stream, peer) = std_pair(v4());
        endless(peer);
        let mut buffer = vec![0; 16 * 1024];
        vec![round_and_round(stop, move || {
            assert!(stream.read(&mut buffer).unwrap() > 0);
        })]
    });
}

/// Writes from an OS thread until the other end is closed.
fn endless(mut peer: StdStream) {
    std::thread::spawn(move || {
        let block = vec![7; 64 * 1024];
        while peer.write_all(&block).is_ok() {}
    });
}

#[test]
fn the_reader_of_an_endless_stream_inside_a_timeout_ends_on_one_worker() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (mut stream, peer) = std_pair(v4());
            endless(peer);
            let mut buffer = vec![0; 64 * 1024];
            let reads = Count::default();
            let outcome = weald::timeout::<()>(50 * MS, || {
                loop {
                    if stream.read(&mut buffer).is_ok() {
                        reads.add();
                    }
                }
            });
            assert!(outcome.is_err());
            assert!(reads.get() > 0);
        });
    });
}

#[test]
fn every_loop_of_blocking_calls_inside_a_timeout_ends_on_one_worker() {
    let loops: [(&str, fn()); 5] = [
        ("yield_now", weald::yield_now),
        ("checkpoint", weald::checkpoint),
        ("sleep", || weald::sleep(Duration::ZERO)),
        ("join", || weald::spawn(|| ()).join().unwrap()),
        ("park", || {
            weald::current().unpark();
            weald::park();
        }),
    ];
    each_mode_on(1, |rt| {
        rt.run(|| {
            for (name, turn) in loops {
                let outcome = weald::timeout::<()>(20 * MS, || {
                    loop {
                        turn();
                    }
                });
                assert!(outcome.is_err(), "{name}");
            }
        });
    });
}

/// How often a call is made before a neighbour that has only yielded is run again.
fn check_gives_way(name: &str, turns: &Count, mut call: impl FnMut()) {
    for _ in 0..3 {
        let before = turns.get();
        let mut calls = 0;
        while turns.get() == before {
            call();
            calls += 1;
            assert!(calls <= 300, "{name} kept the worker");
        }
    }
}

#[test]
fn a_loop_of_calls_that_fail_at_once_gives_way() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let stop = Flag::default();
            let turns = Count::default();
            let neighbour = {
                let turns = turns.clone();
                round_and_round(&stop, move || {
                    turns.add();
                    weald::yield_now();
                })
            };
            weald::yield_now();
            let check = |name: &str, call: &mut dyn FnMut()| check_gives_way(name, &turns, call);

            let (mut near, far) = green_pair(v4());
            check("a read into nothing", &mut || {
                assert_eq!(near.read(&mut []).unwrap(), 0);
            });
            near.set_nonblocking(true).unwrap();
            check("a read that would block", &mut || {
                near.read(&mut [0]).unwrap_err();
            });
            drop(far);
            wait_until(|| near.write(b"x").is_err());
            check("a write into a closed connection", &mut || {
                near.write(b"x").unwrap_err();
            });
            let datagrams = UdpSocket::bind(v4()).unwrap();
            datagrams.set_nonblocking(true).unwrap();
            check("a datagram that is not there", &mut || {
                datagrams.recv_from(&mut [0]).unwrap_err();
            });
            let listener = weald::tcp_listener(v4()).unwrap();
            listener.set_nonblocking(true).unwrap();
            check("a connection that is not there", &mut || {
                listener.accept().unwrap_err();
            });
            let (lonely, gone) = UnixDatagram::pair().unwrap();
            drop(gone);
            check("a datagram to nobody", &mut || {
                lonely.send(b"x").unwrap_err();
            });
            check("a connect to a path that is not there", &mut || {
                UnixStream::connect("/nowhere/at/all").unwrap_err();
            });
            check("an address that is none", &mut || {
                weald::net::resolve("nothing").unwrap_err();
            });
            check("an address that is a number", &mut || {
                weald::net::resolve("127.0.0.1:1").unwrap();
            });
            #[cfg(feature = "tls")]
            {
                let (mut near, far) = tls_pair();
                drop(far);
                assert_eq!(near.read(&mut [0]).unwrap(), 0);
                check("the end of a TLS stream", &mut || {
                    assert_eq!(near.read(&mut [0]).unwrap(), 0);
                });
                check("nothing to flush", &mut || near.flush().unwrap());
            }
            stop.set();
            neighbour.join().unwrap();
        });
    });
}

#[test]
fn two_readers_of_endless_streams_share_one_worker() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            // Each thread reads until the other one has read too: neither may keep the worker for itself.
            let counts = [Count::default(), Count::default()];
            let reader = |me: usize| {
                let (mine, other) = (counts[me].clone(), counts[1 - me].clone());
                weald::spawn(move || {
                    let (mut stream, peer) = std_pair(v4());
                    endless(peer);
                    let mut buffer = vec![0; 4096];
                    while mine.get() < 500 || other.get() < 500 {
                        stream.read_exact(&mut buffer).unwrap();
                        mine.add();
                    }
                })
            };
            let readers = [reader(0), reader(1)];
            for h in readers {
                h.join().unwrap();
            }
        });
    });
}
