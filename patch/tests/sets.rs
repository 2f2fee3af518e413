//! Waits for several descriptors never use up the descriptors of the process. The test is a program of its own, as it
//! lowers their limit.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;
#[path = "support/several.rs"]
mod waits;

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use support::{SHARE, in_green, number_of_its_own, share_of};
use waits::{poll, select, settle, waiter};

/// How many descriptors the process may have, and how many threads wait.
const LIMIT: u64 = 160;
const WAITERS: usize = 120;

fn set_limit() {
    let limit = libc::rlimit {
        rlim_cur: LIMIT,
        rlim_max: LIMIT,
    };
    // SAFETY: a pointer to a local.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0);
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn waits_for_several_have_an_eighth_of_the_descriptors_and_wait_without_beyond_that() {
    set_limit();
    in_green(|| {
        let before = open_descriptors();
        let (first, mut writer) = io::pipe().unwrap();
        let (second, _second) = io::pipe().unwrap();
        let number = number_of_its_own(&second, 100);
        drop(second);
        let all = [first.as_raw_fd(), number];
        let start = || -> Vec<_> { (0..WAITERS).map(|_| waiter(move || poll(&all))).collect() };

        let polls = start();
        settle(WAITERS);
        let eighth = usize::try_from(LIMIT / 8).unwrap();
        // Two pipes and a second number of one end are open too.
        let used = open_descriptors() - before;
        assert!(used <= eighth + 5, "{used} descriptors");
        let share = share_of(20);
        assert!(share < SHARE, "{share} of a core");
        writer.write_all(b"x").unwrap();
        for waits in polls {
            assert_eq!(waits.join().unwrap(), (1, vec![libc::POLLIN, 0]));
        }
        io::Read::read_exact(&mut &first, &mut [0]).unwrap();

        // An exception ends each of them.
        let polls = start();
        settle(WAITERS);
        for waits in &polls {
            waits.thread().kill();
        }
        for waits in polls {
            assert!(waits.join().is_err());
        }
        let limit = Duration::from_millis(10);
        let late = waiter(move || weald::timeout(limit, || poll(&all)).is_err());
        assert!(late.join().unwrap());

        // Each of them is told of a number that is closed, and none is told of the next file with the number.
        let polls = start();
        let selects: Vec<_> = (0..WAITERS).map(|_| waiter(move || select(&all))).collect();
        settle(2 * WAITERS);
        let (next, mut into) = io::pipe().unwrap();
        into.write_all(b"x").unwrap();
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::dup2(next.as_raw_fd(), number) }, number);
        for waits in polls {
            assert_eq!(waits.join().unwrap(), (1, vec![0, libc::POLLNVAL]));
        }
        for waits in selects {
            assert_eq!(waits.join().unwrap(), Some(libc::EBADF));
        }
    });
}
