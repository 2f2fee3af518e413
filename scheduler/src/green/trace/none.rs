//! Where no traces are taken.

use super::Trace;
use crate::green::green_thread::Header;

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
    pub(crate) fn read(&self, _: usize, _: &mut [u8]) -> bool {
        false
    }

    #[allow(clippy::unused_self, reason = "as where traces are taken")]
    pub(crate) fn words(&self) -> impl Iterator<Item = usize> {
        std::iter::empty()
    }

    #[allow(clippy::unused_self, reason = "as where traces are taken")]
    pub(crate) fn take_blocked(&mut self, _: usize, _: &Header) -> Option<Trace> {
        None
    }
}
