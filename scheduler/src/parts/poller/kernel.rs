//! The kernel's part of a poller, by mio.
#![allow(unsafe_code, reason = "tokens that are addresses of slots")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::event::{Readiness, tell};
use super::timer_fd::TimerFd;

/// Sleeps that end sooner than this are timed by the timerfd: mio may be a millisecond late, and
/// beyond this that is less than a quarter of the sleep.
const FINE: Duration = Duration::from_millis(4);

/// How many events the owner takes at once. Go takes 128, tokio 1024. With this number, the memory that is touched for
/// them is still in the cache when the last of the woken threads runs.
const BATCH: usize = 64;
/// How many events an adopter takes at once. While it has them, no other worker can make their threads ready.
const ADOPTED_BATCH: usize = 16;

const WAKE: usize = 0;
const TIMER: usize = 1;

#[derive(Debug)]
pub(super) struct Polling {
    poll: Poll,
    events: Events,
    adopted: Events,
    timer: Option<TimerFd>,
}

#[derive(Debug)]
pub(super) struct Waker(mio::Waker);

impl Waker {
    pub(super) fn wake(&self) {
        let _bypass = crate::shim::bypass::Bypass::enter();
        // If the counter is full, a wake-up is on its way already.
        let _ = self.0.wake();
    }
}

#[derive(Debug)]
pub(super) struct Registry(mio::Registry, RawFd);

impl Registry {
    fn interest() -> Interest {
        let interest = Interest::READABLE | Interest::WRITABLE;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = interest | Interest::PRIORITY;
        interest
    }

    /// `may_be_armed`: `arm` may have put the descriptor in already. Returns whether it had.
    pub(super) fn register(&self, fd: RawFd, token: usize, may_be_armed: bool) -> io::Result<bool> {
        let interest = Self::interest();
        match self.add(fd, token, interest) {
            Err(error) if may_be_armed && error.kind() == io::ErrorKind::AlreadyExists => {
                self.again(fd, token, interest).map(|()| true)
            }
            result => result.map(|()| false),
        }
    }

    pub(super) fn arm(&self, fd: RawFd, token: usize, interest: u8) -> io::Result<()> {
        let has = |bit| interest & bit != 0;
        let interest = match (has(Readiness::READABLE), has(Readiness::WRITABLE)) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            _ => Interest::READABLE,
        };
        match self.again(fd, token, interest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.add(fd, token, interest),
            result => result,
        }
    }

    fn add(&self, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.0.register(&mut SourceFd(&fd), Token(token), interest)
    }

    fn again(&self, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.0
            .reregister(&mut SourceFd(&fd), Token(token), interest)
    }

    pub(super) fn deregister(&self, fd: RawFd) -> io::Result<()> {
        self.0.deregister(&mut SourceFd(&fd))
    }

    /// The poller's own.
    pub(super) fn descriptor(&self) -> RawFd {
        self.1
    }

    /// A poller's descriptor is readable while events lie in it: epoll(7), kqueue(2).
    pub(super) fn has_events(&self) -> bool {
        let mut fd = libc::pollfd {
            fd: self.1,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry; it does not wait.
        unsafe { libc::poll(&raw mut fd, 1, 0) > 0 }
    }
}

pub(super) fn new() -> io::Result<(Polling, Waker, Registry)> {
    let poll = Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), Token(WAKE))?;
    let registry = Registry(poll.registry().try_clone()?, poll.as_raw_fd());
    // Without a timerfd, short sleeps end up to a millisecond late.
    let timer = TimerFd::new(poll.registry(), Token(TIMER));
    let turn = Polling {
        poll,
        events: Events::with_capacity(BATCH),
        adopted: Events::with_capacity(ADOPTED_BATCH),
        timer,
    };
    Ok((turn, Waker(waker), registry))
}

impl Polling {
    /// Waits and hands the events on. Returns how many there were.
    pub(super) fn wait(&mut self, limit: Option<Duration>, sleep: bool) -> usize {
        let mut limit = limit;
        if sleep
            && let Some(left) = limit
            && left < FINE
            && !left.is_zero()
            && let Some(timer) = &self.timer
            && timer.arm(left)
        {
            // If something else ends the sleep, the timer stays armed: to disarm it costs a system call, and
            // its later event costs at most one look that finds nothing.
            limit = None;
        }
        // A signal, or an error that only a broken program gets: the worker looks again.
        if self.poll.poll(&mut self.events, limit).is_err() {
            return 0;
        }
        hand_on(&self.events).0
    }

    pub(super) fn adopt(&mut self) -> (usize, bool) {
        if self
            .poll
            .poll(&mut self.adopted, Some(Duration::ZERO))
            .is_err()
        {
            return (0, false);
        }
        hand_on(&self.adopted)
    }
}

/// Returns how many events were handed on, and whether the wake-up event was among them.
fn hand_on(events: &Events) -> (usize, bool) {
    let mut count = 0;
    let mut woken = false;
    for event in events {
        match event.token() {
            Token(WAKE) => woken = true,
            Token(TIMER) => {}
            Token(token) => {
                count += 1;
                // SAFETY: all other tokens were made by `token`.
                unsafe { tell(token, readiness(event)) };
            }
        }
    }
    (count, woken)
}

fn readiness(event: &mio::event::Event) -> Readiness {
    let mut bits = 0;
    let reports = [
        (event.is_readable(), Readiness::READABLE),
        (event.is_writable(), Readiness::WRITABLE),
        (event.is_read_closed(), Readiness::READ_CLOSED),
        (event.is_write_closed(), Readiness::WRITE_CLOSED),
        (event.is_error(), Readiness::ERROR),
        (event.is_priority(), Readiness::PRIORITY),
    ];
    for (is, bit) in reports {
        if is {
            bits |= bit;
        }
    }
    Readiness(bits)
}
