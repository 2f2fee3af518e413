//! The runtimes of the process, for reports about all of them.

use std::sync::{PoisonError, Weak};

use crate::engine::inner::Inner;
use crate::shim::plain::Mutex;
use crate::shim::sync::Arc;

static ALL: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// A runtime has started.
pub(crate) fn enter(inner: &Arc<Inner>) {
    let _bypass = crate::shim::bypass::Bypass::enter();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|runtime| runtime.strong_count() > 0);
    all.push(Arc::downgrade(inner));
}

/// Those that have not ended.
pub(crate) fn all() -> Vec<Arc<Inner>> {
    let _bypass = crate::shim::bypass::Bypass::enter();
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).collect()
}
