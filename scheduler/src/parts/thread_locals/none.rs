//! Where green threads cannot have thread-locals of their own.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crate::shim::here::{Front, Host};

/// Nobody can make one.
#[derive(Debug)]
pub(crate) struct Support(Infallible);

/// Nobody can make one.
#[derive(Debug)]
pub(crate) struct Block(Infallible);

/// Holds nothing.
#[derive(Debug, Default)]
pub(crate) struct Cache;

impl Cache {
    #[allow(clippy::unused_self, reason = "elsewhere it has blocks")]
    pub(crate) fn get(&mut self, own: &Support) -> Option<Block> {
        match own.0 {}
    }

    #[allow(
        clippy::unused_self,
        clippy::needless_pass_by_value,
        reason = "as above"
    )]
    pub(crate) fn put(&mut self, block: Block) {
        match block.0 {}
    }

    #[allow(clippy::unused_self, reason = "elsewhere it has blocks")]
    pub(crate) fn flush(&mut self) {}
}

/// Nothing is there to give back.
pub(crate) fn trim(_now: Instant, _stop: impl Fn() -> bool) -> Option<Duration> {
    None
}

/// As above.
#[cfg(not(loom))]
pub(crate) fn give_back_all() {}

#[allow(clippy::needless_pass_by_value, reason = "as above")]
pub(crate) fn release(block: Block) {
    match block.0 {}
}

/// The running thread-locals are those of the OS thread.
#[cfg(not(loom))]
pub(crate) fn is_elsewhere() -> bool {
    false
}

/// The OS thread's thread-locals are the running ones.
///
/// # Safety
/// `f` may be called with `data`.
#[cfg(not(loom))]
#[allow(unsafe_code, reason = "elsewhere it switches thread-locals")]
#[inline(always)]
pub(crate) unsafe fn on_host(f: unsafe fn(*mut ()), data: *mut ()) {
    // SAFETY: by contract.
    unsafe { f(data) };
}

/// Nobody asks.
pub(crate) fn host_pointer() -> usize {
    0
}

/// Nothing is lent.
#[derive(Debug, Default)]
pub(crate) struct LentWords;

impl Support {
    pub(crate) fn note_lent_words(&self, _lent: &LentWords) {
        match self.0 {}
    }

    pub(crate) fn start(&self, _block: &Block, _header: *const Front) {
        match self.0 {}
    }

    #[allow(unsafe_code, reason = "elsewhere it switches thread-locals")]
    pub(crate) unsafe fn arrive(&self, _block: &Block, _carrier: *const Host, _lent: &LentWords) {
        match self.0 {}
    }

    #[allow(unsafe_code, reason = "elsewhere it switches thread-locals")]
    pub(crate) unsafe fn depart(&self, _host: usize) {
        match self.0 {}
    }

    pub(crate) fn begin(&self) {
        match self.0 {}
    }

    pub(crate) fn finish(&self) {
        match self.0 {}
    }
}

/// Never.
pub(crate) fn support() -> Result<&'static Support, &'static str> {
    Err("only glibc on x86-64 Linux has them so far")
}
