//! The values of `green_local!` that a thread has. `green_local.rs` makes them, `end.rs` drops them.

use std::any::Any;
use std::fmt;
use std::rc::Rc;

/// How often a thread's value of a key may be made anew while the thread ends: as often as pthread runs the
/// destructors of its keys (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const LIVES: u8 = 4;

/// A thread's values, in the order in which their keys were first used.
#[derive(Default)]
pub(crate) struct Locals {
    pub(crate) values: Vec<Entry>,
    /// How many of `values` are there.
    live: usize,
    /// The thread makes no more values, because it would not drop them.
    closed: bool,
}

pub(crate) struct Entry {
    pub(crate) key: usize,
    /// `None`: it was dropped.
    pub(crate) value: Option<Rc<dyn Any>>,
    /// How often it was dropped.
    ended: u8,
}

impl Locals {
    /// Refuses to make values from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// True: a value of this key may be put in, and none is there.
    pub(crate) fn admits(&self, key: usize) -> bool {
        let entry = self.values.iter().find(|entry| entry.key == key);
        !self.closed && entry.is_none_or(|entry| entry.ended < LIVES)
    }

    pub(crate) fn put(&mut self, key: usize, value: Rc<dyn Any>) {
        self.live += 1;
        match self.values.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.value = Some(value),
            None => self.values.push(Entry {
                key,
                value: Some(value),
                ended: 0,
            }),
        }
    }

    /// Takes the last value out.
    pub(crate) fn take_last(&mut self) -> Option<Rc<dyn Any>> {
        let mut values = self.values.iter_mut().rev();
        let entry = values.find(|entry| entry.value.is_some())?;
        self.live -= 1;
        entry.ended += 1;
        entry.value.take()
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locals({})", self.live)
    }
}
