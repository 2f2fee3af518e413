//! The OS threads of a runtime, each until it has been joined.
//!
//! An OS thread that ends while the runtime lives (a spare carrier that retires) joins the one that retired before
//! it, and leaves its own handle for the next. So at most one of them waits to be joined, no other thread has to
//! wait for them, and the system gets their stacks back. Spare carriers are lean (`shim/lean.rs`).
//!
//! Invariant: the handle of an OS thread that was started is here, or with the thread that joins it. A thread is
//! entered under the lock under which it is started. So it finds its own handle when it retires, and `join_all`
//! meets all threads that were started before the last thread ended that could start one.
//! Checked by `loom-tests/tests/threads.rs`.

use std::collections::BTreeMap;
use std::io;

use crate::shim::os_threads::{self, Handle};
use crate::shim::sync::Mutex;

/// Which OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    Monitor,
    /// One of the first carriers, of which there are as many as workers.
    Carrier(usize),
    /// Any other carrier.
    Spare(usize),
    /// The OS thread of a green thread that has one for itself.
    Own(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Handles>);

#[derive(Debug, Default)]
struct Handles {
    running: BTreeMap<Which, Handle>,
    retired: Option<Handle>,
}

impl Threads {
    /// Starts an OS thread with a name.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(
        &self,
        which: Which,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.start_by(which, || match which {
            Which::Spare(_) => os_threads::spawn_lean(name, body),
            Which::Monitor | Which::Carrier(_) | Which::Own(_) => os_threads::spawn(name, body),
        })
    }

    /// As `start`, by the function that is given.
    ///
    /// # Errors
    /// Those of that function.
    pub(crate) fn start_by(
        &self,
        which: Which,
        start: impl FnOnce() -> io::Result<Handle>,
    ) -> io::Result<()> {
        let mut handles = self.0.lock();
        let handle = start()?;
        let before = handles.running.insert(which, handle);
        debug_assert!(before.is_none(), "it has retired, or was never there");
        Ok(())
    }

    /// The calling OS thread, which is this one, is about to end.
    pub(crate) fn retire(&self, which: Which) -> Retired {
        let mut handles = self.0.lock();
        let own = handles.running.remove(&which);
        if fault!("thread_retires_unknown") {
            return Retired(None);
        }
        Retired(std::mem::replace(&mut handles.retired, own))
    }

    /// Waits until all have ended, including those that others of them start meanwhile.
    pub(crate) fn join_all(&self) {
        loop {
            let Handles { running, retired } = std::mem::take(&mut *self.0.lock());
            if running.is_empty() && retired.is_none() {
                return;
            }
            for handle in running.into_values().chain(retired) {
                handle.join();
            }
        }
    }
}

/// An OS thread that has retired before and is to be joined.
#[derive(Debug)]
#[must_use = "it has not been joined yet"]
pub(crate) struct Retired(Option<Handle>);

impl Retired {
    pub(crate) fn join(self) {
        if let Some(handle) = self.0 {
            handle.join();
        }
    }
}
