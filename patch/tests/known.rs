//! What is remembered of a descriptor between calls: a change that this process makes applies at once; a change that
//! nobody has seen delays a call for a moment and no longer.
#![allow(
    unsafe_code,
    reason = "calls libc as a C program would, and the kernel without libc"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

use std::arch::asm;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::in_green;

/// A call that is not delayed ends well before the remembered facts are doubted, after 100 ms.
const AT_ONCE: Duration = Duration::from_millis(80);
/// A call that is delayed ends soon after that.
const LATE: Duration = Duration::from_secs(3);

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Lets reads on `near` wait, often enough that all facts are known.
fn get_known(near: &mut (impl Read + AsRawFd), far: &mut (impl Write + Send)) {
    thread::scope(|scope| {
        let (start, started) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while started.recv().is_ok() {
                thread::sleep(Duration::from_millis(1));
                far.write_all(b"x").unwrap();
            }
        });
        for _ in 0..4 {
            start.send(()).unwrap();
            near.read_exact(&mut [0]).unwrap();
        }
    });
}

fn would_block_within(limit: Duration, near: &mut impl Read) {
    let start = Instant::now();
    let error = near.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
}

/// A system call that no hook sees.
#[cfg(target_arch = "x86_64")]
fn unseen(number: libc::c_long, args: [usize; 3]) -> i64 {
    let result: i64;
    // SAFETY: the calls below take descriptors and flags.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

fn number(fd: RawFd) -> usize {
    usize::try_from(fd).unwrap()
}

#[test]
fn a_duplicate_that_is_told_not_to_block_tells_all() {
    in_green(|| {
        let (mut near, mut far) = tcp();
        let again = near.try_clone().unwrap();
        get_known(&mut near, &mut far);
        again.set_nonblocking(true).unwrap();
        would_block_within(AT_ONCE, &mut near);
        again.set_nonblocking(false).unwrap();
        get_known(&mut near, &mut far);
        // SAFETY: no pointers.
        unsafe {
            let flags = libc::fcntl(again.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(again.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK);
        }
        would_block_within(AT_ONCE, &mut near);
        again.set_nonblocking(false).unwrap();
        get_known(&mut near, &mut far);
        // SAFETY: no pointers.
        unsafe {
            libc::syscall(
                libc::SYS_fcntl,
                again.as_raw_fd(),
                libc::F_SETFL,
                libc::O_RDWR | libc::O_NONBLOCK,
            );
        }
        would_block_within(AT_ONCE, &mut near);
    });
}

#[test]
fn a_limit_that_a_duplicate_sets_ends_the_next_call() {
    in_green(|| {
        let (mut near, mut far) = tcp();
        let again = near.try_clone().unwrap();
        get_known(&mut near, &mut far);
        again
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        would_block_within(AT_ONCE, &mut near);
        again.set_read_timeout(None).unwrap();
        get_known(&mut near, &mut far);
    });
}

#[test]
fn a_write_limit_that_is_set_after_writes_have_waited_holds() {
    in_green(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let reader = weald::spawn(move || {
            let mut taken = vec![0; 4 << 20];
            far.read_exact(&mut taken).unwrap();
            far.read_exact(&mut taken).unwrap();
            far
        });
        let bytes = vec![7; 4 << 20];
        (&near).write_all(&bytes).unwrap();
        (&near).write_all(&bytes).unwrap();
        let _far = reader.join().unwrap();
        near.set_write_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let start = Instant::now();
        let error = (&near).write_all(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    });
}

#[test]
fn a_number_that_changes_its_file_is_known_no_more() {
    in_green(|| {
        let (mut near, mut far) = tcp();
        get_known(&mut near, &mut far);
        // Another file comes to the number by dup2.
        let (other, mut another) = tcp();
        other.set_nonblocking(true).unwrap();
        // SAFETY: no pointers.
        assert!(unsafe { libc::dup2(other.as_raw_fd(), near.as_raw_fd()) } >= 0);
        would_block_within(AT_ONCE, &mut near);
        other.set_nonblocking(false).unwrap();
        get_known(&mut near, &mut another);
        // It comes to the number by close.
        let fd = near.into_raw_fd();
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(fd) };
        let (near, mut far) = tcp();
        for mut stream in [near, other] {
            if stream.as_raw_fd() == fd {
                get_known(&mut stream, &mut far);
            }
        }
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_no_hook_has_seen_holds_a_call_up_for_a_moment_only() {
    in_green(|| {
        // The descriptor is set not to block.
        let (mut near, mut far) = tcp();
        get_known(&mut near, &mut far);
        let set = unseen(
            libc::SYS_fcntl,
            [
                number(near.as_raw_fd()),
                number(libc::F_SETFL),
                number(libc::O_RDWR | libc::O_NONBLOCK),
            ],
        );
        assert_eq!(set, 0);
        would_block_within(LATE, &mut near);
        // The call fails after the change was noticed.
        would_block_within(AT_ONCE, &mut near);

        // Another file is at the number, and no poller tells of it.
        let (mut near, mut far) = tcp();
        get_known(&mut near, &mut far);
        let (other, mut another) = tcp();
        let put = unseen(
            libc::SYS_dup3,
            [number(other.as_raw_fd()), number(near.as_raw_fd()), 0],
        );
        assert_eq!(put, i64::from(near.as_raw_fd()));
        let start = Instant::now();
        get_known(&mut near, &mut another);
        assert!(start.elapsed() < LATE, "{:?}", start.elapsed());
    });
}

#[test]
fn another_process_may_tell_a_shared_file_not_to_block() {
    in_green(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        get_known(&mut near, &mut far);
        let shared = near.try_clone().unwrap();
        let done = Command::new("python3")
            .arg("-c")
            .arg("import os; os.set_blocking(0, False)")
            .stdin(std::os::fd::OwnedFd::from(shared))
            .status();
        match done {
            Ok(status) if status.success() => would_block_within(LATE, &mut near),
            _ => println!("there is no python3 here"),
        }
    });
}

#[test]
fn a_stream_that_was_closed_by_fclose_leaves_nothing_known() {
    in_green(|| {
        for _ in 0..3 {
            let (mut near, mut far) = tcp();
            get_known(&mut near, &mut far);
            let fd = near.into_raw_fd();
            // SAFETY: the descriptor is ours; it goes with the stream.
            unsafe {
                let file = libc::fdopen(fd, c"r".as_ptr());
                assert!(!file.is_null());
                assert_eq!(libc::fclose(file), 0);
            }
            // The lowest number is the next one.
            let (next, mut other) = UnixStream::pair().unwrap();
            let mut next = if next.as_raw_fd() == fd {
                next
            } else {
                // SAFETY: the descriptor stays open, as nobody else closes it.
                unsafe { UnixStream::from_raw_fd(next.into_raw_fd()) }
            };
            let start = Instant::now();
            get_known(&mut next, &mut other);
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        }
    });
}

#[test]
fn readers_of_two_runtimes_share_a_descriptor() {
    let (near, mut far) = tcp();
    let runtimes = [support::runtime(4), support::runtime(4)];
    for round in 0..20 {
        let writer = {
            let mut far = far.try_clone().unwrap();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(1));
                far.write_all(b"x").unwrap();
            })
        };
        let start = Instant::now();
        runtimes[round % 2].run(|| (&near).read_exact(&mut [0]).unwrap());
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        writer.join().unwrap();
    }
    drop(runtimes);
    // There is a third runtime, after the pollers of the others are gone.
    let next = support::runtime(4);
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1));
        far.write_all(b"xx").unwrap();
    });
    next.run(|| (&near).read_exact(&mut [0; 2]).unwrap());
    writer.join().unwrap();
}
