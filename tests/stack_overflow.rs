//! A stack that overflows ends the process with a message that names the green thread (P12 of notes/may: may reports
//! it as a panic and skips the destructors). Each case runs in a process of its own.

#![allow(unsafe_code, reason = "the support module asks the kernel")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use support::{MODES, in_child, runtime};
use weald::Builder;

/// Recurses until the stack has ended. The block makes each step touch its page.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let block = std::hint::black_box([depth; 32]);
    if depth == u64::MAX {
        0
    } else {
        deeper(depth + 1) + block[7]
    }
}

#[track_caller]
fn check_names_and_dies(child: &support::Child, name: &str) {
    assert!(!child.success);
    assert!(child.signal.is_some(), "it went on: {child:?}");
    assert!(
        child.stderr.contains(name),
        "{:?} does not name {name:?}",
        child.stderr
    );
    assert!(child.stderr.contains("overflow"), "{:?}", child.stderr);
    assert!(!child.stdout.contains("went on"));
}

#[test]
fn the_message_names_the_green_thread() {
    let child = in_child("the_message_names_the_green_thread", &[], || {
        let diver = Builder::new()
            .name("deep-diver".to_owned())
            .spawn(|| deeper(0))
            .unwrap();
        let _ = diver.join();
        println!("went on");
    });
    check_names_and_dies(&child, "deep-diver");
}

#[test]
fn a_stack_of_any_size_is_watched() {
    for size in ["16384", "65536", "1048576"] {
        let child = in_child(
            "a_stack_of_any_size_is_watched",
            &[("STACK_OF_THE_TEST", size)],
            || {
                let size = std::env::var("STACK_OF_THE_TEST").unwrap().parse().unwrap();
                let diver = Builder::new()
                    .name("deep-diver".to_owned())
                    .stack_size(size);
                let _ = diver.spawn(|| deeper(0)).unwrap().join();
                println!("went on");
            },
        );
        check_names_and_dies(&child, "deep-diver");
    }
}

#[test]
fn in_every_mode_and_after_a_wait_the_right_one_is_named() {
    for index in 0..MODES.len() {
        let child = in_child(
            "in_every_mode_and_after_a_wait_the_right_one_is_named",
            &[("MODE_OF_THE_TEST", &index.to_string())],
            || {
                let index = std::env::var("MODE_OF_THE_TEST").unwrap();
                let mode = MODES[index.parse::<usize>().unwrap()];
                println!("in mode {mode:?}");
                let rt = runtime(2, mode);
                rt.run(|| {
                    for i in 0..10 {
                        let bystander = Builder::new().name(format!("bystander-{i}"));
                        drop(bystander.spawn(|| weald::sleep(support::HOUR)).unwrap());
                    }
                    let diver = Builder::new().name("deep-diver".to_owned()).spawn(|| {
                        weald::sleep(support::MS);
                        weald::yield_now();
                        deeper(0)
                    });
                    let _ = diver.unwrap().join();
                    println!("went on");
                });
            },
        );
        check_names_and_dies(&child, "deep-diver");
        assert!(!child.stderr.contains("bystander"), "{}", child.stderr);
    }
}

#[test]
fn an_overflow_inside_catch_unwind_ends_the_process_too() {
    let child = in_child(
        "an_overflow_inside_catch_unwind_ends_the_process_too",
        &[],
        || {
            let diver = Builder::new().name("deep-diver".to_owned()).spawn(|| {
                let _ = support::caught(|| deeper(0));
                println!("went on");
            });
            let _ = diver.unwrap().join();
        },
    );
    check_names_and_dies(&child, "deep-diver");
}
