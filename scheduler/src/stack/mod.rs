//! Stacks of green threads: what a stack promises, and the way to one and back.
//!
//! ```text
//!  lower addresses                                                    higher addresses
//!  | slot n-1           | slot n                                      | slot n+1
//!  |   ...      usable  | guard      | usable, `size` bytes           | guard      | ...
//!                       ^ limit      ^ first byte that may be touched ^ base: grows down from here
//! ```
//!
//! 1. A stack has at least the bytes that were asked for, all usable: its size is a power of two
//!    (the class), its guard comes on top of that. A guard has an odd number of pages ([`Guard`]).
//!    So slots are an odd number of pages apart, which keeps the tops of many stacks out of each
//!    other's TLB sets.
//! 2. The pages below the usable bytes are a guard before a stack is handed out for the first time,
//!    and stay one as long as the process lives, but for stacks that lie in the depot (`cache.rs`).
//!    There is no stack without a guard: where none can be made, there is an error.
//! 3. A [`Stack`] owns its slot, and there is one of it for a slot. It is given back by
//!    [`Cache::put`] or [`release`]; one that is dropped or forgotten leaks its slot, which is what
//!    a suspended coroutine that is never resumed needs.
//! 4. Nothing promises what the bytes hold: they may be zero or left from the last user.
//! 5. Regions are never unmapped, so an address that once belonged to a slot always does.
//!
//! From the user down: [`Cache`], one per worker and free of locks; the depot in `cache.rs`, one
//! per process; the regions in `region.rs`, which make slots, guard them and give their pages back.
//! `overflow.rs` tells whose stack ran out.
//!
//! All of this uses std's atomics and locks, not the shim's: it is process-wide, lives in statics
//! and is read by a signal handler, and a model check wants real stacks beneath its coroutines. No
//! lock here is held across a call out of this folder.
//!
//! Left aside: growing or copying stacks (borrows and kernel buffers point into them); `MADV_FREE`
//! (cheaper, but the memory in use looks the same until there is pressure); filling the top pages
//! of new stacks by `MADV_POPULATE_WRITE` (measured, 16 at a time in one call: no faster than
//! touching them); colouring the stack tops (no clear gain).
#![allow(
    unsafe_code,
    reason = "corosensei's trait is unsafe: it asks for a guard page"
)]

mod cache;
pub(crate) mod overflow;
mod region;

use std::fmt;
use std::num::NonZeroUsize;

use corosensei::stack::{StackPointer, valgrind::ValgrindStackRegistration};

#[cfg(not(loom))]
pub(crate) use self::cache::give_back_all;
pub(crate) use self::cache::{Cache, release, stack_bytes, trim};
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
pub(crate) use self::region::page_size;
pub(crate) use self::region::{check_limit, check_settings};

/// The smallest stack, in bytes. Below it even a formatted panic message in a debug build runs out.
pub(crate) const MIN_STACK: usize = 16 << 10;

/// The largest stack, in bytes.
pub(crate) const MAX_STACK: usize = 1 << 30;

/// The stack of a green thread of which nothing else was said, in bytes of address space. A TLS
/// handshake in a debug build must fit.
pub(crate) const DEFAULT_STACK: usize = 256 << 10;

/// The smallest guard, in bytes: a page on most machines.
pub(crate) const MIN_GUARD: usize = 4 << 10;

/// The largest guard, in bytes.
pub(crate) const MAX_GUARD: usize = 1 << 30;

/// The guard of a stack of which nothing else was said, in bytes. A C function compiled without
/// `-fstack-clash-protection` may have a frame that is larger than a page, and touch its far end
/// first. Linux keeps 1 MiB free below the stack of the first thread for the same reason. It is
/// address space only.
pub(crate) const DEFAULT_GUARD: usize = 64 << 10;

/// The number of sizes: the powers of two from [`MIN_STACK`] to [`MAX_STACK`].
const CLASSES: usize = (MAX_STACK / MIN_STACK).trailing_zeros() as usize + 1;

/// The size of the stack that [`Cache::get`] gives to whoever asks for this many bytes: the next
/// power of two, at least [`MIN_STACK`] and at least a page.
///
/// The caller keeps to [`MAX_STACK`]; what is above it stays above it, and `get` refuses it.
pub(crate) fn round_up_to_class(bytes: usize) -> usize {
    if bytes > MAX_STACK {
        return bytes;
    }
    bytes
        .max(MIN_STACK)
        .max(region::page_size())
        .next_power_of_two()
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
        let pages = bytes.clamp(1, MAX_GUARD).div_ceil(region::page_size());
        Self(pages.next_power_of_two().trailing_zeros() as usize)
    }

    fn bytes(self) -> usize {
        ((1 << self.0) | 1) * region::page_size()
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
/// [`Cache`] cost 10 ns more for taking one and putting it back.
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
    unsafe fn from_slot(top: NonZeroUsize, size: usize, guard: Guard) -> Self {
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
    fn class(&self) -> usize {
        self.word.get() & CLASS_BITS
    }

    #[inline]
    fn guard(&self) -> Guard {
        Guard((self.word.get() & !ADDRESS) >> GUARD_SHIFT)
    }

    /// The address one past the highest usable byte.
    #[inline]
    fn top(&self) -> usize {
        self.word.get() & ADDRESS
    }

    /// The address of the lowest usable byte: where the guard ends.
    #[inline]
    fn bottom(&self) -> usize {
        self.top() - self.size()
    }

    /// The address of the guard: where the slot begins.
    fn slot(&self) -> usize {
        self.bottom() - self.guard().bytes()
    }

    /// Tells valgrind, if the program runs under it, that this is a stack. Once per slot.
    fn register_with_valgrind(&self) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, ExitStatus};

    use super::*;

    /// What became of a child process.
    #[derive(Debug)]
    pub(super) struct Child {
        pub(super) status: ExitStatus,
        pub(super) stderr: String,
    }

    /// Runs the body in a process of its own: this test binary, with this test alone. In the parent
    /// it returns what became of the child, in the child it runs the body and returns `None`.
    /// `test` is the path of the test below this folder's module.
    pub(super) fn check_child(
        test: &str,
        variables: &[(&str, &str)],
        body: impl FnOnce(),
    ) -> Option<Child> {
        const CHILD: &str = "WEALD_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let no_core = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the structure is valid; no file of the child's memory is wanted.
            unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
            body();
            return None;
        }
        // "crate::stack::tests" without the crate and this module.
        let path = module_path!()
            .split_once("::")
            .unwrap()
            .1
            .rsplit_once("::")
            .unwrap()
            .0;
        // By another program where the system cannot start this one by itself.
        let runner = std::env::var("WEALD_TEST_RUNNER").unwrap_or_default();
        let program = std::env::current_exe().unwrap();
        let mut words = runner
            .split_whitespace()
            .map(PathBuf::from)
            .chain([program]);
        let output = Command::new(words.next().unwrap())
            .args(words)
            .args([
                "--exact",
                "--nocapture",
                "--test-threads=1",
                &format!("{path}::{test}"),
            ])
            .env(CHILD, "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Some(Child {
            status: output.status,
            stderr,
        })
    }

    #[test]
    fn sizes_are_rounded_up_to_powers_of_two() {
        assert_eq!(round_up_to_class(0), round_up_to_class(MIN_STACK));
        assert_eq!(round_up_to_class(DEFAULT_STACK), DEFAULT_STACK);
        assert_eq!(round_up_to_class(DEFAULT_STACK + 1), 2 * DEFAULT_STACK);
        assert_eq!(round_up_to_class(MAX_STACK - 1), MAX_STACK);
        assert_eq!(round_up_to_class(MAX_STACK), MAX_STACK);
        assert_eq!(round_up_to_class(usize::MAX), usize::MAX);
    }

    #[test]
    fn classes_count_up_with_the_size() {
        assert_eq!(class_of(0), 0);
        assert_eq!(class_of(MIN_STACK), 0);
        assert_eq!(class_of(MIN_STACK + 1), 1);
        assert_eq!(class_of(DEFAULT_STACK), 4);
        assert_eq!(class_of(MAX_STACK), CLASSES - 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has pages of its own")]
    fn a_guard_has_at_least_the_bytes_asked_for_and_an_odd_number_of_pages() {
        let page = region::page_size();
        for bytes in [
            1,
            MIN_GUARD,
            MIN_GUARD + 1,
            DEFAULT_GUARD,
            100_000,
            MAX_GUARD,
        ] {
            let guard = Guard::of(bytes).bytes();
            assert!(guard >= bytes, "{bytes}: {guard}");
            assert!(guard < 2 * bytes + 2 * page, "{bytes}: {guard}");
            assert_eq!(guard / page % 2, 1, "{bytes}: {guard}");
            assert_eq!(guard % page, 0, "{bytes}: {guard}");
        }
    }

    #[test]
    fn a_stack_is_one_word_and_may_be_sent() {
        fn check_send_and_sync<T: Send + Sync>() {}
        check_send_and_sync::<Stack>();
        assert_eq!(size_of::<Option<Stack>>(), size_of::<usize>());
    }
}
