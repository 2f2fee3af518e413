//! `weald::io`: copying in one direction and in both, and the standard streams of the process.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::process::Stdio;
use std::time::Duration;

use weald::net::unix::UnixStream;
use weald::net::{SocketBuilder, TcpStream};
use weald::{Elapsed, io};

use crate::support::{
    HOUR, LIMIT, MODES, MS, Mark, each_net, everywhere, green_pair, in_each_mode, runtime, settle,
    source_of, this_program, v4, was_killed, with_deadline,
};

fn bytes(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

/// A proxy between two connections: the far ends, and what it has returned.
fn proxy() -> (
    TcpStream,
    TcpStream,
    weald::JoinHandle<std::io::Result<(u64, u64)>>,
) {
    let ((client, a), (b, server)) = (green_pair(v4()), green_pair(v4()));
    let proxy = weald::spawn(move || io::copy_bidirectional(&a, &b));
    (client, server, proxy)
}

#[test]
fn copy_moves_all_and_counts() {
    everywhere(|| {
        let content = bytes(100_000);
        let mut copied = Vec::new();
        let moved = io::copy(&mut &content[..], &mut copied).unwrap();
        assert_eq!((moved, copied), (400_000, content));
    });
}

#[test]
fn a_half_closed_side_gets_its_answer_through_a_proxy() {
    everywhere(|| {
        let (mut client, mut server, proxy) = proxy();
        client.write_all(b"the whole request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut request = String::new();
        // The end was passed on.
        server.read_to_string(&mut request).unwrap();
        assert_eq!(request, "the whole request");
        let answer = bytes(100_000);
        let sender = weald::spawn({
            let answer = answer.clone();
            move || server.write_all(&answer)
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == answer);
        sender.join().unwrap().unwrap();
        assert_eq!(proxy.join().unwrap().unwrap(), (17, 400_000));
    });
}

#[test]
fn both_directions_go_at_the_same_time() {
    each_net(|addr| {
        let ((client, a), (b, server)) = (green_pair(addr), UnixStream::pair().unwrap());
        let proxy = weald::spawn(move || io::copy_bidirectional(&a, &b));
        let content = bytes(500_000);
        weald::scope(|s| {
            for way in [true, false] {
                let (content, client, server) = (&content, &client, &server);
                s.spawn(move || {
                    if way {
                        (&*client).write_all(content).unwrap();
                        client.shutdown(Shutdown::Write).unwrap();
                    } else {
                        (&*server).write_all(content).unwrap();
                        server.shutdown(Shutdown::Write).unwrap();
                    }
                });
                s.spawn(move || {
                    let mut got = Vec::new();
                    if way {
                        (&*server).read_to_end(&mut got).unwrap();
                    } else {
                        (&*client).read_to_end(&mut got).unwrap();
                    }
                    assert!(got == *content);
                });
            }
        });
        assert_eq!(proxy.join().unwrap().unwrap(), (2_000_000, 2_000_000));
    });
}

#[test]
fn an_error_of_one_direction_ends_the_other_which_would_wait_for_ever() {
    everywhere(|| {
        let (mut client, mut server, proxy) = proxy();
        client.write_all(b"!").unwrap();
        server.read_exact(&mut [0]).unwrap();
        // The connection is reset.
        let resets = SocketBuilder::new().linger(Duration::ZERO);
        resets.apply(&server).unwrap();
        drop(server);
        let error = proxy.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // The proxy has dropped its side.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn exceptions_end_a_copy_in_both_directions_as_its_error() {
    everywhere(|| {
        let ((mut client, a), (b, mut server)) = (green_pair(v4()), green_pair(v4()));
        let late = weald::timeout(20 * MS, || {
            let error = io::copy_bidirectional(&a, &b).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(late.is_err());
        weald::current().throw(Mark(3));
        let error = io::copy_bidirectional(&a, &b).unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(3)));
        // The connections are as they were.
        client.write_all(b"later").unwrap();
        drop(client);
        let end = weald::spawn(move || io::copy_bidirectional(&a, &b));
        let mut text = [0; 5];
        server.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"later");
        drop(server);
        assert_eq!(end.join().unwrap().unwrap(), (5, 0));
    });
}

#[test]
fn a_killed_proxy_closes_its_connections() {
    in_each_mode(|| {
        let (mut client, mut server, proxy) = proxy();
        client.write_all(b"!").unwrap();
        server.read_exact(&mut [0]).unwrap();
        settle();
        proxy.thread().kill();
        let ended = proxy.join();
        // It is the copy's own error, if that was the first call to report.
        assert!(was_killed(&ended) || ended.unwrap().is_err());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
}

/// The child of the next test: once in each mode it waits for a line and prints it.
fn echo_lines() {
    for mode in MODES {
        runtime(1, mode).run(|| {
            let mut line = String::new();
            let early = weald::timeout(20 * MS, || io::stdin().read_line(&mut line));
            assert!(early.is_err(), "nothing is there: {line:?}");
            let mut out = io::stdout();
            writeln!(out, "waits in {mode:?}").unwrap();
            // While one thread waits for the line, which holds no worker, another one sleeps.
            let sleeper = weald::spawn(|| weald::sleep(MS));
            io::stdin().read_line(&mut line).unwrap();
            sleeper.join().unwrap();
            write!(out, "got {line}").unwrap();
        });
    }
    runtime(1, MODES[0]).run(|| {
        assert_eq!(io::stdin().read_line(&mut String::new()).unwrap(), 0);
        writeln!(io::stderr(), "the input has ended").unwrap();
        // Nobody reads any more.
        let full = weald::timeout(50 * MS, || {
            while io::stdout().write_all(&[b'.'; 1 << 16]).is_ok() {}
        });
        assert!(full.is_err());
    });
    std::process::exit(0);
}

#[test]
fn standard_streams_suspend_and_a_limit_reaches_them() {
    const TEST: &str = "standard_io::standard_streams_suspend_and_a_limit_reaches_them";
    const PART: &str = "WEALD_TEST_STANDARD_IO";
    if std::env::var_os(PART).is_some() {
        with_deadline(LIMIT / 2, echo_lines);
    }
    with_deadline(LIMIT, || {
        let mut child = this_program();
        child.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        child.env(PART, "1").stdin(Stdio::piped());
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut find = |text: &str| lines.find(|line| line.as_ref().unwrap().ends_with(text));
        for mode in MODES {
            assert!(find(&format!("waits in {mode:?}")).is_some());
            writeln!(stdin, "a line for {mode:?}").unwrap();
            assert!(find(&format!("got a line for {mode:?}")).is_some());
        }
        drop(stdin);
        let mut errors = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        assert!(errors.contains("the input has ended"), "{errors}");
        assert!(child.wait().unwrap().success(), "{errors}");
    });
}

#[test]
fn a_thread_that_waits_for_a_lock_of_the_output_can_be_killed() {
    in_each_mode(|| {
        let held = io::stderr().lock();
        let waiter = weald::spawn(|| {
            let error = io::stderr().write(b"never").unwrap_err();
            assert!(source_of::<weald::Killed>(&error).is_some());
            weald::sleep(HOUR);
        });
        settle();
        waiter.thread().kill();
        assert!(was_killed(&waiter.join()));
        drop(held);
    });
}
