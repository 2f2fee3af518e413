//! The part of a header that only its own thread touches: running timeouts, the state of its exceptions, its
//! `green_local!`s.
//! `pending.rs` has the rules.

use std::any::Any;
use std::time::Instant;

use crate::green::locals::Locals;

/// One `timeout` on the thread's stack.
#[derive(Debug)]
pub(crate) struct TimeoutFrame {
    pub(crate) id: u64,
    /// `None`: it never passes.
    pub(crate) deadline: Option<Instant>,
    /// Its exception was raised.
    pub(crate) raised: bool,
    /// Its limit passed while a call of patched code waited. The call had to fail, or to go on waiting.
    pub(crate) reported: bool,
}

/// A thread's own part: its deadlines, the state of its exceptions, its locals.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// The `timeout`s around the running code, outermost first.
    pub(crate) frames: Vec<TimeoutFrame>,
    /// The earliest deadline of the inbox's alarms when it was last looked at; it may be too early.
    pub(crate) alarm: Option<Instant>,
    /// The earlier of `alarm` and of the frames' deadlines that were not raised.
    pub(crate) earliest: Option<Instant>,
    /// The number for the next frame or alarm.
    pub(crate) next: u64,
    pub(crate) kill_raised: bool,
    /// The exception of a frame was raised, and the frame is still there.
    pub(crate) timeout_raised: bool,
    /// Above zero while exceptions are held: only timeouts that were entered since are raised.
    pub(crate) hold: u32,
    /// How many of `frames` are held: those that were there when the hold began.
    pub(crate) held: usize,
    /// Above zero while a `blocking` closure runs.
    pub(crate) blocking: u32,
    /// Above zero while `defer` runs: exceptions stay pending.
    pub(crate) defers: u32,
    /// Above zero while `on_os_thread` runs, in which nothing may wait.
    pub(crate) never_waits: u32,
    /// A call of patched code has failed because of an exception that is not a timeout's, and the exception has not
    /// been raised yet.
    pub(crate) reported: bool,
    pub(crate) locals: Locals,
    /// The result of a thread that cannot start. Until the thread starts, it belongs to the holder of the running
    /// reference.
    pub(crate) payload: Option<Box<dyn Any + Send>>,
}

impl Local {
    pub(crate) fn find_earliest(&mut self) {
        let frame = self
            .frames
            .iter()
            .filter(|s| !s.raised)
            .filter_map(|s| s.deadline)
            .min();
        self.earliest = match (frame, self.alarm) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Enters a `timeout`.
    pub(crate) fn push_scope(&mut self, deadline: Option<Instant>) -> u64 {
        let id = self.number();
        self.frames.push(TimeoutFrame {
            id,
            deadline,
            raised: false,
            reported: false,
        });
        if let Some(deadline) = deadline {
            self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        }
        id
    }

    /// Leaves the innermost `timeout`. True: its exception was raised, or reported to patched code.
    pub(crate) fn pop_scope(&mut self, id: u64) -> bool {
        let frame = self.frames.pop().expect("timeouts nest");
        debug_assert_eq!(frame.id, id, "timeouts nest");
        if frame.deadline.is_some() {
            self.find_earliest();
        }
        if self.timeout_raised {
            self.timeout_raised = self.frames.iter().any(|s| s.raised);
        }
        frame.raised || frame.reported
    }

    pub(crate) fn begin_defer(&mut self) {
        self.defers += 1;
    }

    pub(crate) fn end_defer(&mut self) {
        self.defers -= 1;
    }

    pub(crate) fn begin_hold(&mut self) {
        if self.hold == 0 {
            self.held = self.frames.len();
        }
        self.hold += 1;
    }

    pub(crate) fn end_hold(&mut self) {
        self.hold -= 1;
    }

    /// An alarm of the thread's own is gone, and `next` is the earliest one now.
    pub(crate) fn set_alarm(&mut self, next: Option<Instant>) {
        if self.alarm != next {
            self.alarm = next;
            self.find_earliest();
        }
    }

    /// Whether there is something to look at before or after a wait.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.earliest.is_none() && !self.kill_raised && !self.timeout_raised
    }
}
