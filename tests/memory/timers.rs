//! Timers that are over and channels that are empty leave no memory behind.

use std::time::Instant;

use super::{each_mode_in_child, resident, wait_for_rest, wait_until_below};
use crate::support::{HOUR, LIMIT, MS, in_child, runtime, wait_until};

#[test]
fn a_channel_that_was_long_gives_its_memory_back() {
    let test = "timers::a_channel_that_was_long_gives_its_memory_back";
    let child = in_child(test, &[], || {
        let (sender, receiver) = weald::sync::channel::unbounded::<[u64; 8]>();
        let before = resident();
        for round in 0..3 {
            for n in 0..1_000_000 {
                sender.send([n; 8]).unwrap();
            }
            assert!(resident() > before + 50);
            for n in 0..1_000_000 {
                assert_eq!(receiver.recv().unwrap(), [n; 8], "round {round}");
            }
            wait_until_below(before + 10);
        }
        // The same holds for a channel that is never empty.
        for n in 0..1_000_000 {
            sender.send([n; 8]).unwrap();
        }
        for n in 0..999_990 {
            assert_eq!(receiver.recv().unwrap(), [n; 8]);
        }
        wait_until_below(before + 10);
        assert_eq!(receiver.len(), 10);
    });
    assert!(child.success, "{child:?}");
}

#[test]
fn a_million_timers_that_are_over_leave_no_memory_behind() {
    let test = "timers::a_million_timers_that_are_over_leave_no_memory_behind";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| ());
        let before = resident();
        // These timers live on, wherever they are.
        let mut others = Vec::new();
        let mut set = |many: usize| {
            let timers: Vec<_> = (0..many)
                .map(|_| rt.run(|| weald::call_after(HOUR, || ())))
                .collect();
            others.push(rt.run(|| weald::call_after(HOUR, || ())));
            timers
        };
        let cancel = |timers: Vec<weald::Timer>| {
            for timer in timers {
                assert!(timer.cancel());
            }
        };
        let most = set(1000);
        let million: Vec<_> = rt.run(|| {
            (0..1_000_000)
                .map(|_| weald::call_after(HOUR, || ()))
                .collect()
        });
        assert!(resident() > before + 40);
        rt.run(|| cancel(million));
        cancel(most);
        cancel(set(1000));
        // The memory that `malloc` keeps of the closures is not tested here.
        wait_until(|| {
            // SAFETY: the call has no conditions.
            unsafe { libc::malloc_trim(0) };
            resident() < before + 20
        });
        // It is used again.
        cancel(set(10_000));
        cancel(others);
    });
}

#[test]
fn timers_that_an_os_thread_cancels_beside_sleeping_workers_leave_no_memory_behind() {
    let test =
        "timers::timers_that_an_os_thread_cancels_beside_sleeping_workers_leave_no_memory_behind";
    // `malloc_trim` leaves the upper end of every arena but the first one as it is.
    let one_arena = [("MALLOC_ARENA_MAX", "1")];
    each_mode_in_child(test, &one_arena, |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| ());
        let before = resident();
        let timers: Vec<_> = rt.run(|| {
            let set = |_| weald::call_after(HOUR, || ());
            (0..400_000).map(set).collect()
        });
        wait_for_rest(&rt);
        assert!(resident() > before + 40);
        for timer in timers {
            assert!(timer.cancel());
        }
        // The memory that `malloc` keeps of the closures is not tested here.
        let begun = Instant::now();
        loop {
            // SAFETY: the call has no conditions.
            unsafe { libc::malloc_trim(0) };
            let left = resident();
            if left < before + 20 {
                break;
            }
            assert!(
                begun.elapsed().as_secs() < LIMIT / 4,
                "{left} MiB are left, {before} before"
            );
            // This sleeps as an OS thread, so nothing wakes the workers.
            std::thread::sleep(10 * MS);
        }
    });
}
