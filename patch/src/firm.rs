//! Descriptors whose calls no exception ends, because std would panic on the error.
//!
//! | call                                   | in std                                                  |
//! |----------------------------------------|---------------------------------------------------------|
//! | `read`, `poll` of a child's output     | `Command::output` and `spawn` panic on any error        |
//! | `write` to standard output and error   | `println!` and `eprintln!` panic on any error           |
//!
//! A child's output is a pipe that only another process writes to. The question is asked only when an exception is
//! pending and the call would wait, so it may be slow.
#![allow(unsafe_code, reason = "system calls")]

use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use weald_scheduler::patch::Bypass;

use crate::raw::{error_of, sys};
use crate::slot::Direction;

/// Tells if no exception may end a call on this descriptor.
#[cold]
pub(crate) fn is_firm(fd: RawFd, direction: Direction) -> bool {
    match direction {
        Direction::Write => fd == libc::STDOUT_FILENO || fd == libc::STDERR_FILENO,
        Direction::Read => fd > libc::STDERR_FILENO && is_output_of_a_child(fd),
    }
}

/// Tells if this is a pipe that this process reads from and does not write to.
fn is_output_of_a_child(fd: RawFd) -> bool {
    // Calls of std here must reach the system.
    let _bypass = Bypass::enter();
    let Ok(pipe) = std::fs::metadata(format!("/proc/self/fd/{fd}")) else {
        return false;
    };
    if !pipe.file_type().is_fifo() {
        return false;
    }
    let Ok(all) = std::fs::read_dir("/proc/self/fd") else {
        return false;
    };
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    let writes_here = |other: RawFd| {
        // SAFETY: no pointers.
        let flags = unsafe { sys!(SYS_fcntl, other, libc::F_GETFL) };
        error_of(flags).is_none()
            && flags & libc::O_ACCMODE as isize != libc::O_RDONLY as isize
            && std::fs::metadata(format!("/proc/self/fd/{other}")).is_ok_and(|file| {
                file.file_type().is_fifo() && (file.dev(), file.ino()) == (pipe.dev(), pipe.ino())
            })
    };
    !numbers.into_iter().any(writes_here)
}
