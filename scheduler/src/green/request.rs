//! What the spawner asks of a new green thread.

use std::sync::mpsc::Sender;

use crate::green::green_thread::Task;
use crate::parts::coroutine::Control;

/// Where a new thread is to start.
#[derive(Debug, Default)]
pub(crate) enum Start {
    /// On any worker.
    #[default]
    Anywhere,
    /// On that worker.
    Worker(u16),
    /// On that OS thread, which waits for it and is its own (`run/own_thread.rs`).
    OwnThread(Sender<Task>),
}

impl Start {
    /// The worker on which the thread must start. `None`: any.
    #[inline]
    pub(crate) fn worker(&self) -> Option<u16> {
        match self {
            Self::Worker(worker) => Some(*worker),
            Self::Anywhere | Self::OwnThread(_) => None,
        }
    }

    #[inline]
    pub(crate) fn is_own_thread(&self) -> bool {
        matches!(self, Self::OwnThread(_))
    }
}

/// The properties of a new thread.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub(crate) struct Request {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) pinned: bool,
    pub(crate) start: Start,
    pub(crate) patched: Option<bool>,
    /// A running thread waits for it in `join`. So it runs even in a runtime that closes.
    pub(crate) is_half: bool,
    /// It is meant for another worker.
    pub(crate) is_for_others: bool,
    /// A limit that another thread has, a `timeout` around a `group` or a `join` for instance, may end it by a kill. So no wait of
    /// it is one for ever.
    pub(crate) is_under_limit: bool,
    /// It only drops its body, as if it were killed before it began.
    pub(crate) is_doomed: bool,
    /// The floating-point control with which it begins. `None`: the caller's.
    pub(crate) control: Option<Control>,
}
