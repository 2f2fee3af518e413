//! Sizes of stacks and guards, and the [`Stack`] itself: the usable part of a slot.
#![allow(
    unsafe_code,
    reason = "corosensei's trait is unsafe: it asks for a guard page"
)]

use std::fmt;
use std::num::NonZeroUsize;

use corosensei::stack::{StackPointer, valgrind::ValgrindStackRegistration};

use super::page::page_size;

/// The smallest stack, in bytes. Below it even a formatted panic message in a debug build runs out.
pub(crate) const MIN_STACK: usize = 16 << 10;

/// The largest stack, in bytes.
pub(crate) const MAX_STACK: usize = 1 << 30;

/// The default size of a stack, in bytes of address space. A TLS handshake in a debug build must fit.
pub(crate) const DEFAULT_STACK: usize = 256 << 10;

/// The smallest guard, in bytes: a page on most machines.
pub(crate) const MIN_GUARD: usize = 4 << 10;

/// The largest guard, in bytes.
pub(crate) const MAX_GUARD: usize = 1 << 30;

/// The default guard of a stack, in bytes. A C function compiled without
/// `-fstack-clash-protection` may have a frame that is larger than a page, and touch its far end
/// first. Linux keeps 1 MiB free below the stack of the first thread for the same reason. It is
/// address space only.
pub(crate) const DEFAULT_GUARD: usize = 64 << 10;

/// The number of sizes: the powers of two from [`MIN_STACK`] to [`MAX_STACK`].
pub(super) const CLASSES: usize = (MAX_STACK / MIN_STACK).trailing_zeros() as usize + 1;

/// The size of the stack that `Cache::get` gives to whoever asks for this many bytes: the next
/// power of two, at least [`MIN_STACK`] and at least a page.
///
/// The caller keeps to [`MAX_STACK`]; what is above it stays above it, and `get` refuses it.
pub(crate) fn round_up_to_class(bytes: usize) -> usize {
    if bytes > MAX_STACK {
        return bytes;
    }
    bytes.max(MIN_STACK).max(page_size()).next_power_of_two()
}

/// The index of the class that holds stacks of this size or a little more.
#[inline]
pub(crate) fn class_of(bytes: usize) -> usize {
    (usize::BITS - (bytes.saturating_sub(1) / MIN_STACK).leading_zeros()) as usize
}

/// How large a guard is: the next power of two of pages, and one page more if that is even.
///
/// The value is the exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard(usize);

impl Guard {
    /// The guard of at least this many bytes. The caller keeps to [`MAX_GUARD`].
    pub(crate) fn of(bytes: usize) -> Self {
        let pages = bytes.clamp(1, MAX_GUARD).div_ceil(page_size());
        Self(pages.next_power_of_two().trailing_zeros() as usize)
    }

    pub(super) fn bytes(self) -> usize {
        ((1 << self.0) | 1) * page_size()
    }
}

/// The bits of a [`Stack`] that hold its class, and the place of those that hold its guard. The page
/// size keeps them free in an address.
const CLASS_BITS: usize = 0b1_1111;
const GUARD_SHIFT: u32 = 5;
const ADDRESS: usize = !0xfff;
const _: () = assert!(CLASSES <= CLASS_BITS + 1);
const _: () = assert!((MAX_GUARD / MIN_GUARD).trailing_zeros() < 1 << (12 - GUARD_SHIFT));

/// The usable part of a slot, owned. See the drawing and invariant 3 of this module.
///
/// One word, so that lists of them are short and it travels in a register: with two, the list of a
/// `Cache` cost 10 ns more for taking one and putting it back.
#[derive(PartialEq, Eq)]
#[must_use = "a stack that is dropped leaks its slot"]
pub(crate) struct Stack {
    /// The address one past the highest usable byte, aligned to a page, plus class and guard.
    word: NonZeroUsize,
}

impl Stack {
    /// Names the slot whose usable bytes end at this address.
    ///
    /// # Safety
    /// The slot lies in a region for stacks of `size` usable bytes, a class, with this guard, and has
    /// no other `Stack`. It has the guard, or gets it before the stack leaves this folder.
    pub(super) unsafe fn from_slot(top: NonZeroUsize, size: usize, guard: Guard) -> Self {
        debug_assert_eq!(top.get() & !ADDRESS, 0, "slots end with a page");
        debug_assert_eq!(size, MIN_STACK << class_of(size));
        Self {
            word: top | class_of(size) | (guard.0 << GUARD_SHIFT),
        }
    }

    /// Usable bytes: what was asked for, rounded up.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        MIN_STACK << self.class()
    }

    #[inline]
    pub(super) fn class(&self) -> usize {
        self.word.get() & CLASS_BITS
    }

    #[inline]
    pub(super) fn guard(&self) -> Guard {
        Guard((self.word.get() & !ADDRESS) >> GUARD_SHIFT)
    }

    /// The address one past the highest usable byte.
    #[inline]
    pub(super) fn top(&self) -> usize {
        self.word.get() & ADDRESS
    }

    /// The address of the lowest usable byte: where the guard ends.
    #[inline]
    pub(super) fn bottom(&self) -> usize {
        self.top() - self.size()
    }

    /// The address of the guard: where the slot begins.
    pub(super) fn slot(&self) -> usize {
        self.bottom() - self.guard().bytes()
    }

    /// Tells valgrind, if the program runs under it, that this is a stack. Once per slot.
    pub(super) fn register_with_valgrind(&self) {
        // Slots stay stacks for ever, so nobody takes the registration back.
        std::mem::forget(ValgrindStackRegistration::new(
            std::ptr::with_exposed_provenance_mut(self.bottom()),
            self.size(),
        ));
    }
}

// SAFETY: the pages from `limit` on are a guard (invariant 2), there are at least `MIN_STACK` usable bytes
// above it, more than the trait asks for, and both ends are aligned to a page.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        // SAFETY: the word holds an address that is not 0 in the bits that stay.
        unsafe { StackPointer::new_unchecked(self.top()) }
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.slot()).expect("a slot does not begin at address 0")
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack({:#x}..{:#x})", self.bottom(), self.top())
    }
}
