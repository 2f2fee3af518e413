//! Storms over channels and sockets.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use weald::net::TcpStream;
use weald::sync::channel::{Receiver, Sender, bounded, unbounded};

use super::{Random, crowd, each_storm};
use crate::support::{HOUR, v4};

/// Threads offer and take on several channels at once, some with little patience.
#[test]
fn select_storm() {
    each_storm(|rt, random| {
        let ends = [Some(0), Some(1), Some(3), None];
        let ends = ends.map(|capacity| capacity.map_or_else(unbounded, bounded));
        let [a, b, c, d]: [(Sender<u64>, Receiver<u64>); 4] = ends;
        let next = Arc::new(AtomicU64::new(0));
        let rest = (b.1.clone(), c.1.clone(), d.1.clone());
        let body = move |_: usize, mut random: Random| {
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for _ in 0..60 {
                random.pause();
                let message = next.fetch_add(1, SeqCst);
                let limit = random.micros(200);
                match random.below(4) {
                    0 => weald::select! {
                        send(a.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(b.1) -> message => received.push(message.unwrap()),
                        default(limit) => {}
                    },
                    1 => weald::select! {
                        recv(a.1) -> message => received.push(message.unwrap()),
                        send(b.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(c.1) -> message => received.push(message.unwrap()),
                        default(limit) => {}
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
        let size = 10 + random.below(40);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for thread in crowd(rt, random, size, body) {
            let (own_sent, own_received) = thread.join().unwrap();
            sent.extend(own_sent);
            received.extend(own_received);
        }
        received.extend(rest.0.try_iter());
        received.extend(rest.1.try_iter());
        received.extend(rest.2.try_iter());
        sent.sort_unstable();
        received.sort_unstable();
        assert!(
            sent == received,
            "{} sent, {} received",
            sent.len(),
            received.len()
        );
    });
}

/// Ends are dropped while others wait at them.
#[test]
fn channel_close_storm() {
    each_storm(|rt, random| {
        for capacity in [Some(0), Some(2), None] {
            let (send, receive) = capacity.map_or_else(unbounded, bounded);
            let lives = Arc::new(());
            let own = Arc::clone(&lives);
            let producer = move |number: usize, mut random: Random| {
                let mut sent = HashSet::new();
                for n in 0..random.below(40) {
                    random.pause();
                    let message = number * 1000 + n;
                    match send.send((message, Arc::clone(&own))) {
                        Ok(()) => assert!(sent.insert(message)),
                        Err(back) => {
                            assert_eq!(back.into_inner().0, message);
                            break;
                        }
                    }
                }
                sent
            };
            let consumer = move |_: usize, mut random: Random| {
                let mut received = HashSet::new();
                for _ in 0..random.below(60) {
                    random.pause();
                    let Ok((message, _)) = receive.recv() else {
                        break;
                    };
                    assert!(received.insert(message), "received twice");
                }
                received
            };
            // The closures of the crowd hold the ends, so the last of each kind closes its side.
            let producers = crowd(rt, random, 8, producer);
            let consumers = crowd(rt, random, 8, consumer);
            let mut sent = HashSet::new();
            for thread in producers {
                sent.extend(thread.join().unwrap());
            }
            let mut received = HashSet::new();
            for thread in consumers {
                for message in thread.join().unwrap() {
                    assert!(received.insert(message), "received twice");
                }
            }
            assert!(received.is_subset(&sent), "received and not sent");
            assert!(
                capacity != Some(0) || received == sent,
                "lost in a rendezvous"
            );
            crate::support::wait_until(|| Arc::strong_count(&lives) == 1);
        }
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, random: &mut Random) {
    let mut buffer = [0; 64];
    loop {
        let size = 1 + random.below(buffer.len());
        match from.read(&mut buffer[..size]) {
            Ok(count @ 1..) if to.write_all(&buffer[..count]).is_ok() => random.pause(),
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Clients talk to a server through a proxy. Some clients and some of the proxy's threads are killed.
#[test]
fn proxy_storm() {
    each_storm(|rt, random| {
        let echo = rt.run(|| {
            weald::tcp_server(weald::tcp_listener(v4()).unwrap(), |stream, _| {
                let mut buffer = [0; 100];
                while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
                    if (&stream).write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            })
        });
        let to = echo.local_addr();
        let seeds = Mutex::new(random.fork());
        let proxy = rt.run(|| {
            weald::tcp_server(weald::tcp_listener(v4()).unwrap(), move |near, _| {
                let mut random = seeds.lock().unwrap().fork();
                let far = weald::connect_tcp(to).unwrap();
                let mut back = random.fork();
                weald::scope(|s| {
                    let copies = s.spawn(|| copy(&far, &near, &mut back));
                    if random.one_in(8) {
                        copies.thread().kill();
                    }
                    copy(&near, &far, &mut random);
                    // Only its client loses what it had not copied.
                    if copies.join().is_err() {
                        let _ = near.shutdown(Shutdown::Both);
                    }
                });
            })
        });
        let through = proxy.local_addr();
        let client = move |number: usize, mut random: Random| {
            let stream = weald::connect_tcp(through).unwrap();
            let mut own = Random(number as u64 + 1);
            let sent: Vec<u8> = (0..2000).map(|_| own.next().to_le_bytes()[3]).collect();
            let mut came = Vec::new();
            weald::scope(|s| {
                s.spawn(|| {
                    for part in sent.chunks(1 + random.below(300)) {
                        random.pause();
                        if (&stream).write_all(part).is_err() {
                            return;
                        }
                    }
                    let _ = stream.shutdown(Shutdown::Write);
                });
                let mut buffer = [0; 100];
                while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
                    came.extend_from_slice(&buffer[..count]);
                }
            });
            assert!(sent.starts_with(&came), "{number} got what it had not sent");
            came.len() == sent.len()
        };
        let clients = crowd(rt, random, 12, client);
        for client in clients {
            if random.one_in(4) {
                client.thread().kill();
            }
            drop(client.join());
        }
        rt.run(|| {
            assert!(proxy.shutdown(HOUR));
            assert!(echo.shutdown(HOUR));
        });
    });
}
