//! How many CPUs the process may use: the default number of workers.
//!
//! | asked                    | sees                                   | does not see                        |
//! |--------------------------|----------------------------------------|-------------------------------------|
//! | `num_cpus`               | affinity, the quota of the own cgroup  | limits of parents; later changes    |
//! | `available_parallelism`  | the same, and the quotas of all parents; asked anew each time |              |
//!
//! A quota that is no whole number of CPUs: the first rounds up, the second down. Go rounds up too, but has two
//! threads at least. With a number that is rounded up, the kernel would stop workers for a part of each period, and
//! the green threads that they run with them. So the smaller of the two answers counts, and it is 1 at least.

/// How many CPUs the process may use now. At least one.
pub(crate) fn usable() -> usize {
    let available = std::thread::available_parallelism().map(usize::from);
    smaller(num_cpus::get(), available.ok())
}

/// `available`: `None` if the system does not tell.
fn smaller(counted: usize, available: Option<usize>) -> usize {
    available
        .map_or(counted, |available| available.min(counted))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::{smaller, usable};

    #[test]
    fn the_smaller_answer_counts_and_one_worker_is_the_least() {
        // A limit of half a CPU at a parent, on 16 CPUs; 2.5 CPUs; what no system tells.
        assert_eq!(smaller(16, Some(1)), 1);
        assert_eq!(smaller(3, Some(2)), 2);
        assert_eq!(smaller(1, Some(8)), 1);
        assert_eq!(smaller(0, None), 1);
        assert_eq!(smaller(4, None), 4);
    }

    #[test]
    fn no_more_cpus_are_used_than_the_system_says_are_there() {
        let available = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
        assert!((1..=available).contains(&usable()));
    }
}
