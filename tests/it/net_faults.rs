//! Bad peers, signals, and descriptors that others close: each is a clear error at the right call, and disturbs
//! nothing else.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use weald::net::unix::{UnixDatagram, UnixStream};
use weald::net::{Fd, TcpStream, UdpSocket};
use weald::{Elapsed, Runtime};

use crate::support::{
    Flag, HOUR, MS, each_net, everywhere, green_pair, in_child, settle, source_of, std_pair, v4,
    wait_until,
};

fn echo(mut stream: TcpStream, _from: std::net::SocketAddr) {
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}

/// Closes the connection with a reset.
fn reset(stream: std::net::TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

#[test]
fn a_reset_in_the_middle_is_an_error_of_its_connection_alone() {
    each_net(|addr| {
        let (near, far) = std_pair(addr);
        let (mut other, mut other_far) = green_pair(addr);
        let reader = weald::spawn(move || {
            let mut text = Vec::new();
            let error = (&near).read_to_end(&mut text).unwrap_err();
            (near, text, error.kind())
        });
        (&far).write_all(b"half of").unwrap();
        // The first half is taken before the reset, which throws away what was not taken.
        settle();
        reset(far);
        let (near, text, kind) = reader.join().unwrap();
        assert_eq!(text, b"half of");
        assert_eq!(kind, ErrorKind::ConnectionReset);
        let error = (&near).write(b"anybody?").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!((&near).read(&mut [0]).unwrap(), 0);
        other.write_all(b"goes on").unwrap();
        other_far.read_exact(&mut [0; 7]).unwrap();
    });
}

#[test]
fn a_reset_wakes_who_waits_to_write() {
    each_net(|addr| {
        let (near, far) = std_pair(addr);
        let full = Flag::default();
        let tells = full.clone();
        let writer = weald::spawn(move || {
            near.set_nonblocking(true).unwrap();
            while (&near).write(&[0; 4096]).is_ok() {}
            near.set_nonblocking(false).unwrap();
            tells.set();
            loop {
                if let Err(error) = (&near).write(&[0; 4096]) {
                    break error.kind();
                }
            }
        });
        full.wait();
        settle();
        reset(far);
        assert_eq!(writer.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_peer_that_reads_byte_by_byte_meets_the_writers_deadline() {
    everywhere(|| {
        let (near, mut far) = std_pair(v4());
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let slow = std::thread::spawn(move || {
            while !ends.load(SeqCst) && far.read(&mut [0]).is_ok() {
                std::thread::sleep(MS);
            }
        });
        let block = vec![0; 32 << 20];
        let sent = weald::timeout(40 * MS, || {
            let error = (&near).write_all(&block).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(sent.is_err());
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let error = (&near).write_all(&block).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        near.shutdown(Shutdown::Both).unwrap();
        over.store(true, SeqCst);
        slow.join().unwrap();
    });
}

#[test]
fn a_peer_that_writes_byte_by_byte_meets_the_readers_deadline() {
    everywhere(|| {
        let (near, mut far) = std_pair(v4());
        let slow = std::thread::spawn(move || {
            while far.write_all(b".").is_ok() {
                std::thread::sleep(MS);
            }
        });
        // Each byte comes in time for a timeout of the socket, but the whole does not.
        near.set_read_timeout(Some(HOUR)).unwrap();
        let mut text = vec![0; 1 << 20];
        let outcome = weald::timeout(40 * MS, || {
            let error = (&near).read_exact(&mut text).unwrap_err();
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(outcome.is_err());
        drop(near);
        slow.join().unwrap();
    });
}

#[test]
fn a_descriptor_that_somebody_else_closes_disturbs_nobody() {
    let child = in_child(
        "net_faults::a_descriptor_that_somebody_else_closes_disturbs_nobody",
        &[],
        || {
            let rt = Runtime::builder().workers(1).build().unwrap();
            rt.run(|| {
                let (near, _far) = UnixStream::pair().unwrap();
                let number = near.as_raw_fd();
                near.set_read_timeout(Some(MS)).unwrap();
                // It is registered from here on.
                assert!((&near).read(&mut [0]).is_err());
                // SAFETY: that is the fault: `near` has lost its descriptor and does not know.
                assert_eq!(unsafe { libc::close(number) }, 0);
                let error = (&near).write(b"x").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EBADF));
                let error = weald::select(&[&near], &[], &[], Some(HOUR)).unwrap_err();
                assert!(error.to_string().contains(&number.to_string()), "{error}");

                // Its number is used again, by a stream that waits as well.
                let (next, mut other) = UnixStream::pair().unwrap();
                assert_eq!(next.as_raw_fd(), number, "the lowest free number");
                let waiting = weald::spawn(move || (&next).read_exact(&mut [0]).map(|()| next));
                settle();
                // The first stream goes without closing; the registration of the new one stays.
                assert_eq!(near.into_raw_fd(), number);
                settle();
                other.write_all(b"x").unwrap();
                drop(waiting.join().unwrap().unwrap());
            });
        },
    );
    assert!(child.success, "{child:?}");
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, SeqCst);
}

/// Sends a signal to every OS thread of this process except the calling one, again and again.
fn storm(over: &AtomicBool) {
    // SAFETY: the handler touches an atomic only; without SA_RESTART calls end with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
            0
        );
    }
    // SAFETY: no precondition.
    let (process, own) = unsafe { (libc::getpid(), libc::gettid()) };
    while !over.load(SeqCst) {
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let task: i32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
            if task != own {
                // SAFETY: one that has ended meanwhile is an error only.
                unsafe { libc::syscall(libc::SYS_tgkill, process, task, libc::SIGUSR1) };
            }
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Sends a message in both directions over every kind of connection.
fn exchange(to: std::net::SocketAddr) -> io::Result<()> {
    let mut byte = [0];
    let mut stream = weald::connect_tcp(to)?;
    stream.write_all(b"t")?;
    stream.read_exact(&mut byte)?;
    let (near, far) = UnixStream::pair()?;
    let (one, other) = UnixDatagram::pair()?;
    let udp = [UdpSocket::bind(v4())?, UdpSocket::bind(v4())?];
    udp[0].connect(udp[1].local_addr()?)?;
    let (reader, writer) = io::pipe()?;
    let (reader, writer) = (Fd::new(reader), Fd::new(writer));
    weald::scope(|s| {
        let answers = s.spawn(|| -> io::Result<()> {
            let selected = weald::select(&[&far], &[], &[], Some(HOUR))?;
            assert_eq!(selected.read, [0]);
            (&far).read_exact(&mut [0])?;
            other.recv(&mut [0])?;
            udp[1].recv(&mut [0])?;
            reader.readable()?;
            (&reader).read_exact(&mut [0])
        });
        weald::sleep(MS);
        (&near).write_all(b"u")?;
        one.send(b"d")?;
        udp[0].send(b"p")?;
        weald::sleep(Duration::from_micros(200));
        (&writer).write_all(b"f")?;
        answers.join().unwrap()
    })
}

#[test]
fn a_storm_of_signals_disturbs_no_call() {
    let child = in_child(
        "net_faults::a_storm_of_signals_disturbs_no_call",
        &[],
        || {
            let over = AtomicBool::new(false);
            std::thread::scope(|s| {
                s.spawn(|| storm(&over));
                let rt = Runtime::builder().workers(2).build().unwrap();
                let server = rt.run(|| weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo));
                let to = server.local_addr();
                let mut rounds = 0;
                while rounds < 50 || SIGNALS.load(SeqCst) < 2000 {
                    rt.run(|| exchange(to)).unwrap();
                    // On this OS thread, with the default runtime.
                    exchange(to).unwrap();
                    rounds += 1;
                }
                assert!(rt.run(|| server.shutdown(HOUR)));
                over.store(true, SeqCst);
            });
            println!("{} signals", SIGNALS.load(SeqCst));
        },
    );
    assert!(child.success, "{child:?}");
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let child = in_child(
        "net_faults::ten_thousand_connections_leave_nothing_behind",
        &[],
        || {
            let rt = Runtime::builder().workers(2).build().unwrap();
            let server = rt.run(|| weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo));
            let to = server.local_addr();
            let connect = |count: usize| {
                rt.run(|| {
                    for number in 0..count {
                        let mut stream = weald::connect_tcp(to).unwrap();
                        if number % 2 == 0 {
                            stream.write_all(b"x").unwrap();
                            stream.read_exact(&mut [0]).unwrap();
                        }
                        reset(stream.into_std());
                    }
                });
                // Only the acceptor is left. It has accepted all connections: the last one was answered.
                wait_until(|| rt.metrics().live == 1);
            };
            connect(501);
            let (descriptors, bytes) = (open_descriptors(), resident_bytes());
            connect(10_001);
            assert_eq!(open_descriptors(), descriptors);
            let grown = resident_bytes().saturating_sub(bytes);
            // A connection that left a page behind would make 40 MB.
            assert!(grown < 4 << 20, "{grown} bytes more than before");
            assert!(rt.run(|| server.shutdown(HOUR)));
        },
    );
    assert!(child.success, "{child:?}");
}
