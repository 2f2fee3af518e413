//! The time slices that Linux gives to the OS threads of hogs, and of the threads that these start.

use std::sync::mpsc;

use crate::support::{Flag, each_mode_on, wait_until};

/// Returns the slice of the calling OS thread in ns; 0 if none was asked for.
#[allow(unsafe_code, reason = "a system call")]
fn slice_of_this_thread() -> u64 {
    // SAFETY: all zero is a value of it.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is as large as said.
    let got = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            0,
            &raw mut attr,
            size_of_val(&attr),
            0,
        )
    };
    if got != 0 {
        eprintln!("not tested: {}", std::io::Error::last_os_error());
        return 0;
    }
    attr.sched_runtime
}

#[test]
fn an_os_thread_that_a_hog_starts_has_the_slices_of_any_other() {
    let ordinary = std::thread::spawn(slice_of_this_thread).join().unwrap();
    each_mode_on(1, |rt| {
        let before = rt.metrics().handovers;
        let (tell, seen) = mpsc::channel();
        let relieved = Flag::default();
        let first = relieved.clone();
        let hog = rt.spawn(move || {
            first.spin();
            weald::yield_now();
            let own = slice_of_this_thread();
            let childs = std::thread::spawn(slice_of_this_thread).join().unwrap();
            tell.send((own, childs)).unwrap();
        });
        rt.spawn(|| ()).join().unwrap();
        wait_until(|| rt.metrics().handovers > before);
        relieved.set();
        hog.join().unwrap();
        let (own, childs) = seen.recv().unwrap();
        // Before Linux 6.12 no thread has slices of its own.
        assert!(own > ordinary || own == 0, "{own} ns, {ordinary} ns");
        assert_eq!(childs, ordinary);
    });
}
