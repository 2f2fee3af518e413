//! A receive that says which pass of a select has chosen it.
#![allow(unsafe_code, reason = "as the arm inside")]

use weald_loom_tests::sync::Mutex;
use weald_loom_tests::witness;
use weald_scheduler::io::Selection;

use crate::channel::arm::RecvArm;
use crate::channel::{Receiver, RecvError};
use crate::message::Message;
use crate::selecting::{self, Arm, Limit};

/// A receive that says which pass has chosen it. The second field: it has chosen itself.
pub(crate) struct Seen<'a>(pub(crate) RecvArm<'a, Message>, bool);

impl<'a> Seen<'a> {
    pub(crate) fn new(receiver: &'a Receiver<Message>) -> Self {
        Self(RecvArm::new(receiver), false)
    }
}

// SAFETY: as the arm inside.
unsafe impl Arm for Seen<'_> {
    fn mutex(&self) -> Option<&Mutex<()>> {
        self.0.mutex()
    }

    unsafe fn try_commit(&mut self) -> bool {
        // SAFETY: by contract.
        let done = unsafe { self.0.try_commit() };
        witness!("under all locks", done);
        self.1 = done;
        done
    }

    fn try_alone(&mut self) -> bool {
        let done = self.0.try_alone();
        witness!("in the quick pass", done);
        self.1 = done;
        done
    }

    fn seems_ready(&self) -> bool {
        self.0.seems_ready()
    }

    unsafe fn is_ready(&self) -> bool {
        // SAFETY: by contract.
        unsafe { self.0.is_ready() }
    }

    unsafe fn register(&mut self, selection: &Selection, index: usize) {
        // SAFETY: by contract.
        unsafe { self.0.register(selection, index) };
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        // SAFETY: by contract.
        unsafe { self.0.watch(selection, index) };
    }

    unsafe fn forget(&mut self) {
        // SAFETY: by contract.
        unsafe { self.0.forget() };
    }

    fn settle(&mut self) -> bool {
        witness!("by a partner", !self.1);
        self.0.settle()
    }
}

/// How `Seen` arms are chosen.
pub(crate) const PASSES: &[&str] = &["in the quick pass", "under all locks", "by a partner"];

/// As `recv_either`, by arms that say which pass has chosen them.
pub(crate) fn recv_either_seen(
    a: &Receiver<Message>,
    b: &Receiver<Message>,
) -> (usize, Result<usize, RecvError>) {
    let (mut a, mut b) = (Seen::new(a), Seen::new(b));
    let arms: &mut [&mut dyn Arm] = &mut [&mut a, &mut b];
    let index = selecting::select(arms, Limit::Until(None), true).expect("it waits for ever");
    let chosen = if index == 0 { &mut a } else { &mut b };
    (index, chosen.0.finish().map(Message::read))
}
