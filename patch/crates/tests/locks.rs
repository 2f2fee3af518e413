//! Locks and channels of other crates. The tests of `weald-patch` itself have the locks of std.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use weald_patched_crates::{MANY, all_at_once, in_green};

#[test]
fn parking_lots_mutex_is_waited_for_over_a_sleep() {
    let sum = Arc::new(parking_lot::Mutex::new(0));
    let total = Arc::clone(&sum);
    all_at_once(move |n| {
        let mut sum = sum.lock();
        let before = *sum;
        thread::sleep(Duration::from_millis(1));
        *sum = before + n;
    });
    assert_eq!(*total.lock(), MANY * (MANY - 1) / 2);
}

#[test]
fn parking_lots_condition_lets_all_through() {
    let state = Arc::new((parking_lot::Mutex::new(0), parking_lot::Condvar::new()));
    all_at_once(move |_| {
        let (here, all_here) = &*state;
        let mut here = here.lock();
        *here += 1;
        all_here.notify_all();
        all_here.wait_while(&mut here, |here| *here < MANY);
    });
}

#[test]
fn crossbeam_channels_hand_over_with_the_receivers_first() {
    in_green(|| {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let got = Arc::new(AtomicUsize::new(0));
        let receivers: Vec<_> = (0..MANY)
            .map(|_| {
                let (receiver, got) = (receiver.clone(), Arc::clone(&got));
                weald::spawn(move || {
                    let n: usize = receiver.recv().unwrap();
                    got.fetch_add(n, Ordering::Relaxed);
                })
            })
            .collect();
        weald::yield_now();
        for n in 0..MANY {
            sender.send(n).unwrap();
        }
        for receiver in receivers {
            receiver.join().unwrap();
        }
        assert_eq!(got.load(Ordering::Relaxed), MANY * (MANY - 1) / 2);
    });
}

#[test]
fn crossbeams_select_waits_for_several() {
    in_green(|| {
        let (first, first_receiver) = crossbeam_channel::unbounded();
        let (second, second_receiver) = crossbeam_channel::unbounded();
        let sender = weald::spawn(move || {
            for n in 0..100 {
                thread::sleep(Duration::from_micros(100));
                if n % 2 == 0 {
                    first.send(n)
                } else {
                    second.send(n)
                }
                .unwrap();
            }
        });
        let mut sum = 0;
        for _ in 0..100 {
            crossbeam_channel::select! {
                recv(first_receiver) -> n => sum += n.unwrap(),
                recv(second_receiver) -> n => sum += n.unwrap(),
            }
        }
        assert_eq!(sum, 4950);
        sender.join().unwrap();
    });
}

#[test]
fn println_to_a_full_pipe_keeps_lines_whole() {
    let mut printer = Command::new(env!("CARGO_BIN_EXE_printer"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(printer.stdout.take().unwrap()).lines();
    let mut next = [0; 20];
    for line in lines {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let printer: usize = words.next().unwrap().parse().unwrap();
        let number: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(number, next[printer]);
        next[printer] += 1;
        assert_eq!(words.next().unwrap(), "x".repeat(200));
        assert_eq!(words.next(), None);
    }
    assert_eq!(next, [1000; 20]);
    assert!(printer.wait().unwrap().success());
}
