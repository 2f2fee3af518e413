//! Takes a permit, and waits for one. This is the left column of the table in `permits.rs`.
//!
//! Checked by `loom-tests/tests/permits.rs`.

use crate::engine::permits::{Permits, WAITER};
use crate::shim::atomic::Ordering;
use crate::wait::wait_queue::{Interrupt, Woken};

impl Permits {
    /// Waits until the caller has a permit.
    ///
    /// # Errors
    /// The exception that ended the wait.
    #[inline]
    pub(crate) fn take(&self) -> Result<(), Interrupt> {
        if self.try_take() {
            return Ok(());
        }
        self.wait()
    }

    #[cold]
    fn wait(&self) -> Result<(), Interrupt> {
        self.word.fetch_add(WAITER, Ordering::AcqRel);
        let result = loop {
            let mut has_taken = false;
            let woken = self.queue.wait(
                || {
                    has_taken = self.try_take();
                    has_taken
                },
                None,
                true,
            );
            match woken {
                Woken::Notified => {
                    if has_taken {
                        // The caller was handed a permit as well, and gives it back.
                        self.give();
                    }
                    break Ok(());
                }
                Woken::Ready => break Ok(()),
                Woken::Interrupted(interrupt) => break Err(interrupt),
                Woken::TimedOut | Woken::Again => {}
            }
        };
        self.word.fetch_sub(WAITER, Ordering::AcqRel);
        result
    }
}
