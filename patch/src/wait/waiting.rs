//! The wait itself: arms the descriptor with a poller, or waits elsewhere where that does not help.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weald_scheduler::patch::{self, Home, Pending, Waited};

use super::{Wait, Waiting};
use crate::epoll::Set;
use crate::firm;
use crate::members::Members;
use crate::pauses::{Ended, NOBODY, Pausing, errno_of, next_pause};
use crate::slot::{Direction, on_loss};

impl Waiting {
    /// Waits. `skips` is the number of events when the call was first tried, if the poller need not be armed.
    pub(super) fn wait(
        &mut self,
        closes: u32,
        skips: Option<u32>,
        deadline: Option<Instant>,
    ) -> Ended {
        if let Some(pending) = self.pending() {
            return Ended::Failed(errno_of(pending));
        }
        if let Some(pause) = &mut self.untold {
            *pause = next_pause(*pause);
            self.pause = *pause;
        }
        let pause = (!self.pause.is_zero()).then(|| Instant::now() + self.pause);
        let until = match (deadline, pause) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let _pausing = pause.map(|_| Pausing::begin());
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if let Some(ended) = self.wait_for_set(closes, until) {
            return match ended {
                Ended::TimedOut if is_over() => Ended::TimedOut,
                Ended::TimedOut | Ended::Plain => Ended::Woken,
                ended => ended,
            };
        }
        if pause.is_some() {
            // Events mean nothing here: a `sendto` that finds a full queue raises one itself.
            return match patch::wait(&NOBODY, || false, until, self.firm != Some(true)) {
                Waited::TimedOut if is_over() => Ended::TimedOut,
                Waited::Woken | Waited::TimedOut => Ended::Woken,
                Waited::Pending(_) => match self.pending() {
                    Some(pending) => Ended::Failed(errno_of(pending)),
                    None => Ended::Woken,
                },
            };
        }
        let (fd, direction, slot) = (self.fd, self.direction, self.slot);
        let queue = match direction {
            Direction::Read => &slot.read,
            Direction::Write => &slot.write,
        };
        let mut armed: io::Result<()> = Ok(());
        let ready = || {
            if slot.closes.load(Ordering::Acquire) != closes {
                return true;
            }
            let losses = slot.losses.load(Ordering::Acquire);
            if self.armed && losses == self.losses {
                return slot.events.load(Ordering::Acquire) != self.events;
            }
            self.losses = losses;
            let Some(home) = Home::of(&slot.at) else {
                armed = Err(io::ErrorKind::NotConnected.into());
                return true;
            };
            let (poller, changes) = (home.id(), slot.known.changes());
            if let Some(events) = skips
                && slot.known.armed(poller) & direction.bit() != 0
            {
                self.armed = true;
                return slot.events.load(Ordering::Acquire) != events;
            }
            armed = home.arm(
                fd,
                &slot.event,
                || slot.interest() | slot.known.armed(poller),
                |interest| {
                    slot.known.arm(changes, poller, interest);
                    slot.was_armed(poller);
                },
                on_loss,
            );
            self.armed = armed.is_ok();
            armed.is_err()
        };
        let waited = patch::wait(queue, ready, deadline, self.firm != Some(true));
        self.events = slot.events.load(Ordering::Acquire);
        if slot.closes.load(Ordering::Acquire) != closes {
            return Ended::Failed(libc::EBADF);
        }
        if let Err(error) = armed {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Ended::Unpollable;
            }
            return self.wait_instead();
        }
        match waited {
            Waited::Woken => {
                self.owes = true;
                Ended::Woken
            }
            Waited::TimedOut if is_over() => Ended::TimedOut,
            Waited::TimedOut => Ended::Woken,
            Waited::Pending(_) => match self.pending() {
                Some(pending) => Ended::Failed(errno_of(pending)),
                None => Ended::Woken,
            },
        }
    }

    /// Waits in another way, because weald's own socket has the registration. From now on an epoll instance of the
    /// call's own tells, which is in the poller as any descriptor. If there can be none, the clock tells.
    #[cold]
    fn wait_instead(&mut self) -> Ended {
        let events = match self.direction {
            Direction::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Direction::Write => libc::EPOLLOUT,
        };
        let Some(mut set) = Set::new() else {
            self.untold = Some(Duration::ZERO);
            return Ended::Woken;
        };
        let mut wait = Wait::on_set(&set);
        if self.firm == Some(true) {
            wait.make_firm();
        }
        let members = Members::of_set(set.fd(), std::iter::once(self.fd));
        if !set.add(self.fd, events.cast_unsigned()) {
            return Ended::Unpollable;
        }
        self.instead = Some(Box::new((wait, members, set)));
        Ended::Woken
    }

    /// Waits for the epoll instance that replaces the registration, if there is one.
    fn wait_for_set(&mut self, closes: u32, until: Option<Instant>) -> Option<Ended> {
        let ended = self.instead.as_mut()?.0.wait(until);
        let is_open = self.slot.closes.load(Ordering::Acquire) == closes;
        if ended == Ended::Failed(libc::EBADF) && is_open {
            // The close was that of the file that had the number before, and it had begun before this wait. The next
            // wait makes a new set.
            self.instead = None;
            return Some(Ended::Woken);
        }
        Some(ended)
    }

    /// Returns an exception that is to end the call.
    fn pending(&mut self) -> Option<Pending> {
        let pending = patch::pending()?;
        let (fd, direction) = (self.fd, self.direction);
        let firm = *self
            .firm
            .get_or_insert_with(|| firm::is_firm(fd, direction));
        (!firm).then_some(pending)
    }
}
