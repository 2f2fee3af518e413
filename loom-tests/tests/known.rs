//! Models of `patch/src/known.rs`: a thread that changes a file against one that remembers a fact of it.
//!
//! Invariant 1: a call knows the changes that were made before it began.

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../patch/src/known.rs"]
#[allow(dead_code, reason = "a model uses a part")]
mod known;

mod shim {
    pub(crate) mod atomic {
        #[cfg(loom)]
        pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64};
        #[cfg(not(loom))]
        pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
        pub(crate) use weald_loom_tests::sync::atomic::Ordering;
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::Ordering;
use weald_loom_tests::{Model, check, thread, witness};

use self::known::{BLOCKS, Known, READS_WITHOUT_LIMIT, Settings};
use self::shim::atomic::AtomicU32;

/// A descriptor and its file: whether it blocks, as the kernel says.
struct Descriptor {
    known: Known,
    settings: Settings,
    blocks: AtomicU32,
}

impl Descriptor {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            known: Known::new(),
            settings: Settings::new(),
            blocks: AtomicU32::new(1),
        })
    }

    /// As a call that waits.
    fn learn(&self) {
        let stamp = self.known.stamp(&self.settings);
        if self.blocks.load(Ordering::Relaxed) == 1 {
            self.known.learn(stamp, BLOCKS);
        }
    }

    fn knows_that_it_blocks(&self) -> bool {
        self.known.knows(&self.settings, BLOCKS)
    }
}

#[test]
fn a_file_that_was_told_not_to_block_is_not_known_to_block() {
    check(
        Model::new(
            "a_file_that_was_told_not_to_block_is_not_known_to_block",
            10,
            &["it was known before"],
        ),
        || {
            let descriptor = Descriptor::new();
            let learner = {
                let descriptor = Arc::clone(&descriptor);
                thread::spawn(move || descriptor.learn())
            };
            witness!("it was known before", descriptor.knows_that_it_blocks());
            descriptor.blocks.store(0, Ordering::Relaxed);
            descriptor.settings.changed();
            assert!(!descriptor.knows_that_it_blocks());
            learner.join().unwrap();
            assert!(!descriptor.knows_that_it_blocks());
        },
    );
}

#[test]
fn two_learn_different_facts_and_a_third_changes_one() {
    check(
        Model::new("two_learn_different_facts_and_a_third_changes_one", 50, &[]),
        || {
            let descriptor = Descriptor::new();
            let learner = {
                let descriptor = Arc::clone(&descriptor);
                thread::spawn(move || descriptor.learn())
            };
            let other = {
                let descriptor = Arc::clone(&descriptor);
                thread::spawn(move || {
                    let stamp = descriptor.known.stamp(&descriptor.settings);
                    descriptor.known.learn(stamp, READS_WITHOUT_LIMIT);
                })
            };
            descriptor.blocks.store(0, Ordering::Relaxed);
            descriptor.settings.changed();
            learner.join().unwrap();
            other.join().unwrap();
            assert!(!descriptor.knows_that_it_blocks());
        },
    );
}

#[test]
fn the_next_file_with_a_number_is_not_taken_for_the_last_one() {
    check(
        Model::new(
            "the_next_file_with_a_number_is_not_taken_for_the_last_one",
            10,
            &["it was known before"],
        ),
        || {
            let descriptor = Descriptor::new();
            let learner = {
                let descriptor = Arc::clone(&descriptor);
                thread::spawn(move || {
                    let changes = descriptor.known.changes();
                    let has_true_events = descriptor.blocks.load(Ordering::Relaxed) == 1;
                    descriptor.known.learn_kind(changes, has_true_events);
                    if has_true_events {
                        // The poller tells of this file.
                        descriptor.known.arm(changes, 7, 1);
                    }
                })
            };
            witness!("it was known before", descriptor.known.armed(7) == 1);
            descriptor.known.forget();
            // The number is closed, and the next file, whose events are not true, has it.
            descriptor.blocks.store(0, Ordering::Relaxed);
            descriptor.known.forget();
            assert_ne!(descriptor.known.has_true_events(), Some(true));
            assert_eq!(descriptor.known.armed(7), 0);
            learner.join().unwrap();
            assert_ne!(descriptor.known.has_true_events(), Some(true));
        },
    );
}
