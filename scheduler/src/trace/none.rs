//! Where no traces are taken.

use std::fmt;

use super::Trace;
use crate::green_thread::Header;

#[inline(always)]
pub(super) fn here() -> Option<[usize; 3]> {
    None
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, addresses: &[usize]) -> fmt::Result {
    addresses
        .iter()
        .try_for_each(|address| writeln!(f, "    {address:#x}"))
}

/// Takes none.
#[derive(Debug)]
pub(crate) struct Tracer;

impl Tracer {
    pub(crate) fn new() -> Self {
        Self
    }

    #[allow(clippy::unused_self, reason = "as where traces are taken")]
    pub(crate) fn take_suspended(&mut self, _: &Header) -> Trace {
        Trace::default()
    }

    #[allow(clippy::unused_self, reason = "as where traces are taken")]
    pub(crate) fn take(&mut self, _: &Header) -> Trace {
        Trace::default()
    }

    #[allow(clippy::unused_self, reason = "as where traces are taken")]
    pub(crate) fn take_blocked(&mut self, _: usize, _: &Header) -> Option<Trace> {
        None
    }
}
