//! One call of a trace.

use std::fmt;

/// One call of a [`Trace`](crate::Trace); from [`Trace::frames`](crate::Trace::frames).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Frame {
    /// Where the thread left, or where the call returns to.
    pub address: usize,
    /// The function's name, if the program has symbols.
    pub function: Option<String>,
    /// The file, if the program has debug information.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u32>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{:#x}", self.address)?,
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " at {file}:{line}"),
            _ => Ok(()),
        }
    }
}
