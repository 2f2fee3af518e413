//! What the flight recorder has recorded, as programs see it. `story.rs` makes it of the recorder's pages.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::green::awaited::Awaited;
use crate::green::id::GreenThreadId;

/// Why a wait has ended; see [`What::Wake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Another green thread has ended it, or has ended itself.
    Thread,
    /// An OS thread that runs no green threads.
    OsThread,
    /// The system: a descriptor is ready.
    Event,
    /// Its time has come.
    Timer,
    /// An exception was raised in the thread.
    Exception,
    /// It had ended before the thread had left its stack. By whom is not known.
    Early,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Thread => "a green thread",
            Self::OsThread => "an OS thread",
            Self::Event => "an event",
            Self::Timer => "a timer",
            Self::Exception => "an exception",
            Self::Early => "somebody, early",
        })
    }
}

/// What has happened; see [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The thread was made.
    #[non_exhaustive]
    Spawn {
        /// The green thread that has made it.
        by: Option<GreenThreadId>,
        /// Where it was spawned, if by a function `spawn`.
        site: Option<&'static Location<'static>>,
    },
    /// The thread begins, or goes on, to run.
    Run,
    /// The thread gives way: others run first.
    Yield,
    /// The thread waits.
    #[non_exhaustive]
    Park {
        /// For what.
        what: Awaited,
    },
    /// The thread's wait has ended: it is ready to run.
    #[non_exhaustive]
    Wake {
        /// The green thread that has ended the wait.
        by: Option<GreenThreadId>,
        /// Why it has ended.
        cause: Cause,
    },
    /// The thread has ended.
    End,
    /// The worker has taken the thread from another worker's queue.
    #[non_exhaustive]
    Steal {
        /// The other worker.
        from: usize,
    },
    /// The worker has looked at its poller.
    #[non_exhaustive]
    Poll {
        /// How many events there were.
        events: usize,
    },
    /// The worker has nothing to do and goes to sleep.
    Sleep,
    /// The worker wakes up.
    #[non_exhaustive]
    Awake {
        /// How many events there were.
        events: usize,
    },
    /// The worker was taken from the OS thread, whose green thread blocks or computes. The event is about the worker;
    /// it may have been recorded by another OS thread.
    HandOver,
    /// The thread has kept its OS thread for so long without a blocking call of weald's, and still does.
    #[non_exhaustive]
    Hog {
        /// For how long.
        lasts: Duration,
    },
    /// An exception is raised in the thread.
    Exception,
    /// A panic has ended the thread.
    Panic,
    /// A [`mark`](crate::trace::mark).
    #[non_exhaustive]
    Mark {
        /// Its label.
        label: Box<str>,
    },
    /// A [`span`](crate::trace::span) begins.
    #[non_exhaustive]
    Begin {
        /// Its label.
        label: Box<str>,
    },
    /// The last span of the thread that has begun, and has not ended, ends.
    Finish,
}

/// One event of a [`Recording`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When: since the recorder was switched on.
    pub time: Duration,
    /// The OS thread that has recorded it, by a number that is good for this recording; `None`: one that is no carrier
    /// of green threads, such as the program's first one.
    pub os_thread: Option<usize>,
    /// The runtime of that OS thread, or of the worker that the event is about, by a number that is good in this process.
    pub runtime: Option<usize>,
    /// The worker whose place that OS thread had; or the worker that the event is about.
    pub worker: Option<usize>,
    /// The green thread that it is about. `None`: it is about a worker, or about an OS thread that runs no green
    /// threads.
    pub thread: Option<GreenThreadId>,
    /// What has happened.
    pub what: What,
    /// The OS thread of a hand-over.
    #[cfg_attr(loom, allow(dead_code, reason = "a model records nothing"))]
    pub(super) lost_by: Option<usize>,
}

/// What the recorder has recorded: the last events of all runtimes; from [`snapshot`](crate::trace::snapshot) and
/// [`stop`](crate::trace::stop).
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub(super) events: Vec<Event>,
    pub(super) names: HashMap<GreenThreadId, Arc<str>>,
    pub(super) runtimes: HashMap<usize, String>,
    pub(super) lost: u64,
    pub(super) started: Option<SystemTime>,
    /// What `CLOCK_BOOTTIME`, or the clock that is most like it, showed when the recorder was switched on.
    #[cfg_attr(loom, allow(dead_code, reason = "a model records nothing"))]
    pub(super) since_boot: Duration,
}

impl Recording {
    /// The events, in the order of their times. The clocks of two cores may differ by some nanoseconds.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// There are no events: the recorder was off, or nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// About how many events were lost because no memory was free; not those that later ones have overwritten.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The name of a green thread, if it was given one and is still there or has begun or ended in the recorded time.
    pub fn name(&self, thread: GreenThreadId) -> Option<&str> {
        self.names.get(&thread).map(|name| &**name)
    }

    /// The name of a runtime, by [`Event::runtime`].
    pub fn runtime(&self, number: usize) -> Option<&str> {
        self.runtimes.get(&number).map(String::as_str)
    }

    /// When the recorder was switched on. `None`: the recording is that of a recorder that was off.
    pub fn started(&self) -> Option<SystemTime> {
        self.started
    }
}
