//! The runtime starts and works although optional system calls are refused (by old kernels, or by filters of
//! containers and sandboxes). Each case runs in a process of its own, under a filter of seccomp(2).

#![allow(unsafe_code, reason = "filters of system calls are the kernel's")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![cfg(target_os = "linux")]

#[path = "it/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use support::{Flag, MODES, MS, in_child, runtime, spin};
use weald::Runtime;

/// All calls that the scheduler can do without.
const OPTIONAL: &[(&str, libc::c_long)] = &[
    ("madvise", libc::SYS_madvise),
    ("process_madvise", libc::SYS_process_madvise),
    ("membarrier", libc::SYS_membarrier),
    ("sched_getattr", libc::SYS_sched_getattr),
    ("sched_setattr", libc::SYS_sched_setattr),
    ("timerfd_create", libc::SYS_timerfd_create),
    ("timerfd_settime", libc::SYS_timerfd_settime),
    ("sigaltstack", libc::SYS_sigaltstack),
    ("prlimit64", libc::SYS_prlimit64),
    ("prctl", libc::SYS_prctl),
];

const ERRORS: &[i32] = &[libc::EPERM, libc::ENOSYS, libc::EINVAL, libc::ENOTSUP];

/// Makes these calls fail with this error from now on, in all threads. Returns false if there are no filters here.
fn refuse(calls: &[libc::c_long], error: i32) -> bool {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for &call in calls {
        let number = u32::try_from(call).unwrap();
        filter.push(libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number)
        });
        let answer = libc::SECCOMP_RET_ERRNO | error.unsigned_abs();
        filter.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    filter.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    let set = libc::SECCOMP_SET_MODE_FILTER;
    let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC;
    // SAFETY: the program lives over the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, set, all_threads, &raw const program) == 0
    }
}

/// Runs what any program may ask of a runtime.
fn check_works(rt: &Runtime) {
    let sum: u64 = rt.run(|| {
        let start = |n| {
            weald::spawn(move || {
                weald::sleep(if n % 2 == 0 { MS } else { MS / 10 });
                n
            })
        };
        let all: Vec<_> = (0..200_u64).map(start).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(sum, 19_900);
    rt.run(|| {
        let listener = weald::tcp_listener(support::v4()).unwrap();
        let address = listener.local_addr().unwrap();
        let serves = weald::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = [0; 5];
            stream.read_exact(&mut text).unwrap();
            stream.write_all(&text).unwrap();
        });
        let mut stream = weald::connect_tcp(address).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        serves.join().unwrap();
    });
    // A hog's neighbours go on.
    let (ticked, tells) = (Flag::default(), Flag::default());
    let sets = ticked.clone();
    let hears = tells.clone();
    let hog = rt.spawn(move || {
        tells.set();
        let begun = Instant::now();
        while !ticked.is_set() && begun.elapsed() < Duration::from_secs(20) {
            spin(MS);
        }
        ticked.is_set()
    });
    // In the other modes it works; in `Pinned` a green thread that has started on the hog's OS thread waits for the
    // hog.
    hears.wait();
    rt.run(move || sets.set());
    assert!(hog.join().unwrap(), "a hog kept its neighbours waiting");
}

fn check_refused(test: &str, late: bool) {
    let all: Vec<_> = OPTIONAL.iter().map(|(_, call)| *call).collect();
    let mut cases: Vec<_> = OPTIONAL
        .iter()
        .map(|&(name, call)| (name, vec![call]))
        .collect();
    cases.push(("all of them", all));
    for (name, calls) in cases {
        for &error in ERRORS {
            let numbers: Vec<_> = calls.iter().map(ToString::to_string).collect();
            let numbers = numbers.join(" ");
            let code = error.to_string();
            let env = [
                ("CALLS_OF_THE_TEST", &*numbers),
                ("ERROR_OF_THE_TEST", &*code),
            ];
            let child = in_child(test, &env, || {
                let said = |name| std::env::var(name).unwrap();
                let calls = said("CALLS_OF_THE_TEST");
                let calls: Vec<libc::c_long> =
                    calls.split(' ').map(|n| n.parse().unwrap()).collect();
                let error: i32 = said("ERROR_OF_THE_TEST").parse().unwrap();
                let early: Vec<_> = if late {
                    MODES.iter().map(|&mode| runtime(2, mode)).collect()
                } else {
                    Vec::new()
                };
                if !refuse(&calls, error) {
                    println!("no filters of system calls here");
                    return;
                }
                if late {
                    early.iter().for_each(check_works);
                } else {
                    for mode in MODES {
                        check_works(&runtime(1, mode));
                        check_works(&runtime(2, mode));
                    }
                }
            });
            assert!(child.success, "{name} says error {error}: {child:?}");
        }
    }
}

#[test]
fn a_runtime_works_where_optional_calls_are_refused() {
    check_refused("a_runtime_works_where_optional_calls_are_refused", false);
}

#[test]
fn a_runtime_works_on_when_optional_calls_are_refused_later() {
    check_refused(
        "a_runtime_works_on_when_optional_calls_are_refused_later",
        true,
    );
}
