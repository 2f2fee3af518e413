//! A TLS stream is read and written as a socket is: both ways at once, and by several threads. Its ends are in `tls_ends`.

use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use weald::net::{SslReader, SslStream, SslTransport, SslWriter, TcpStream};

use crate::support::{
    Count, Flag, MS, everywhere, green_pair, in_each_mode, loopbacks, settle, v4, with_deadline,
};
use crate::tls_support::{
    LOCALHOST, acceptor, client_and_socket, connector, pattern, server_and_socket, tls_pair,
};

#[test]
fn types_are_send_and_sync_and_streams_read_and_write_by_reference() {
    fn is_stream<T: Read + Write + AsFd>()
    where
        for<'a> &'a T: Read + Write,
    {
    }
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<SslStream>();
    check::<SslReader>();
    check::<SslWriter>();
    check::<weald::net::SslListener>();
    check::<weald::net::SslConnector>();
    check::<weald::net::SslAcceptor>();
    check::<weald::net::Identity>();
    is_stream::<SslStream>();
}

#[test]
fn a_listener_and_connect_ssl_with_talk_over_every_family() {
    in_each_mode(|| {
        for addr in loopbacks() {
            let listener = weald::ssl_listener(addr, LOCALHOST.identity()).unwrap();
            let at = listener.local_addr().unwrap();
            let server = weald::spawn(move || {
                let (mut stream, peer) = listener.accept().unwrap();
                assert_eq!(stream.peer_addr().unwrap(), peer);
                let mut text = [0; 5];
                stream.read_exact(&mut text).unwrap();
                stream.write_all(&text).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            let mut stream = weald::connect_ssl_with(&at.to_string(), &connector()).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), at);
            assert!(stream.peer_addr().unwrap().ip().is_loopback());
            stream.write_all(b"hello").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
            server.join().unwrap();
        }
    });
}

#[test]
fn megabytes_both_ways_at_once_arrive_whole_while_both_ends_write_before_they_read() {
    const BYTES: usize = 3 << 20;
    fn run(stream: &SslStream, both_full: &Count) {
        weald::scope(|s| {
            s.spawn(|| {
                let mut writer = stream;
                for at in (0..BYTES).step_by(10_000) {
                    let count = 10_000.min(BYTES - at);
                    writer.write_all(&pattern(at, count)).unwrap();
                }
                writer.flush().unwrap();
            });
            // Neither side reads before both directions are full.
            settle();
            both_full.add();
            let mut reader = stream;
            let mut buffer = vec![0; 7_001];
            let mut at = 0;
            while at < BYTES {
                let count = reader.read(&mut buffer).unwrap();
                assert!(count > 0);
                assert_eq!(buffer[..count], pattern(at, count));
                at += count;
            }
        });
    }
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let both = Count::default();
        weald::scope(|s| {
            s.spawn(|| run(&client, &both));
            run(&server, &both);
        });
        assert_eq!(both.get(), 2);
    });
}

#[test]
fn a_reader_goes_on_while_a_writer_waits_for_a_peer_that_does_not_read() {
    everywhere(|| {
        let (client, server) = tls_pair();
        let stuck = Flag::default();
        let done = Flag::default();
        weald::scope(|s| {
            s.spawn(|| {
                // This is more than the kernel's buffers hold.
                let block = vec![7; 1 << 20];
                stuck.set();
                for _ in 0..8 {
                    (&client).write_all(&block).unwrap();
                }
            });
            stuck.wait();
            settle();
            for round in 0..100 {
                let sent = pattern(round, 3_000);
                (&server).write_all(&sent).unwrap();
                let mut got = vec![0; 3_000];
                (&client).read_exact(&mut got).unwrap();
                assert_eq!(got, sent);
            }
            done.set();
            let mut left = 8 << 20;
            let mut buffer = vec![0; 1 << 16];
            while left > 0 {
                left -= (&server).read(&mut buffer).unwrap();
            }
        });
        assert!(done.is_set());
    });
}

#[test]
fn halves_read_and_write_in_threads_of_their_own() {
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let echo = weald::spawn(move || {
            let (mut reader, mut writer) = server.into_split();
            std::io::copy(&mut reader, &mut writer).unwrap();
            writer.shutdown().unwrap();
        });
        let (mut reader, mut writer) = client.into_split();
        let sent = pattern(0, 300_000);
        let expected = sent.clone();
        let sender = weald::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown().unwrap();
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == expected);
        sender.join().unwrap();
        echo.join().unwrap();
    });
}

#[test]
fn small_reads_get_all_of_a_record_and_large_ones_several() {
    everywhere(|| {
        let (client, server) = tls_pair();
        let sent = pattern(0, 40_000);
        (&client).write_all(&sent).unwrap();
        let mut got = Vec::new();
        for size in (1..).step_by(7) {
            let mut part = vec![0; size];
            let count = (&server).read(&mut part).unwrap();
            got.extend_from_slice(&part[..count]);
            if got.len() == sent.len() {
                break;
            }
        }
        assert!(got == sent);
        assert_eq!((&server).read(&mut []).unwrap(), 0);
        assert_eq!((&server).write(&[]).unwrap(), 0);
        let parts = [
            IoSlice::new(b"head "),
            IoSlice::new(b""),
            IoSlice::new(b"body"),
        ];
        assert_eq!((&server).write_vectored(&parts).unwrap(), 9);
        let mut text = [0; 20];
        assert_eq!((&client).read(&mut text).unwrap(), 9, "it was one record");
        assert_eq!(&text[..9], b"head body");
    });
}

#[test]
fn several_readers_share_what_comes() {
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let got = Count::default();
        weald::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let mut byte = [0];
                    while (&server).read(&mut byte).unwrap() == 1 {
                        got.add();
                    }
                });
            }
            for _ in 0..100 {
                (&client).write_all(b"123").unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
        });
        assert_eq!(got.get(), 300);
    });
}

#[test]
fn a_writer_gets_its_turn_beside_one_that_never_stops() {
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let done = Flag::default();
        let finished = done.clone();
        weald::scope(|s| {
            s.spawn(|| {
                // This is more than the socket holds, so the writer waits and holds the turn.
                let block = vec![0; 200_000];
                while !done.is_set() {
                    (&client).write_all(&block).unwrap();
                }
                client.shutdown(Shutdown::Write).unwrap();
            });
            s.spawn(|| {
                let mut buffer = vec![0; 1 << 16];
                while (&server).read(&mut buffer).unwrap() > 0 {}
            });
            settle();
            for _ in 0..5 {
                (&client).write_all(b"a word").unwrap();
            }
            finished.set();
        });
    });
}

#[test]
fn a_slow_reader_gets_everything_and_holds_nobody_else_up() {
    in_each_mode(|| {
        const BYTES: usize = 400_000;
        let (client, server) = tls_pair();
        let (quick, other) = tls_pair();
        weald::scope(|s| {
            s.spawn(|| (&server).write_all(&pattern(0, BYTES)).unwrap());
            s.spawn(|| {
                for _ in 0..50 {
                    (&quick).write_all(b"ping").unwrap();
                    let mut text = [0; 4];
                    (&other).read_exact(&mut text).unwrap();
                }
            });
            let mut at = 0;
            let mut buffer = vec![0; 1 << 15];
            while at < BYTES {
                weald::sleep(MS);
                let count = (&client).read(&mut buffer).unwrap();
                assert!(buffer[..count] == pattern(at, count));
                at += count;
            }
        });
    });
}

#[test]
fn starttls_begins_in_the_middle_of_a_connection() {
    everywhere(|| {
        let (mut near, mut far) = green_pair(v4());
        near.write_all(b"STARTTLS\n").unwrap();
        let mut line = [0; 9];
        far.read_exact(&mut line).unwrap();
        let server = SslStream::server(far, &acceptor()).unwrap();
        let client = SslStream::client(near, &connector(), "localhost").unwrap();
        weald::scope(|s| {
            s.spawn(|| (&server).write_all(b"private").unwrap());
            let mut text = [0; 7];
            (&client).read_exact(&mut text).unwrap();
            assert_eq!(&text, b"private");
        });
    });
}

#[test]
fn tls_runs_over_tls() {
    everywhere(|| {
        let (client, server) = tls_pair();
        let client = SslStream::client(client, &connector(), "localhost").unwrap();
        let server = SslStream::server(server, &acceptor()).unwrap();
        let sent = pattern(0, 200_000);
        weald::scope(|s| {
            s.spawn(|| {
                (&server).write_all(&sent).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            (&client).read_to_end(&mut got).unwrap();
            assert!(got == sent);
        });
    });
}

/// A transport of the test's own: a pair of pipes made of channels would do; TCP with a count does.
#[derive(Debug)]
struct Counting(TcpStream, Count);

impl SslTransport for Counting {
    fn receive(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&self.0).read(buffer)
    }

    fn send(&self, buffer: &[u8]) -> std::io::Result<usize> {
        self.1.add();
        (&self.0).write(buffer)
    }

    fn close(&self, how: Shutdown) -> std::io::Result<()> {
        self.0.shutdown(how)
    }
}

#[test]
fn a_transport_of_ones_own_serves_and_four_records_are_one_send() {
    everywhere(|| {
        let (near, far) = green_pair(v4());
        let sends = Count::default();
        let client =
            SslStream::client(Counting(near, sends.clone()), &connector(), "localhost").unwrap();
        let server = SslStream::server(far, &acceptor()).unwrap();
        weald::scope(|s| {
            s.spawn(|| server.handshake().unwrap());
            client.handshake().unwrap();
        });
        let before = sends.get();
        assert_eq!((&client).write(&[1; 64 * 1024]).unwrap(), 64 * 1024);
        // It is one, if the socket took all of it at once.
        assert!(sends.get() - before <= 2);
        let mut got = vec![0; 64 * 1024];
        (&server).read_exact(&mut got).unwrap();
    });
}

#[test]
fn the_handshake_and_the_first_bytes_may_be_asked_for_by_many_threads_at_once() {
    in_each_mode(|| {
        let (client, server) =
            crate::tls_support::raw_pair_with(&connector(), &acceptor(), "localhost");
        weald::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| client.handshake().unwrap());
                s.spawn(|| (&server).write_all(b"abc").unwrap());
                s.spawn(|| (&client).write_all(b"xyz").unwrap());
            }
            let mut text = [0; 9];
            (&client).read_exact(&mut text).unwrap();
            assert_eq!(&text, b"abcabcabc");
            (&server).read_exact(&mut text).unwrap();
            assert_eq!(&text, b"xyzxyzxyz");
        });
    });
}

#[test]
fn the_handshake_fits_a_stack_of_the_default_size_by_half() {
    with_deadline(60, || {
        let rt = weald::Runtime::builder()
            .workers(2)
            .stack_size(128 * 1024)
            .build()
            .unwrap();
        rt.run(|| {
            let (client, server) = tls_pair();
            (&client).write_all(&[1; 100]).unwrap();
            (&server).read_exact(&mut [0; 100]).unwrap();
            let (_client, _socket) = client_and_socket();
            let (_server, _socket) = server_and_socket();
        });
    });
}
