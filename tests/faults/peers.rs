//! What peers, and proxies on the way, do to a connection.

use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::{HOUR, MS, each_mode, green_pair, in_each_mode, std_pair, v4, wait_until};
use crate::{echo, skip};

/// Marsaglia's xorshift, so that what the proxy does is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// Closes the connection with a reset.
fn reset(stream: &StdStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Passes on what comes, in small pieces; stops after `most` bytes. Returns true if the source had ended before.
fn crumble(mut from: &StdStream, mut to: &StdStream, seed: u64, most: usize) -> bool {
    let mut random = Random(seed);
    let mut left = most;
    let mut buffer = [0; 97];
    while left > 0 {
        let size = 1 + random.below(buffer.len().min(left));
        match from.read(&mut buffer[..size.min(left)]) {
            Ok(count @ 1..) if to.write_all(&buffer[..count]).is_ok() => left -= count,
            _ => {
                let _ = to.shutdown(std::net::Shutdown::Write);
                return true;
            }
        }
        if random.below(50) == 0 {
            thread::sleep(MS);
        }
    }
    false
}

/// A proxy on OS threads for this many connections. If `cuts` returns true for a connection, both its ends are reset
/// after a while.
fn proxy(
    to: SocketAddr,
    connections: usize,
    cuts: fn(usize) -> bool,
) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = StdListener::bind(v4()).unwrap();
    let here = listener.local_addr().unwrap();
    let serve = move |number: usize, near: StdStream| {
        let far = StdStream::connect(to).unwrap();
        let (cut, seed) = (cuts(number), number as u64 + 1);
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
            if cut {
                reset(stream);
            }
        }
        thread::scope(|s| {
            s.spawn(|| crumble(&far, &near, seed * 77, usize::MAX));
            let most = if cut { 500 + number * 100 } else { usize::MAX };
            if !crumble(&near, &far, seed, most) {
                // Ends the other direction as well.
                let _ = near.shutdown(std::net::Shutdown::Read);
                let _ = far.shutdown(std::net::Shutdown::Read);
            }
        });
    };
    let thread = thread::spawn(move || {
        thread::scope(|s| {
            for _ in 0..connections {
                // The number is the client's, and the client sends it first.
                let (mut near, _) = listener.accept().unwrap();
                let serve = &serve;
                s.spawn(move || {
                    let mut number = [0];
                    near.read_exact(&mut number).unwrap();
                    serve(usize::from(number[0]), near);
                });
            }
        });
    });
    (here, thread)
}

const CLIENTS: usize = 8;

/// Returns what a client gets back of its bytes while another green thread sends them.
fn exchange(to: SocketAddr, number: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(number as u64 + 1000);
    let sent: Vec<u8> = (0..bytes)
        .map(|_| u8::try_from(random.below(256)).unwrap())
        .collect();
    let stream = weald::connect_tcp(to).unwrap();
    (&stream)
        .write_all(&[u8::try_from(number).unwrap()])
        .unwrap();
    let mut came = Vec::new();
    weald::scope(|s| {
        s.spawn(|| {
            let whole = (&stream).write_all(&sent);
            let ended = stream.shutdown(std::net::Shutdown::Write);
            whole.and(ended)
        });
        // A cut shows as an error. What came before the cut is kept.
        let mut buffer = [0; 1000];
        while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
            came.extend_from_slice(&buffer[..count]);
        }
    });
    (sent, came)
}

/// Clients whose connections go through the proxy; returns what each sent and got.
fn through(cuts: fn(usize) -> bool) {
    each_mode(|rt| {
        let server = rt.run(|| weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo));
        let (to, proxy) = proxy(server.local_addr(), CLIENTS, cuts);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| rt.spawn(move || exchange(to, number, 5000)))
            .collect();
        for (number, client) in clients.into_iter().enumerate() {
            let (sent, came) = client.join().unwrap();
            if cuts(number) {
                assert!(came.len() < sent.len(), "{number} was not cut");
                assert!(sent.starts_with(&came), "{number} got what it had not sent");
            } else {
                assert!(sent == came, "{number}: {} of {}", came.len(), sent.len());
            }
        }
        proxy.join().unwrap();
        // Only the acceptor is left.
        wait_until(|| rt.metrics().live == 1);
        assert!(rt.run(|| server.shutdown(HOUR)));
    });
}

#[test]
fn a_proxy_that_crumbles_what_it_forwards_loses_no_byte_of_ours() {
    through(|_| false);
}

#[test]
fn a_proxy_that_cuts_connections_in_their_middle_ends_these_alone() {
    through(|number| number % 2 == 1);
}

#[test]
fn short_writes_and_reads_of_a_slow_peer_carry_every_byte_once_and_in_order() {
    in_each_mode(|| {
        let (near, far) = green_pair(v4());
        let small = |socket: socket2::SockRef<'_>| {
            socket.set_send_buffer_size(4096).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
        };
        small(socket2::SockRef::from(&near));
        small(socket2::SockRef::from(&far));
        let bytes: Arc<Vec<u8>> = Arc::new((0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect());
        let shared = Arc::clone(&bytes);
        let writer = weald::spawn(move || {
            let mut near = near;
            let (mut at, mut short) = (0, 0);
            while at < shared.len() {
                // Vectored, from both sides of an arbitrary edge.
                let (one, other) = shared[at..].split_at(30_000.min(shared.len() - at));
                let count = near
                    .write_vectored(&[IoSlice::new(one), IoSlice::new(other)])
                    .unwrap();
                short += usize::from(count < shared.len() - at);
                at += count;
            }
            short
        });
        let (mut far, mut came, mut size) = (far, Vec::new(), 1);
        while came.len() < bytes.len() {
            let mut buffer = vec![0; size % 700 + 1];
            size += 13;
            let count = far.read(&mut buffer).unwrap();
            assert!(count > 0);
            came.extend_from_slice(&buffer[..count]);
        }
        assert!(writer.join().unwrap() > 0, "no write was short");
        assert!(came == *bytes);
    });
}

/// Makes the peer vanish: its kernel tells nobody. This needs the right to administer the network.
fn vanish(far: StdStream) -> bool {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer is to an int of that size.
    let outcome = unsafe {
        libc::setsockopt(
            far.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap(),
        )
    };
    drop(far);
    outcome == 0
}

#[test]
fn half_open_a_peer_that_vanished_is_given_up_by_a_limit_and_found_out_by_a_write() {
    in_each_mode(|| {
        let (mut near, far) = std_pair(v4());
        if !vanish(far) {
            skip("no right to make a peer vanish");
            return;
        }
        near.set_read_timeout(Some(5 * MS)).unwrap();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(weald::timeout(5 * MS, || near.peek(&mut [0])).is_err());
        // There is nobody to take it, and the peer's kernel says so.
        near.write_all(b"anybody?").unwrap();
        near.set_read_timeout(None).unwrap();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn half_open_a_peer_that_has_ended_its_half_is_still_written_to() {
    in_each_mode(|| {
        let (mut near, mut far) = std_pair(v4());
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        // The peer does not read either: the writer meets its limit, and all bytes come once the peer reads.
        let block = vec![7; 8 << 20];
        near.set_write_timeout(Some(5 * MS)).unwrap();
        let mut sent = 0;
        let error = loop {
            match near.write(&block[sent..]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        near.set_write_timeout(None).unwrap();
        let reader = thread::spawn(move || {
            let mut came = Vec::new();
            far.read_to_end(&mut came).unwrap();
            came.len()
        });
        near.write_all(&block[sent..]).unwrap();
        drop(near);
        assert_eq!(reader.join().unwrap(), block.len());
    });
}
