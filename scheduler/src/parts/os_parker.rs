//! Blocks an OS thread until it is notified: on a condition variable or, if the thread waits for descriptors
//! too, in poll(2) with a pipe of its own.
//!
//! Invariant 1: `notify` sets `notified` and the waiter takes it, both under the lock. So no notice is
//! lost, and none is left for a later wait.
//! Invariant 2: a byte lies in the pipe exactly if `written`. It is written only while somebody polls,
//! and the poller takes it out before it leaves. So neither the write nor the read ever waits.

use std::io;
use std::time::Instant;

use crate::shim::clock;
use crate::shim::sync::{Condvar, Mutex, wait, wait_for};

/// Blocks an OS thread until notified.
#[derive(Debug)]
pub(crate) struct Parker {
    notices: Mutex<Notices>,
    condvar: Condvar,
    /// Made when the thread first polls.
    pipe: std::sync::OnceLock<Pipe>,
}

#[derive(Debug, Default)]
struct Notices {
    notified: bool,
    polls: bool,
    written: bool,
}

#[derive(Debug)]
struct Pipe {
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self {
            notices: Mutex::new(Notices::default()),
            condvar: Condvar::new(),
            pipe: std::sync::OnceLock::new(),
        }
    }

    /// Ends one wait. The caller holds a clone of the `Arc`, because the waiter may go at once.
    pub(crate) fn notify(&self) {
        let mut notices = self.notices.lock();
        notices.notified = true;
        if notices.polls && !notices.written {
            notices.written = self.pipe.get().is_some_and(Pipe::put);
        }
        drop(notices);
        self.condvar.notify_one();
    }

    /// Waits for `notify`, at most until the deadline. True: notified.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut notices = self.notices.lock();
        while !notices.notified {
            match deadline {
                None => notices = wait(&self.condvar, notices),
                Some(deadline) => {
                    let now = clock::now();
                    if now >= deadline {
                        return false;
                    }
                    notices = wait_for(&self.condvar, notices, deadline - now);
                }
            }
        }
        notices.notified = false;
        true
    }
}

#[cfg_attr(loom, allow(dead_code, reason = "no model polls"))]
impl Parker {
    /// The descriptor that the caller must put behind its own, as the last one for `poll`.
    ///
    /// # Errors
    /// The system's: no more descriptors.
    pub(crate) fn wake_fd(&self) -> io::Result<libc::pollfd> {
        use std::os::fd::AsRawFd;

        let pipe = if let Some(pipe) = self.pipe.get() {
            pipe
        } else {
            let (reader, writer) = io::pipe()?;
            self.pipe.get_or_init(|| Pipe { reader, writer })
        };
        Ok(libc::pollfd {
            fd: pipe.reader.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
    }

    /// Waits for `notify`, for an event of one of the descriptors (the last one is `wake_fd`'s), or until the
    /// deadline. True: notified.
    pub(crate) fn poll(&self, fds: &mut [libc::pollfd], deadline: Option<Instant>) -> bool {
        {
            let mut notices = self.notices.lock();
            if std::mem::take(&mut notices.notified) {
                return true;
            }
            notices.polls = true;
        }
        while !poll_once(fds, deadline) {}
        let mut notices = self.notices.lock();
        notices.polls = false;
        if std::mem::take(&mut notices.written)
            && let Some(pipe) = self.pipe.get()
        {
            pipe.take();
        }
        std::mem::take(&mut notices.notified)
    }
}

impl Pipe {
    fn put(&self) -> bool {
        use std::io::Write;

        // The pipe is empty, so it takes a byte without an error.
        (&self.writer).write_all(&[0]).is_ok()
    }

    fn take(&self) {
        use std::io::Read;

        // The byte is in the pipe.
        let _ = (&self.reader).read(&mut [0]);
    }
}

/// False: a signal came, or the clock was ahead, and the caller must try once more. An error ends the wait: the caller
/// will get the same error when it looks at its descriptors.
fn poll_once(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> bool {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
    let ready = sys::poll(fds, left);
    match ready {
        1.. => true,
        0 => deadline.is_some_and(|deadline| clock::now() >= deadline),
        _ => io::Error::last_os_error().kind() != io::ErrorKind::Interrupted,
    }
}

#[allow(unsafe_code, reason = "poll(2)")]
mod sys {
    use std::time::Duration;

    /// `None`: without end.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn poll(fds: &mut [libc::pollfd], left: Option<Duration>) -> libc::c_int {
        let left = left.map(|left| libc::timespec {
            tv_sec: left
                .as_secs()
                .try_into()
                .unwrap_or_else(|_| i32::MAX.into()),
            tv_nsec: left.subsec_nanos().into(),
        });
        let limit = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = fds.len() as libc::nfds_t;
        // SAFETY: as many entries as are there; the limit is null or lives on this stack.
        unsafe { libc::ppoll(fds.as_mut_ptr(), count, limit, std::ptr::null()) }
    }

    /// `left`: `None` means no limit. It is rounded up to milliseconds.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn poll(fds: &mut [libc::pollfd], left: Option<Duration>) -> libc::c_int {
        let limit = left.map_or(-1, |left| {
            let millis = left.as_nanos().div_ceil(1_000_000);
            libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
        });
        let count = fds.len() as libc::nfds_t;
        // SAFETY: as many entries as are there.
        unsafe { libc::poll(fds.as_mut_ptr(), count, limit) }
    }
}
