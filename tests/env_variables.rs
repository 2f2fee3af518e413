//! `WEALD_WORKERS`, `WEALD_STACK_SIZE` and `WEALD_DUMP_ON`: what they set, and what happens with a bad value at first use. Each case
//! runs in a process of its own.

#![allow(unsafe_code, reason = "the support module asks the kernel")]
#![allow(
    clippy::large_stack_arrays,
    reason = "to use the stack is what they are for"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use support::{check_names, in_child, os_thread};

/// The first use of the default runtime panics in the child, naming the variable, the value and the bound.
fn check_refused(test: &str, variable: &str, value: &str, bounds: &[&str]) {
    let child = in_child(test, &[(variable, value)], || {
        weald::spawn(|| ()).join().unwrap();
    });
    assert!(!child.success, "{variable}={value:?} was taken");
    assert_eq!(
        child.signal, None,
        "a panic, and not an abort: {}",
        child.stderr
    );
    let said = &child.stderr;
    assert!(said.contains(variable), "{said:?} does not name {variable}");
    check_names(said, value, bounds);
}

#[test]
fn a_bad_number_of_workers_panics_at_first_use() {
    for value in [
        "0",
        "1025",
        "-1",
        "two",
        "4294967297",
        "99999999999999999999999",
        "1.5",
    ] {
        check_refused(
            "a_bad_number_of_workers_panics_at_first_use",
            "WEALD_WORKERS",
            value,
            &["1024"],
        );
    }
}

#[test]
fn a_bad_time_to_dump_panics_at_first_use() {
    for value in ["term", "QUIT", "quit,term"] {
        check_refused(
            "a_bad_time_to_dump_panics_at_first_use",
            "WEALD_DUMP_ON",
            value,
            &["quit"],
        );
    }
}

#[test]
fn a_bad_stack_size_panics_at_first_use() {
    let bounds = ["16 KiB", "16KiB", "16384", "1 GiB", "1GiB", "1073741824"];
    for value in ["0", "16383", "1073741825", "-4096", "big", "64 KiB please"] {
        check_refused(
            "a_bad_stack_size_panics_at_first_use",
            "WEALD_STACK_SIZE",
            value,
            &bounds,
        );
    }
}

#[test]
fn an_os_thread_that_only_makes_other_runtimes_does_not_read_the_variables() {
    let test = "an_os_thread_that_only_makes_other_runtimes_does_not_read_the_variables";
    let child = in_child(
        test,
        &[("WEALD_WORKERS", "0"), ("WEALD_STACK_SIZE", "0")],
        || {
            let rt = weald::Runtime::builder().workers(1).build().unwrap();
            assert_eq!(rt.run(|| weald::spawn(|| 1).join().unwrap()), 1);
            println!("went well");
        },
    );
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("went well"));
}

#[test]
fn one_worker_means_one_os_thread_for_all_green_threads() {
    let child = in_child(
        "one_worker_means_one_os_thread_for_all_green_threads",
        &[("WEALD_WORKERS", "1")],
        || {
            let seen = Arc::new(Mutex::new(HashSet::new()));
            let crowd: Vec<_> = (0..100)
                .map(|_| {
                    let seen = Arc::clone(&seen);
                    weald::spawn(move || {
                        for _ in 0..5 {
                            let own = os_thread();
                            seen.lock().unwrap().insert(own);
                            weald::yield_now();
                        }
                    })
                })
                .collect();
            for h in crowd {
                h.join().unwrap();
            }
            println!("os threads: {}.", seen.lock().unwrap().len());
        },
    );
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("os threads: 1."), "{}", child.stdout);
}

#[test]
fn three_workers_compute_at_once() {
    let child = in_child(
        "three_workers_compute_at_once",
        &[("WEALD_WORKERS", "3")],
        || {
            let arrived = support::Count::default();
            let crowd: Vec<_> = (0..3)
                .map(|_| {
                    let arrived = arrived.clone();
                    weald::spawn(move || {
                        arrived.add();
                        while arrived.get() < 3 {
                            std::thread::yield_now();
                        }
                    })
                })
                .collect();
            for h in crowd {
                h.join().unwrap();
            }
            println!("all three met");
        },
    );
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("all three met"));
}

/// Allows each OS thread of the process these CPUs.
#[cfg(target_os = "linux")]
fn allow(cpus: &libc::cpu_set_t) {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let name = task.unwrap().file_name();
        let task = name.to_str().unwrap().parse().unwrap();
        // SAFETY: the set is as large as said. An OS thread that has ended meanwhile is an error, which is passed over.
        unsafe { libc::sched_setaffinity(task, size_of_val(cpus), cpus) };
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_default_number_of_workers_follows_the_affinity_of_the_process() {
    let test = "the_default_number_of_workers_follows_the_affinity_of_the_process";
    let child = in_child(test, &[], || {
        // SAFETY: a set of no CPUs; then the kernel writes as much as said.
        let all = unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            assert_eq!(
                libc::sched_getaffinity(0, size_of_val(&all), &raw mut all),
                0
            );
            all
        };
        // SAFETY: as above, and the CPUs' numbers are within a set.
        let first = unsafe {
            let mut first: libc::cpu_set_t = std::mem::zeroed();
            let size = usize::try_from(libc::CPU_SETSIZE).unwrap();
            let number = (0..size).find(|&cpu| libc::CPU_ISSET(cpu, &all));
            libc::CPU_SET(number.unwrap(), &mut first);
            first
        };
        // The monitor asks while somebody is awake.
        let wait_for = |workers| {
            weald::spawn(move || support::wait_until(|| weald::metrics().workers == workers))
                .join()
                .unwrap();
        };
        let many = weald::metrics().workers;
        allow(&first);
        wait_for(1);
        allow(&all);
        wait_for(many);
        println!("followed");
    });
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("followed"));
}

#[test]
fn the_stack_size_is_that_of_the_default_runtimes_green_threads() {
    let eight_mib = [("WEALD_STACK_SIZE", "8388608")];
    let child = in_child(
        "the_stack_size_is_that_of_the_default_runtimes_green_threads",
        &eight_mib,
        || {
            let filled = || {
                std::hint::black_box([1_u8; 1 << 20])
                    .iter()
                    .map(|&b| usize::from(b))
                    .sum::<usize>()
            };
            println!("bytes: {}.", weald::spawn(filled).join().unwrap());
        },
    );
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("bytes: 1048576."));
}

#[test]
fn the_end_of_main_ends_the_green_threads_of_the_default_runtime() {
    let child = in_child(
        "the_end_of_main_ends_the_green_threads_of_the_default_runtime",
        &[],
        || {
            for _ in 0..100 {
                weald::spawn(|| weald::sleep(std::time::Duration::MAX));
            }
            weald::call_after(support::HOUR, || ());
            let computes = support::Flag::default();
            let tells = computes.clone();
            weald::spawn(move || {
                tells.set();
                loop {
                    std::hint::spin_loop();
                }
            });
            computes.spin();
        },
    );
    assert!(child.success, "{}", child.stderr);
}

#[test]
fn bad_thread_locals_panic_at_first_use() {
    for value in ["", "Own", "shared"] {
        check_refused(
            "bad_thread_locals_panic_at_first_use",
            "WEALD_THREAD_LOCALS",
            value,
            &["pinned"],
        );
    }
}

#[test]
fn thread_locals_are_pinned_if_the_variable_says_so_and_the_program_nothing() {
    let child = in_child(
        "thread_locals_are_pinned_if_the_variable_says_so_and_the_program_nothing",
        &[("WEALD_THREAD_LOCALS", "pinned")],
        || {
            let rt = weald::Runtime::builder().workers(1).build().unwrap();
            assert_eq!(rt.thread_locals(), Some(weald::ThreadLocals::Pinned));
            if let Some(rt) = support::own_runtime(1) {
                assert_eq!(rt.thread_locals(), Some(weald::ThreadLocals::Own));
            }
        },
    );
    assert!(child.success, "{}", child.stderr);
}

/// The variable takes the place of what the kernel tells of the running thread.
#[test]
fn no_runtime_starts_under_hardware_shadow_stacks_and_the_error_says_why() {
    let test = "no_runtime_starts_under_hardware_shadow_stacks_and_the_error_says_why";
    for (status, starts) in [("0", true), ("1", false), ("2", true), ("3", false)] {
        let variable = [("WEALD_SHADOW_STACK_STATUS", status)];
        let child = in_child(test, &variable, || {
            for mode in support::MODES {
                let builder = weald::Runtime::builder().workers(1);
                let builder = match mode {
                    support::Mode::Own => builder.thread_locals(weald::ThreadLocals::Own),
                    support::Mode::Pinned => builder.thread_locals(weald::ThreadLocals::Pinned),
                    // SAFETY: the thread holds nothing.
                    support::Mode::Shared => unsafe { builder.share_thread_locals() },
                };
                match builder.build() {
                    Ok(rt) => assert_eq!(rt.run(|| 7), 7),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
                        println!("{error}");
                    }
                }
            }
            // The default runtime can report the error only by a panic.
            let spawned = std::panic::catch_unwind(|| weald::spawn(|| 7).join().unwrap());
            println!("default: {:?}", spawned.ok());
        });
        assert!(child.success, "{}", child.stderr);
        let said = child.stdout.contains("shadow stacks");
        assert_eq!(said, !starts, "{status}: {}", child.stdout);
        let default = if starts {
            "default: Some(7)"
        } else {
            "default: None"
        };
        assert!(child.stdout.contains(default), "{status}: {}", child.stdout);
        assert_eq!(child.stderr.contains("shadow stacks"), !starts);
    }
}
