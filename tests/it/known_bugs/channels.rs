//! Channels to which no thread sends, from which no thread receives, or which no thread closes.

use std::sync::Arc;

use weald::Awaited;
use weald::sync::channel::{bounded, unbounded};
use weald::sync::{Mutex, WaitGroup};

use super::{Steps, is_in, lock, stuck};

/// As kubernetes#5316 and grpc#1424: the thread that waited for the result gave up, so the worker waits to send it.
#[test]
fn a_send_to_a_receiver_that_gave_up() {
    stuck(|crew| {
        let (sender, receiver) = bounded(0);
        crew.start("worker", move || {
            let _ = sender.send(1);
        });
        crew.start("caller", move || {
            let _gave_up = receiver;
            weald::park();
        });
        let waits = crew.waits("worker", Awaited::Room, |_, waits| waits.others == 1);
        assert!(waits.holder.is_none());
    });
}

/// As cockroach#25456 and kubernetes#38669: the loop over the messages ends when the channel closes, but no thread
/// closes it.
#[test]
fn a_channel_that_is_not_closed_before_the_join() {
    stuck(|crew| {
        let (sender, receiver) = unbounded::<u32>();
        let worker = crew.hand("worker", move || receiver.iter().sum::<u32>());
        let thread = worker.thread().clone();
        crew.start("owner", move || {
            sender.send(1).unwrap();
            let _ = worker.join();
            drop(sender);
        });
        crew.deadlock(false, &["owner", "worker"]);
        thread.kill();
    });
}

/// Of the kind of cockroach#24808: the receiver itself keeps the last sender.
#[test]
fn a_receiver_that_keeps_a_sender() {
    stuck(|crew| {
        let (sender, receiver) = unbounded::<u32>();
        crew.start("loop", move || {
            let again = sender;
            while let Ok(message) = receiver.recv() {
                again.send(message).unwrap();
            }
        });
        crew.waits("loop", Awaited::Message, |_, waits| waits.others == 1);
    });
}

/// As moby#28462 and grpc#1460: a thread holds a lock while it sends, and the receiver needs the lock first.
#[test]
fn a_lock_that_is_held_over_a_send() {
    stuck(|crew| {
        let health = Arc::new(Mutex::new(()));
        let (sender, receiver) = bounded(0);
        let (inner, steps) = (health.clone(), Steps::default());
        let told = steps.clone();
        crew.start("monitor", move || {
            let _health = lock(&inner);
            told.done(0);
            let _ = sender.send(1);
        });
        let inner = health.clone();
        crew.start("handler", move || {
            steps.wait(0);
            let _health = lock(&inner);
            let _ = receiver.recv();
        });
        crew.deadlock(false, &["handler", "monitor"]);
        let waits = crew.waits_for_lock_of("handler", Awaited::Mutex, "monitor");
        assert!(is_in(&waits, &*health));
    });
}

/// As etcd#6857 and istio#16224: a thread holds a lock while it receives, and the sender needs the lock.
#[test]
fn a_lock_that_is_held_over_a_receive() {
    stuck(|crew| {
        let node = Arc::new(Mutex::new(0));
        let (sender, receiver) = bounded(1);
        let (inner, steps) = (node.clone(), Steps::default());
        let told = steps.clone();
        crew.start("status", move || {
            let mut node = lock(&inner);
            told.done(0);
            *node = receiver.recv().unwrap_or(0);
        });
        crew.start("step", move || {
            steps.wait(0);
            let node = lock(&node);
            let _ = sender.send(*node);
        });
        crew.deadlock(false, &["status", "step"]);
    });
}

/// As cockroach#2448: two threads send to each other, and neither of them receives.
#[test]
fn two_threads_that_send_to_each_other() {
    stuck(|crew| {
        let (to_store, store) = bounded(0);
        let (to_raft, raft) = bounded(0);
        for (name, sends, receives) in [("store", to_raft, store), ("raft", to_store, raft)] {
            crew.start(name, move || {
                let _ = sends.send(1);
                let _ = receives.recv();
            });
        }
        crew.deadlock(false, &["raft", "store"]);
    });
}

/// Two threads wait for each other to begin.
#[test]
fn two_threads_that_receive_from_each_other() {
    stuck(|crew| {
        let (to_client, client) = bounded(1);
        let (to_server, server) = bounded(1);
        let pairs = [("client", to_server, client), ("server", to_client, server)];
        for (name, sends, receives) in pairs {
            crew.start(name, move || {
                let greeting = receives.recv().unwrap_or(0);
                let _ = sends.send(greeting);
            });
        }
        crew.deadlock(false, &["client", "server"]);
    });
}

/// As cockroach#35073: the buffer is full, and the thread that empties it waits for the thread that fills it.
#[test]
fn a_full_channel_whose_receiver_joins_the_sender() {
    stuck(|crew| {
        let (sender, receiver) = bounded(2);
        let filler = crew.hand("filler", move || {
            for row in 0..5 {
                let _ = sender.send(row);
            }
        });
        let thread = filler.thread().clone();
        crew.start("reader", move || {
            let _ = filler.join();
            assert_eq!(receiver.iter().count(), 5);
        });
        crew.deadlock(false, &["filler", "reader"]);
        thread.kill();
    });
}

/// As etcd#7492: there are three stages, and the last one sends to the first one.
#[test]
fn a_ring_of_full_channels() {
    stuck(|crew| {
        let (ends, mut next): (Vec<_>, Vec<_>) = (0..3).map(|_| bounded::<u32>(0)).unzip();
        next.rotate_left(2);
        let names = ["parse", "plan", "run"];
        for ((name, sends), receives) in names.iter().zip(ends).zip(next) {
            crew.start(name, move || {
                let _ = sends.send(1);
                let _ = receives.recv();
            });
        }
        crew.deadlock(false, &names);
    });
}

/// As kubernetes#25331: a thread waits for two results. Only one result is sent, because the other worker has failed.
#[test]
fn a_result_too_few() {
    stuck(|crew| {
        let (sender, receiver) = unbounded::<u32>();
        let kept = sender.clone();
        crew.hand("worker", move || sender.send(1).unwrap())
            .join()
            .unwrap();
        crew.start("gather", move || {
            let _kept = kept;
            let _sum = receiver.recv().unwrap_or(0) + receiver.recv().unwrap_or(0);
        });
        crew.waits("gather", Awaited::Message, |_, waits| waits.others == 1);
    });
}

/// As kubernetes#1321: a reply is never sent, because its sender was put away and forgotten.
#[test]
fn a_reply_that_is_never_sent() {
    stuck(|crew| {
        let (requests, inbox) = unbounded::<weald::sync::channel::Sender<u32>>();
        crew.start("server", move || {
            while let Ok(reply) = inbox.recv() {
                std::mem::forget(reply);
            }
        });
        crew.start("client", move || {
            let (reply, answer) = bounded(1);
            requests.send(reply).unwrap();
            let _ = answer.recv();
        });
        crew.waits("client", Awaited::Message, |_, waits| waits.others == 1);
    });
}

/// As grpc#660 and kubernetes#70277: no arm of a `select!` will ever be ready.
#[test]
fn a_select_without_a_partner() {
    stuck(|crew| {
        let (work, jobs) = unbounded::<u32>();
        let (stop, stopped) = unbounded::<u32>();
        let kept = Box::new((work, stop));
        crew.start("worker", move || {
            let _kept = kept;
            weald::select! {
                recv(jobs) -> _ => {}
                recv(stopped) -> _ => {}
            }
        });
        crew.waits("worker", Awaited::Several, |_, _| true);
        let text = crew.rt.dump().to_string();
        assert!(text.contains("select!"), "{text}");
    });
}

/// As moby#33293 and serving#2137: a thread holds a lock while its `select!` waits for a thread that needs the lock.
#[test]
fn a_lock_that_is_held_over_a_select() {
    stuck(|crew| {
        let attempts = Arc::new(Mutex::new(0));
        let (ready, is_ready) = bounded::<u32>(0);
        let (inner, steps) = (attempts.clone(), Steps::default());
        let told = steps.clone();
        crew.start("breaker", move || {
            let mut attempts = lock(&inner);
            told.done(0);
            weald::select! {
                recv(is_ready) -> _ => *attempts += 1,
                recv(weald::sync::channel::never::<u32>()) -> _ => {}
            }
        });
        crew.start("caller", move || {
            steps.wait(0);
            drop(lock(&attempts));
            let _ = ready.send(1);
        });
        crew.waits_for_lock_of("caller", Awaited::Mutex, "breaker");
        crew.waits("breaker", Awaited::Several, |_, _| true);
    });
}

/// As cockroach#35931: a thread sends to a full channel that only this thread could empty.
#[test]
fn a_sender_that_is_its_own_receiver() {
    stuck(|crew| {
        let (sender, receiver) = bounded(1);
        crew.start("flow", move || {
            let _ = sender.send(1);
            let _ = sender.send(2);
            drop(receiver);
        });
        crew.waits("flow", Awaited::Room, |_, waits| waits.others == 1);
    });
}

/// As moby#25348: a thread waits for a wait group, and lets its members end only after that.
#[test]
fn a_wait_group_inside_of_its_loop() {
    stuck(|crew| {
        crew.start("removal", || {
            let group = WaitGroup::new();
            let _member = group.clone();
            group.wait();
        });
        crew.waits("removal", Awaited::WaitGroup, |_, waits| waits.address != 0);
    });
}

/// As cockroach#13197: a member of a group waits for the thread that waits for the group.
#[test]
fn a_member_that_waits_for_who_waits_for_the_group() {
    stuck(|crew| {
        let (sender, receiver) = unbounded::<u32>();
        let group = WaitGroup::new();
        let member = group.clone();
        crew.start("member", move || {
            let _ = receiver.recv();
            drop(member);
        });
        crew.start("main", move || {
            group.wait();
            let _ = sender.send(1);
        });
        crew.deadlock(false, &["main", "member"]);
    });
}

/// A leak: workers wait for a channel whose sender is kept for ever. They are shown as one group.
#[test]
fn many_workers_that_nobody_needs() {
    stuck(|crew| {
        let (sender, receiver) = unbounded::<u32>();
        for _ in 0..200 {
            let receiver = receiver.clone();
            crew.start("worker", move || {
                let _ = receiver.recv();
            });
        }
        drop(receiver);
        let dump = crew.until("one group", |dump| {
            let text = dump.to_string();
            text.contains("200 wait for a message of a channel (") && text.contains("; 1 sender)")
        });
        assert!(dump.to_string().lines().count() < 60, "{dump}");
        drop(sender);
    });
}
