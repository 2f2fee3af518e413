//! Who waits is told: of closing and shutting down, of limits and kills, whoever else waits beside.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "small numbers; closures that are kept"
)]

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::{in_green, in_green_with_spares, number_of_its_own, runtime};
use weald::{Exception, timeout};

const SHORT: Duration = Duration::from_millis(20);

fn poll(fd: RawFd) -> i32 {
    let mut one = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut one, 1, -1) }
}

/// Lets the others run until they wait.
fn settle() {
    weald::sleep(Duration::from_millis(5));
}

fn check_both_are_told(poll_first: bool) {
    in_green(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = Arc::new(reader);
        let waiters = [poll_first, !poll_first].map(|polls| {
            let reader = reader.clone();
            let waiter = weald::spawn(move || {
                if polls {
                    assert_eq!(poll(reader.as_raw_fd()), 1);
                } else {
                    weald::net::Fd::new(reader.as_fd()).readable().unwrap();
                }
            });
            settle();
            waiter
        });
        writer.write_all(b"x").unwrap();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn patched_code_and_weald_wait_for_one_descriptor() {
    check_both_are_told(true);
    check_both_are_told(false);
}

#[test]
fn a_datagram_socket_that_is_shut_down_ends_who_waits() {
    in_green(|| {
        let (socket, _peer) = UnixDatagram::pair().unwrap();
        let socket = Arc::new(socket);
        let start = || {
            let socket = socket.clone();
            weald::spawn(move || socket.recv(&mut [0; 9]).unwrap())
        };
        let before = start();
        settle();
        socket.shutdown(Shutdown::Read).unwrap();
        assert_eq!(before.join().unwrap(), 0);
        assert_eq!(start().join().unwrap(), 0);
    });
}

fn check_waiters_hear_of_a_closed_number(close: impl Fn(RawFd) + Send + Sync) {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let fd = number_of_its_own(&near, 600);
        drop(near);
        let start = || {
            weald::spawn(move || {
                let mut byte = [0_u8];
                // SAFETY: room for one byte.
                let got = unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, 0) };
                (got, io::Error::last_os_error().raw_os_error())
            })
        };
        let waiters = [start(), start()];
        settle();
        close(fd);
        // The next file with this number.
        let (again, mut other) = UnixStream::pair().unwrap();
        // SAFETY: no pointers. Whoever closed the number has put a file there, or it is free for this call, which
        // closes nothing.
        let next = unsafe { libc::fcntl(again.as_raw_fd(), libc::F_DUPFD_CLOEXEC, fd) };
        if next != fd {
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::dup2(next, fd) }, fd);
        }
        // SAFETY: a descriptor that is open, and one that nobody else has.
        let again = unsafe { UnixStream::from_raw_fd(fd) };
        other.write_all(b"x").unwrap();
        let _ = far.write(b"y");
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), (-1, Some(libc::EBADF)));
        }
        let mut byte = [0];
        (&again).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    });
}

#[test]
fn who_waits_for_a_number_that_is_closed_fails_and_takes_nothing_of_the_next_file() {
    check_waiters_hear_of_a_closed_number(|fd| {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    });
    check_waiters_hear_of_a_closed_number(|fd| {
        let file = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), fd) }, fd);
    });
    check_waiters_hear_of_a_closed_number(|fd| {
        // SAFETY: an open descriptor that the stream owns from here on, and closes.
        assert_eq!(unsafe { libc::fclose(libc::fdopen(fd, c"r".as_ptr())) }, 0);
    });
}

#[test]
fn a_poll_for_reading_that_asks_for_writing_by_another_name_is_told_of_both() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(count) = (&near).write(&[0; 4096]) {
            sent += count;
        }
        let fd = near.as_raw_fd();
        let waiter = weald::spawn(move || {
            let mut one = libc::pollfd {
                fd,
                events: libc::POLLIN | libc::POLLWRNORM,
                revents: 0,
            };
            // SAFETY: one entry.
            assert_eq!(unsafe { libc::poll(&raw mut one, 1, -1) }, 1);
            one.revents
        });
        settle();
        let mut bytes = vec![0; sent];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(waiter.join().unwrap(), libc::POLLWRNORM);
    });
}

#[test]
fn a_line_of_a_killed_thread_reaches_a_standard_output_that_is_a_socket() {
    const CHILD: &str = "WEALD_TEST_PRINTS";
    if std::env::var_os(CHILD).is_some() {
        // Another carrier goes on with the others while the thread spins.
        in_green_with_spares(|| {
            static BEGUN: AtomicBool = AtomicBool::new(false);
            static KILLED: AtomicBool = AtomicBool::new(false);
            let prints = weald::spawn(|| {
                BEGUN.store(true, Ordering::SeqCst);
                while !KILLED.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                let mut stdout = io::stdout();
                stdout.write_all(b"the line\n").unwrap();
                stdout.flush().unwrap();
            });
            while !BEGUN.load(Ordering::SeqCst) {
                weald::yield_now();
            }
            prints.thread().kill();
            KILLED.store(true, Ordering::SeqCst);
            prints.join().unwrap();
        });
        return;
    }
    let (mut near, far) = UnixStream::pair().unwrap();
    let name = "a_line_of_a_killed_thread_reaches_a_standard_output_that_is_a_socket";
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(OwnedFd::from(far))
        .status()
        .unwrap();
    let mut said = String::new();
    near.read_to_string(&mut said).unwrap();
    assert!(status.success() && said.contains("the line"), "{said}");
}

#[test]
fn each_connection_reaches_one_of_many_who_accept() {
    const MANY: usize = 50;
    in_green(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let acceptors: Vec<_> = (0..MANY)
            .map(|_| {
                let listener = listener.clone();
                weald::spawn(move || listener.accept().unwrap().0)
            })
            .collect();
        settle();
        let clients: Vec<_> = (0..MANY)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
        drop(clients);
    });
}

#[test]
fn a_limit_that_passes_in_calls_that_cannot_fail_is_told() {
    let check = |wait: fn()| in_green(move || assert!(timeout(SHORT, wait).is_err()));
    check(|| thread::sleep(Duration::from_secs(60)));
    check(|| {
        let (lock, condition) = (Mutex::new(()), Condvar::new());
        drop(
            condition
                .wait_timeout(lock.lock().unwrap(), 2 * SHORT)
                .unwrap(),
        );
    });
    check(|| {
        let (_sender, receiver) = mpsc::channel::<u8>();
        assert!(receiver.recv_timeout(2 * SHORT).is_err());
    });
    check(|| {
        let (mut near, _far) = UnixStream::pair().unwrap();
        let _ = near.read(&mut [0]);
    });
    // Calls that keep their OS thread, and the join of either kind of thread.
    in_green_with_spares(|| {
        // Each lasts for three times as long at least.
        let check = |wait: fn()| {
            assert!(timeout(SHORT, wait).is_err());
            loop {
                let begun = Instant::now();
                let killed = weald::spawn(wait);
                weald::sleep(SHORT);
                killed.thread().kill();
                let is_early = begun.elapsed() < 3 * SHORT;
                let ended = killed.join();
                // On a busy machine the kill may come when the wait is over.
                if is_early {
                    assert!(ended.unwrap_err().is::<Exception>());
                    break;
                }
            }
        };
        check(|| thread::spawn(|| thread::sleep(3 * SHORT)).join().unwrap());
        check(|| {
            let os = weald::blocking(|| thread::spawn(|| thread::sleep(3 * SHORT)));
            os.join().unwrap();
        });
        check(|| {
            let limit = libc::timespec {
                tv_sec: 0,
                tv_nsec: 60_000_000,
            };
            // SAFETY: no descriptors and no signals; the pointers are to locals.
            unsafe {
                let none: libc::sigset_t = std::mem::zeroed();
                libc::ppoll(std::ptr::null_mut(), 0, &raw const limit, &raw const none);
            }
        });
        // SAFETY: a text that ends by zero.
        check(|| assert_eq!(unsafe { libc::system(c"sleep 0.1".as_ptr()) }, 0));
        // SAFETY: a semaphore of this call's own, and pointers to locals.
        check(|| unsafe {
            let set = libc::semget(libc::IPC_PRIVATE, 1, 0o600);
            assert!(set >= 0);
            let mut down = libc::sembuf {
                sem_num: 0,
                sem_op: -1,
                sem_flg: 0,
            };
            let up = thread::spawn(move || {
                thread::sleep(3 * SHORT);
                let mut up = libc::sembuf {
                    sem_num: 0,
                    sem_op: 1,
                    sem_flg: 0,
                };
                assert_eq!(libc::semop(set, &raw mut up, 1), 0);
            });
            assert_eq!(libc::semop(set, &raw mut down, 1), 0);
            let _ = up.join();
            libc::semctl(set, 0, libc::IPC_RMID);
        });
    });
    // What ends in time is not told.
    in_green(|| assert!(timeout(Duration::from_secs(60), || thread::sleep(SHORT)).is_ok()));
}

/// More wait for messages than may keep an OS thread: who sends needs none.
#[test]
fn those_who_wait_for_messages_leave_who_sends_what_it_needs() {
    #[repr(C)]
    struct Message {
        kind: libc::c_long,
        text: [u8; 8],
    }
    // SAFETY: a queue of this test's own, and pointers to locals that are as large as is said.
    in_green_with_spares(|| unsafe {
        let queue = libc::msgget(libc::IPC_PRIVATE, 0o600);
        assert!(queue >= 0);
        let wait = || {
            weald::spawn(move || {
                let mut message = Message {
                    kind: 0,
                    text: [0; 8],
                };
                libc::msgrcv(queue, (&raw mut message).cast(), 8, 1, 0)
            })
        };
        let waiters: Vec<_> = (0..40).map(|_| wait()).collect();
        settle();
        for _ in 0..40 {
            let message = Message {
                kind: 1,
                text: [7; 8],
            };
            assert_eq!(libc::msgsnd(queue, (&raw const message).cast(), 8, 0), 0);
        }
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 8);
        }
        libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut());
    });
}

#[test]
fn the_inner_of_two_limits_is_told_of_its_own() {
    in_green(|| {
        let inner = || timeout(SHORT, || thread::sleep(Duration::from_secs(60))).is_err();
        assert!(timeout(Duration::from_secs(60), inner).unwrap());
    });
}

#[test]
fn kill_ends_a_sleep_for_ever() {
    for long in [Duration::from_secs(31_536_000), Duration::MAX] {
        in_green(move || {
            let sleeper = weald::spawn(move || thread::sleep(long));
            settle();
            sleeper.thread().kill();
            assert!(sleeper.join().unwrap_err().is::<Exception>());
        });
    }
}

#[test]
fn a_child_is_waited_for_to_its_end_under_a_limit_and_under_kill() {
    let output = || Command::new("sleep").arg("0.2").output().is_ok();
    in_green_with_spares(move || {
        assert!(timeout(SHORT, output).is_err());
        let killed = weald::spawn(output);
        weald::sleep(SHORT);
        killed.thread().kill();
        assert!(killed.join().unwrap_err().is::<Exception>());
    });
}

#[test]
fn those_who_wait_for_a_files_lock_leave_its_holder_what_it_needs() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    const MANY: usize = 80;
    let path = std::env::temp_dir().join(format!("weald-locks-{}", std::process::id()));
    let rt = runtime(8);
    let threads: Vec<_> = (0..MANY)
        .map(|_| {
            let path = path.clone();
            rt.spawn(move || {
                let options = std::fs::File::options().append(true).create(true).clone();
                let mut file = options.open(path).unwrap();
                // SAFETY: no pointers.
                assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
                thread::sleep(Duration::from_millis(1));
                file.write_all(b"line\n").unwrap();
                DONE.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap().len(), MANY * 5);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(DONE.load(Ordering::Relaxed), MANY);
}

fn check_fifo(path: &std::path::Path, reader_first: bool) {
    let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a string.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    in_green_with_spares(|| {
        let start = |reads: bool| {
            let path = path.to_owned();
            weald::spawn(move || {
                if reads {
                    return std::fs::read_to_string(path).unwrap();
                }
                let mut file = std::fs::File::options().write(true).open(path).unwrap();
                file.write_all(b"through").unwrap();
                String::new()
            })
        };
        let first = start(reader_first);
        settle();
        let second = start(!reader_first);
        let both = first.join().unwrap() + &second.join().unwrap();
        assert_eq!(both, "through");
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn both_sides_of_a_fifo_wait_for_each_other() {
    let path = std::env::temp_dir().join(format!("weald-fifo-{}", std::process::id()));
    check_fifo(&path, true);
    check_fifo(&path, false);
}

#[test]
fn sendfile_and_splice_move_all_and_wait_for_room() {
    const SIZE: usize = 4 << 20;
    in_green_with_spares(|| {
        let path = std::env::temp_dir().join(format!("weald-sendfile-{}", std::process::id()));
        let bytes: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let sender = weald::spawn(move || {
            // SAFETY: no offset.
            let sent = unsafe {
                libc::sendfile(
                    near.as_raw_fd(),
                    file.as_raw_fd(),
                    std::ptr::null_mut(),
                    SIZE,
                )
            };
            assert_eq!(sent, SIZE.cast_signed());
        });
        settle();
        // Through a pipe and on.
        let (from, to) = io::pipe().unwrap();
        let (out, mut end) = UnixStream::pair().unwrap();
        let splicer = weald::spawn(move || {
            loop {
                let none = std::ptr::null_mut();
                // SAFETY: no offsets.
                let moved = unsafe {
                    libc::splice(from.as_raw_fd(), none, out.as_raw_fd(), none, 1 << 20, 0)
                };
                assert!(moved >= 0);
                if moved == 0 {
                    return;
                }
            }
        });
        let pump = weald::spawn(move || {
            let mut to = to;
            io::copy(&mut far, &mut to).unwrap();
        });
        let mut got = Vec::new();
        end.read_to_end(&mut got).unwrap();
        assert!(got == bytes);
        sender.join().unwrap();
        pump.join().unwrap();
        splicer.join().unwrap();
    });
}

#[test]
fn waitid_tells_which_child_has_ended() {
    in_green(|| {
        let mut child = Command::new("sleep").arg("0.02").spawn().unwrap();
        // SAFETY: all zeros is a valid record, and the pointer is to it.
        let (result, pid) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let result = libc::waitid(libc::P_PID, child.id(), &raw mut info, libc::WEXITED);
            (result, info.si_pid())
        };
        assert_eq!(result, 0);
        assert_eq!(u32::try_from(pid).unwrap(), child.id());
        // It has been reaped.
        assert!(child.wait().is_err());
    });
}

fn owned(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0);
    // SAFETY: it is new.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn epoll_pwait2_waits_and_ends_by_its_limit() {
    in_green(|| {
        // SAFETY: no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
        let limit = libc::timespec {
            tv_sec: 0,
            tv_nsec: 2_000_000,
        };
        // SAFETY: room for one event, and a pointer to a local.
        let found = unsafe {
            let mut event: libc::epoll_event = std::mem::zeroed();
            let none = 0_usize;
            epoll_pwait2(epoll.as_raw_fd(), &raw mut event, 1, &raw const limit, none)
        };
        assert_eq!(found, 0);
    });
}

unsafe extern "C" {
    fn epoll_pwait2(
        epoll: i32,
        events: *mut libc::epoll_event,
        max: i32,
        limit: *const libc::timespec,
        mask: usize,
    ) -> i32;
}

#[test]
fn a_splice_that_waits_for_room_leaves_what_came_to_another_reader() {
    in_green(|| {
        let (from, mut to_from) = io::pipe().unwrap();
        let (drain, full) = io::pipe().unwrap();
        let (from_fd, full_fd) = (from.as_raw_fd(), full.as_raw_fd());
        // SAFETY: open pipes, and buffers of the lengths given.
        unsafe {
            let filling = vec![0_u8; 65536];
            let size = libc::fcntl(full_fd, libc::F_SETPIPE_SZ, 65536);
            assert_eq!(size, 65536);
            assert_eq!(libc::write(full_fd, filling.as_ptr().cast(), 65536), 65536);
        }
        let splice = weald::spawn(move || {
            let null = std::ptr::null_mut();
            // SAFETY: open pipes.
            unsafe { libc::splice(from_fd, null, full_fd, null, 1, 0) }
        });
        settle();
        let reader = weald::spawn(move || {
            let mut byte = 0_u8;
            // SAFETY: an open pipe, and a byte.
            unsafe { libc::read(from_fd, (&raw mut byte).cast(), 1) }
        });
        settle();
        to_from.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        drop(to_from);
        drop(drain);
        splice.join().unwrap();
    });
}

#[test]
fn a_call_that_waits_for_its_os_thread_is_not_made_on_the_next_file_with_the_number() {
    let rt = runtime(1);
    let (release, released) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    // Has the only right to make a call that blocks.
    let occupant = rt.spawn(move || {
        weald_scheduler::patch::blocking_quietly(|| {
            tell.send(()).unwrap();
            let _ = released.recv();
        });
    });
    told.recv().unwrap();
    rt.run(|| {
        let (near, _far) = UnixDatagram::pair().unwrap();
        let fd = near.into_raw_fd();
        let reader = weald::spawn(move || {
            let mut byte = [0_u8];
            // SAFETY: one byte, in a local.
            let got = unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, 0) };
            (got, io::Error::last_os_error().raw_os_error())
        });
        thread::sleep(Duration::from_millis(5));
        // Its call would end at once now, if it could be made.
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::shutdown(fd, libc::SHUT_RD) }, 0);
        thread::sleep(Duration::from_millis(5));
        let (next, other) = UnixDatagram::pair().unwrap();
        other.send(b"for another").unwrap();
        // SAFETY: no pointers; the number is ours.
        assert_eq!(unsafe { libc::dup2(next.as_raw_fd(), fd) }, fd);
        drop(release);
        assert_eq!(reader.join().unwrap(), (-1, Some(libc::EBADF)));
        let mut text = [0; 16];
        let count = next.recv(&mut text).unwrap();
        assert_eq!(&text[..count], b"for another");
        // SAFETY: the number is ours.
        unsafe { libc::close(fd) };
    });
    occupant.join().unwrap();
}

/// As each of many acceptors of one listener would be without an order among them.
#[test]
fn a_connection_wakes_one_of_many_who_accept() {
    const MANY: usize = 100;
    const CONNECTIONS: u64 = 300;
    let rt = runtime(1);
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    for _ in 0..MANY {
        let listener = listener.clone();
        rt.spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut byte = [0];
                let _ = stream
                    .read_exact(&mut byte)
                    .and_then(|()| stream.write_all(&byte));
            }
        });
    }
    let serve = || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    };
    while rt.metrics().parked < MANY {
        thread::sleep(Duration::from_millis(1));
    }
    serve();
    let before = rt.metrics().parks;
    for _ in 0..CONNECTIONS {
        serve();
    }
    let parks = rt.metrics().parks - before;
    assert!(parks <= 4 * CONNECTIONS, "{parks} waits");
    // They wait for ever; their runtime is not dropped.
    std::mem::forget(rt);
}

/// As the child of vfork(2), which has the memory of its parent and descriptors of its own.
#[test]
fn what_a_child_that_shares_memory_closes_is_not_closed_here() {
    extern "C" fn child(fd: *mut libc::c_void) -> libc::c_int {
        let fd = RawFd::try_from(fd.addr()).unwrap_or(-1);
        // SAFETY: no pointers; the number is the child's own.
        unsafe { libc::close(fd) }
    }
    in_green(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        let reader = weald::spawn(move || {
            let mut byte = [0];
            near.read_exact(&mut byte).map(|()| byte[0])
        });
        settle();
        let mut stack = vec![0_u128; 4096];
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let number = std::ptr::without_provenance_mut(usize::try_from(fd).unwrap());
        // SAFETY: the stack is the child's until it has ended, and this thread waits until then.
        let pid = unsafe {
            let top = stack.as_mut_ptr_range().end.cast();
            libc::clone(child, top, flags, number)
        };
        assert!(pid > 0, "{}", io::Error::last_os_error());
        let mut status = -1;
        // SAFETY: a pointer to a local.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
        drop(stack);
        far.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b'x');
    });
}

#[test]
fn what_several_append_to_a_file_stays_whole() {
    const LINE: usize = 256 << 10;
    const LINES: u8 = 10;
    let path = std::env::temp_dir().join(format!("weald-appended-{}", std::process::id()));
    in_green_with_spares(|| {
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let options = std::fs::File::options().append(true).create(true).clone();
                let mut file = options.open(&path).unwrap();
                weald::spawn(move || {
                    for line in 0..LINES {
                        file.write_all(&vec![writer * LINES + line; LINE]).unwrap();
                        weald::yield_now();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
    });
    let all = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(all.len(), 4 * usize::from(LINES) * LINE);
    let is_whole = |line: &[u8]| line.iter().all(|byte| *byte == line[0]);
    assert!(all.chunks(LINE).all(is_whole));
}
