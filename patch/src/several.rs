//! One wait for several descriptors.
//!
//! The descriptors go into an epoll instance of the wait's own, level-triggered. The instance is waited for as any
//! descriptor is: it is readable when something in it is ready. A thread that closes one of the descriptors meanwhile
//! tells the wait (`members.rs`).
//!
//! The number of instances has a bound (`epoll.rs`), as each takes a descriptor. Further waits look after pauses.

use std::os::fd::RawFd;
use std::time::Instant;

use libc::pollfd;

use crate::epoll::Set;
use crate::members::Members;
use crate::pauses::{Ended, Pauses};
use crate::slot::Direction;
use crate::wait::Wait;

/// The events that a wait to read, and a wait to write, is told of; and the events of each wait.
const READS: libc::c_short = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDHUP;
const WRITES: libc::c_short = libc::POLLOUT | libc::POLLWRNORM;
const FAILURES: libc::c_short = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

/// A wait of a call for several descriptors.
pub(crate) struct WaitForAny {
    // The fields are dropped in this order: nobody may tell this set of its members any more when it goes to the next
    // wait.
    means: Means,
    members: Option<Members>,
    _set: Option<Set>,
}

/// How the wait learns when to look again.
enum Means {
    /// By events: of the one descriptor, or of an epoll instance with all of them.
    Events(Wait),
    /// By the clock: there is no descriptor for an epoll instance, or one of the descriptors cannot be in one.
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
        // One entry for each descriptor, with all events that are asked for.
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

    /// Returns `None` if there is no set, or if one of the descriptors cannot be in it.
    fn in_set(asked: &[(RawFd, u32)]) -> Option<Self> {
        let mut set = Set::new()?;
        // From here on the wait is told if a number is closed: the files that are added below are those that have the
        // numbers now.
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

    /// Waits until a look may find something, until the deadline at most. Never returns `Unpollable`.
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

    /// Looks, without waiting. `EBADF` means that a number was closed. The other way to know is to ask
    /// [`Self::is_any_closed`] afterwards.
    pub(crate) fn attempt(&self, look: impl FnOnce() -> isize) -> isize {
        match &self.means {
            Means::Events(wait) => wait.attempt(look),
            Means::Clock(_) => look(),
        }
    }

    /// Makes the wait one that no exception ends.
    pub(crate) fn make_firm(&mut self) {
        match &mut self.means {
            Means::Events(wait) => wait.make_firm(),
            Means::Clock(pauses) => pauses.make_firm(),
        }
    }

    /// Tells if the number was closed while this wait lasted.
    pub(crate) fn is_closed(&self, fd: RawFd) -> bool {
        let members = self.members.as_ref();
        members.is_none_or(|members| members.is_closed(fd))
    }

    /// Tells if there are several numbers and one of them was closed.
    pub(crate) fn is_any_closed(&self) -> bool {
        self.members.as_ref().is_some_and(Members::is_any_closed)
    }

    /// Tells if there are several numbers and none was closed. If a wait still ended with `EBADF`, it was told of the
    /// file that had one of the numbers before: the close of that file had begun before the wait.
    pub(crate) fn are_all_open(&self) -> bool {
        let members = self.members.as_ref();
        members.is_some_and(|members| !members.is_any_closed())
    }
}

/// A wait for one descriptor in one direction needs no set.
fn wait_for_one(fds: &[pollfd]) -> Option<Wait> {
    let [one] = fds else { return None };
    // Events that no wait in one direction is told of need a set.
    let only = |of: libc::c_short| one.events & !(of | FAILURES) == 0;
    if one.events & libc::POLLIN != 0 && only(READS) {
        Some(Wait::new(one.fd, Direction::Read))
    } else if one.events & libc::POLLOUT != 0 && only(WRITES) {
        Some(Wait::new(one.fd, Direction::Write))
    } else {
        None
    }
}
