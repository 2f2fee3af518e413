//! How many calls may block their OS thread at a time: permits for each kind of call. `blocking.rs` has the rules.

use crate::engine::permits::Permits;

/// How long a call may block its OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// It ends soon, by itself.
    Briefly,
    /// Another green thread may have to act first, or nobody knows.
    UntilOthersAct,
}

/// More calls at a time do not make a disk faster. tokio has the same bound.
const BRIEF_CALLS: usize = 512;

/// Permits for both kinds of calls.
#[derive(Debug)]
pub(crate) struct Blocking {
    brief: Permits,
    long: Permits,
}

impl Blocking {
    pub(crate) fn new(spares: usize) -> Self {
        Self {
            brief: Permits::new(spares.min(BRIEF_CALLS)),
            long: Permits::new(spares),
        }
    }

    /// Green threads that wait for a permit of the second kind: as many of those calls as are allowed run.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.long.waiting()
    }

    pub(crate) fn permits(&self, lasts: Lasts) -> &Permits {
        match lasts {
            Lasts::Briefly => &self.brief,
            Lasts::UntilOthersAct => &self.long,
        }
    }
}
