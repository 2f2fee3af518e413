//! The example `soak` runs for a moment in each mode: whatever a crowd does to itself, the counters must agree.

#[allow(dead_code, reason = "its `main` is the example's")]
#[path = "../../examples/soak.rs"]
mod example;

use crate::support::{LIMIT, MODES, Mode, with_deadline};

#[test]
fn after_a_moment_of_everything_at_once_every_count_agrees() {
    for mode in MODES {
        let name = match mode {
            Mode::Own => "own",
            Mode::Pinned => "pinned",
            Mode::Shared => "shared",
        };
        let options = example::Options {
            threads: 2000,
            operations: 20_000,
            workers: Some(2),
            mode: Some(name.to_owned()),
            ..Default::default()
        };
        // The deadline includes the example's own patience with threads that hang.
        let soaked = with_deadline(5 * LIMIT, || example::soak(&options));
        if let Err(fault) = soaked {
            panic!("{fault}");
        }
    }
}
