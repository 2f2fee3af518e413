//! Blocking exactly as without the patch: flags, parts, duplicates, forks and signals.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "semantics/futexes.rs"]
mod futexes;
mod support;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use support::{in_green, in_green_with_spares};

fn receive(fd: RawFd, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: the buffer is as long as it says.
    let got = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

#[test]
fn one_call_may_ask_not_to_wait() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let error = receive(near.as_raw_fd(), &mut [0], libc::MSG_DONTWAIT).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        far.write_all(b"x").unwrap();
        assert_eq!(
            receive(near.as_raw_fd(), &mut [0], libc::MSG_DONTWAIT).unwrap(),
            1
        );
    });
}

#[test]
fn waitall_waits_for_all_and_peek_takes_nothing() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let writer = weald::spawn(move || {
            for part in ["hel", "lo"] {
                far.write_all(part.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
            far
        });
        let mut word = [0; 5];
        assert_eq!(
            receive(near.as_raw_fd(), &mut word[..1], libc::MSG_PEEK).unwrap(),
            1
        );
        assert_eq!(
            receive(near.as_raw_fd(), &mut word, libc::MSG_WAITALL).unwrap(),
            5
        );
        assert_eq!(&word, b"hello");
        drop(writer.join().unwrap());
        assert_eq!(
            receive(near.as_raw_fd(), &mut word, libc::MSG_WAITALL).unwrap(),
            0
        );
    });
}

#[test]
fn a_send_that_times_out_says_how_much_has_gone() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_write_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let bytes = vec![7_u8; 16 << 20];
        let sent = (&near).write(&bytes).unwrap();
        assert!(sent > 0 && sent < bytes.len(), "{sent}");
        let error = (&near).write(&bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), sent);
    });
}

#[test]
fn duplicates_wait_together_and_close_apart() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let again = near.try_clone().unwrap();
        let readers: Vec<_> = [near, again]
            .into_iter()
            .map(|mut stream| {
                weald::spawn(move || {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    byte[0]
                })
            })
            .collect();
        weald::yield_now();
        // The thread that reads first closes its descriptor; the other one's connection stays.
        far.write_all(b"a").unwrap();
        thread::sleep(Duration::from_millis(2));
        far.write_all(b"b").unwrap();
        let mut got: Vec<u8> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, b"ab");
    });
}

#[test]
fn a_number_that_is_used_again_is_another_file() {
    in_green(|| {
        for round in 0..100_u8 {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let writer = weald::spawn(move || far.write_all(&[round]).unwrap());
            let mut byte = [0];
            near.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round]);
            writer.join().unwrap();
        }
    });
}

#[test]
fn the_end_of_the_peer_ends_the_wait() {
    in_green(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let closer = weald::spawn(move || drop(far));
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        closer.join().unwrap();
        let error = near.write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_child_of_a_fork_calls_the_system() {
    in_green(|| {
        let (mut reader, mut writer) = io::pipe().unwrap();
        // SAFETY: the child calls `read` and `_exit`, which may be called after a fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut byte = [0_u8];
            // SAFETY: one byte.
            unsafe {
                let got = libc::read(reader.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
                libc::_exit(if got == 1 { i32::from(byte[0]) } else { 255 });
            }
        }
        assert!(child > 0);
        thread::sleep(Duration::from_millis(5));
        writer.write_all(&[42]).unwrap();
        let mut status = 0;
        // SAFETY: a pointer to a local.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 42);
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_signal_does_not_break_a_wait_off() {
    let action: extern "C" fn(i32) = count;
    // SAFETY: the handler touches one atomic; without SA_RESTART calls would fail with EINTR.
    unsafe {
        let mut set: libc::sigaction = std::mem::zeroed();
        set.sa_sigaction = action as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const set, std::ptr::null_mut()),
            0
        );
    }
    in_green(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let writer = weald::spawn(move || {
            for _ in 0..20 {
                let before = SIGNALS.load(Ordering::Relaxed);
                // SAFETY: a signal to this process.
                unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
                while SIGNALS.load(Ordering::Relaxed) == before {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            far.write_all(b"x").unwrap();
        });
        let mut byte = [0];
        // One call of libc's, which std would repeat.
        assert_eq!(receive(near.as_raw_fd(), &mut byte, 0).unwrap(), 1);
        writer.join().unwrap();
        assert_eq!(near.read(&mut byte).unwrap(), 0);
    });
}

/// The kernel breaks off a look at descriptors, too, if a signal comes at that moment.
#[test]
fn signals_break_off_neither_poll_nor_select() {
    let action: extern "C" fn(i32) = count;
    // SAFETY: the handler touches one atomic; without SA_RESTART calls would fail with EINTR.
    unsafe {
        let mut set: libc::sigaction = std::mem::zeroed();
        set.sa_sigaction = action as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR2, &raw const set, std::ptr::null_mut()),
            0
        );
    }
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = stop.clone();
    let signals = move |thread: libc::pthread_t| {
        while !seen.load(Ordering::Relaxed) {
            // SAFETY: the thread lives until this one was joined.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
            // Without a pause the thread would do nothing but handle signals.
            thread::sleep(Duration::from_micros(20));
        }
    };
    in_green(move || {
        let (near, far) = UnixStream::pair().unwrap();
        // The only OS thread of the runtime that is free.
        // SAFETY: no conditions.
        let thread = weald::on_os_thread(|| unsafe { libc::pthread_self() });
        let shooter = weald::on_os_thread(|| thread::spawn(move || signals(thread)));
        for _ in 0..500 {
            let mut fds = [near.as_raw_fd(), far.as_raw_fd()].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            let mut set = libc::timeval {
                tv_sec: 0,
                tv_usec: 1,
            };
            let none = std::ptr::null_mut();
            // SAFETY: two descriptors; pointers to locals or null.
            unsafe {
                let limit = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 1,
                };
                let polled = libc::ppoll(fds.as_mut_ptr(), 2, &raw const limit, std::ptr::null());
                assert_eq!(polled, 0, "{}", std::io::Error::last_os_error());
                let selected = libc::select(0, none, none, none, &raw mut set);
                assert_eq!(selected, 0, "{}", std::io::Error::last_os_error());
            }
        }
        stop.store(true, Ordering::Relaxed);
        weald::on_os_thread(|| shooter.join().unwrap());
    });
}

#[cfg(target_env = "gnu")]
#[test]
fn what_fortified_c_calls_waits_too() {
    unsafe extern "C" {
        fn __read_chk(fd: i32, buf: *mut u8, count: usize, room: usize) -> isize;
        fn __recv_chk(fd: i32, buf: *mut u8, count: usize, room: usize, flags: i32) -> isize;
        fn __poll_chk(fds: *mut libc::pollfd, count: u64, limit: i32, room: usize) -> i32;
    }
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let writer = weald::spawn(move || {
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(2));
                far.write_all(b"x").unwrap();
            }
            far
        });
        let fd = near.as_raw_fd();
        let mut byte = 0_u8;
        let mut one = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one byte, and one descriptor.
        unsafe {
            assert_eq!(__read_chk(fd, &raw mut byte, 1, 1), 1);
            assert_eq!(__recv_chk(fd, &raw mut byte, 1, 1, 0), 1);
            assert_eq!(
                __poll_chk(&raw mut one, 1, -1, size_of::<libc::pollfd>()),
                1
            );
        }
        drop(writer.join().unwrap());
    });
}

/// A semaphore of libc's.
struct Semaphore(Box<std::cell::UnsafeCell<libc::sem_t>>);

// SAFETY: semaphores are for several threads.
unsafe impl Sync for Semaphore {}
// SAFETY: it stays where it is on the heap.
unsafe impl Send for Semaphore {}

impl Semaphore {
    fn new() -> Self {
        // SAFETY: initialised before it is used.
        unsafe {
            let semaphore = Box::new(std::cell::UnsafeCell::new(std::mem::zeroed()));
            assert_eq!(libc::sem_init(semaphore.get(), 0, 0), 0);
            Self(semaphore)
        }
    }

    fn wait(&self) {
        // SAFETY: initialised.
        assert_eq!(unsafe { libc::sem_wait(self.0.get()) }, 0);
    }

    fn post(&self) {
        // SAFETY: initialised.
        assert_eq!(unsafe { libc::sem_post(self.0.get()) }, 0);
    }
}

#[test]
fn semaphores_of_libc_are_waited_for() {
    in_green_with_spares(|| {
        let (go, done) = (Arc::new(Semaphore::new()), Arc::new(Semaphore::new()));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let (go, done) = (Arc::clone(&go), Arc::clone(&done));
                weald::spawn(move || {
                    go.wait();
                    done.post();
                })
            })
            .collect();
        weald::yield_now();
        for _ in 0..3 {
            go.post();
        }
        for _ in 0..3 {
            done.wait();
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_loop_that_ignores_its_errors_pauses_as_it_says() {
    in_green(|| {
        let rounds = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(Barrier::new(2));
        let (count, end) = (Arc::clone(&rounds), Arc::clone(&ended));
        let (stream, _far) = UnixStream::pair().unwrap();
        let looper = weald::spawn(move || {
            // The kill is not noticed here: only weald's own calls raise.
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_millis(100) {
                let _ = (&stream).read(&mut [0]);
                thread::sleep(Duration::from_millis(10));
                count.fetch_add(1, Ordering::Relaxed);
            }
            end.wait();
        });
        weald::yield_now();
        looper.thread().kill();
        ended.wait();
        let rounds = rounds.load(Ordering::Relaxed);
        // One sleep is cut short by the kill.
        assert!((1..=11).contains(&rounds), "{rounds}");
        let _ = looper.join();
    });
}

#[test]
fn the_queue_of_errors_is_not_waited_for() {
    in_green(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = receive(socket.as_raw_fd(), &mut [0], libc::MSG_ERRQUEUE).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    });
}

#[test]
fn many_accept_on_one_listener() {
    in_green(|| {
        let listener = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let acceptors: Vec<_> = (0..20)
            .map(|_| {
                let listener = Arc::clone(&listener);
                weald::spawn(move || drop(listener.accept().unwrap()))
            })
            .collect();
        weald::yield_now();
        for _ in 0..20 {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
    });
}

#[test]
fn the_second_look_of_a_wait_is_no_wait_of_its_own() {
    in_green_with_spares(|| {
        let queue = weald_scheduler::io::WaitQueue::new();
        let lock = Arc::new(std::sync::Mutex::new(()));
        let (tell, told) = std::sync::mpsc::channel();
        let holder = thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                let held = lock.lock().unwrap();
                tell.send(()).unwrap();
                // By then the looking thread is in the queue and waits for the lock. If not, it does not matter.
                thread::sleep(Duration::from_millis(20));
                drop(held);
            }
        });
        told.recv().unwrap();
        let second_look = || {
            drop(lock.lock().unwrap());
            false
        };
        let limit = weald_scheduler::io::deadline(Duration::from_millis(50));
        let woken = queue.wait(second_look, limit, false);
        assert!(
            matches!(woken, weald_scheduler::io::Woken::TimedOut),
            "nobody has woken it: {woken:?}"
        );
        assert!(queue.is_empty(), "it has left");
        holder.join().unwrap();
    });
}
