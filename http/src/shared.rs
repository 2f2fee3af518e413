//! What the connections of a server share, apart from its handler.

use crate::limits::Limits;
use crate::metrics::{Counts, Metrics};
use crate::quiet::Quiet;
use crate::registry::Registry;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    pub(crate) counts: Counts,
    /// A client that has closed its sending side still waits for its answer.
    pub(crate) half_close: bool,
    /// Whether answers are told to the log.
    pub(crate) access_log: bool,
    complained: Quiet,
}

impl Shared {
    pub(crate) fn new(limits: Limits, half_close: bool, access_log: bool) -> Self {
        Self {
            registry: Registry::default(),
            limits,
            counts: Counts::default(),
            half_close,
            access_log,
            complained: Quiet::new(),
        }
    }

    /// Writes a line to the log about a client that has met a limit, once a second at most.
    pub(crate) fn complain(&self, text: &str) {
        self.complained.say(log::Level::Warn, text);
    }

    /// Returns what the server has done so far.
    pub(crate) fn metrics(&self) -> Metrics {
        self.counts.metrics(self.registry.connections())
    }
}
