//! Descriptors that are closed or shut down, or that several threads wait for.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::settle;
use crate::support::{in_green, number_of_its_own, runtime};

fn poll(fd: RawFd) -> i32 {
    let mut one = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut one, 1, -1) }
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
        // This is the next file with the number.
        let (again, mut other) = UnixStream::pair().unwrap();
        // SAFETY: no pointers. The thread that closed the number has put a file there, or the number is free for this
        // call, which closes nothing.
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
fn a_call_that_waits_for_its_os_thread_is_not_made_on_the_next_file_with_the_number() {
    let rt = runtime(1);
    let (release, released) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    // This thread has the only right to make a call that blocks.
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

/// A child as vfork(2) makes it, with the memory of its parent and descriptors of its own.
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
