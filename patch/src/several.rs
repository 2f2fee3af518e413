//! One wait for several descriptors.
//!
//! They go into an epoll instance of this wait's own, level-triggered, and that is waited for like any descriptor: an epoll instance is
//! readable when something in it is ready. Who closes one of the descriptors meanwhile says so (`members.rs`).
//!
//! There are only so many instances (`epoll.rs`), as each takes a descriptor. A wait beyond them looks after pauses.

use std::os::fd::RawFd;
use std::time::Instant;

use libc::pollfd;

use crate::epoll::Set;
use crate::members::Members;
use crate::pauses::{Ended, Pauses};
use crate::slot::Direction;
use crate::wait::Wait;

/// What a wait to read, and one to write, is told of; and what each wait is.
const READS: libc::c_short = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDHUP;
const WRITES: libc::c_short = libc::POLLOUT | libc::POLLWRNORM;
const FAILURES: libc::c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

/// What a call waits in.
pub(crate) struct WaitForAny {
    // In the order in which they end: the set goes to the next wait when nobody tells this one of its members any more.
    means: Means,
    members: Option<Members>,
    _set: Option<Set>,
}

/// What says when to look again.
enum Means {
    /// Events: of the one descriptor, or of an epoll instance with all of them.
    Events(Wait),
    /// The clock: there is no descriptor for an epoll instance, or one of the descriptors cannot be in one.
    Clock(Pauses),
}

impl WaitForAny {
    pub(crate) fn new(fds: &[pollfd]) -> Self {
        if let Some(wait) = wait_for_one(fds) {
            return Self {
                means: Means::Events(wait),
                members: None,
                _set: None,
            };
        }
        // One entry for each descriptor, with all that is asked of it.
        let mut asked: Vec<(RawFd, u32)> = fds
            .iter()
            .filter(|one| one.fd >= 0)
            .map(|one| (one.fd, u32::from(one.events.cast_unsigned())))
            .collect();
        asked.sort_unstable_by_key(|&(fd, _)| fd);
        asked.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 |= next.1;
            }
            same
        });
        Self::in_set(&asked).unwrap_or_else(|| Self::by_the_clock(asked.iter().map(|(fd, _)| *fd)))
    }

    /// `None`: there is no set, or one of them cannot be in it.
    fn in_set(asked: &[(RawFd, u32)]) -> Option<Self> {
        let mut set = Set::new()?;
        // From here on a number that is closed is told of: what is added below is the file that it has now.
        let wait = Wait::on_set(&set);
        let members = Members::of_set(set.fd(), asked.iter().map(|(fd, _)| *fd));
        let all = asked.iter().all(|&(fd, events)| set.add(fd, events));
        all.then_some(Self {
            means: Means::Events(wait),
            members: Some(members),
            _set: Some(set),
        })
    }

    fn by_the_clock(numbers: impl Iterator<Item = RawFd>) -> Self {
        Self {
            means: Means::Clock(Pauses::default()),
            members: Some(Members::untold(numbers)),
            _set: None,
        }
    }

    /// Waits until a look may find something, at most until the deadline. It is never `Unpollable`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Ended {
        let wait = match &mut self.means {
            Means::Events(wait) => wait,
            Means::Clock(pauses) => return pauses.wait(None, deadline),
        };
        let ended = wait.wait(deadline);
        if ended != Ended::Unpollable {
            return ended;
        }
        let mut pauses = Pauses::default();
        if wait.is_firm() {
            pauses.make_firm();
        }
        if self.members.is_none() {
            self.members = Some(Members::untold(std::iter::once(wait.fd())));
        }
        self.means = Means::Clock(pauses);
        Ended::Woken
    }

    /// Looks, without waiting. `EBADF`: a number was closed; the other way to know it is [`Self::is_any_closed`], afterwards.
    pub(crate) fn attempt(&self, look: impl FnOnce() -> isize) -> isize {
        match &self.means {
            Means::Events(wait) => wait.attempt(look),
            Means::Clock(_) => look(),
        }
    }

    /// No exception ends the wait from now on.
    pub(crate) fn make_firm(&mut self) {
        match &mut self.means {
            Means::Events(wait) => wait.make_firm(),
            Means::Clock(pauses) => pauses.make_firm(),
        }
    }

    /// The number was closed while this wait lasted.
    pub(crate) fn is_closed(&self, fd: RawFd) -> bool {
        let members = self.members.as_ref();
        members.is_none_or(|members| members.is_closed(fd))
    }

    /// One of several numbers was.
    pub(crate) fn is_any_closed(&self) -> bool {
        self.members.as_ref().is_some_and(Members::is_any_closed)
    }

    /// There are several numbers and none was closed. A wait that ended with `EBADF` all the same was told of the file that had one
    /// of the numbers before: its close had begun before this wait.
    pub(crate) fn are_all_open(&self) -> bool {
        let members = self.members.as_ref();
        members.is_some_and(|members| !members.is_any_closed())
    }
}

/// A wait for one descriptor in one direction needs no set.
fn wait_for_one(fds: &[pollfd]) -> Option<Wait> {
    let [one] = fds else { return None };
    // What no wait in one direction is told of goes into a set.
    let only = |of: libc::c_short| one.events & !(of | FAILURES) == 0;
    if one.events & libc::POLLIN != 0 && only(READS) {
        Some(Wait::new(one.fd, Direction::Read))
    } else if one.events & libc::POLLOUT != 0 && only(WRITES) {
        Some(Wait::new(one.fd, Direction::Write))
    } else {
        None
    }
}
