//! Lines of the log that clients can cause. At most one line a second is written, with the number of lines left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time between two lines.
const QUIET: Duration = Duration::from_secs(1);

/// Lets one line through in each second.
#[derive(Debug)]
pub(crate) struct Quiet {
    /// When the last line was written, and how many lines were left out since.
    last: Mutex<(Option<Instant>, u64)>,
}

impl Quiet {
    pub(crate) const fn new() -> Self {
        Self {
            last: Mutex::new((None, 0)),
        }
    }

    /// Returns the line that may be written now, with the number of lines left out. `None`: it is too early.
    fn let_through(&self, text: &str, now: Instant) -> Option<String> {
        let mut inner = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, others) = &mut *inner;
        if last.is_some_and(|last| now.duration_since(last) < QUIET) {
            *others += 1;
            return None;
        }
        *last = Some(now);
        Some(match std::mem::take(others) {
            0 => format!("weald-http: {text}"),
            others => format!("weald-http: {text} (and {others} more since the last message)"),
        })
    }

    /// Writes a line to the log, or counts it.
    pub(crate) fn say(&self, level: log::Level, text: &str) {
        if let Some(line) = self.let_through(text, Instant::now()) {
            log::log!(target: "weald_http", level, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{QUIET, Quiet};
    use std::time::Instant;

    #[test]
    fn one_line_a_second_tells_how_many_there_were() {
        let quiet = Quiet::new();
        let now = Instant::now();
        let line = |text, at| quiet.let_through(text, at);
        assert_eq!(line("a", now).as_deref(), Some("weald-http: a"));
        assert_eq!(line("b", now + QUIET / 2), None);
        assert_eq!(line("c", now + QUIET / 2), None);
        let told = "weald-http: d (and 2 more since the last message)";
        assert_eq!(line("d", now + QUIET).as_deref(), Some(told));
        assert_eq!(line("e", now + 2 * QUIET).as_deref(), Some("weald-http: e"));
    }
}
