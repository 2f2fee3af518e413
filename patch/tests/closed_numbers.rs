//! When a number was closed, no poller tells of it or keeps it, even if a duplicate of its file is open, here or in a
//! child.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers, in the types that libc has for them"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use support::{in_green, number_of_its_own, runtime};

/// Returns the number of descriptors whose epoll instance tells of this number: proc_pid_fdinfo(5). An instance may
/// have several descriptors.
fn tellers(number: RawFd) -> usize {
    all_tellers(number).len()
}

/// Returns these descriptors.
fn all_tellers(number: RawFd) -> BTreeSet<PathBuf> {
    let of = |line: &str| {
        let number_there = line.strip_prefix("tfd:")?.split_whitespace().next()?;
        number_there.parse::<RawFd>().ok()
    };
    let all = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let tells = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| of(line) == Some(number))
    };
    all.map(|entry| entry.unwrap().path())
        .filter(tells)
        .collect()
}

/// Waits until a byte can be read by this number, and reads it.
fn wait_to_read(number: RawFd, far: &UnixStream) {
    let mut far = far.try_clone().unwrap();
    let writes = weald::spawn(move || far.write_all(b"x").unwrap());
    // SAFETY: the number is open, and is not closed here.
    let mut near = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(number) });
    near.read_exact(&mut [0]).unwrap();
    writes.join().unwrap();
}

/// Closes a number in one of several ways. Some of them put `other` in its place.
fn close(way: usize, number: RawFd, other: RawFd) {
    // SAFETY: the calls get no pointers, but for a string and a new stream.
    unsafe {
        let result = match way {
            0 => libc::close(number),
            1 => libc::dup2(other, number) - number,
            2 => libc::dup3(other, number, libc::O_CLOEXEC) - number,
            3 => libc::close_range(number as _, number as _, 0),
            4 => libc::syscall(libc::SYS_close, number) as _,
            _ => libc::fclose(libc::fdopen(number, c"r+".as_ptr())),
        };
        assert_eq!(result, 0, "{way}");
    }
}

const WAYS: usize = 6;

#[test]
fn a_number_that_was_waited_for_and_is_closed_is_told_of_no_more() {
    for way in 0..WAYS {
        in_green(move || {
            let (mut near, far) = UnixStream::pair().unwrap();
            let (other, _other) = UnixStream::pair().unwrap();
            let number = number_of_its_own(&near, 800 + 10 * way as RawFd);
            assert_eq!(tellers(number), 0, "{way}");
            wait_to_read(number, &far);
            assert!(tellers(number) > 0, "{way}");
            close(way, number, other.as_raw_fd());
            assert_eq!(tellers(number), 0, "{way}");
            // The file's other number is waited for as before.
            near.write_all(b"there").unwrap();
            wait_to_read(near.as_raw_fd(), &far);
            // SAFETY: no pointers; the number may be closed.
            unsafe { libc::close(number) };
        });
    }
}

#[test]
fn a_number_that_two_runtimes_wait_for_is_told_of_no_more() {
    let (near, far) = UnixStream::pair().unwrap();
    let number = number_of_its_own(&near, 900);
    let (one, other) = (runtime(1), runtime(1));
    one.run(|| wait_to_read(number, &far));
    let of_one = tellers(number);
    other.run(|| wait_to_read(number, &far));
    assert!(of_one > 0 && tellers(number) > of_one);
    // An OS thread closes the number.
    close(0, number, -1);
    assert_eq!(tellers(number), 0);
    // The number is closed after the end of a poller that has told of it.
    let number = number_of_its_own(&near, 910);
    one.run(|| wait_to_read(number, &far));
    drop(one);
    other.run(|| wait_to_read(number, &far));
    other.run(|| close(0, number, -1));
    assert_eq!(tellers(number), 0);
}

/// Waits for the number on a worker, until a poller tells of the number, and returns that one.
fn teller_on(
    rt: &weald::Runtime,
    worker: usize,
    number: RawFd,
    far: &UnixStream,
) -> BTreeSet<PathBuf> {
    let far = far.try_clone().unwrap();
    let wait = move || {
        while tellers(number) == 0 {
            wait_to_read(number, &far);
        }
        all_tellers(number)
    };
    let on = weald::Builder::new().worker(worker).pinned(true);
    let thread = rt.run(|| on.spawn(wait)).unwrap();
    thread.join().unwrap()
}

#[test]
fn a_number_whose_worker_has_retired_is_told_of_by_another_worker_from_the_next_wait_on() {
    weald_patch::all().unwrap();
    let rt = weald::Runtime::builder().workers(2).build().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let other = number_of_its_own(&near, 960);
    let first = teller_on(&rt, 0, other, &far);
    // A thread that the monitor has just taken its worker from has that of the first one.
    let (number, _) = (0..20)
        .map(|_| {
            let number = number_of_its_own(&near, 961);
            (number, teller_on(&rt, 1, number, &far))
        })
        .find(|(_, teller)| *teller != first)
        .unwrap();
    rt.set_workers(1).unwrap();
    rt.run(|| {
        // A wait may find its byte at once.
        for _ in 0..1000 {
            wait_to_read(number, &far);
            if all_tellers(number) == first {
                break;
            }
        }
    });
    assert_eq!(all_tellers(number), first);
    close(0, number, -1);
    close(0, other, -1);
    assert_eq!((tellers(number), tellers(other)), (0, 0));
}

#[test]
fn a_descriptor_that_a_child_keeps_is_told_of_no_more() {
    in_green(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let number = number_of_its_own(&near, 920);
        wait_to_read(number, &far);
        // SAFETY: no pointers; the number stays open in the child.
        assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }, 0);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        close(0, number, -1);
        drop(near);
        assert_eq!(tellers(number), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn the_close_of_a_child_leaves_the_parent_what_it_waits_for() {
    in_green(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let number = near.as_raw_fd();
        wait_to_read(number, &far);
        // SAFETY: the child closes a number and ends, and touches nothing else.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: no pointers.
            unsafe {
                libc::close(number);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: a pointer to a local.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        assert!(tellers(number) > 0);
        wait_to_read(number, &far);
    });
}

#[test]
fn a_close_that_takes_a_number_out_leaves_errno_alone() {
    in_green(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let number = number_of_its_own(&near, 930);
        wait_to_read(number, &far);
        // Nothing was armed at this number before.
        let unknown = number_of_its_own(&near, 940);
        // SAFETY: the pointer is to a local; the errno is this thread's.
        unsafe {
            *libc::__errno_location() = libc::E2BIG;
            libc::close(number);
            libc::close(unknown);
            assert_eq!(*libc::__errno_location(), libc::E2BIG);
        }
    });
}
