//! Tests of the message when a stack runs out.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(unsafe_code, reason = "tests touch guards")]

use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::parts::coroutine::{Control, Coroutine};
use crate::parts::stack::{Cache, MIN_STACK, tests::check_child};

fn start_overflow_child() {
    install().unwrap();
    install().unwrap();
    set_describe(|tell| tell("diver", 7));
}

/// Runs a body on a small stack of a new OS thread.
fn run_on_small_stack(body: fn()) {
    std::thread::spawn(move || {
        let _alternate = AltStack::for_this_thread().unwrap();
        let stack = Cache::new().get(MIN_STACK).unwrap();
        // SAFETY: the body borrows nothing and stays on this OS thread.
        let mut coroutine = unsafe {
            Coroutine::<(), ()>::new(stack, Control::current(), move |_suspender, ()| body())
        };
        coroutine.resume(());
    })
    .join()
    .unwrap();
}

#[expect(unconditional_recursion, reason = "that is how stacks overflow")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(depth + 1)) + depth
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes and has no faults")]
fn an_overflow_names_the_green_thread_and_aborts() {
    let child = check_child(
        "overflow::tests::an_overflow_names_the_green_thread_and_aborts",
        &[],
        || {
            start_overflow_child();
            run_on_small_stack(|| {
                recurse(0);
            });
        },
    );
    let Some(child) = child else { return };
    let line = "weald: stack overflow in green thread 'diver' (id 7), stack size 16 KiB; raise \
                it with Builder::stack_size or WEALD_STACK_SIZE\n";
    assert!(child.stderr.contains(line), "{child:?}");
    assert_eq!(child.status.signal(), Some(libc::SIGABRT));
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes and has no faults")]
#[expect(clippy::large_stack_arrays, reason = "that is what the test is about")]
fn one_large_frame_is_an_overflow_too() {
    let child = check_child(
        "overflow::tests::one_large_frame_is_an_overflow_too",
        &[],
        || {
            install().unwrap();
            run_on_small_stack(|| {
                std::hint::black_box([1_u8; 900 << 10]);
            });
        },
    );
    let Some(child) = child else { return };
    assert!(
        child
            .stderr
            .contains("overflow in a green thread, stack size 16"),
        "{child:?}"
    );
    assert_eq!(child.status.signal(), Some(libc::SIGABRT));
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes and has no faults")]
fn an_overflow_is_told_with_guards_by_mprotect() {
    let child = check_child(
        "overflow::tests::an_overflow_is_told_with_guards_by_mprotect",
        &[("WEALD_STACK_GUARD", "mprotect")],
        || {
            start_overflow_child();
            run_on_small_stack(|| {
                recurse(0);
            });
        },
    );
    let Some(child) = child else { return };
    assert!(
        child.stderr.contains("green thread 'diver' (id 7)"),
        "{child:?}"
    );
    assert_eq!(child.status.signal(), Some(libc::SIGABRT));
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes and has no faults")]
fn other_faults_go_to_the_handler_that_was_there() {
    extern "C" fn leave(_signal: libc::c_int) {
        // SAFETY: `_exit` is safe in a handler.
        unsafe { libc::_exit(42) };
    }
    let child = check_child(
        "overflow::tests::other_faults_go_to_the_handler_that_was_there",
        &[],
        || {
            let leave: extern "C" fn(_) = leave;
            // SAFETY: the handler keeps to what is safe in one.
            unsafe { libc::signal(libc::SIGSEGV, leave as libc::sighandler_t) };
            start_overflow_child();
            run_on_small_stack(touch_what_is_not_mapped);
        },
    );
    let Some(child) = child else { return };
    assert_eq!(child.status.code(), Some(42), "{child:?}");
    assert!(!child.stderr.contains("weald"), "{child:?}");
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes and has no faults")]
fn other_faults_end_the_process_as_they_would_have() {
    for sent in [false, true] {
        let child = check_child(
            "overflow::tests::other_faults_end_the_process_as_they_would_have",
            &[("WEALD_TEST_SENT", if sent { "1" } else { "" })],
            || {
                start_overflow_child();
                if std::env::var("WEALD_TEST_SENT").unwrap().is_empty() {
                    run_on_small_stack(touch_what_is_not_mapped);
                }
                // std's handler takes a sent signal as a sign to step aside, so twice.
                for _ in 0..2 {
                    // SAFETY: sends a signal to this thread.
                    unsafe { libc::raise(libc::SIGSEGV) };
                }
            },
        );
        let Some(child) = child else { return };
        assert_eq!(child.status.signal(), Some(libc::SIGSEGV), "{child:?}");
        assert!(!child.stderr.contains("weald"), "{child:?}");
    }
}

fn touch_what_is_not_mapped() {
    let nowhere = ptr::without_provenance_mut::<u8>(64);
    // SAFETY: none; the fault is what the test is about, and asm hides it from the compiler.
    unsafe { std::ptr::write_volatile(std::hint::black_box(nowhere), 1) };
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes and has no faults")]
fn a_large_alternate_stack_is_left_and_a_small_one_comes_back() {
    fn current() -> (usize, usize) {
        // SAFETY: all zeros is a valid `stack_t`, and the call only fills it in.
        unsafe {
            let mut current: libc::stack_t = mem::zeroed();
            check(libc::sigaltstack(ptr::null(), &raw mut current)).unwrap();
            (current.ss_sp as usize, current.ss_size)
        }
    }
    let before = current();
    let first = AltStack::for_this_thread().unwrap();
    let ours = current();
    assert!(ours.1 >= alt_stack_size());
    let second = AltStack::for_this_thread().unwrap();
    assert!(second.ours.is_none());
    assert_eq!(current(), ours);
    drop(second);
    assert_eq!(current(), ours);
    drop(first);
    assert_eq!(current().0, before.0);
}
