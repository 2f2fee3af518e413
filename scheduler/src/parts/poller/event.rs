//! Events of descriptors: what they report, and the slots that they go to.
#![allow(unsafe_code, reason = "event slots by address")]

#[cfg(all(weald_sanitizer = "thread", not(loom)))]
use crate::shim::atomic::{AtomicUsize, Ordering};

/// What an event reports of a descriptor: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness(pub u8);

impl Readiness {
    /// Reading may succeed.
    pub const READABLE: u8 = 1;
    /// Writing may succeed.
    pub const WRITABLE: u8 = 2;
    /// The peer will send no more.
    pub const READ_CLOSED: u8 = 4;
    /// The peer takes no more.
    pub const WRITE_CLOSED: u8 = 8;
    /// An error is pending.
    pub const ERROR: u8 = 16;
    /// Out-of-band data.
    pub const PRIORITY: u8 = 32;
    /// The poller closes. The waiter must register with another one.
    pub const CLOSED: u8 = 64;
    /// All bits. The waiter must look for itself. A poller that closes reports this.
    pub const ALL: u8 = 127;
}

/// Where the events of a descriptor go. Slots live for ever. Each user of a slot has a generation of its own.
#[derive(Debug)]
#[repr(C, align(8))]
pub struct EventSlot {
    /// Called with the slot, the generation at registration, and what the event reports.
    pub on_event: fn(&'static EventSlot, u16, Readiness),
}

/// Counts tokens. The kernel hands a token on only after it has got it. ThreadSanitizer cannot see this order.
#[cfg(all(weald_sanitizer = "thread", not(loom)))]
static TOKENS: AtomicUsize = AtomicUsize::new(0);

/// The token of a slot and its generation: an address has 48 bits here.
pub(super) fn token(slot: &'static EventSlot, generation: u16) -> usize {
    let address = std::ptr::from_ref(slot) as usize;
    debug_assert_eq!(address >> 48, 0, "user addresses have 48 bits");
    // Pairs with the load in `tell`.
    #[cfg(all(weald_sanitizer = "thread", not(loom)))]
    TOKENS.fetch_add(1, Ordering::Release);
    address | (usize::from(generation) << 48)
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("weald needs 64-bit pointers: a token is an address and a generation");

/// Hands one event on to its slot.
///
/// # Safety
/// The token was made by `token`.
pub(super) unsafe fn tell(token: usize, readiness: Readiness) {
    #[cfg(all(weald_sanitizer = "thread", not(loom)))]
    TOKENS.load(Ordering::Acquire);
    let generation = u16::try_from(token >> 48).expect("16 bits are left");
    let address = token & ((1 << 48) - 1);
    // SAFETY: by contract the address is that of a slot, which lives for ever.
    let slot: &'static EventSlot = unsafe { &*(address as *const EventSlot) };
    (slot.on_event)(slot, generation, readiness);
}
