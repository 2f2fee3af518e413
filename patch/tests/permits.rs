//! Calls that wait inside the kernel for other threads never use up the permits that short calls need.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use support::in_green_with_spares;

/// How many calls of one kind may block at a time (`in_green_with_spares`).
const SPARES: usize = 8;
/// These are more bytes than a terminal takes before its other side reads.
const BYTES: usize = 1 << 20;

/// Returns both sides of a terminal. Bytes that are written to the second one can be read from the first.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    let none = ptr::null_mut();
    // SAFETY: room for two numbers; the rest is not asked for.
    unsafe {
        let made = libc::openpty(
            &raw mut master,
            &raw mut slave,
            none,
            none.cast(),
            none.cast(),
        );
        assert_eq!(made, 0);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

/// Tells if the call waits inside the kernel: the terminal takes no more.
fn is_full(slave: &OwnedFd) -> bool {
    let mut one = libc::pollfd {
        fd: slave.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut one, 1, 0) == 0 }
}

fn check_that_files_are_written(call: fn(&OwnedFd, &File) -> isize) {
    let path = std::env::temp_dir().join(format!("weald-permits-{}", std::process::id()));
    std::fs::write(&path, vec![b'x'; BYTES]).unwrap();
    in_green_with_spares(|| {
        let (tell, told) = mpsc::channel();
        let all: Vec<_> = (0..SPARES)
            .map(|_| {
                let (master, slave) = terminal();
                let again = slave.try_clone().unwrap();
                let (file, tell) = (File::open(&path).unwrap(), tell.clone());
                let waits = weald::spawn(move || {
                    let done = call(&slave, &file);
                    tell.send(done).unwrap();
                });
                (master, again, waits)
            })
            .collect();
        while !all.iter().all(|(_, slave, _)| is_full(slave)) {
            weald::sleep(std::time::Duration::from_millis(1));
        }
        File::create(&path).unwrap().write_all(b"there").unwrap();
        assert!(told.try_recv().is_err(), "a terminal takes a part only");
        for (master, _, waits) in all {
            // The other side hangs up.
            drop(master);
            waits.join().unwrap();
        }
    });
    let _ = std::fs::remove_file(&path);
}

#[test]
fn files_are_written_while_sendfile_waits_for_room() {
    check_that_files_are_written(|slave, file| {
        // SAFETY: no offset.
        unsafe { libc::sendfile(slave.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), BYTES) }
    });
}

#[test]
fn files_are_written_while_a_write_to_a_terminal_waits_for_room() {
    check_that_files_are_written(|slave, _| {
        let bytes = vec![b'x'; BYTES];
        // SAFETY: as many bytes.
        unsafe { libc::write(slave.as_raw_fd(), bytes.as_ptr().cast(), BYTES) }
    });
}

#[test]
fn what_a_thread_has_forked_begins_before_the_thread_waits_in_the_kernel() {
    in_green_with_spares(|| {
        let (master, slave) = terminal();
        let is_over = Arc::new(AtomicBool::new(false));
        // Some thread is always ready, so that the machine never stands still.
        let other = weald::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    weald::yield_now();
                }
            }
        });
        let writes = || {
            let bytes = vec![b'x'; BYTES];
            // SAFETY: as many bytes.
            unsafe { libc::write(slave.as_raw_fd(), bytes.as_ptr().cast(), BYTES) }
        };
        let reads = || {
            let (mut left, mut some) = (BYTES, vec![0_u8; 4096]);
            while left > 0 {
                // SAFETY: room for as many.
                let count =
                    unsafe { libc::read(master.as_raw_fd(), some.as_mut_ptr().cast(), some.len()) };
                left -= usize::try_from(count).unwrap();
            }
        };
        let (written, ()) = weald::join(writes, reads);
        assert_eq!(usize::try_from(written), Ok(BYTES));
        is_over.store(true, Ordering::Relaxed);
        other.join().unwrap();
    });
}
