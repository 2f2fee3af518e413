//! What passes over channels, by selects and proxies, while ends are dropped.

use std::collections::HashSet;

use weald::sync::channel::{Receiver, Sender, bounded, unbounded};
use weald_shuttle_tests::check;
use weald_shuttle_tests::random::{below, one_in};

use crate::support::{Count, MS, crowd, pause, runtime};

/// Threads offer and take on several channels at once, some with little patience.
#[test]
fn selects() {
    check("selects", || {
        let rt = runtime();
        let ends = [Some(0), Some(1), Some(2), None];
        let [a, b, c, d]: [(Sender<usize>, Receiver<usize>); 4] =
            ends.map(|capacity| capacity.map_or_else(unbounded, bounded));
        let next = Count::default();
        let rest = [b.1.clone(), c.1.clone(), d.1.clone()];
        let body = move |_: usize| {
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for _ in 0..6 {
                pause();
                let message = next.add();
                match below(4) {
                    0 => weald::select! {
                        send(a.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(b.1) -> message => received.push(message.unwrap()),
                        default(MS) => {}
                    },
                    1 => weald::select! {
                        recv(a.1) -> message => received.push(message.unwrap()),
                        send(b.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(c.1) -> message => received.push(message.unwrap()),
                        default(MS) => {}
                    },
                    2 => weald::select! {
                        send(a.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(a.1) -> message => received.push(message.unwrap()),
                        send(c.0, message) -> done => { done.unwrap(); sent.push(message) },
                        default => {}
                    },
                    _ => weald::select! {
                        send(d.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(d.1) -> message => received.push(message.unwrap()),
                        recv(c.1) -> message => received.push(message.unwrap()),
                    },
                }
            }
            (sent, received)
        };
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for thread in crowd(&rt, 10 + below(10), body) {
            let (own_sent, own_received) = thread.join().unwrap();
            sent.extend(own_sent);
            received.extend(own_received);
        }
        received.extend(rest.iter().flat_map(Receiver::try_iter));
        sent.sort_unstable();
        received.sort_unstable();
        assert_eq!(sent, received);
    });
}

/// Ends are dropped while others wait at them.
#[test]
fn channels_that_close() {
    check("channels_that_close", || {
        let rt = runtime();
        let capacity = [Some(0), Some(2), None][below(3)];
        let (send, receive) = capacity.map_or_else(unbounded, bounded);
        let dropped = Count::default();
        let made = Count::default();
        let own = (dropped.clone(), made.clone());
        let producer = move |number: usize| {
            let mut sent = HashSet::new();
            for n in 0..below(6) {
                pause();
                let message = number * 100 + n;
                own.1.add();
                match send.send((message, own.0.on_drop())) {
                    Ok(()) => assert!(sent.insert(message)),
                    Err(back) => {
                        assert_eq!(back.into_inner().0, message);
                        break;
                    }
                }
            }
            sent
        };
        let consumer = move |_: usize| {
            let mut received = HashSet::new();
            for _ in 0..below(10) {
                pause();
                let Ok((message, _)) = receive.recv() else {
                    break;
                };
                assert!(received.insert(message), "received twice");
            }
            received
        };
        // The closures of the crowd hold the ends, so the last of each kind closes its side.
        let (producers, consumers) = (crowd(&rt, 7, producer), crowd(&rt, 7, consumer));
        let (mut sent, mut received) = (HashSet::new(), HashSet::new());
        for thread in producers {
            sent.extend(thread.join().unwrap());
        }
        for thread in consumers {
            for message in thread.join().unwrap() {
                assert!(received.insert(message), "received twice");
            }
        }
        drop(rt);
        assert!(received.is_subset(&sent), "received and not sent");
        assert!(
            capacity != Some(0) || received == sent,
            "lost in a rendezvous"
        );
        assert_eq!(dropped.get(), made.get(), "a message is lost");
    });
}

/// One direction of a connection.
type Line = (Sender<usize>, Receiver<usize>);

fn copy(from: &Receiver<usize>, to: &Sender<usize>) {
    for word in from {
        pause();
        if to.send(word).is_err() {
            break;
        }
    }
}

/// Clients talk to servers through proxies; some are killed, and the proxies' threads too.
#[test]
fn proxies() {
    check("proxies", || {
        let rt = runtime();
        let (connect, accept) = bounded::<(Receiver<usize>, Sender<usize>)>(1);
        let (connect_far, accept_far) = bounded::<(Receiver<usize>, Sender<usize>)>(1);
        let server = rt.spawn(move || {
            weald::scope(|scope| {
                for (from, to) in &accept_far {
                    scope.spawn(move || copy(&from, &to));
                }
            });
        });
        let proxy = rt.spawn(move || {
            weald::scope(|scope| {
                for (from, to) in &accept {
                    let connect_far = connect_far.clone();
                    scope.spawn(move || {
                        let (up, down): (Line, Line) = (bounded(1), bounded(0));
                        if connect_far.send((up.1, down.0)).is_err() {
                            return;
                        }
                        let back = weald::spawn(move || copy(&down.1, &to));
                        if one_in(6) {
                            back.thread().kill();
                        }
                        copy(&from, &up.0);
                        drop(up.0);
                        let _ = back.join();
                    });
                }
            });
        });
        let body = move |number: usize| {
            let (out, back): (Line, Line) = (bounded(1), bounded(1));
            connect.send((out.1, back.0)).unwrap();
            let sender = weald::spawn(move || {
                for n in 0..4 {
                    pause();
                    if out.0.send(number * 10 + n).is_err() {
                        break;
                    }
                }
            });
            for (n, word) in back.1.iter().enumerate() {
                assert_eq!(word, number * 10 + n, "not in its order");
            }
            drop(back.1);
            sender.join().unwrap();
        };
        for client in crowd(&rt, 6, body) {
            if one_in(4) {
                client.thread().kill();
            }
            drop(client.join());
        }
        proxy.join().unwrap();
        server.join().unwrap();
    });
}
