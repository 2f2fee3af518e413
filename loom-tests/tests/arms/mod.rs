//! What the arms of a select are made of in models: ends of channels, something that becomes readable, something that ends.
#![allow(dead_code, reason = "each model takes what it needs")]

pub(crate) mod channels;
pub(crate) mod events;
pub(crate) mod seen;
pub(crate) mod timers;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicBool, Ordering};
use weald_scheduler::io::{Pollable, WaitQueue, Waitable};

use crate::channel::arm::{SendArm, Ticket};
use crate::channel::{Receiver, RecvError};
use crate::message::Message;
use crate::selecting::{self, Arm, Limit};

pub(crate) fn recv(receiver: &Receiver<Message>) -> Result<usize, RecvError> {
    receiver.recv().map(Message::read)
}

/// A send of a `select!`, chosen, and its message not made yet.
pub(crate) fn chosen_send<'a>(arm: &mut SendArm<'a, Message>) -> Ticket<'a, Message> {
    let chosen = selecting::select(&mut [&mut *arm as &mut dyn Arm], Limit::Until(None), true);
    assert_eq!(chosen, Some(0));
    arm.finish()
}

/// Something that becomes readable once, and stays so.
pub(crate) struct Socket {
    is_ready: AtomicBool,
    readers: WaitQueue,
}

impl Socket {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_ready: AtomicBool::new(false),
            readers: WaitQueue::new(),
        })
    }

    /// A message has come. Whoever reads it tells the next reader, as `net/src/source/mod.rs` does.
    pub(crate) fn becomes_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
        self.readers.wake_one();
    }

    /// As a read: waits until it is ready.
    pub(crate) fn read(&self) {
        while !self.is_ready() {
            self.readers.wait(|| self.is_ready(), None, false);
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }
}

impl Pollable for Socket {
    fn poll_now(&self, _writes: bool) -> std::io::Result<bool> {
        Ok(self.is_ready())
    }

    fn waiters(&self, _writes: bool) -> &WaitQueue {
        &self.readers
    }

    fn watch(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Something whose end is waited for.
pub(crate) struct Ending {
    is_over: AtomicBool,
    joiners: WaitQueue,
}

impl Waitable for Ending {
    fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn joiners(&self) -> &WaitQueue {
        &self.joiners
    }

    fn announce(&self) -> bool {
        self.has_ended()
    }
}

impl Ending {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_over: AtomicBool::new(false),
            joiners: WaitQueue::new(),
        })
    }

    /// As the end of a thread.
    pub(crate) fn ends(&self) {
        self.is_over.store(true, Ordering::Release);
        self.joiners.wake_all();
    }
}
