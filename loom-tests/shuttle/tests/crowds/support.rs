//! What all crowds need: a runtime, threads, pauses, and counters of what was begun and has ended.

use std::time::Duration;

use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicUsize;
use shuttle::sync::atomic::Ordering::SeqCst;
use weald::{Exception, JoinHandle, Killed, Runtime, ThreadLocals};
use weald_shuttle_tests::random::{below, one_in};

/// Of whatever length: the clock stands still unless somebody waits until a limit.
pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) fn runtime() -> Runtime {
    let builder = Runtime::builder().workers(3).spare_threads(2);
    let builder = if one_in(2) {
        builder.thread_locals(ThreadLocals::Pinned)
    } else {
        // SAFETY: nothing here is kept in thread-locals.
        unsafe { builder.share_thread_locals() }
    };
    builder.build().expect("it starts")
}

/// So many threads that run `body`, each with its number.
pub(crate) fn crowd<T: Send + 'static>(
    rt: &Runtime,
    size: usize,
    body: impl Fn(usize) -> T + Clone + Send + 'static,
) -> Vec<JoinHandle<T>> {
    (0..size)
        .map(|number| {
            let body = body.clone();
            rt.spawn(move || body(number))
        })
        .collect()
}

/// Now and then the others get a turn, or the caller waits for a moment.
pub(crate) fn pause() {
    match below(9) {
        0 | 1 => weald::yield_now(),
        2 => weald::checkpoint(),
        3 => weald::sleep(MS),
        4 => weald::park_timeout(MS),
        _ => {}
    }
}

#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, SeqCst)
    }

    pub(crate) fn sub(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Counts when it is dropped.
    pub(crate) fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

pub(crate) struct OnDrop(Count);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// While it lives, one more is inside.
pub(crate) struct Inside(Count);

impl Inside {
    pub(crate) fn enter(count: &Count, at_most: usize) -> Self {
        assert!(count.add() < at_most, "more than may be");
        Self(count.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.sub();
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) usize);

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mark {}", self.0)
    }
}

impl std::error::Error for Mark {}

pub(crate) fn was_killed<T>(outcome: &std::thread::Result<T>) -> bool {
    let exception = |payload: &Box<dyn std::any::Any + Send>| {
        let exception = payload.downcast_ref::<Exception>();
        exception.is_some_and(|exception| exception.downcast_ref::<Killed>().is_some())
    };
    outcome.as_ref().err().is_some_and(exception)
}
