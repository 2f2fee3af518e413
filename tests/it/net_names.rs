//! Names are looked up without blocking a worker, by another resolver if the program has set one, and are given up
//! when told to.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use weald::net::{Resolve, SystemResolver};

use crate::support::{
    Flag, HOUR, MS, Mark, each_mode_on, everywhere, in_child, in_each_mode, source_of, v4,
};

#[test]
fn localhost_is_reached_by_every_way_to_write_it() {
    everywhere(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (text, host) = (format!("localhost:{port}"), "localhost".to_owned());
        let connected = [
            weald::connect_tcp(text.as_str()),
            weald::connect_tcp(&text),
            weald::connect_tcp(text.clone()),
            weald::connect_tcp(("localhost", port)),
            weald::connect_tcp(&(host.clone(), port)),
            weald::connect_tcp((host, port)),
            weald::net::TcpStream::connect(text.as_str()),
        ];
        for (far, near) in connected
            .into_iter()
            .map(|near| (listener.accept().unwrap().0, near))
        {
            assert_eq!(
                near.unwrap().local_addr().unwrap(),
                far.peer_addr().unwrap()
            );
        }
        let addrs = weald::net::resolve(&*text).unwrap();
        assert!(
            addrs
                .iter()
                .all(|addr| addr.port() == port && addr.ip().is_loopback())
        );
    });
}

#[test]
fn what_is_no_address_is_said_as_std_says_it() {
    everywhere(|| {
        for wrong in [
            "",
            "localhost",
            "localhost:",
            "localhost:http",
            "localhost:65536",
        ] {
            let error = weald::connect_tcp(wrong).unwrap_err();
            let std = wrong.to_socket_addrs().map(drop).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string()),
                (std.kind(), std.to_string())
            );
        }
        let none: &[SocketAddr] = &[];
        assert_eq!(
            weald::connect_tcp(none).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    });
}

#[test]
fn a_local_address_chooses_the_family() {
    everywhere(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        let at = listener.local_addr().unwrap();
        let both = ["[::1]:1".parse().unwrap(), at];
        let near = weald::connect_tcp_from(&both[..], v4()).unwrap();
        assert_eq!(near.peer_addr().unwrap(), at);
        let error = weald::connect_tcp_from(at, "[::1]:0".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

/// An address type of the program's own. Its address is known once the flag is set.
struct Slow(SocketAddr, Flag);

impl ToSocketAddrs for Slow {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.1.spin();
        Ok(Some(self.0).into_iter())
    }
}

#[test]
fn an_address_that_takes_its_time_holds_no_worker() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let listener = weald::tcp_listener(v4()).unwrap();
            let addr = listener.local_addr().unwrap();
            let slow = weald::spawn(move || {
                let known = Flag::default();
                let sets = known.clone();
                // This thread begins on another OS thread when the caller blocks its own.
                let neighbour = weald::spawn(move || {
                    weald::sleep(MS);
                    sets.set();
                });
                drop(weald::connect_tcp(Slow(addr, known)).unwrap());
                neighbour.join().unwrap();
            });
            slow.join().unwrap();
        });
    });
}

#[test]
fn a_resolver_of_the_programs_own_is_asked_by_every_call_and_can_be_given_up() {
    /// `two.example` has an address where nobody listens and one where a server listens.
    struct Own(SocketAddr, SocketAddr);

    impl Resolve for Own {
        fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            match host {
                "two.example" => Ok(vec![self.0, self.1]),
                "never.example" => {
                    weald::sleep(HOUR);
                    unreachable!()
                }
                "none.example" => Err(ErrorKind::NotFound.into()),
                "empty.example" => Ok(Vec::new()),
                _ => SystemResolver.resolve(host, port),
            }
        }
    }

    let test =
        "net_names::a_resolver_of_the_programs_own_is_asked_by_every_call_and_can_be_given_up";
    let child = in_child(test, &[], || {
        let refused = std::net::TcpListener::bind(v4()).unwrap();
        let nobody = refused.local_addr().unwrap();
        drop(refused);
        let listener = weald::tcp_listener(v4()).unwrap();
        let somebody = listener.local_addr().unwrap();
        weald::net::set_resolver(Own(nobody, somebody));
        in_each_mode(|| {
            let mut near = weald::connect_tcp("two.example:1").unwrap();
            near.write_all(b"x").unwrap();
            let (mut far, _) = listener.accept().unwrap();
            far.read_exact(&mut [0]).unwrap();
            // `connect` keeps std's order, one after the other.
            drop(weald::net::TcpStream::connect(("two.example", 1)).unwrap());
            listener.accept().unwrap();
            let kind = |name: &str| weald::connect_tcp((name, 1)).unwrap_err().kind();
            assert_eq!(kind("none.example"), ErrorKind::NotFound);
            assert_eq!(kind("empty.example"), ErrorKind::InvalidInput);
            drop(weald::connect_tcp(("localhost", somebody.port())).unwrap());
            listener.accept().unwrap();
            let outcome = weald::timeout(10 * MS, || weald::connect_tcp("never.example:1"));
            assert!(outcome.is_err());
        });
    });
    assert!(child.success, "{}", child.stderr);
}

#[test]
fn an_exception_ends_a_connection_that_is_being_tried_at_several_addresses() {
    // Full backlogs: the kernel answers no further connection.
    fn deaf() -> (socket2::Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&v4().into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let limit = Duration::from_millis(100);
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, limit) {
            held.push(stream);
        }
        (socket, held, addr)
    }
    let (first, second) = (deaf(), deaf());
    everywhere(|| {
        let addrs = [first.2, second.2];
        let timer = weald::exc_after(10 * MS, Mark(1));
        let error = weald::connect_tcp(&addrs[..]).unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(1)));
        assert!(!timer.cancel());
    });
}
