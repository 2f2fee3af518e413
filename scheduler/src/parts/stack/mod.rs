//! Stacks of green threads: what a stack promises, and the way to one and back.
//!
//! ```text
//!  lower addresses                                                    higher addresses
//!  | slot n-1           | slot n                                      | slot n+1
//!  |   ...      usable  | guard      | usable, `size` bytes           | guard      | ...
//!                       ^ limit      ^ first byte that may be touched ^ base: grows down from here
//! ```
//!
//! 1. A stack has at least the bytes that were asked for, and all of them can be used. Its size is a power of two
//!    (the class), and its guard comes in addition. A guard has an odd number of pages ([`Guard`]).
//!    So slots are an odd number of pages apart. This spreads the tops of many stacks over the sets of the TLB.
//! 2. The pages below the usable bytes are a guard before a stack is handed out for the first time, and stay one as
//!    long as the process lives. Only a stack in the depot may lose its guard (`cache.rs`). If no guard can be made,
//!    there is an error and no stack.
//! 3. A [`Stack`] owns its slot, and there is only one for each slot. It is given back by
//!    [`Cache::put`] or [`release`]. A stack that is dropped or forgotten leaks its slot. That is what
//!    a suspended coroutine needs that is never resumed.
//! 4. What the bytes hold is not promised: they may be zero, or left from the last user.
//! 5. Regions are never unmapped, so an address that once belonged to a slot always does.
//!
//! From the user down: [`Cache`], one per worker and free of locks; the depot in `depot.rs`, one
//! per process; the regions in `region.rs`, which make slots, guard them and give their pages back.
//! `overflow.rs` reports which thread's stack overflowed.
//!
//! All of this uses std's atomics and locks, not the shim's: it belongs to the whole process, is in statics,
//! and is read by a signal handler; and a model needs real stacks for its coroutines. No
//! lock here is held during a call out of this folder.
//!
//! Rejected: growing or copying stacks (borrows and kernel buffers point into them); `MADV_FREE`
//! (cheaper, but memory seems to be in use until the system needs it); filling the top pages
//! of new stacks by `MADV_POPULATE_WRITE` (measured, 16 at a time in one call: no faster than
//! touching them); placing the tops of stacks at different offsets (no clear gain).

mod cache;
mod count;
mod depot;
mod excess;
pub(crate) mod overflow;
mod page;
mod region;
mod settings;
mod slot;

pub(crate) use self::cache::{Cache, release};
pub(crate) use self::count::stack_bytes;
#[cfg(not(loom))]
pub(crate) use self::excess::give_back_all;
pub(crate) use self::excess::trim;
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
pub(crate) use self::page::page_size;
pub(crate) use self::region::{check_limit, check_settings};
pub(crate) use self::slot::{
    DEFAULT_GUARD, DEFAULT_STACK, Guard, MAX_GUARD, MAX_STACK, MIN_GUARD, MIN_STACK, Stack,
    class_of, round_up_to_class,
};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#[allow(unsafe_code, reason = "a limit of the child's")]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, ExitStatus};

    use super::slot::CLASSES;
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
        // "crate::parts::stack::tests" without the crate and this module.
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
        let page = super::page::page_size();
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
