//! Random trees of work: with `join` they have the value that they have without it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;

use crate::support::{MODES, runtime};

/// A tree of work. The way in which joins compute it must not matter.
#[derive(Clone, Debug)]
enum Work {
    Leaf(u32),
    /// The leaf does something else first.
    Waits(u32, How),
    Both(Box<Work>, Box<Work>),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Yield,
    Sleep,
    Block,
    Checkpoint,
    Spawn,
    Panic,
}

fn works() -> impl Strategy<Value = Work> {
    let how = prop_oneof![
        Just(How::Yield),
        Just(How::Sleep),
        Just(How::Block),
        Just(How::Checkpoint),
        Just(How::Spawn),
        Just(How::Panic),
    ];
    let leaf = prop_oneof![
        3 => (0_u32..100).prop_map(Work::Leaf),
        1 => (0_u32..100, how).prop_map(|(value, how)| Work::Waits(value, how)),
    ];
    leaf.prop_recursive(8, 128, 2, |inner| {
        (inner.clone(), inner).prop_map(|(a, b)| Work::Both(Box::new(a), Box::new(b)))
    })
}

impl Work {
    /// Returns `None` if a leaf panics, which ends all nodes above it.
    fn expected(&self) -> Option<u64> {
        match self {
            Self::Waits(_, How::Panic) => None,
            Self::Leaf(value) | Self::Waits(value, _) => Some(u64::from(*value)),
            Self::Both(a, b) => Some(a.expected()? + b.expected()?),
        }
    }

    fn leaves(&self) -> usize {
        match self {
            Self::Both(a, b) => a.leaves() + b.leaves(),
            _ => 1,
        }
    }

    fn run(&self, leaves: &AtomicUsize) -> u64 {
        match self {
            Self::Both(a, b) => {
                let (a, b) = weald::join(|| a.run(leaves), || b.run(leaves));
                a + b
            }
            Self::Leaf(value) => {
                leaves.fetch_add(1, SeqCst);
                u64::from(*value)
            }
            Self::Waits(value, how) => {
                leaves.fetch_add(1, SeqCst);
                match how {
                    How::Yield => weald::yield_now(),
                    How::Sleep => weald::sleep(Duration::from_micros(50)),
                    How::Block => weald::blocking(|| ()),
                    How::Checkpoint => weald::checkpoint(),
                    How::Spawn => weald::spawn(|| ()).join().unwrap(),
                    How::Panic => std::panic::resume_unwind(Box::new("a leaf")),
                }
                u64::from(*value)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_of_work_has_the_value_that_it_has_without_join(work in works()) {
        for mode in MODES {
            for workers in [1, 2] {
                let leaves = AtomicUsize::new(0);
                let value = runtime(workers, mode).run(|| {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.run(&leaves))).ok()
                });
                prop_assert_eq!(value, work.expected());
                prop_assert_eq!(leaves.load(SeqCst), work.leaves(), "each leaf runs once");
            }
        }
    }
}
