//! The reasons why there is no carrier for a seat.

use std::fmt;

/// Why there is no carrier for one more seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The runtime stops.
    Stopping,
    /// The bound is reached: so many carriers are in use.
    Bound(usize),
    /// The system has refused an OS thread.
    Refused(String),
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("the runtime stops"),
            Self::Bound(bound) => write!(
                f,
                "all {bound} OS threads are in use (`RuntimeBuilder::spare_threads` is the bound)"
            ),
            Self::Refused(error) => write!(f, "the system refuses an OS thread: {error}"),
        }
    }
}
