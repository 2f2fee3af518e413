//! What is asked of a new green thread.

use crate::parts::coroutine::Control;

/// What a new thread is to be like.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub(crate) struct Request {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) pinned: bool,
    /// The worker that it starts on.
    pub(crate) worker: Option<u16>,
    pub(crate) patched: Option<bool>,
    /// A running thread waits for it in `join`: it runs also in a runtime that closes.
    pub(crate) is_half: bool,
    /// Another worker is to run it.
    pub(crate) is_for_others: bool,
    /// Its body is only to be dropped, as if it were killed before it began.
    pub(crate) is_doomed: bool,
    /// The floating-point control that it begins with, if not the caller's.
    pub(crate) control: Option<Control>,
}
