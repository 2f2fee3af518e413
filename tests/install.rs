//! `RuntimeBuilder::install`: the first runtime becomes the default, and the second one gets an error. Each case runs
//! in a process of its own.

#![allow(unsafe_code, reason = "the support module asks the kernel")]
#![allow(
    clippy::large_stack_arrays,
    reason = "to use the stack is what they are for"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use support::{check_names, in_child, os_thread_names, wait_until};
use weald::{InstallError, Runtime};

#[track_caller]
fn check_said(child: &support::Child, text: &str) {
    assert!(child.success, "{}", child.stderr);
    assert!(
        child.stdout.contains(text),
        "{} / {}",
        child.stdout,
        child.stderr
    );
}

#[test]
fn the_installed_runtime_is_the_default_one() {
    let child = in_child(
        "the_installed_runtime_is_the_default_one",
        &[("WEALD_WORKERS", "0")],
        || {
            // With a runtime installed the variable, which is bad, is never read.
            Runtime::builder()
                .workers(2)
                .stack_size(8 << 20)
                .thread_name("oak")
                .install()
                .unwrap();
            let filled = || std::hint::black_box([1_u8; 1 << 20]).len();
            assert_eq!(weald::spawn(filled).join().unwrap(), 1 << 20);
            wait_until(|| {
                os_thread_names()
                    .iter()
                    .filter(|name| name.starts_with("oak"))
                    .count()
                    >= 2
            });
            println!("the default is ours");
        },
    );
    check_said(&child, "the default is ours");
}

#[test]
fn a_second_install_is_refused_and_the_first_one_stays() {
    let child = in_child(
        "a_second_install_is_refused_and_the_first_one_stays",
        &[],
        || {
            Runtime::builder().workers(1).install().unwrap();
            let error: InstallError = Runtime::builder().workers(1).install().unwrap_err();
            assert!(error.is_already_running());
            let text = error.to_string();
            assert!(!text.is_empty() && !text.ends_with('.'));
            let _: &dyn std::error::Error = &error;
            assert!(!format!("{error:?}").is_empty());
            assert_eq!(weald::spawn(|| 1).join().unwrap(), 1);
            println!("refused");
        },
    );
    check_said(&child, "refused");
}

#[test]
fn an_install_after_the_first_use_is_refused() {
    let child = in_child("an_install_after_the_first_use_is_refused", &[], || {
        weald::spawn(|| ()).join().unwrap();
        assert!(
            Runtime::builder()
                .workers(1)
                .install()
                .unwrap_err()
                .is_already_running()
        );
        println!("too late");
    });
    check_said(&child, "too late");
}

#[test]
fn an_install_that_fails_to_start_says_why_and_leaves_the_place_free() {
    let child = in_child(
        "an_install_that_fails_to_start_says_why_and_leaves_the_place_free",
        &[],
        || {
            let error = Runtime::builder().workers(0).install().unwrap_err();
            assert!(!error.is_already_running());
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                text += &source.to_string();
            }
            check_names(&text, "0", &["1"]);
            Runtime::builder().workers(1).install().unwrap();
            assert_eq!(weald::spawn(|| 2).join().unwrap(), 2);
            println!("then it went well");
        },
    );
    check_said(&child, "then it went well");
}

#[test]
fn of_many_that_install_at_once_one_wins() {
    let child = in_child("of_many_that_install_at_once_one_wins", &[], || {
        let won = std::thread::scope(|s| {
            let all: Vec<_> = (0..8)
                .map(|_| s.spawn(|| Runtime::builder().workers(1).install()))
                .collect();
            let outcomes = all.into_iter().map(|h| h.join().unwrap());
            outcomes
                .filter(|outcome| {
                    outcome.as_ref().map_err(InstallError::is_already_running) != Err(true)
                })
                .count()
        });
        assert_eq!(won, 1);
        println!("one won");
    });
    check_said(&child, "one won");
}
