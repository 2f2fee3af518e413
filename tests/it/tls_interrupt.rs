//! A TLS call that is interrupted has lost nothing: rule 6 of DESIGN 4.3 for streams that speak TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use weald::net::{SslStream, SslTransport, TcpStream};
use weald::{Elapsed, Killed};

use crate::support::{
    Flag, HOUR, MS, Mark, caught, everywhere, exception_in, green_pair, in_each_mode, mark_in,
    settle, source_of, v4,
};
use crate::tls_support::{acceptor, connector, pattern, raw_pair_with, tls_pair};

/// TCP whose `send` can be made to wait for ever, in a call that returns its exception or in one that unwinds.
#[derive(Debug)]
struct Gated {
    tcp: TcpStream,
    /// A socket from which nothing ever comes.
    silent: TcpStream,
    stuck: AtomicBool,
    unwinds: bool,
}

impl SslTransport for Gated {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.tcp).read(buffer)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        if !self.stuck.load(SeqCst) {
            return (&self.tcp).write(buffer);
        }
        if self.unwinds {
            weald::sleep(HOUR);
            unreachable!("an exception ends the sleep");
        }
        (&self.silent).read(&mut [0])
    }

    fn close(&self, how: Shutdown) -> io::Result<()> {
        self.tcp.shutdown(how)
    }
}

/// Returns a client whose next write will wait for ever after TLS has taken its bytes, and the server, for both kinds
/// of transport.
fn each_stuck(check: impl Fn(&SslStream<Gated>, &SslStream) + Sync) {
    everywhere(|| {
        for unwinds in [false, true] {
            let (tcp, far) = green_pair(v4());
            let (silent, _other) = green_pair(v4());
            let gated = Gated {
                tcp,
                silent,
                stuck: AtomicBool::new(false),
                unwinds,
            };
            let client = SslStream::client(gated, &connector(), "localhost").unwrap();
            let server = SslStream::server(far, &acceptor()).unwrap();
            weald::scope(|s| {
                s.spawn(|| server.handshake().unwrap());
                client.handshake().unwrap();
            });
            client.get_ref().stuck.store(true, SeqCst);
            check(&client, &server);
        }
    });
}

/// Checks that the call ends with the exception in the transport's way: returned or unwinding.
fn check_raises(mark: Mark, call: impl FnOnce() -> io::Result<()>) {
    match caught(call) {
        Ok(result) => assert_eq!(source_of::<Mark>(&result.unwrap_err()), Some(&mark)),
        Err(payload) => assert_eq!(mark_in::<()>(&Err(payload)), Some(mark.0)),
    }
}

/// Lets the transport send again, and checks that the bytes come, each once.
fn check_arrives(client: &SslStream<Gated>, server: &SslStream, text: &[u8]) {
    client.get_ref().stuck.store(false, SeqCst);
    (&*client).flush().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    (&*server).read_to_end(&mut got).unwrap();
    assert_eq!(got, text);
}

#[test]
fn a_write_whose_bytes_tls_has_returns_ok_and_what_was_thrown_is_raised_next_and_once() {
    each_stuck(|client, server| {
        let me = weald::current();
        let thrower = weald::spawn(move || {
            settle();
            me.throw(Mark(1));
        });
        assert_eq!((&*client).write(b"abc").unwrap(), 3);
        assert_eq!(mark_in(&caught(weald::checkpoint)), Some(1));
        weald::checkpoint();
        thrower.join().unwrap();
        check_arrives(client, server, b"abc");
    });
}

#[test]
fn a_delayed_exception_that_met_such_a_write_can_still_be_cancelled() {
    each_stuck(|client, server| {
        let timer = weald::exc_after(5 * MS, Mark(2));
        assert_eq!((&*client).write(b"abc").unwrap(), 3);
        assert!(timer.cancel(), "it was not raised");
        weald::checkpoint();
        let timer = weald::exc_after(5 * MS, Mark(3));
        // These calls wait for earlier records, and have none of their own.
        check_raises(Mark(3), || (&*client).write(b"never").map(drop));
        assert!(!timer.cancel());
        check_arrives(client, server, b"abc");
    });
}

#[test]
fn a_limit_that_met_such_a_write_is_reported_by_the_next_call_and_by_the_limit() {
    each_stuck(|client, server| {
        let seen = Flag::default();
        let outcome = weald::timeout(5 * MS, || {
            assert_eq!((&*client).write(b"abc").unwrap(), 3);
            match caught(|| (&*client).flush()) {
                Ok(result) => {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    assert!(source_of::<Elapsed>(&error).is_some());
                }
                Err(payload) => {
                    assert!(exception_in::<Elapsed, ()>(&Err(payload)).is_some());
                }
            }
            seen.set();
            // Every later call unwinds.
            let _ = (&*client).write(b"never");
            unreachable!();
        });
        assert!(outcome.is_err() && seen.is_set());
        check_arrives(client, server, b"abc");
    });
}

#[test]
fn a_kill_that_met_such_a_write_is_reported_by_the_next_call() {
    in_each_mode(|| {
        let (tcp, far) = green_pair(v4());
        let (silent, _other) = green_pair(v4());
        let gated = Gated {
            tcp,
            silent,
            stuck: AtomicBool::new(false),
            unwinds: false,
        };
        let client = SslStream::client(gated, &connector(), "localhost").unwrap();
        let server = SslStream::server(far, &acceptor()).unwrap();
        let (reported, about_to) = (Flag::default(), Flag::default());
        weald::scope(|s| {
            s.spawn(|| server.handshake().unwrap());
            client.handshake().unwrap();
            client.get_ref().stuck.store(true, SeqCst);
            let writer = s.spawn(|| {
                about_to.set();
                assert_eq!((&client).write(b"abc").unwrap(), 3);
                let error = (&client).write(b"never").unwrap_err();
                assert!(source_of::<Killed>(&error).is_some());
                reported.set();
            });
            about_to.wait();
            settle();
            writer.thread().kill();
            writer.join().unwrap();
        });
        assert!(reported.is_set());
        check_arrives(&client, &server, b"abc");
    });
}

#[test]
fn an_interrupted_shutdown_can_be_called_again() {
    each_stuck(|client, server| {
        let timer = weald::exc_after(5 * MS, Mark(4));
        check_raises(Mark(4), || client.shutdown(Shutdown::Write));
        assert!(!timer.cancel());
        check_arrives(client, server, b"");
    });
}

#[test]
fn exceptions_in_the_middle_of_a_long_transfer_lose_and_double_nothing() {
    const BYTES: usize = 8 << 20;
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let written = AtomicUsize::new(0);
        let marks = weald::scope(|s| {
            let writer = s.spawn(|| {
                let mut marks = Vec::new();
                let mut at = 0;
                while at < BYTES {
                    let block = pattern(at, 50_000.min(BYTES - at));
                    match (&client).write(&block) {
                        Ok(count) => at += count,
                        Err(error) => marks.push(*source_of::<Mark>(&error).unwrap()),
                    }
                    written.store(at, SeqCst);
                }
                while let Err(error) = client.shutdown(Shutdown::Write) {
                    marks.push(*source_of::<Mark>(&error).unwrap());
                }
                marks
            });
            // The socket is full when nothing moves any more.
            let mut last = 0;
            loop {
                settle();
                let now = written.load(SeqCst);
                if now > 0 && now == last {
                    break;
                }
                last = now;
            }
            for mark in 0..3 {
                writer.thread().throw(Mark(mark));
                settle();
            }
            let mut got = Vec::new();
            let mut buffer = vec![0; 30_000];
            loop {
                if got.len() % 7 == 0 {
                    writer.thread().throw(Mark(9));
                }
                match (&server).read(&mut buffer).unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&buffer[..count]),
                }
            }
            assert!(got == pattern(0, BYTES));
            writer.join().unwrap()
        });
        assert!(marks.starts_with(&[Mark(0), Mark(1), Mark(2)]), "{marks:?}");
    });
}

#[test]
fn a_read_that_is_interrupted_has_taken_nothing() {
    everywhere(|| {
        let (client, server) = tls_pair();
        for round in 0..5 {
            let timer = weald::exc_after(3 * MS, Mark(round));
            let error = (&client).read(&mut [0; 4]).unwrap_err();
            assert_eq!(source_of::<Mark>(&error), Some(&Mark(round)));
            assert!(!timer.cancel());
            (&server).write_all(b"kept").unwrap();
            let mut text = [0; 4];
            (&client).read_exact(&mut text).unwrap();
            assert_eq!(&text, b"kept");
        }
    });
}

/// TCP that reads a few bytes at a time, and after each of these throws something at its reader.
#[derive(Debug)]
struct Trickle {
    tcp: TcpStream,
    throws: AtomicBool,
}

impl SslTransport for Trickle {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let few = buffer.len().min(100);
        let count = (&self.tcp).read(&mut buffer[..few])?;
        if self.throws.load(SeqCst) {
            weald::current().throw(Mark(5));
        }
        Ok(count)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        (&self.tcp).write(buffer)
    }

    fn close(&self, how: Shutdown) -> io::Result<()> {
        self.tcp.shutdown(how)
    }
}

#[test]
fn a_read_that_is_interrupted_in_the_middle_of_a_record_goes_on_from_there() {
    everywhere(|| {
        let (tcp, far) = green_pair(v4());
        let throws = AtomicBool::new(true);
        let client = SslStream::client(Trickle { tcp, throws }, &connector(), "localhost").unwrap();
        let server = SslStream::server(far, &acceptor()).unwrap();
        let sent = pattern(0, 20_000);
        let mut marks = 0;
        weald::scope(|s| {
            s.spawn(|| {
                (&server).write_all(&sent).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
            });
            // The handshake is interrupted as well.
            let mut got = Vec::new();
            let mut buffer = vec![0; 9_000];
            loop {
                match (&client).read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(error) => {
                        assert_eq!(source_of::<Mark>(&error), Some(&Mark(5)));
                        marks += 1;
                    }
                }
            }
            assert!(got == sent);
        });
        client.get_ref().throws.store(false, SeqCst);
        let _ = caught(weald::checkpoint);
        assert!(marks > 200, "{marks}");
    });
}

#[test]
fn a_pending_exception_comes_before_every_call_that_would_not_have_waited() {
    everywhere(|| {
        let pending = || weald::current().throw(Mark(7));
        let is_raised = |result: io::Result<usize>| {
            let error = result.unwrap_err();
            assert_eq!(source_of::<Mark>(&error), Some(&Mark(7)));
        };
        let (client, server) = tls_pair();
        (&server).write_all(b"ready").unwrap();
        let mut text = [0; 5];
        pending();
        is_raised((&client).read(&mut text));
        pending();
        is_raised((&client).write(b"never sent"));
        pending();
        is_raised((&client).flush().map(|()| 0));
        pending();
        is_raised(client.handshake().map(|()| 0));
        pending();
        is_raised(client.shutdown(Shutdown::Write).map(|()| 0));
        (&client).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"ready");
        let (fresh, _other) = raw_pair_with(&connector(), &acceptor(), "localhost");
        pending();
        is_raised((&fresh).read(&mut text));
    });
}

#[test]
fn a_sockets_own_timeout_ends_a_read_and_the_next_one_goes_on() {
    everywhere(|| {
        let (client, server) = tls_pair();
        client.set_read_timeout(Some(3 * MS)).unwrap();
        assert_eq!(client.read_timeout().unwrap(), Some(3 * MS));
        for _ in 0..3 {
            let error = (&client).read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(error.get_ref().is_none());
        }
        client.set_read_timeout(None).unwrap();
        (&server).write_all(b"x").unwrap();
        (&client).read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_thread_that_waits_for_its_turn_can_be_interrupted() {
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let about_to = Flag::default();
        weald::scope(|s| {
            let first = s.spawn(|| (&client).read(&mut [0]));
            settle();
            let second = s.spawn(|| {
                about_to.set();
                (&client).read(&mut [0])
            });
            about_to.wait();
            settle();
            second.thread().throw(Mark(1));
            let error = second.join().unwrap().unwrap_err();
            assert_eq!(source_of::<Mark>(&error), Some(&Mark(1)));
            (&server).write_all(b"x").unwrap();
            assert_eq!(first.join().unwrap().unwrap(), 1);
        });
    });
}
