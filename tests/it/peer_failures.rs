//! The faults of `may` (notes/may 2.1) that weald must not have, under the names they have there.
//!
//! P4 and P6 are about `select!` and are tested with it. P8 is a latency and is measured in `tests/latency.rs`;
//! `steal` checks that a push wakes an idle worker at all. P12 ends its process: `tests/stack_overflow.rs`.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use weald::{Exception, GreenThread, JoinHandle, Scope, ScopedJoinHandle, Timer};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, each_mode_on, each_net, everywhere, green_pair, runtime,
    settle, spin, v4, wait_until, was_killed, with_deadline,
};

/// Says at compile time that a type does not have a trait: with it, the two impls make the call ambiguous.
macro_rules! assert_not_impl {
    ($type:ty: $trait:path) => {
        const _: fn() = || {
            trait AmbiguousIfImplemented<A> {
                fn some_item() {}
            }
            impl<T: ?Sized> AmbiguousIfImplemented<()> for T {}
            struct Invalid;
            impl<T: ?Sized + $trait> AmbiguousIfImplemented<Invalid> for T {}
            let _ = <$type as AmbiguousIfImplemented<_>>::some_item;
        };
    };
}
#[test]
fn p1_times_below_a_millisecond_end() {
    everywhere(|| {
        let half = Duration::from_micros(500);
        let (near, _far) = green_pair(v4());
        near.set_read_timeout(Some(half)).unwrap();
        let waits: [(&str, &dyn Fn()); 6] = [
            ("park_timeout", &|| weald::park_timeout(half)),
            ("sleep", &|| weald::sleep(half)),
            ("sleep_until", &|| weald::sleep_until(Instant::now() + half)),
            ("timeout", &|| {
                assert!(weald::timeout(half, weald::park).is_err());
            }),
            ("exc_after", &|| {
                weald::exc_after(half, "half a millisecond");
                assert!(crate::support::caught(weald::park).is_err());
            }),
            ("a socket", &|| assert!((&near).read(&mut [0]).is_err())),
        ];
        for (name, wait) in waits {
            let start = Instant::now();
            wait();
            assert!(start.elapsed() >= half, "{name} was early");
        }
    });
}

#[test]
fn p2_no_handle_crosses_threads_with_a_value_that_may_not() {
    fn send_sync<T: Send + Sync>() {}
    send_sync::<JoinHandle<Cell<u8>>>();
    send_sync::<GreenThread>();
    send_sync::<Timer>();
    send_sync::<Scope<'_, '_>>();
    assert_not_impl!(JoinHandle<std::rc::Rc<u8>>: Send);
    assert_not_impl!(ScopedJoinHandle<'static, std::rc::Rc<u8>>: Send);
    assert_not_impl!(Exception: Clone);
}

#[test]
fn p3_a_sleeper_that_computes_after_it_woke_does_not_delay_the_sleepers_of_other_workers() {
    // They are pinned, because a sleeper that may migrate is sometimes on the burner's worker before it burns.
    crate::support::with_deadline(crate::support::LIMIT, || {
        let rt = crate::support::runtime(2, crate::support::Mode::Pinned);
        for _ in 0..6 {
            let (met, burns, told) = (Count::default(), Flag::default(), Flag::default());
            // Both compute until the other is there: they start on two workers, and each one's timers are its worker's.
            let meet = |met: Count| {
                met.add();
                while met.get() < 2 {
                    std::thread::yield_now();
                }
            };
            let burner = {
                let (met, burns, told) = (met.clone(), burns.clone(), told.clone());
                rt.spawn(move || {
                    meet(met);
                    weald::sleep(5 * MS);
                    burns.set();
                    while !told.is_set() {
                        std::hint::spin_loop();
                    }
                })
            };
            let (met, burns, told) = (met.clone(), burns.clone(), told.clone());
            let sleeper = rt.spawn(move || {
                meet(met);
                while !burns.is_set() {
                    weald::sleep(MS);
                }
                (0..10).for_each(|_| weald::sleep(MS));
                told.set();
            });
            sleeper.join().unwrap();
            burner.join().unwrap();
        }
    });
}

#[test]
fn p5_killing_the_owner_of_a_scope_never_leaves_its_frame_to_the_children() {
    each_mode_on(2, |rt| {
        for round in 0..50 {
            let (inside, killed) = (Flag::default(), Flag::default());
            let (frame_left, wrote_late) = (Flag::default(), Count::default());
            let owner = {
                let (inside, killed) = (inside.clone(), killed.clone());
                let (left, late) = (frame_left.clone(), wrote_late.clone());
                rt.spawn(move || {
                    let _left = crate::support::OnDrop(|| left.set());
                    let frame = [const { AtomicUsize::new(0) }; 64];
                    weald::scope(|s| {
                        s.spawn(|| {
                            inside.set();
                            // The owner must not have ended before it is killed; one more round follows the kill.
                            let mut last = false;
                            while !last {
                                last = killed.is_set();
                                for cell in &frame {
                                    if left.is_set() {
                                        late.add();
                                    }
                                    cell.fetch_add(1, SeqCst);
                                    weald::sleep(Duration::from_micros(20));
                                }
                            }
                        });
                    });
                    weald::checkpoint();
                    unreachable!("the kill is raised at the checkpoint at the latest");
                })
            };
            rt.run(|| inside.wait());
            spin(Duration::from_micros(round * 10));
            owner.thread().kill();
            killed.set();
            assert!(was_killed(&owner.join()));
            assert_eq!(wrote_late.get(), 0);
        }
    });
}

#[test]
fn p7_a_loop_of_yields_on_the_only_worker_starves_neither_sockets_nor_spawns() {
    each_mode_on(1, |rt| {
        let stop = Flag::default();
        let until = stop.clone();
        let yields = rt.spawn(move || {
            while !until.is_set() {
                weald::yield_now();
            }
        });
        rt.spawn(|| ()).join().unwrap();
        rt.run(|| {
            let (mut near, far) = crate::support::std_pair(v4());
            let writer = std::thread::spawn(move || {
                std::thread::sleep(10 * MS);
                (&far).write_all(b"r").unwrap();
            });
            near.read_exact(&mut [0]).unwrap();
            writer.join().unwrap();
        });
        stop.set();
        yields.join().unwrap();
    });
}

#[test]
fn p9_two_acceptors_on_one_listener_are_both_resumed() {
    each_net(|addr| {
        let listener = Arc::new(weald::tcp_listener(addr).unwrap());
        let to = listener.local_addr().unwrap();
        let acceptor = |_| {
            let listener = Arc::clone(&listener);
            weald::spawn(move || listener.accept().unwrap().1)
        };
        let acceptors: Vec<_> = (0..2).map(acceptor).collect();
        settle();
        let clients = [
            weald::connect_tcp(to).unwrap(),
            weald::connect_tcp(to).unwrap(),
        ];
        let mut from: Vec<_> = acceptors.into_iter().map(|h| h.join().unwrap()).collect();
        let mut of = clients.map(|c| c.local_addr().unwrap());
        from.sort_unstable();
        of.sort_unstable();
        assert_eq!(from, of);
    });
}

#[test]
fn p10_the_joiner_of_a_handle_that_others_watch_is_woken_and_so_are_they() {
    // `join` takes the handle, so two threads cannot wait in it. They can share a handle that is only asked.
    each_mode_on(2, |rt| {
        rt.run(|| {
            for _ in 0..100 {
                let go = Flag::default();
                let waits = go.clone();
                let handle = Arc::new(weald::spawn(move || waits.wait()));
                let watchers: Vec<_> = (0..2)
                    .map(|_| {
                        let handle = Arc::clone(&handle);
                        weald::spawn(move || wait_until(|| handle.is_finished()))
                    })
                    .collect();
                go.set();
                for w in watchers {
                    w.join().unwrap();
                }
                wait_until(|| Arc::strong_count(&handle) == 1);
                Arc::into_inner(handle).unwrap().join().unwrap();
            }
        });
    });
}

#[test]
fn p11_forty_thousand_green_threads_are_parked_at_once() {
    for mode in MODES {
        with_deadline(2 * LIMIT, || {
            const CROWD: usize = 40_000;
            let rt = runtime(2, mode);
            let parked: Vec<_> = rt.run(|| (0..CROWD).map(|_| weald::spawn(weald::park)).collect());
            rt.run(|| wait_until(|| rt.metrics().parked >= CROWD));
            for h in &parked {
                h.thread().unpark();
            }
            for h in parked {
                h.join().unwrap();
            }
        });
    }
}

#[test]
fn a_thread_that_is_killed_in_accept_frees_the_listener() {
    // `cancel_io_coroutine` of may's own tests.
    everywhere(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        let at = listener.local_addr().unwrap();
        let acceptor = weald::spawn(move || {
            let _ = listener.accept();
            weald::sleep(HOUR);
        });
        settle();
        acceptor.thread().kill();
        assert!(was_killed(&acceptor.join()));
        wait_until(|| weald::connect_tcp(at).is_err());
    });
}
