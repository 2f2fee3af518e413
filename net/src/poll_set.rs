//! An epoll instance for one wait of a green thread for several descriptors.
//!
//! It is level-triggered and has an entry for each descriptor with all events that are asked for. The instance's own
//! descriptor is a source of the reactor. So any number of waits may have the same descriptors, and none of them
//! touches what sockets remember of readiness. Instances are lent and come back empty.
//!
//! Each instance takes a descriptor, so their number has a bound ([`PART`]).
//!
//! Invariant: an instance that is in the pool has no members. If a member could not be taken out (somebody has closed
//! it), the instance is closed and does not go into the pool.
#![allow(unsafe_code, reason = "epoll")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::ask::merged;
use crate::shim::sync::Mutex;
use crate::source::{Direction, Source};

/// How many empty instances are kept. Each takes a descriptor.
const KEPT: usize = 32;

static POOL: Mutex<Vec<Set>> = Mutex::new(Vec::new());

/// How many instances there are, with those in the pool.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One in this many of the process's possible descriptors can be an instance, so that waits never use up what
/// connections and files need. It is a guess: a program that has more such waits has more connections than
/// descriptors, or raises the limit.
const PART: libc::rlim_t = 8;

/// The right to have one more instance.
struct Counted;

impl Counted {
    /// Fails if there are as many instances as there may be.
    fn take() -> io::Result<Self> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a pointer to a local.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let most = usize::try_from(limit.rlim_cur / PART).unwrap_or(usize::MAX);
        // This is only a count: nothing else depends on its order.
        let one_more = |count| (count < most).then_some(count + 1);
        let taken = COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken
            .map(|_| Self)
            .map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Set {
    epoll: OwnedFd,
    source: Source,
    members: Vec<RawFd>,
    _counted: Counted,
}

impl Set {
    fn new() -> io::Result<Self> {
        let counted = Counted::take()?;
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: it is new and ours.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            source: Source::new(),
            members: Vec::new(),
            _counted: counted,
        })
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: 0 };
        // SAFETY: a live event, which the kernel only reads; a bad descriptor is an error.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Takes the members out. Returns false if one of them was not there any more.
    fn clear(&mut self) -> bool {
        let members = std::mem::take(&mut self.members);
        let mut whole = true;
        for &fd in &members {
            whole &= self.control(libc::EPOLL_CTL_DEL, fd, 0).is_ok();
        }
        whole
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        self.source.deregister(self.epoll.as_raw_fd());
    }
}

/// A set for one wait. It goes back into the pool.
pub(crate) struct LentSet(Option<Set>);

impl LentSet {
    /// Returns a set that has the descriptors and is registered.
    pub(crate) fn of(fds: &[libc::pollfd]) -> io::Result<Self> {
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut lent = Self(Some(match kept {
            Some(set) => set,
            None => Set::new()?,
        }));
        lent.add_all(fds)?;
        let set = lent.set();
        set.source.ensure_registered(set.epoll.as_raw_fd())?;
        Ok(lent)
    }

    fn set(&mut self) -> &mut Set {
        self.0.as_mut().expect("it is there until it goes back")
    }

    fn add_all(&mut self, fds: &[libc::pollfd]) -> io::Result<()> {
        let set = self.set();
        for one in merged(fds) {
            // The bits are the same: epoll_ctl(2).
            let (fd, events) = (one.fd, u32::from(one.events.cast_unsigned()));
            match set.control(libc::EPOLL_CTL_ADD, fd, events) {
                Ok(()) => set.members.push(fd),
                // An ordinary file: poll(2) has said already that the file is ready, if it was asked for anything
                // such a file can be. Or a descriptor that is not open, which poll(2) will tell.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBADF)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn wait_until(
        &mut self,
        deadline: Option<Instant>,
        ready: impl FnMut() -> io::Result<bool>,
    ) -> io::Result<bool> {
        let set = self.set();
        let fd = set.epoll.as_raw_fd();
        set.source.wait_until(fd, Direction::Read, deadline, ready)
    }
}

impl Drop for LentSet {
    fn drop(&mut self) {
        let Some(mut set) = self.0.take() else {
            return;
        };
        if !set.clear() {
            return;
        }
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(set);
        } else {
            // The set is closed after the lock.
            drop(pool);
            drop(set);
        }
    }
}
