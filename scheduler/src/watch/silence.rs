//! `on_deadlock`: if a runtime has been silent for long, its monitor has an OS thread look here whether green threads wait for each other
//! for ever.
//!
//! Only certain deadlocks are reported (`snapshot.rs`). So waits for locks of std under the patch, for channels, condition
//! variables and `park` are never reported here: an OS thread may end such a wait.
//!
//! The look and the dump take long if there are many threads. So they are made on an OS thread that lives as long as they take: the
//! monitor goes on looking after the workers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc as StdArc;
use std::thread;

use super::dump::{self, Dump};
use super::snapshot::Snapshot;
use crate::engine::inner::Inner;
use crate::engine::settings::{Answer, OnSilence};
use crate::green::trace::Tracer;
use crate::shim::sync::Arc;

/// What the user wants called.
pub(crate) type OnDeadlock = StdArc<dyn Fn(&Dump) + Send + Sync>;

/// For the monitor: it calls this in silence.
pub(crate) fn tells(on_deadlock: OnDeadlock) -> OnSilence {
    OnSilence(StdArc::new(move |inner, answer| {
        if let Some(inner) = inner.downcast_ref::<Arc<Inner>>() {
            look_beside(inner, &on_deadlock, answer);
        }
    }))
}

/// Looks on an OS thread of its own, and tells there. It may block.
fn look_beside(inner: &Arc<Inner>, on_deadlock: &OnDeadlock, answer: &Answer) {
    // The OS thread is no green thread of the caller's, whom hooks of libc may serve.
    #[cfg(not(loom))]
    let _bypass = crate::shim::bypass::Bypass::enter();
    let name = format!("{}-deadlock", inner.settings.thread_name);
    let (inner, on_deadlock, ends) = (
        Arc::clone(inner),
        StdArc::clone(on_deadlock),
        answer.clone(),
    );
    let started = thread::Builder::new().name(name).spawn(move || {
        let dump = find(&inner);
        // What follows is the user's, and may never end.
        drop(inner);
        ends.end(dump.is_some());
        if let Some(dump) = dump {
            let called = catch_unwind(AssertUnwindSafe(|| on_deadlock(&dump)));
            if called.is_err() {
                log::error!("weald: the closure of `on_deadlock` panicked");
            }
        }
    });
    if let Err(error) = started {
        answer.end(false);
        log::error!("weald: there is no OS thread to look for deadlocks: {error}");
    }
}

/// A dump with a certain deadlock, if there is one.
fn find(inner: &Inner) -> Option<Dump> {
    let snapshot = Snapshot::take(inner, &Tracer::new());
    if inner.is_closing() || snapshot.certain_circles().is_empty() {
        return None;
    }
    drop(snapshot);
    let dump = dump::of(inner);
    let is_certain = dump.deadlocks.iter().any(|deadlock| deadlock.is_certain);
    is_certain.then_some(dump)
}
