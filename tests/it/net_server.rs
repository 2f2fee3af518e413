//! `tcp_server`: a fault of a connection stays with it, and the server stops when it is told to. Descriptor
//! exhaustion has a process of its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weald::net::{ServerOptions, TcpStream};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, OnDrop, caught, each_mode, each_net, everywhere, in_each_mode,
    loopbacks, settle, v4, wait_until,
};

/// Sends back what comes, until the end or an error.
fn echo(mut stream: TcpStream, _from: SocketAddr) {
    let mut buffer = [0; 512];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 || stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

fn check_echo(to: SocketAddr) {
    let mut client = weald::connect_tcp(to).unwrap();
    client.write_all(b"echo").unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"echo");
}

#[test]
fn each_connection_has_a_handler_that_knows_its_peer() {
    each_net(|addr| {
        let server = weald::tcp_server(weald::tcp_listener(addr).unwrap(), |mut stream, from| {
            assert_eq!(stream.peer_addr().unwrap(), from);
            stream.write_all(from.to_string().as_bytes()).unwrap();
        });
        for _ in 0..10 {
            let mut client = weald::connect_tcp(server.local_addr()).unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, client.local_addr().unwrap().to_string());
        }
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn many_connections_are_served_at_the_same_time() {
    each_mode(|rt| {
        rt.run(|| {
            let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo);
            let to = server.local_addr();
            let mut clients: Vec<_> = (0..100).map(|_| weald::connect_tcp(to).unwrap()).collect();
            for round in 0..3_u8 {
                for c in &mut clients {
                    c.write_all(&[round]).unwrap();
                }
                for client in &mut clients {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    assert_eq!(byte[0], round);
                }
            }
            drop(clients);
            assert!(server.shutdown(HOUR));
        });
    });
}

#[test]
fn a_handlers_panic_closes_its_connection_and_nothing_else() {
    everywhere(|| {
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), |mut stream, from| {
            let mut first = [0];
            stream.read_exact(&mut first).unwrap();
            assert_ne!(&first, b"!", "this handler panics");
            stream.write_all(&first).unwrap();
            echo(stream, from);
        });
        let to = server.local_addr();
        let mut bystander = weald::connect_tcp(to).unwrap();
        bystander.write_all(b"a").unwrap();
        bystander.read_exact(&mut [0]).unwrap();
        for _ in 0..5 {
            let mut victim = weald::connect_tcp(to).unwrap();
            victim.write_all(b"!").unwrap();
            assert_eq!(victim.read(&mut [0]).unwrap(), 0);
        }
        bystander.write_all(b"b").unwrap();
        bystander.read_exact(&mut [0]).unwrap();
        check_echo(to);
        drop(bystander);
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn a_handlers_exception_closes_its_connection_and_nothing_else() {
    everywhere(|| {
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), |mut stream, from| {
            let mut first = [0];
            stream.read_exact(&mut first).unwrap();
            match &first {
                b"k" => weald::current().kill(),
                b"t" => weald::current().throw(Mark(1)),
                _ => {}
            }
            weald::checkpoint();
            stream.write_all(&first).unwrap();
            echo(stream, from);
        });
        let to = server.local_addr();
        for trouble in [b"k", b"t", b"k"] {
            let mut victim = weald::connect_tcp(to).unwrap();
            victim.write_all(trouble).unwrap();
            assert_eq!(victim.read(&mut [0]).unwrap(), 0);
            check_echo(to);
        }
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn after_stop_connects_are_refused_and_running_handlers_go_on() {
    each_net(|addr| {
        let server = weald::tcp_server(weald::tcp_listener(addr).unwrap(), echo);
        let to = server.local_addr();
        let mut client = weald::connect_tcp(to).unwrap();
        client.write_all(b"1").unwrap();
        client.read_exact(&mut [0]).unwrap();
        server.stop();
        assert_eq!(
            weald::connect_tcp(to).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        settle();
        client.write_all(b"2").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"2");
    });
}

#[test]
fn shutdown_waits_for_handlers_that_end_within_the_grace() {
    everywhere(|| {
        let (inside, ended) = (Count::default(), Count::default());
        let (enters, ends) = (inside.clone(), ended.clone());
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), move |mut stream, _| {
            enters.add();
            weald::sleep(50 * MS);
            stream.write_all(b"done").unwrap();
            ends.add();
        });
        let to = server.local_addr();
        let mut clients: Vec<_> = (0..5).map(|_| weald::connect_tcp(to).unwrap()).collect();
        wait_until(|| inside.get() == 5);
        assert!(server.shutdown(HOUR));
        assert_eq!(ended.get(), 5);
        for client in &mut clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "done");
        }
        assert_eq!(
            weald::connect_tcp(to).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn shutdown_kills_the_handlers_that_the_grace_does_not_suffice_for() {
    everywhere(|| {
        let (inside, unwound) = (Count::default(), Count::default());
        let (enters, unwinds) = (inside.clone(), unwound.clone());
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), move |mut stream, _| {
            let _guard = OnDrop(|| {
                unwinds.add();
            });
            enters.add();
            loop {
                let _ = stream.read(&mut [0]);
            }
        });
        let to = server.local_addr();
        let mut clients: Vec<_> = (0..5).map(|_| weald::connect_tcp(to).unwrap()).collect();
        wait_until(|| inside.get() == 5);
        assert!(!server.shutdown(20 * MS));
        assert_eq!(unwound.get(), 5, "they have unwound when shutdown returns");
        for client in &mut clients {
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        }
    });
}

#[test]
fn shutdown_of_a_server_without_connections_returns_true_at_once() {
    each_net(|addr| {
        let server = weald::tcp_server(weald::tcp_listener(addr).unwrap(), echo);
        let to = server.local_addr();
        assert!(server.shutdown(Duration::ZERO));
        assert_eq!(
            weald::connect_tcp(to).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn stop_and_shutdown_raise_nothing_and_finish() {
    everywhere(|| {
        for stops in [true, false] {
            let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo);
            let to = server.local_addr();
            let client = weald::connect_tcp(to).unwrap();
            drop(client);
            weald::current().throw(Mark(7));
            if stops {
                server.stop();
            } else {
                assert!(server.shutdown(HOUR));
            }
            let held = weald::catch::<Mark, _>(weald::checkpoint);
            assert_eq!(held, Err(Mark(7)), "raised by the next blocking call");
            let refused = weald::connect_tcp(to).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn a_handler_that_shuts_its_own_server_down_panics() {
    everywhere(|| {
        let place = Arc::new(Mutex::new(None::<weald::net::ServerHandle>));
        let handler = {
            let place = Arc::clone(&place);
            move |mut stream: TcpStream, _from| {
                stream.read_exact(&mut [0]).unwrap();
                let server = place.lock().unwrap().take().unwrap();
                let panic = caught(|| server.shutdown(HOUR)).unwrap_err();
                let text = panic.downcast_ref::<&str>().unwrap();
                stream.write_all(text.as_bytes()).unwrap();
            }
        };
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), handler);
        let to = server.local_addr();
        *place.lock().unwrap() = Some(server);
        let mut client = weald::connect_tcp(to).unwrap();
        client.write_all(b"!").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.contains("own handlers"), "{text}");
    });
}

#[test]
fn the_handler_is_dropped_once_the_server_and_its_connections_are_gone() {
    everywhere(|| {
        let drops = Count::default();
        let owned = drops.on_drop();
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), move |stream, from| {
            let _owned = &owned;
            echo(stream, from);
        });
        check_echo(server.local_addr());
        server.stop();
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn dropping_the_handle_leaves_the_server_running() {
    everywhere(|| {
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo);
        let to = server.local_addr();
        drop(server);
        settle();
        for _ in 0..3 {
            check_echo(to);
        }
    });
}

#[test]
fn no_more_connections_than_allowed_are_served_at_once_and_the_rest_wait() {
    everywhere(|| {
        let (inside, most, served) = (Count::default(), Count::default(), Count::default());
        let go = Flag::default();
        let (enters, peak, counts, waits) =
            (inside.clone(), most.clone(), served.clone(), go.clone());
        let now = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let options = ServerOptions::new().max_connections(3);
        let server = weald::tcp_server_with(
            weald::tcp_listener(v4()).unwrap(),
            options,
            move |mut stream, _| {
                use std::sync::atomic::Ordering::SeqCst;
                enters.add();
                if now.fetch_add(1, SeqCst) >= 3 {
                    peak.add();
                }
                waits.wait();
                now.fetch_sub(1, SeqCst);
                stream.write_all(b".").unwrap();
                counts.add();
            },
        );
        let to = server.local_addr();
        let mut clients: Vec<_> = (0..10).map(|_| weald::connect_tcp(to).unwrap()).collect();
        wait_until(|| inside.get() == 3);
        settle();
        assert_eq!(inside.get(), 3, "a fourth one was let in");
        go.set();
        for c in &mut clients {
            c.read_exact(&mut [0]).unwrap();
        }
        wait_until(|| served.get() == 10);
        assert_eq!(most.get(), 0);
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn a_server_outlives_the_green_thread_that_started_it() {
    in_each_mode(|| {
        for addr in loopbacks() {
            let server =
                weald::spawn(move || weald::tcp_server(weald::tcp_listener(addr).unwrap(), echo))
                    .join()
                    .unwrap();
            check_echo(server.local_addr());
            assert!(server.shutdown(HOUR));
        }
    });
}
