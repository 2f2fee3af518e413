//! How many CPUs the process may use: the default number of workers.
//!
//! | asked                    | sees                                                                          |
//! |--------------------------|-------------------------------------------------------------------------------|
//! | `available_parallelism`  | the affinity of the calling OS thread, quotas of control groups that are mounted where they usually are |
//! | `parts/quota.rs`         | quotas of control groups wherever they are mounted                            |
//!
//! Both are asked anew each time; the smaller answer counts, and it is 1 at least. A quota that is no whole number of CPUs is rounded
//! down. Go rounds up, and has two threads at least: that uses all of the quota, but when all threads are busy the
//! kernel stops the whole process for the rest of each period of 100 ms, and the green threads that wait for a time or
//! a peer with it. A worker for each whole CPU stays below the quota, and leaves the rest to
//! the program's other OS threads.

use std::num::NonZero;

use super::quota::Quota;

/// Asks again and again.
#[derive(Debug)]
pub(crate) struct Cpus {
    quota: Quota,
    /// The calling OS thread's CPUs; `None` where the system does not tell.
    available: fn() -> Option<usize>,
}

impl Cpus {
    pub(crate) fn new() -> Self {
        let available = || std::thread::available_parallelism().map(NonZero::get).ok();
        Self {
            quota: Quota::under("/"),
            available,
        }
    }

    /// With the files of another root, and other CPUs.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn fake(quota: Quota, available: fn() -> Option<usize>) -> Self {
        Self { quota, available }
    }

    /// CPUs that the process may use now, one at least.
    pub(crate) fn usable(&mut self) -> usize {
        let quota = self.quota.whole_cpus().unwrap_or(None);
        smaller((self.available)(), quota)
    }

    /// As `usable`; `None` if the process lacks descriptors or memory to look. Then the standard library would not see a
    /// quota either, so the quota is asked first.
    pub(crate) fn usable_if_known(&mut self) -> Option<usize> {
        let quota = self.quota.whole_cpus().ok()?;
        Some(smaller((self.available)(), quota))
    }
}

fn smaller(available: Option<usize>, quota: Option<usize>) -> usize {
    let answers = available.into_iter().chain(quota);
    answers.min().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Cpus, smaller};

    #[test]
    fn the_smaller_answer_counts_and_one_worker_is_the_least() {
        // A quota beside 16 CPUs, affinity to one, what no system tells.
        assert_eq!(smaller(Some(16), Some(3)), 3);
        assert_eq!(smaller(Some(1), Some(8)), 1);
        assert_eq!(smaller(Some(4), None), 4);
        assert_eq!(smaller(None, Some(2)), 2);
        assert_eq!(smaller(None, None), 1);
        assert_eq!(smaller(Some(0), None), 1);
    }

    #[test]
    fn no_more_cpus_are_used_than_the_system_says_are_there() {
        let available = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
        assert!((1..=available).contains(&Cpus::new().usable()));
    }
}
