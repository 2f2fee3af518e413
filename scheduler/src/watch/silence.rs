//! `on_deadlock`: if a runtime has been silent for long, the monitor asks here whether threads wait for each other for
//! ever.
//!
//! Only certain deadlocks are reported (`snapshot.rs`). So waits for locks of std under the patch, for channels, condition
//! variables and `park` are never reported here: an OS thread may end such a wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::dump::{self, Dump};
use super::snapshot::Snapshot;
use crate::engine::inner::Inner;
use crate::engine::settings::OnSilence;
use crate::green::trace::Tracer;

/// Whom to tell.
pub(crate) type OnDeadlock = Arc<dyn Fn(&Dump) + Send + Sync>;

/// For the monitor: it is asked in silence, and says whether it has told.
pub(crate) fn tells(on_deadlock: OnDeadlock) -> OnSilence {
    OnSilence(Arc::new(move |inner| {
        let Some(inner) = inner.downcast_ref::<Inner>() else {
            return false;
        };
        let is_stuck = || {
            let snapshot = Snapshot::take(inner, &Tracer::new());
            !inner.is_closing() && !snapshot.certain_circles().is_empty()
        };
        is_stuck() && tell(inner, &on_deadlock)
    }))
}

/// Calls what the user has given on an OS thread of its own: it may block, and the monitor must not.
fn tell(inner: &Inner, on_deadlock: &OnDeadlock) -> bool {
    let dump = dump::of(inner);
    if !dump.deadlocks.iter().any(|deadlock| deadlock.is_certain) {
        return false;
    }
    // The OS thread is no green thread of the caller's, whom hooks of libc may serve.
    #[cfg(not(loom))]
    let _bypass = crate::shim::bypass::Bypass::enter();
    let on_deadlock = Arc::clone(on_deadlock);
    let name = format!("{}-deadlock", inner.settings.thread_name);
    let told = thread::Builder::new().name(name).spawn(move || {
        let called = catch_unwind(AssertUnwindSafe(|| on_deadlock(&dump)));
        if called.is_err() {
            log::error!("weald: the closure of `on_deadlock` panicked");
        }
    });
    if let Err(error) = &told {
        log::error!(
            "weald: green threads wait for each other for ever, and there is no OS thread to tell of it: {error}"
        );
    }
    told.is_ok()
}
