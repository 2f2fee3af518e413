//! How a TLS stream ends: by `close_notify`, by a cut, by a changed record, by a shutdown, by a drop.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use weald::net::SslTransport as _;

use crate::support::{Count, each_mode, everywhere, in_each_mode, settle, v4};
use crate::tls_support::{acceptor, connector, tls_pair};

#[test]
fn dropping_one_half_leaves_the_connection_to_the_other() {
    everywhere(|| {
        let (client, server) = tls_pair();
        let (reader, mut writer) = client.into_split();
        drop(reader);
        writer.write_all(b"still there").unwrap();
        drop(writer);
        let mut text = String::new();
        (&server).read_to_string(&mut text).unwrap();
        assert_eq!(text, "still there");
    });
}

#[test]
fn close_notify_is_the_end_and_a_half_closed_stream_still_reads() {
    everywhere(|| {
        let (client, server) = tls_pair();
        (&client).write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        (&server).read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        assert_eq!((&server).read(&mut [0]).unwrap(), 0, "the end stays");
        (&server).write_all(b"answer").unwrap();
        drop(server);
        let mut text = String::new();
        (&client).read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        let error = (&client).write(b"more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_connection_that_is_cut_is_an_unexpected_end() {
    everywhere(|| {
        let (client, server) = tls_pair();
        (&client).write_all(b"part").unwrap();
        // This is the end of TCP without the end of TLS, which a proxy in between can forge.
        client.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut text = [0; 4];
        (&server).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"part");
        for _ in 0..2 {
            let error = (&server).read(&mut text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn a_stream_dropped_by_a_panic_does_not_say_that_it_is_complete() {
    in_each_mode(|| {
        let (client, server) = tls_pair();
        let handler = weald::spawn(move || {
            (&server).write_all(b"half of it").unwrap();
            std::panic::resume_unwind(Box::new("in the middle"));
        });
        let mut text = Vec::new();
        let error = (&client).read_to_end(&mut text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(text, b"half of it");
        assert!(handler.join().is_err());
    });
}

#[test]
fn records_that_were_changed_on_the_way_are_refused_at_every_later_read() {
    everywhere(|| {
        let (client, server) = tls_pair();
        // This is a record of application data that nobody has encrypted.
        let mut forged = vec![0x17, 3, 3, 0, 32];
        forged.extend_from_slice(&[9; 32]);
        client.get_ref().try_send(&forged).unwrap();
        for _ in 0..2 {
            let error = (&server).read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        assert!((&server).write(b"x").is_err());
        // The alert came over.
        let error = (&client).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("alert"), "{error}");
    });
}

#[test]
fn shutting_down_both_directions_wakes_who_waits() {
    each_mode(|rt| {
        rt.run(|| {
            let (client, _server) = tls_pair();
            let about_to = Count::default();
            weald::scope(|s| {
                let reader = s.spawn(|| {
                    about_to.add();
                    (&client).read(&mut [0; 8])
                });
                let writer = s.spawn(|| {
                    let block = vec![0; 1 << 20];
                    about_to.add();
                    loop {
                        if let Err(error) = (&client).write_all(&block) {
                            return error;
                        }
                    }
                });
                crate::support::wait_until(|| about_to.get() == 2);
                settle();
                client.shutdown(Shutdown::Both).unwrap();
                assert_eq!(reader.join().unwrap().unwrap(), 0);
                assert_eq!(writer.join().unwrap().kind(), ErrorKind::BrokenPipe);
            });
        });
    });
}

#[test]
fn connections_leave_no_descriptor_behind() {
    let test = "tls_ends::connections_leave_no_descriptor_behind";
    let child = crate::support::in_child(test, &[], || {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let rt = weald::Runtime::builder().workers(2).build().unwrap();
        let (connector, acceptor) = (connector(), acceptor());
        let round = || {
            rt.run(|| {
                let listener = weald::ssl_listener_with(v4(), &acceptor).unwrap();
                let at = listener.local_addr().unwrap();
                weald::scope(|s| {
                    s.spawn(|| {
                        for turn in 0..60 {
                            let (stream, _) = listener.accept().unwrap();
                            // One in three meets a client of TLS, one garbage, one nothing.
                            assert_eq!(stream.handshake().is_ok(), turn % 3 == 0);
                        }
                    });
                    for turn in 0..60 {
                        if turn % 3 == 0 {
                            drop(weald::connect_ssl_with(&at.to_string(), &connector).unwrap());
                            continue;
                        }
                        let mut tcp = weald::connect_tcp(at).unwrap();
                        if turn % 3 == 1 {
                            tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                        }
                    }
                });
            });
        };
        round();
        let before = open();
        round();
        round();
        assert_eq!(open(), before);
    });
    assert!(child.success, "{}", child.stderr);
}
