//! kqueue takes time-outs in nanoseconds, so there is nothing to do here.

use std::time::Duration;

/// kqueue takes time-outs in nanoseconds, so there is nothing to do here.
#[derive(Debug)]
pub(super) enum TimerFd {}

impl TimerFd {
    pub(super) fn new(_: &mio::Registry, _: mio::Token) -> Option<Self> {
        None
    }

    pub(super) fn arm(&self, _: Duration) -> bool {
        match *self {}
    }
}
