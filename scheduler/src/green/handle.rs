//! What users hold of a thread: its number and name, and the right to act on it. `wake.rs` unparks it, `exception/raise.rs`
//! raises exceptions in it.

use std::fmt;

use crate::green::green_thread::Task;
use crate::green::id::GreenThreadId;

/// A handle to a thread, green or not: whom to wake, or to raise an exception in.
///
/// It keeps nothing alive but a small record: the thread may have ended. Cloning it is cheap.
///
/// # Examples
/// ```
/// let rt = weald::Runtime::builder().workers(1).build()?;
/// rt.run(|| {
///     let waiter = weald::spawn(|| weald::park());
///     waiter.thread().unpark();
///     waiter.join().unwrap();
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct GreenThread(pub(crate) Task);

impl GreenThread {
    pub(crate) fn has_ended(&self) -> bool {
        self.0.state.is_done()
    }

    /// The thread's number.
    pub fn id(&self) -> GreenThreadId {
        self.0.id
    }

    /// The thread's name, as given to [`Builder::name`](crate::Builder::name).
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }
}

impl fmt::Debug for GreenThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenThread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
