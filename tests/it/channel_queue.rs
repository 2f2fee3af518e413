//! `sync::channel` as a queue: order, length and capacity, whatever the channel's messages lie in.

use std::collections::VecDeque;

use weald::sync::channel::{
    Receiver, SelectTimeoutError, Sender, TryRecvError, TrySendError, bounded, unbounded,
};
use weald::{Runtime, select};

use crate::support::{Count, MODES, MS, runtime, settle};

/// Short and long ones, of both sides of each power of two; `None`: unbounded.
fn kinds() -> Vec<Option<usize>> {
    let lengths = (1..10).chain([31, 32, 33, 127, 128, 129, 1000, 5000]);
    lengths.map(Some).chain([None]).collect()
}

fn make<T>(kind: Option<usize>) -> (Sender<T>, Receiver<T>) {
    kind.map_or_else(unbounded, bounded)
}

/// A message of some size, so that long channels hold many bytes.
type Message = (usize, [usize; 4]);

#[test]
fn a_channel_holds_what_a_queue_would_whatever_its_length() {
    for kind in kinds() {
        let (sender, receiver) = make::<Message>(kind);
        let mut expected = VecDeque::new();
        let capacity = kind.unwrap_or(usize::MAX);
        let mut next = 0;
        let mut check_send = |expected: &mut VecDeque<Message>| {
            next += 1;
            let message = (next, [next; 4]);
            let full = expected.len() == capacity;
            assert_eq!(receiver.is_full(), full, "{kind:?}");
            let sent = sender.try_send(message);
            if full {
                assert_eq!(sent, Err(TrySendError::Full(message)), "{kind:?}");
            } else {
                assert_eq!(sent, Ok(()), "{kind:?}");
                expected.push_back(message);
            }
            assert_eq!(sender.len(), expected.len(), "{kind:?}");
        };
        let check_recv = |expected: &mut VecDeque<Message>| {
            let came = receiver.try_recv();
            assert_eq!(came, expected.pop_front().ok_or(TryRecvError::Empty));
            assert_eq!(receiver.len(), expected.len(), "{kind:?}");
            assert_eq!(receiver.is_empty(), expected.is_empty(), "{kind:?}");
        };
        // Several laps at each length: nearly empty, half full, over the brim, and down to nothing.
        for (sends, receives) in [(3, 4), (100, 60), (200, 150), (6000, 1), (7, 3), (5, 7000)] {
            for _ in 0..3 {
                (0..sends).for_each(|_| check_send(&mut expected));
                (0..receives).for_each(|_| check_recv(&mut expected));
            }
        }
        drop(sender);
        while let Some(message) = expected.pop_front() {
            assert_eq!(receiver.try_recv(), Ok(message));
        }
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    }
}

#[test]
fn messages_that_lie_in_a_channel_are_dropped_with_its_last_receiver() {
    for kind in kinds() {
        let drops = Count::default();
        let (sender, receiver) = make(kind);
        // A few laps first.
        for _ in 0..20 {
            sender.send(drops.on_drop()).unwrap();
            drop(receiver.recv());
        }
        let left = kind.unwrap_or(200).min(200);
        (0..left).for_each(|_| sender.send(drops.on_drop()).unwrap());
        drop(receiver);
        assert_eq!(drops.get(), 20 + left, "{kind:?}");
        assert!(sender.is_empty());
        assert!(sender.send(drops.on_drop()).is_err());
        assert_eq!(drops.get(), 21 + left, "{kind:?}");
    }
}

/// A select of two sends while there is room for one: the place that it holds is nobody else's.
#[test]
fn a_place_that_a_select_holds_is_kept_in_a_channel_of_any_length() {
    for kind in kinds().into_iter().flatten() {
        let (sender, receiver) = bounded(kind);
        (0..kind + 20).for_each(|n| {
            sender.send(n).unwrap();
            assert_eq!(receiver.recv(), Ok(n));
        });
        (1..kind).for_each(|n| sender.send(n).unwrap());
        select! {
            send(sender, {
                assert!(sender.try_send(0).is_err() && sender.is_full());
                kind
            }) -> sent => sent.unwrap(),
        }
        assert!(sender.is_full() && sender.len() == kind);
        assert!(receiver.try_iter().eq(1..=kind));
    }
}

/// Waiters of all sorts come and go in vain; then senders and receivers must find each other as before.
#[test]
fn waiting_in_vain_leaves_a_channel_as_it_was() {
    let vain = |rt: &Runtime, kind: Option<usize>| {
        let (sender, receiver) = make(kind);
        for n in 0..20 {
            sender.send(n).unwrap();
            assert_eq!(receiver.recv(), Ok(n));
        }
        for round in 0..3 {
            assert!(receiver.recv_timeout(MS).is_err());
            let mut select = weald::sync::channel::Select::new();
            select.recv(&receiver);
            assert_eq!(select.select_timeout(MS).err(), Some(SelectTimeoutError));
            assert!(select.ready_timeout(MS).is_err());
            let waits = rt.spawn({
                let receiver = receiver.clone();
                move || receiver.recv()
            });
            settle();
            waits.thread().kill();
            assert!(waits.join().is_err());
            for _ in 0..2 {
                let held = kind.unwrap_or(100).min(100);
                (0..held).for_each(|n| sender.send(n).unwrap());
                if kind == Some(held) {
                    assert!(sender.send_timeout(round, MS).is_err());
                    assert!(sender.is_full());
                }
                assert!(receiver.try_iter().eq(0..held));
            }
        }
    };
    for mode in MODES {
        let rt = runtime(1, mode);
        rt.run(|| [Some(1), Some(3), Some(64), Some(5000), None].map(|kind| vain(&rt, kind)));
    }
}
