//! The runtimes that are reported on, and their dumps.
//!
//! A dump of many green threads takes some tenths of a second. So one dump is made at a time, and requests that come within
//! [`FRESH`] share it: many clients cost as much as one.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use weald::sync::Mutex;
use weald::{Dump, RuntimeHandle};

/// For so long a dump is given to further clients.
const FRESH: Duration = Duration::from_millis(200);

/// A runtime and its dump.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub(crate) runtime: RuntimeHandle,
    pub(crate) dump: Dump,
}

#[derive(Debug)]
pub(crate) struct Watched {
    /// The console's own runtime, which is left out.
    own: RuntimeHandle,
    last: Mutex<Option<(Instant, Arc<Vec<Dumped>>)>>,
}

impl Watched {
    pub(crate) fn new(own: RuntimeHandle) -> Self {
        Self {
            own,
            last: Mutex::new(None),
        }
    }

    /// The runtimes of the program.
    pub(crate) fn runtimes(&self) -> Vec<RuntimeHandle> {
        let mut runtimes = weald::runtimes();
        // Each console has a runtime of this name.
        runtimes.retain(|runtime| runtime.name() != self.own.name());
        runtimes
    }

    /// Dumps of all runtimes.
    pub(crate) fn dumps(&self) -> Arc<Vec<Dumped>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, dumps)) = &*last
            && taken.elapsed() < FRESH
        {
            return Arc::clone(dumps);
        }
        let dumps = self.dumps_now();
        *last = Some((Instant::now(), Arc::clone(&dumps)));
        dumps
    }

    /// The same, never older than the call.
    pub(crate) fn dumps_now(&self) -> Arc<Vec<Dumped>> {
        let runtimes = self.runtimes();
        // It computes, and the console's other clients go on meanwhile.
        weald::blocking(|| {
            let dumps = runtimes.into_iter().filter_map(|runtime| {
                let dump = runtime.dump()?;
                Some(Dumped { runtime, dump })
            });
            Arc::new(dumps.collect())
        })
    }
}
