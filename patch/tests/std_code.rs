//! Code of the standard library, unchanged, in a hundred green threads on one worker. Calls that would block the
//! worker take together as long as one of them.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::{at_once, in_green, in_green_with_spares, runtime};

const MANY: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Runs the body in many green threads on one worker. One after the other they would take `MANY` times as long as
/// one.
#[track_caller]
fn check_at_once(body: impl Fn(usize) + Send + Sync + 'static) {
    let took = at_once(MANY, body);
    assert!(took < PAUSE * 20, "{took:?}");
}

#[test]
fn sleeps_are_slept_at_once() {
    check_at_once(|_| thread::sleep(PAUSE));
}

#[test]
fn a_stream_and_a_listener_echo() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    in_green(move || {
        let server = weald::spawn(move || {
            let handlers: Vec<_> = (0..MANY)
                .map(|_| {
                    let (mut stream, _) = listener.accept().unwrap();
                    weald::spawn(move || {
                        let mut word = [0; 5];
                        stream.read_exact(&mut word).unwrap();
                        thread::sleep(PAUSE);
                        stream.write_all(&word).unwrap();
                    })
                })
                .collect();
            for h in handlers {
                h.join().unwrap();
            }
        });
        let start = Instant::now();
        let clients: Vec<_> = (0..MANY)
            .map(|_| {
                weald::spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    stream.write_all(b"hello").unwrap();
                    let mut word = String::new();
                    stream.read_to_string(&mut word).unwrap();
                    assert_eq!(word, "hello");
                })
            })
            .collect();
        for c in clients {
            c.join().unwrap();
        }
        server.join().unwrap();
        assert!(start.elapsed() < PAUSE * 20);
    });
}

#[test]
fn a_blocking_write_takes_all_and_the_reader_gets_it_in_order() {
    in_green(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let writer = weald::spawn(move || {
            // This is one call, as in C.
            // SAFETY: the buffer is as long as it says.
            let wrote = unsafe { libc::write(near.as_raw_fd(), sent.as_ptr().cast(), sent.len()) };
            assert_eq!(wrote, 4_000_000);
            near.flush().unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert!(got == bytes);
        writer.join().unwrap();
    });
}

#[test]
fn the_users_timeouts_and_flags_are_kept() {
    in_green(|| {
        let (mut near, _far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let start = Instant::now();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        assert!(start.elapsed() >= Duration::from_millis(20));
        near.set_nonblocking(true).unwrap();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(near.as_raw_fd(), libc::F_GETFL) };
        assert_ne!(flags & libc::O_NONBLOCK, 0);
    });
}

#[test]
fn pipes_wait_in_both_directions() {
    in_green(|| {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let filler = weald::spawn(move || writer.write_all(&vec![7; 1 << 20]).unwrap());
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 1 << 20);
        filler.join().unwrap();
    });
}

#[test]
fn datagrams_are_waited_for() {
    in_green(|| {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = one.local_addr().unwrap();
        let reader = weald::spawn(move || {
            let mut word = [0; 16];
            let (n, _) = one.recv_from(&mut word).unwrap();
            word[..n].to_vec()
        });
        weald::yield_now();
        two.send_to(b"word", to).unwrap();
        assert_eq!(reader.join().unwrap(), b"word");
    });
}

#[test]
fn locks_of_std_are_waited_for_over_a_sleep() {
    let lock = Arc::new(Mutex::new(0));
    let sleeper = Arc::clone(&lock);
    in_green(move || {
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let lock = Arc::clone(&sleeper);
                weald::spawn(move || {
                    let mut count = lock.lock().unwrap();
                    thread::sleep(Duration::from_millis(1));
                    *count += 1;
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
    });
    assert_eq!(*lock.lock().unwrap(), 10);
}

#[test]
fn a_barrier_and_a_condition_of_std_let_all_through() {
    in_green(|| {
        let barrier = Arc::new(Barrier::new(MANY));
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let threads: Vec<_> = (0..MANY)
            .map(|_| {
                let (barrier, pair) = (Arc::clone(&barrier), Arc::clone(&pair));
                weald::spawn(move || {
                    barrier.wait();
                    let (count, all) = &*pair;
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    all.notify_all();
                    drop(all.wait_while(count, |count| *count < MANY).unwrap());
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
    });
}

#[test]
fn a_wait_for_a_condition_ends_by_its_timeout() {
    in_green(|| {
        let pair = (Mutex::new(()), Condvar::new());
        let limit = Duration::from_millis(20);
        let start = Instant::now();
        let (_guard, timed_out) = pair.1.wait_timeout(pair.0.lock().unwrap(), limit).unwrap();
        assert!(timed_out.timed_out());
        assert!(start.elapsed() >= limit);
    });
}

#[test]
fn channels_of_std_hand_over_between_green_threads_and_os_threads() {
    in_green(|| {
        let (to, from) = mpsc::channel();
        let receiver = weald::spawn(move || from.iter().sum::<usize>());
        let foreign = to.clone();
        let os = thread::spawn(move || (0..100).for_each(|n| foreign.send(n).unwrap()));
        let green = weald::spawn(move || (0..100).for_each(|n| to.send(n).unwrap()));
        green.join().unwrap();
        assert_eq!(receiver.join().unwrap(), 9900);
        os.join().unwrap();
    });
}

#[test]
fn threads_of_std_park_each_for_itself() {
    in_green(|| {
        let woken = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let (tell, me) = mpsc::channel();
                let woken = Arc::clone(&woken);
                let handle = weald::spawn(move || {
                    tell.send(thread::current()).unwrap();
                    thread::park();
                    woken.fetch_add(1, Ordering::Relaxed);
                });
                (handle, me.recv().unwrap())
            })
            .collect();
        for (_, thread) in &threads {
            thread.unpark();
        }
        for (h, _) in threads {
            h.join().unwrap();
        }
        assert_eq!(woken.load(Ordering::Relaxed), 10);
    });
}

#[test]
fn threads_of_std_that_green_threads_start_are_green() {
    in_green(|| {
        let start = Instant::now();
        let threads: Vec<_> = (0..1000_u32)
            .map(|n| {
                thread::spawn(move || {
                    assert!(weald::is_green());
                    thread::sleep(PAUSE);
                    n
                })
            })
            .collect();
        let sum: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(sum, 499_500);
        assert!(start.elapsed() < PAUSE * 100);
        let words = ["a", "b"];
        let lengths: usize = thread::scope(|s| {
            let threads = words.map(|word| s.spawn(move || word.len()));
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(lengths, 2);
    });
    // The panic's message may need files, which may keep an OS thread.
    in_green_with_spares(|| {
        assert!(thread::spawn(|| panic!("on purpose")).join().is_err());
    });
}

#[test]
fn programs_are_run_at_once() {
    let took = at_once(10, |_| {
        let output = Command::new("sh")
            .args(["-c", "sleep 0.2; echo done"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert!(output.status.success());
    });
    assert!(took < Duration::from_millis(1900), "{took:?}");
}

#[test]
fn names_are_looked_up() {
    check_at_once(|_| {
        use std::net::ToSocketAddrs;
        let found: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(!found.is_empty());
    });
}

#[test]
fn poll_waits_for_several_and_tells_all_that_are_ready() {
    in_green(|| {
        let (a, mut a_far) = UnixStream::pair().unwrap();
        let (b, mut b_far) = UnixStream::pair().unwrap();
        let writer = weald::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            a_far.write_all(b"a").unwrap();
            b_far.write_all(b"b").unwrap();
            (a_far, b_far)
        });
        let interest = |s: &UnixStream| libc::pollfd {
            fd: s.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [interest(&a), interest(&b), interest(&a)];
        // SAFETY: three descriptors.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) };
        assert!(ready >= 2, "{ready}");
        let both = writer.join().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) }, 3);
        drop(both);
        let none: *mut libc::pollfd = std::ptr::null_mut();
        let start = Instant::now();
        // SAFETY: no descriptors.
        assert_eq!(unsafe { libc::poll(none, 0, 20) }, 0);
        assert!(start.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn select_waits_and_writes_what_is_left_of_the_limit() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let writer = weald::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            far.write_all(b"x").unwrap();
            far
        });
        // SAFETY: the sets are locals, the number is one more than the descriptor's.
        unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(near.as_raw_fd(), &raw mut set);
            let mut limit = libc::timeval {
                tv_sec: 60,
                tv_usec: 0,
            };
            let none = std::ptr::null_mut();
            let count = near.as_raw_fd() + 1;
            let ready = libc::select(count, &raw mut set, none, none, &raw mut limit);
            assert_eq!(ready, 1);
            assert!(libc::FD_ISSET(near.as_raw_fd(), &raw const set));
            assert!(limit.tv_sec < 60);
        }
        drop(writer.join().unwrap());
    });
}

#[test]
fn an_epoll_instance_of_the_programs_is_waited_for() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        // SAFETY: the descriptor is new; the pointers are to locals.
        unsafe {
            let epoll = OwnedFd::from_raw_fd(libc::epoll_create1(0));
            let mut event = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: 9,
            };
            let add = libc::EPOLL_CTL_ADD;
            let fd = near.as_raw_fd();
            assert_eq!(
                libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &raw mut event),
                0
            );
            let writer = weald::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                far.write_all(b"x").unwrap();
                far
            });
            event.u64 = 0;
            assert_eq!(
                libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, -1),
                1
            );
            assert_eq!({ event.u64 }, 9);
            drop(writer.join().unwrap());
        }
    });
}

#[test]
fn an_exception_ends_a_call_with_its_errno_and_is_raised_at_the_next_call_of_weald() {
    in_green(|| {
        let (mut near, _far) = UnixStream::pair().unwrap();
        let mut errors = Vec::new();
        let elapsed = weald::timeout(Duration::from_millis(10), || {
            errors.push(near.read(&mut [0]).unwrap_err().raw_os_error());
            errors.push(near.read(&mut [0]).unwrap_err().raw_os_error());
            weald::checkpoint();
            unreachable!("the checkpoint raises");
        });
        assert!(elapsed.is_err());
        assert_eq!(errors, [Some(libc::ETIMEDOUT); 2]);
        let (tell, told) = mpsc::channel();
        let (other, _far) = UnixStream::pair().unwrap();
        let killed = weald::spawn(move || {
            tell.send((&other).read(&mut [0]).unwrap_err().raw_os_error())
                .unwrap();
            weald::park();
        });
        weald::yield_now();
        killed.thread().kill();
        assert_eq!(told.recv().unwrap(), Some(libc::ECANCELED));
        let payload = killed.join().unwrap_err();
        assert!(payload.is::<weald::Exception>());
        // A sleep cannot report it: it ends at once.
        let slept = weald::timeout(Duration::from_millis(10), || {
            thread::sleep(Duration::from_secs(600));
            weald::checkpoint();
        });
        assert!(slept.is_err());
    });
}

#[test]
fn who_is_not_patched_blocks_as_ever() {
    let rt = runtime(1);
    let plain = rt.run(|| {
        let builder = weald::Builder::new().patched(false);
        let start = Instant::now();
        let thread = builder.spawn(|| thread::sleep(Duration::from_millis(20)));
        thread.unwrap().join().unwrap();
        start.elapsed()
    });
    assert!(plain >= Duration::from_millis(20));
    thread::sleep(Duration::from_millis(1));
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert!((&near).read(&mut [0]).is_err());
    far.write_all(b"x").unwrap();
    assert_eq!((&near).read(&mut [0]).unwrap(), 1);
}
