//! How long threads that are ready wait until they run: of each 64th one, in a histogram for each worker.
//!
//! Whoever wakes or makes the 64th thread leaves the time in the thread's header, as a *stamp* (`green/left_at.rs`).
//! The carrier that runs a thread looks whether it has one. So the others cost some three instructions a switch, and the
//! sampled ones two looks at the clock.
//!
//! Each power of two has two buckets: the lengths of one bucket are within a third of its bound.

use std::time::Duration;

use crate::shim::atomic::{AtomicU64, Ordering};

/// One of so many is sampled; a power of two.
const SAMPLED: u64 = 64;

/// The first bucket holds what is shorter than 2 to this power, in nanoseconds.
const FIRST: u32 = 6;

pub(crate) const BUCKETS: usize = 62;

/// Whether a thread is sampled, by the number of those before it.
#[inline(always)]
pub(crate) fn is_sampled(count: u64) -> bool {
    !cfg!(loom) && count.is_multiple_of(SAMPLED)
}

/// A histogram; written by the holder of the seat alone, read by anybody.
#[derive(Debug)]
pub(crate) struct Histogram {
    pub(crate) counts: [AtomicU64; BUCKETS],
    /// Of all lengths, in nanoseconds.
    pub(crate) sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a length.
    pub(crate) fn add(&self, nanos: u64) {
        let count = &self.counts[bucket(nanos)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed).wrapping_add(nanos);
        self.sum.store(sum, Ordering::Relaxed);
    }
}

/// Where a length is counted.
fn bucket(nanos: u64) -> usize {
    let Some(power) = nanos
        .checked_ilog2()
        .and_then(|power| power.checked_sub(FIRST))
    else {
        return 0;
    };
    let upper_half = nanos >> (power + FIRST - 1) & 1;
    let bucket = 1 + 2 * power as usize + usize::from(upper_half == 1);
    bucket.min(BUCKETS - 1)
}

/// The bound of a bucket, which its lengths are below; of the last one [`Duration::MAX`].
pub(crate) fn bound(bucket: usize) -> Duration {
    if bucket == BUCKETS - 1 {
        return Duration::MAX;
    }
    let nanos = match bucket.checked_sub(1) {
        None => 1 << FIRST,
        Some(half) if half.is_multiple_of(2) => 3_u64 << (FIRST as usize - 1 + half / 2),
        Some(half) => 2_u64 << (FIRST as usize + half / 2),
    };
    Duration::from_nanos(nanos)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{BUCKETS, bound, bucket};

    #[test]
    fn each_length_is_below_the_bound_of_its_bucket_and_not_below_the_last_one() {
        let near = |nanos: u64| [nanos - 1, nanos, nanos + 1];
        for nanos in (1..63)
            .flat_map(|power| [1 << power, 3 << (power - 1)])
            .flat_map(near)
        {
            let place = bucket(nanos);
            let nanos = u128::from(nanos);
            assert!(nanos < bound(place).as_nanos(), "{nanos} in {place}");
            assert!(
                place == 0 || nanos >= bound(place - 1).as_nanos(),
                "{nanos} in {place}"
            );
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!((1..BUCKETS).all(|place| bound(place - 1) < bound(place)));
    }
}
