//! The flight recorder in a model: it is never on.
#![allow(dead_code, unused_variables, reason = "nothing is noted")]

use std::panic::Location;

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::green::green_thread::{Header, Note};
use crate::green::id::GreenThreadId;

/// As in a build.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Run,
    Park,
    Wake,
    Steal,
    Poll,
    Sleep,
    Awake,
    End,
    Hog,
    Exception,
    Panic,
    Mark,
    Begin,
    Finish,
}

pub(crate) const EARLY_WAKE: u64 = 0;

#[inline(always)]
pub(crate) fn is_on() -> bool {
    false
}

pub(crate) fn note(kind: Kind, thread: u64, argument: u64) {}

pub(crate) fn note_text(kind: Kind, thread: u64, argument: u64, text: &str) {}

pub(crate) fn running() -> u64 {
    0
}

pub(crate) fn spawned(header: &Header) {}

pub(crate) fn spawned_at(thread: GreenThreadId, site: &'static Location<'static>) {}

pub(crate) fn woken(header: &Header) {}

pub(crate) fn in_place(kind: Kind, header: &Header) {}

pub(crate) fn handed_over(inner: &Inner, worker: usize, carrier: usize) {}

impl Carrier {
    pub(crate) fn note(&self, kind: Kind, header: &Header, argument: u64) {}

    pub(crate) fn note_left(&self, header: &Header, note: Note) {}

    pub(crate) fn note_end(&self, header: &Header) {}
}
