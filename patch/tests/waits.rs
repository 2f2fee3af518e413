//! A call that waits is told of closing and shutting down, of limits and kills, whoever else waits beside it.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "small numbers; closures that are kept"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use weald::{Exception, timeout};

use support::{in_green, in_green_with_spares, runtime};

#[path = "waits/closed.rs"]
mod closed;
#[path = "waits/files.rs"]
mod files;
mod support;

const SHORT: Duration = Duration::from_millis(20);

/// Lets the others run until they wait.
fn settle() {
    weald::sleep(Duration::from_millis(5));
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
        // Each wait lasts at least three times as long.
        let check = |wait: fn()| {
            assert!(timeout(SHORT, wait).is_err());
            loop {
                let begun = Instant::now();
                let killed = weald::spawn(wait);
                weald::sleep(SHORT);
                killed.thread().kill();
                let is_early = begun.elapsed() < 3 * SHORT;
                let ended = killed.join();
                // On a busy machine the kill may come after the wait.
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
    // A call that ends in time reports nothing.
    in_green(|| assert!(timeout(Duration::from_secs(60), || thread::sleep(SHORT)).is_ok()));
}

/// More threads wait for messages than may keep an OS thread. The thread that sends needs none.
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

/// Without an order among them, the acceptors of one listener would all be woken.
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
    // The threads wait for ever, so their runtime is not dropped.
    std::mem::forget(rt);
}
