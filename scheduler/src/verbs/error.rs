//! The errors of a start.

use std::fmt;
use std::io;

/// Why [`RuntimeBuilder::install`](crate::RuntimeBuilder::install) failed.
///
/// # Examples
/// See [`RuntimeBuilder::install`](crate::RuntimeBuilder::install).
#[derive(Debug)]
pub struct InstallError(Kind);

#[derive(Debug)]
enum Kind {
    AlreadyRunning,
    Starting(io::Error),
}

impl InstallError {
    pub(crate) fn already_running() -> Self {
        Self(Kind::AlreadyRunning)
    }

    pub(crate) fn starting(error: io::Error) -> Self {
        Self(Kind::Starting(error))
    }

    /// A default runtime runs already.
    pub fn is_already_running(&self) -> bool {
        matches!(self.0, Kind::AlreadyRunning)
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::AlreadyRunning => f.write_str("a default runtime runs already"),
            Kind::Starting(error) => write!(f, "the runtime could not be started: {error}"),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::AlreadyRunning => None,
            Kind::Starting(error) => Some(error),
        }
    }
}

impl From<InstallError> for io::Error {
    fn from(error: InstallError) -> Self {
        match error.0 {
            Kind::AlreadyRunning => io::Error::other(error),
            Kind::Starting(error) => error,
        }
    }
}
