//! The green threads of a connection's requests. None outlives the connection.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weald_scheduler::io::{WaitQueue, Woken};
use weald_scheduler::{Builder, GreenThread, JoinHandle};

#[derive(Debug, Default)]
struct Shared {
    /// The number of entries: threads that run or will run.
    live: AtomicUsize,
    ended: WaitQueue,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Counts a thread. The closure of the thread drops it last.
struct Entry(Arc<Shared>);

impl Drop for Entry {
    fn drop(&mut self) {
        // Pairs with the load in `Handlers::drop`.
        self.0.live.fetch_sub(1, Ordering::Release);
        self.0.ended.wake_all();
    }
}

/// Dropping this kills the threads that still run, and waits until they have ended. No exception is raised meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Handlers(Arc<Shared>);

impl Handlers {
    /// Starts a green thread of this connection.
    ///
    /// # Errors
    /// There is no memory for a thread; `body` was dropped.
    pub(crate) fn spawn(&self, body: impl FnOnce() + Send + 'static) -> io::Result<GreenThread> {
        self.0.live.fetch_add(1, Ordering::Relaxed);
        let entry = Entry(Arc::clone(&self.0));
        let thread = Builder::new().spawn(move || {
            let _entry = entry;
            body();
        })?;
        let handle = thread.thread().clone();
        let mut threads = self
            .0
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if threads.len() > 8 && threads.len() > 2 * self.live() {
            threads.retain(|thread| !thread.is_finished());
        }
        threads.push(thread);
        Ok(handle)
    }

    /// Returns how many threads have not ended.
    pub(crate) fn live(&self) -> usize {
        self.0.live.load(Ordering::Acquire)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        if self.live() == 0 {
            return;
        }
        let threads = std::mem::take(
            &mut *self
                .0
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for thread in &threads {
            thread.thread().kill();
        }
        while self.live() > 0 {
            let woken = self.0.ended.wait(|| self.live() == 0, None, false);
            debug_assert!(!matches!(woken, Woken::Interrupted(_)), "it is held");
        }
    }
}
