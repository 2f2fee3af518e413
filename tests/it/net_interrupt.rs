//! A socket call that `kill`, a limit or an exception interrupts has done nothing: rules 2, 3 and 6 of DESIGN 4.3 for
//! sockets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use weald::net::{TcpListener, TcpStream};
use weald::{Elapsed, JoinHandle, Killed};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, caught, each_mode, each_net, everywhere, green_pair, in_each_mode,
    mark_in, settle, source_of, std_pair, v4, wait_until, was_killed,
};

/// Starts a green thread that makes the call and returns its result. The thread says when it is about to.
fn waiting<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let about_to_wait = Flag::default();
    let tells = about_to_wait.clone();
    let handle = weald::spawn(move || {
        tells.set();
        call()
    });
    about_to_wait.wait();
    settle();
    assert!(!handle.is_finished());
    handle
}

#[test]
fn a_throw_ends_a_read_that_waits_and_no_byte_is_lost() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        let clone = near.try_clone().unwrap();
        let reader = waiting(move || near.read(&mut [0; 4]));
        reader.thread().throw(Mark(1));
        let error = reader.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other);
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(1)));
        far.write_all(b"kept").unwrap();
        let mut text = [0; 4];
        (&clone).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"kept");
    });
}

#[test]
fn a_kill_ends_a_read_and_an_accept_that_wait() {
    each_net(|addr| {
        let (mut near, _far) = green_pair(addr);
        let reader = waiting(move || near.read(&mut [0]));
        reader.thread().kill();
        let error = reader.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other);
        assert!(source_of::<Killed>(&error).is_some());
        let listener = weald::tcp_listener(addr).unwrap();
        let acceptor = waiting(move || {
            let error = listener.accept().map(drop).unwrap_err();
            assert!(source_of::<Killed>(&error).is_some());
            let _ = listener.accept();
        });
        acceptor.thread().kill();
        assert!(was_killed(&acceptor.join()), "the second call unwinds");
    });
}

/// A call on a stream that waits for ever.
type Call = fn(TcpStream) -> std::io::Result<()>;

#[test]
fn a_limit_ends_every_socket_call_that_waits() {
    let reads = |near: TcpStream| (&near).read(&mut [0]).map(drop);
    let peeks = |near: TcpStream| near.peek(&mut [0]).map(drop);
    let writes = |near: TcpStream| {
        let block = vec![0; 1 << 20];
        loop {
            (&near).write_all(&block)?;
        }
    };
    let calls: [(&str, Call); 3] = [("read", reads), ("peek", peeks), ("write", writes)];
    everywhere(|| {
        for (name, call) in calls {
            let (near, _far) = green_pair(v4());
            let seen = Flag::default();
            let outcome = weald::timeout(10 * MS, || {
                let error = call(near).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{name}");
                if source_of::<Elapsed>(&error).is_some() {
                    seen.set();
                }
            });
            assert!(outcome.is_err() && seen.is_set(), "{name}");
        }
        let listener = weald::tcp_listener(v4()).unwrap();
        let outcome = weald::timeout(10 * MS, || {
            listener.accept().map(drop).map_err(|e| e.kind())
        });
        assert!(outcome.is_err());
    });
}

#[test]
fn a_sockets_own_timeout_is_no_exception() {
    everywhere(|| {
        let (mut near, _far) = green_pair(v4());
        near.set_read_timeout(Some(2 * MS)).unwrap();
        let outcome = weald::timeout(HOUR, || {
            for _ in 0..3 {
                let error = near.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert!(
                    source_of::<Elapsed>(&error).is_none(),
                    "it is the socket's, not that of a timeout"
                );
            }
        });
        assert!(outcome.is_ok());
        weald::checkpoint();
    });
}

#[test]
fn a_delayed_exception_ends_a_read_once_and_the_next_one_goes_on() {
    everywhere(|| {
        let (mut near, mut far) = green_pair(v4());
        let timer = weald::exc_after(5 * MS, Mark(2));
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(2)));
        assert!(!timer.cancel());
        far.write_all(b"n").unwrap();
        near.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_pending_exception_comes_before_every_socket_call_that_would_not_have_waited() {
    each_net(|addr| {
        let pending = || weald::current().throw(Mark(3));
        let is_raised =
            |error: std::io::Error| assert_eq!(source_of::<Mark>(&error), Some(&Mark(3)));
        let (mut near, mut far) = green_pair(addr);
        far.write_all(b"ready").unwrap();
        wait_until(|| near.peek(&mut [0; 8]).unwrap() == 5);
        let mut text = [0; 5];
        pending();
        is_raised(near.read(&mut text).unwrap_err());
        pending();
        is_raised(near.peek(&mut text).unwrap_err());
        pending();
        is_raised(near.write(b"never sent").unwrap_err());
        near.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"ready");
        near.write_all(b"sent").unwrap();
        drop(near);
        let mut rest = String::new();
        far.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "sent");

        let listener = weald::tcp_listener(addr).unwrap();
        let to = listener.local_addr().unwrap();
        pending();
        is_raised(weald::connect_tcp(to).map(drop).unwrap_err());
        pending();
        is_raised(TcpStream::connect_timeout(&to, HOUR).map(drop).unwrap_err());
        let client = weald::connect_tcp(to).unwrap();
        pending();
        is_raised(listener.accept().map(drop).unwrap_err());
        assert_eq!(
            listener.accept().unwrap().1,
            client.local_addr().unwrap(),
            "the first connection in the queue"
        );
    });
}

#[test]
fn limits_that_pass_while_bytes_arrive_lose_none_and_repeat_none() {
    each_mode(|rt| {
        rt.run(|| {
            const BYTES: u32 = 4000;
            let (near, mut far) = green_pair(v4());
            let writer = weald::spawn(move || {
                for i in 0..BYTES {
                    far.write_all(&i.to_le_bytes()).unwrap();
                    if i % 16 == 0 {
                        weald::sleep(Duration::from_micros(u64::from(i % 150)));
                    }
                }
            });
            let (mut text, mut passed) = (Vec::new(), 0_u32);
            let mut round = 0_u64;
            loop {
                round += 1;
                let limit = Duration::from_micros(round % 120);
                let mut buffer = [0; 13];
                match weald::timeout(limit, || (&near).read(&mut buffer)) {
                    Ok(Ok(0)) => break,
                    Ok(Ok(n)) => text.extend_from_slice(&buffer[..n]),
                    Ok(Err(error)) => panic!("{error}"),
                    Err(_) => passed += 1,
                }
            }
            let expected: Vec<u8> = (0..BYTES).flat_map(u32::to_le_bytes).collect();
            assert!(
                text == expected,
                "{} bytes instead of {}",
                text.len(),
                expected.len()
            );
            assert!(passed > 0, "no limit passed: nothing was tested");
            writer.join().unwrap();
        });
    });
}

#[test]
fn limits_that_pass_while_connections_arrive_lose_none() {
    each_mode(|rt| {
        rt.run(|| {
            let listener = weald::tcp_listener(v4()).unwrap();
            let to = listener.local_addr().unwrap();
            let clients = weald::spawn(move || {
                let connect = |i: u64| {
                    weald::sleep(Duration::from_micros(i * 37 % 200));
                    weald::connect_tcp(to).unwrap()
                };
                (0..200).map(connect).collect::<Vec<_>>()
            });
            let mut accepted = Vec::new();
            let mut round = 0_u64;
            while accepted.len() < 200 {
                round += 1;
                let limit = Duration::from_micros(round % 150);
                if let Ok(connection) = weald::timeout(limit, || listener.accept()) {
                    accepted.push(connection.unwrap().1);
                }
            }
            let mut of: Vec<_> = clients
                .join()
                .unwrap()
                .iter()
                .map(|c| c.local_addr().unwrap())
                .collect();
            of.sort_unstable();
            accepted.sort_unstable();
            assert_eq!(accepted, of);
        });
    });
}

#[test]
fn an_interrupted_write_sends_nothing() {
    each_net(|addr| {
        let (near, mut far) = green_pair(addr);
        near.set_nonblocking(true).unwrap();
        let block = vec![5; 1 << 20];
        let mut written = 0;
        while let Ok(n) = (&near).write(&block) {
            written += n;
        }
        near.set_nonblocking(false).unwrap();
        let clone = near.try_clone().unwrap();
        let writer = waiting(move || (&clone).write(&[6; 100]));
        writer.thread().throw(Mark(4));
        let error = writer.join().unwrap().unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(4)));
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), written);
        assert!(all.iter().all(|&byte| byte == 5));
    });
}

#[test]
fn a_killed_reader_leaves_no_waiter_that_could_steal_the_wake_up() {
    each_net(|addr| {
        let (near, mut far) = std_pair(addr);
        let read = |stream: TcpStream| move || (&stream).read(&mut [0]);
        let first = waiting(read(near.try_clone().unwrap()));
        let second = waiting(read(near.try_clone().unwrap()));
        let third = waiting(read(near));
        first.thread().kill();
        assert!(first.join().unwrap().is_err());
        // There is one byte and one wake-up: it must go to a thread that still waits.
        far.write_all(b"1").unwrap();
        wait_until(|| second.is_finished() || third.is_finished());
        far.write_all(b"2").unwrap();
        assert_eq!(
            (
                second.join().unwrap().unwrap(),
                third.join().unwrap().unwrap()
            ),
            (1, 1)
        );
    });
}

#[test]
fn a_killed_acceptor_leaves_no_waiter_that_could_steal_the_wake_up() {
    each_net(|addr| {
        let listener = weald::tcp_listener(addr).unwrap();
        let to = listener.local_addr().unwrap();
        let accept = |listener: TcpListener| move || listener.accept().map(drop);
        let first = waiting(accept(listener.try_clone().unwrap()));
        let second = waiting(accept(listener));
        first.thread().kill();
        assert!(first.join().unwrap().is_err());
        let _client = weald::connect_tcp(to).unwrap();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn an_exception_that_races_the_wake_up_hands_it_on() {
    in_each_mode(|| {
        for round in 0..200_u64 {
            let (near, mut far) = green_pair(v4());
            let started = Count::default();
            let reader = |stream: TcpStream| {
                let started = started.clone();
                weald::spawn(move || {
                    started.add();
                    (&stream).read(&mut [0])
                })
            };
            let first = reader(near.try_clone().unwrap());
            let second = reader(near);
            wait_until(|| started.get() == 2);
            let victim = first.thread().clone();
            let thrower = weald::spawn(move || {
                (0..round % 4).for_each(|_| weald::yield_now());
                victim.throw(Mark(5));
            });
            far.write_all(b"1").unwrap();
            // If the first thread got the byte before the exception, the second one still waits. Otherwise the second
            // one has it.
            let got_by_first = first.join().unwrap().is_ok();
            if got_by_first {
                far.write_all(b"2").unwrap();
            }
            assert_eq!(second.join().unwrap().unwrap(), 1);
            thrower.join().unwrap();
        }
    });
}

#[test]
fn a_killed_connect_closes_its_socket() {
    in_each_mode(|| {
        let listener = weald::tcp_listener_with(v4(), 1).unwrap();
        let to = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&to, 50 * MS) {
            queued.push(stream);
            assert!(queued.len() < 50, "the queue never fills");
        }
        let connects = waiting(move || TcpStream::connect(to).map(drop));
        connects.thread().kill();
        let error = connects.join().unwrap().unwrap_err();
        assert!(source_of::<Killed>(&error).is_some());
    });
}

#[test]
fn a_reader_that_unwinds_may_still_use_its_socket_in_a_drop() {
    in_each_mode(|| {
        let (near, mut far) = green_pair(v4());
        let parked = waiting(move || {
            let _says_goodbye = crate::support::OnDrop(|| {
                (&near).write_all(b"goodbye").unwrap();
            });
            weald::sleep(HOUR);
        });
        parked.thread().kill();
        assert!(was_killed(&parked.join()));
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "goodbye");
        assert!(mark_in(&caught(weald::checkpoint)).is_none());
    });
}

#[test]
fn a_crowd_of_parked_readers_is_killed_at_once() {
    each_mode(|rt| {
        rt.run(|| {
            let pairs: Vec<_> = (0..100).map(|_| green_pair(v4())).collect();
            let (nears, fars): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let readers: Vec<_> = nears
                .into_iter()
                .map(|near| weald::spawn(move || (&near).read(&mut [0]).unwrap()))
                .collect();
            settle();
            for r in &readers {
                r.thread().kill();
            }
            for reader in readers {
                // If it was killed in its read, the `unwrap` panics. If it was killed before it started, it never
                // ran.
                assert!(reader.join().is_err());
            }
            // Their ends are closed, and every peer sees that.
            for mut far in fars {
                assert_eq!(far.read(&mut [0]).unwrap(), 0);
            }
        });
    });
}
