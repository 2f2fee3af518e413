//! `#[weald::test]`, and what it does when a test fails, takes too long or leaves threads behind.

use std::io;
use std::time::Duration;

use weald::entry::{self, Settings};

use crate::support::{HOUR, MS, caught, panic_text, with_deadline};

#[weald::test]
fn a_test_without_settings_is_a_green_thread() {
    assert!(weald::is_green());
}

#[allow(clippy::unnecessary_wraps, reason = "a test may return a Result")]
#[weald::test(workers = 1 + 2, stack_size = 1 << 20, limit = Duration::from_secs(60), no_leftovers)]
fn settings_are_expressions() -> io::Result<()> {
    // The array is larger than a stack of the default size.
    let large = [1_u8; 600 << 10];
    assert_eq!(std::hint::black_box(&large).len(), 600 << 10);
    weald::spawn(|| weald::sleep(MS));
    Ok(())
}

#[weald::test]
#[should_panic(expected = "on purpose")]
fn a_panic_is_the_tests() {
    weald::sleep(MS);
    panic!("on purpose");
}

fn waits_for_ever() {
    weald::sleep(HOUR);
}

fn leaves_one_behind() {
    weald::spawn(|| weald::sleep(HOUR));
}

fn fails() -> io::Result<()> {
    Err(io::ErrorKind::NotFound.into())
}

#[test]
fn a_limit_that_passes_fails_the_test_with_a_dump() {
    with_deadline(60, || {
        let settings = Settings::new().limit(20 * MS);
        let failed = caught(|| entry::test(settings, waits_for_ever));
        let text = panic_text(&*failed.unwrap_err());
        assert!(text.contains("longer than its limit of 20ms"), "{text}");
    });
}

#[test]
fn threads_that_are_left_behind_fail_a_test_that_asks_for_it() {
    with_deadline(60, || {
        let settings = Settings::new().no_leftovers();
        let failed = caught(|| entry::test(settings, leaves_one_behind));
        let text = panic_text(&*failed.unwrap_err());
        assert!(text.contains("1 green threads are left behind"), "{text}");
        // Without `no_leftovers` they are killed.
        caught(|| entry::test(Settings::new(), leaves_one_behind)).unwrap();
    });
}

#[test]
fn an_error_is_a_code_that_is_not_success() {
    with_deadline(60, || {
        let code = |code: std::process::ExitCode| format!("{code:?}");
        let success = code(std::process::ExitCode::SUCCESS);
        assert_ne!(code(entry::test(Settings::new(), fails)), success);
        assert_ne!(code(entry::main(Settings::new(), fails)), success);
        assert_eq!(code(entry::main(Settings::new(), || ())), success);
    });
}
