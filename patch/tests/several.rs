//! `poll` and `select` of several numbers, some of which are closed meanwhile.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers, in the types that libc has for them"
)]

mod support;
#[path = "support/several.rs"]
mod waits;

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use support::{in_green, number_of_its_own};
use waits::{poll, select, settle, waiter};

/// A pipe with a byte in it.
fn full() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    (reader, writer)
}

/// Closes a number in each possible way. `other` is a file that takes the number's place, if the way does that.
fn close(way: usize, fd: RawFd, other: RawFd) {
    // SAFETY: no pointers.
    let result = unsafe {
        match way {
            0 => libc::close(fd),
            1 => libc::dup2(other, fd) - fd,
            2 => libc::dup3(other, fd, libc::O_CLOEXEC) - fd,
            3 => libc::close_range(fd as _, fd as _, 0),
            _ => libc::syscall(libc::SYS_close, fd) as _,
        }
    };
    assert_eq!(result, 0);
}

#[test]
fn a_number_that_is_closed_is_told_to_who_polls_several_and_the_next_file_is_not() {
    for way in 0..5 {
        in_green(move || {
            let (open, _open) = io::pipe().unwrap();
            let (closed, _closed) = io::pipe().unwrap();
            let (next, _next) = full();
            let number = number_of_its_own(&closed, 600);
            drop(closed);
            let all = [open.as_raw_fd(), number];
            let polls: Vec<_> = (0..4).map(|_| waiter(move || poll(&all))).collect();
            let selects: Vec<_> = (0..4).map(|_| waiter(move || select(&all))).collect();
            settle(8);
            close(way, number, next.as_raw_fd());
            for waits in polls {
                assert_eq!(waits.join().unwrap(), (1, vec![0, libc::POLLNVAL]));
            }
            for waits in selects {
                assert_eq!(waits.join().unwrap(), Some(libc::EBADF));
            }
            // SAFETY: no pointers; it may be closed.
            unsafe { libc::close(number) };
        });
    }
}

#[test]
fn who_polls_after_a_number_was_closed_is_told_nothing_of_that() {
    in_green(|| {
        for _ in 0..20 {
            let (open, mut writer) = io::pipe().unwrap();
            let (closed, closed_too) = io::pipe().unwrap();
            let all = [open.as_raw_fd(), closed.as_raw_fd()];
            let waits = waiter(move || poll(&all));
            settle(1);
            drop(closed);
            assert_eq!(waits.join().unwrap(), (1, vec![0, libc::POLLNVAL]));
            // The same numbers, and the same epoll instance.
            let (again, _again) = io::pipe().unwrap();
            let all = [open.as_raw_fd(), again.as_raw_fd()];
            let waits = waiter(move || poll(&all));
            settle(1);
            assert!(!waits.is_finished());
            writer.write_all(b"x").unwrap();
            assert_eq!(waits.join().unwrap(), (1, vec![libc::POLLIN, 0]));
            drop(closed_too);
        }
    });
}

#[test]
fn a_number_that_is_no_member_may_be_closed() {
    in_green(|| {
        let (first, mut writer) = io::pipe().unwrap();
        let (second, _second) = io::pipe().unwrap();
        let all = [first.as_raw_fd(), second.as_raw_fd()];
        let waits = waiter(move || poll(&all));
        settle(1);
        for _ in 0..100 {
            drop(io::pipe().unwrap());
        }
        settle(1);
        assert!(!waits.is_finished());
        writer.write_all(b"x").unwrap();
        assert_eq!(waits.join().unwrap(), (1, vec![libc::POLLIN, 0]));
    });
}

#[test]
fn a_number_that_weald_has_registered_is_told_of_too() {
    in_green(|| {
        let (closed, _closed) = io::pipe().unwrap();
        let number = number_of_its_own(&closed, 700);
        drop(closed);
        let registers = waiter(move || {
            // SAFETY: it is open until this thread is killed, which is enough here.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            weald::net::Fd::new(fd).readable()
        });
        settle(1);
        let reads = waiter(move || {
            let mut byte = [0_u8];
            // SAFETY: room for one byte.
            let got = unsafe { libc::read(number, byte.as_mut_ptr().cast(), 1) };
            (got, io::Error::last_os_error().raw_os_error())
        });
        settle(2);
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::close(number) }, 0);
        assert_eq!(reads.join().unwrap(), (-1, Some(libc::EBADF)));
        registers.thread().kill();
        let _ = registers.join();
    });
}

/// Returns an epoll instance that tells of this descriptor. `None`: too many instances are nested.
fn instance_of(member: RawFd) -> Option<OwnedFd> {
    // SAFETY: a pointer to a local; the descriptor is new.
    unsafe {
        let instance = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as _,
            u64: 0,
        };
        let number = instance.as_raw_fd();
        let added = libc::epoll_ctl(number, libc::EPOLL_CTL_ADD, member, &raw mut event);
        (added == 0).then_some(instance)
    }
}

/// Returns how many events there are.
fn epoll_wait(instance: RawFd) -> i32 {
    // SAFETY: room for one.
    unsafe {
        let mut event: libc::epoll_event = std::mem::zeroed();
        libc::epoll_wait(instance, &raw mut event, 1, -1)
    }
}

#[test]
fn epoll_instances_one_inside_the_other_are_waited_for_as_deep_as_the_kernel_goes() {
    in_green(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let (quiet, _quiet) = io::pipe().unwrap();
        let mut all = vec![instance_of(reader.as_raw_fd()).unwrap()];
        while let Some(next) = instance_of(all.last().unwrap().as_raw_fd()) {
            all.push(next);
        }
        assert!(all.len() > 2, "{} instances", all.len());
        for instance in &all {
            let number = instance.as_raw_fd();
            let both = [number, quiet.as_raw_fd()];
            let waits = waiter(move || epoll_wait(number));
            let polls = waiter(move || poll(&both));
            let killed = [
                waiter(move || i64::from(epoll_wait(number))),
                waiter(move || i64::from(poll(&both).0)),
            ];
            settle(4);
            for thread in killed {
                thread.thread().kill();
                assert!(thread.join().is_err());
            }
            writer.write_all(b"x").unwrap();
            assert_eq!(waits.join().unwrap(), 1);
            assert_eq!(polls.join().unwrap(), (1, vec![libc::POLLIN, 0]));
            io::Read::read_exact(&mut &reader, &mut [0]).unwrap();
        }
    });
}
