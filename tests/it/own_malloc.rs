//! With `ThreadLocals::Own`: what the C library's allocator keeps for green threads.

use std::time::Duration;

use weald::Runtime;

use crate::support::{on_two_workers as check, os_thread, own_runtime};

/// Lets the C library's allocator give and take back memory of this size. Returns its address.
#[inline(never)]
fn get_and_free(bytes: usize) -> usize {
    let malloc = std::hint::black_box(libc::malloc as unsafe extern "C" fn(usize) -> _);
    // SAFETY: what is freed was allocated.
    unsafe {
        let memory = malloc(bytes);
        libc::free(memory);
        memory as usize
    }
}

#[test]
fn what_one_thread_frees_the_next_one_on_its_os_thread_gets() {
    let Some(rt) = own_runtime(1) else { return };
    let here = || (os_thread(), get_and_free(1000));
    let mut pairs = (0..1000).map(|_| {
        let first = rt.spawn(move || (here(), weald::park()).0);
        while rt.metrics().parked == 0 {
            std::thread::yield_now();
        }
        let second = rt.spawn(here).join().unwrap();
        first.thread().unpark();
        (first.join().unwrap(), second)
    });
    // In between the worker may have gone to another OS thread, or may have taken memory of that size itself, but not
    // each time. With a cache of its own the second thread would never get the memory that the first one has freed.
    assert!(pairs.any(|(first, second)| first == second));
}

/// What a request leaves behind, checked and freed by another thread.
fn check_crowd(rt: &Runtime) {
    let (send, receive) = weald::sync::channel::bounded::<(usize, Vec<Vec<u8>>)>(64);
    let mark = |n: usize| u8::try_from(n % 251).unwrap();
    let makes = |n: usize| {
        let send = send.clone();
        move || {
            for round in 0..20 {
                let size = |m: usize| 10 + (n * 31 + round * 17 + m * 97) % 3000;
                let all = (0..20).map(|m| vec![mark(n); size(m)]).collect();
                if round % 5 == 0 {
                    // The OS thread stays in the call, and others come to run the rest.
                    weald::blocking(|| std::thread::sleep(Duration::from_micros(200)));
                } else {
                    weald::yield_now();
                }
                send.send((n, all)).unwrap();
            }
        }
    };
    let all: Vec<_> = (0..32).map(|n| rt.spawn(makes(n))).collect();
    drop(send);
    let checks = |_| {
        let receive = receive.clone();
        rt.spawn(move || {
            let mut count = 0;
            while let Ok((n, all)) = receive.recv() {
                for buffer in all {
                    assert!(buffer.iter().all(|&byte| byte == mark(n)));
                }
                count += 1;
            }
            count
        })
    };
    let checks: Vec<_> = (0..4).map(checks).collect();
    for thread in all {
        thread.join().unwrap();
    }
    let checked: usize = checks.into_iter().map(|it| it.join().unwrap()).sum();
    assert_eq!(checked, 32 * 20);
}

#[test]
fn memory_of_threads_is_whole_while_os_threads_come_and_go() {
    for _ in 0..10 {
        // The blocks of the last runtime's threads, whose OS threads have ended, are used again.
        check(check_crowd);
    }
}
