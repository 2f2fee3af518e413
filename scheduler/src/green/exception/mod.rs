//! The exceptions of a thread, as they lie in its memory; `wait/exception/` has the rules.

mod alarms;
mod inbox;
mod kinds;
mod local;

pub(crate) use self::alarms::AlarmKey;
pub(crate) use self::inbox::Inbox;
pub(crate) use self::kinds::{BoxError, Tag, is_kill};
pub use self::kinds::{Elapsed, Exception, Killed};
pub(crate) use self::local::{Local, TimeoutFrame};
