//! How many calls may block their OS thread at a time: permits for each kind of call. `blocking.rs` has the rules.

use crate::engine::permits::Permits;

/// What ends a call that blocks its OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// It ends by itself, soon.
    Briefly,
    /// Another green thread may have to do something first; or nobody knows.
    UntilOthersAct,
}

/// More calls than this gain nothing from a disk; tokio's bound on the threads that do such calls.
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

    /// Green threads that wait until one of the calls ends that may last until others act: as many as there
    /// may be run.
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
