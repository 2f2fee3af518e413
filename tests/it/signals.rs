//! Signals as blocking calls. Each test raises them in a process of its own.

use std::io::{self, Read as _};
use std::sync::Arc;

use weald::signal::{Signal, Signals, shutdown};
use weald::sync::channel::{after, unbounded};
use weald::{Elapsed, Killed, Runtime};

use crate::support::{
    Count, Flag, HOUR, MS, each_mode, each_mode_on, in_child, settle, source_of, wait_until,
};

/// Runs `body` in a process of its own, which must end by itself.
fn check_in_child(test: &str, body: impl FnOnce() + Send) {
    let name = format!("signals::{test}");
    let child = in_child(&name, &[], || {
        body();
        println!("came to its end");
    });
    let well = child.success && child.stdout.contains("came to its end");
    assert!(well, "{child:?}");
}

/// Sends a signal to this process. Any OS thread may get it.
fn raise(signal: Signal) {
    // SAFETY: the signal has a handler.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal.number()) }, 0);
}

/// A signal that is raised again and again may arrive late, so each kind is tested in a process of its own.
fn check_shutdown(test: &str, signal: Signal) {
    check_in_child(test, || {
        // The handlers are there from now on, so a signal does not end the process.
        let _handlers = Signals::new([Signal::SIGTERM, Signal::SIGINT]).unwrap();
        each_mode(|rt| {
            let threads = [rt.spawn(shutdown), rt.spawn(shutdown)];
            let thread = std::thread::spawn(shutdown);
            wait_until(|| {
                raise(signal);
                threads.iter().all(weald::JoinHandle::is_finished) && thread.is_finished()
            });
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap(), signal);
            }
            assert_eq!(thread.join().unwrap().unwrap(), signal);
        });
    });
}

#[test]
fn shutdown_waits_for_sigterm_and_tells_all_who_wait() {
    let test = "shutdown_waits_for_sigterm_and_tells_all_who_wait";
    check_shutdown(test, Signal::SIGTERM);
}

#[test]
fn shutdown_waits_for_sigint_and_tells_all_who_wait() {
    let test = "shutdown_waits_for_sigint_and_tells_all_who_wait";
    check_shutdown(test, Signal::SIGINT);
}

#[test]
fn every_stream_gets_each_of_its_signals_and_no_others() {
    check_in_child(
        "every_stream_gets_each_of_its_signals_and_no_others",
        || {
            each_mode(|rt| {
                rt.run(|| {
                    let both = Signals::new([libc::SIGUSR1, libc::SIGUSR2]).unwrap();
                    let one = Signals::new([Signal::SIGUSR2]).unwrap();
                    let other = Signals::new([Signal::SIGUSR2]).unwrap();
                    raise(Signal::SIGUSR1);
                    assert_eq!(both.recv().unwrap(), Signal::SIGUSR1);
                    raise(Signal::SIGUSR2);
                    for signals in [&both, &one, &other] {
                        assert_eq!(signals.recv().unwrap(), Signal::SIGUSR2);
                        assert!(signals.try_recv().is_err());
                    }
                });
            });
        },
    );
}

#[test]
fn what_comes_before_recv_is_kept() {
    check_in_child("what_comes_before_recv_is_kept", || {
        let signals = Signals::new([Signal::SIGHUP]).unwrap();
        raise(Signal::SIGHUP);
        wait_until(|| !signals.is_empty());
        assert_eq!(signals.recv().unwrap(), Signal::SIGHUP);
    });
}

#[test]
fn a_limit_and_a_kill_end_the_wait_and_lose_no_signal() {
    check_in_child("a_limit_and_a_kill_end_the_wait_and_lose_no_signal", || {
        each_mode(|rt| {
            rt.run(|| {
                assert!(weald::timeout(MS, shutdown).is_err());
                let signals = Arc::new(Signals::new([Signal::SIGUSR1]).unwrap());
                let error = weald::timeout(MS, || {
                    let error = signals.recv().unwrap_err();
                    assert!(source_of::<Elapsed>(&error).is_some());
                    error.kind()
                });
                assert!(error.is_err());
                let waits = Arc::clone(&signals);
                let waiter = weald::spawn(move || waits.recv());
                settle();
                waiter.thread().kill();
                let error = waiter.join().unwrap().unwrap_err();
                assert!(source_of::<Killed>(&error).is_some());
                raise(Signal::SIGUSR1);
                assert_eq!(signals.recv().unwrap(), Signal::SIGUSR1);
            });
        });
    });
}

#[test]
fn select_takes_signals_beside_other_arms() {
    check_in_child("select_takes_signals_beside_other_arms", || {
        each_mode(|rt| {
            rt.run(|| {
                let signals = Signals::new([Signal::SIGUSR1]).unwrap();
                let (sender, receiver) = unbounded::<u8>();
                let raiser = weald::spawn(|| {
                    settle();
                    raise(Signal::SIGUSR1);
                });
                let got = weald::select! {
                    recv(signals) -> signal => signal.ok(),
                    recv(receiver) -> _ => None,
                    recv(after(HOUR)) -> _ => None,
                };
                assert_eq!(got, Some(Signal::SIGUSR1));
                raiser.join().unwrap();
                let raiser = weald::spawn(|| {
                    settle();
                    raise(Signal::SIGUSR1);
                });
                weald::select! {
                    readable(&signals) -> ready => ready.unwrap(),
                    recv(receiver) -> _ => unreachable!(),
                }
                assert_eq!(signals.try_recv(), Ok(Signal::SIGUSR1));
                raiser.join().unwrap();
                let none = weald::select! {
                    recv(signals) -> signal => signal.ok(),
                    readable(&signals) -> _ => Some(Signal::SIGUSR1),
                    default(MS) => None,
                };
                assert_eq!(none, None);
                drop(sender);
            });
        });
    });
}

#[test]
fn signals_that_nobody_can_catch_are_errors() {
    let bad = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        0,
        -1,
        65,
        i32::MIN,
        i32::MAX,
        // glibc's own.
        #[cfg(target_env = "gnu")]
        32,
    ];
    for number in bad {
        let error = Signals::new([number]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{number}");
    }
    let none: [Signal; 0] = [];
    assert!(Signals::new(none).unwrap().try_recv().is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_arrives_whichever_os_thread_it_meets() {
    check_in_child("a_signal_arrives_whichever_os_thread_it_meets", || {
        each_mode_on(2, |rt| {
            // Some compute, some wait in the kernel.
            let (stop, running) = (Flag::default(), Count::default());
            let hogs: Vec<_> = (0..4)
                .map(|_| {
                    let (stop, running) = (stop.clone(), running.clone());
                    rt.spawn(move || {
                        running.add();
                        stop.spin();
                    })
                })
                .collect();
            running.spin(1);
            let signals = Signals::new([Signal::SIGUSR2]).unwrap();
            for task in std::fs::read_dir("/proc/self/task").unwrap() {
                let task: i32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
                // SAFETY: the signal has a handler; an OS thread that has ended is an error.
                let sent =
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), task, libc::SIGUSR2) };
                if sent == 0 {
                    assert_eq!(signals.recv().unwrap(), Signal::SIGUSR2);
                }
            }
            stop.set();
            for hog in hogs {
                hog.join().unwrap();
            }
        });
    });
}

#[test]
fn a_flood_of_one_kind_is_merged_and_hides_no_other() {
    check_in_child("a_flood_of_one_kind_is_merged_and_hides_no_other", || {
        let signals = Signals::new([Signal::SIGUSR1, Signal::SIGUSR2]).unwrap();
        // More than the pipe holds.
        for _ in 0..100_000 {
            raise(Signal::SIGUSR1);
        }
        raise(Signal::SIGUSR2);
        // At most 256 of each kind.
        assert!(signals.len() <= 512, "{}", signals.len());
        let mut others = 0;
        while signals.recv().unwrap() == Signal::SIGUSR1 {
            others += 1;
        }
        assert!(others > 0);
        // Signals of different kinds may be told in either order, so one more may be left.
        wait_until(|| signals.try_recv().is_err());
        raise(Signal::SIGUSR1);
        assert_eq!(signals.recv().unwrap(), Signal::SIGUSR1);
    });
}

#[test]
fn sigquit_is_told_beside_the_dump_whichever_was_asked_for_first() {
    for stream_first in [true, false] {
        let name = "signals::sigquit_is_told_beside_the_dump_whichever_was_asked_for_first";
        let first = if stream_first { "stream" } else { "dump" };
        let child = in_child(name, &[("WEALD_TEST_FIRST", first)], || {
            let (mut told, error) = std::io::pipe().unwrap();
            // SAFETY: both are open descriptors; what is replaced is closed.
            unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&error), 2) };
            let stream_first = std::env::var("WEALD_TEST_FIRST").unwrap() == "stream";
            let stream = || Signals::new([Signal::SIGQUIT]).unwrap();
            let early = stream_first.then(stream);
            let builder = Runtime::builder().workers(1).thread_name("alder");
            let rt = builder.dump_on_sigquit(true).build().unwrap();
            let signals = early.unwrap_or_else(stream);
            rt.run(|| {
                raise(Signal::SIGQUIT);
                assert_eq!(signals.recv().unwrap(), Signal::SIGQUIT);
            });
            let (mut text, mut some) = (String::new(), [0; 4096]);
            while !text.contains("alder") {
                let got = told.read(&mut some).unwrap();
                text.push_str(&String::from_utf8_lossy(&some[..got]));
            }
            println!("came to its end");
        });
        let well = child.success && child.stdout.contains("came to its end");
        assert!(well, "{first}: {child:?}");
    }
}

#[test]
fn a_handler_runs_on_the_alternate_stack() {
    check_in_child("a_handler_runs_on_the_alternate_stack", || {
        let _signals = Signals::new([Signal::SIGUSR1]).unwrap();
        // SAFETY: all zeros is a valid `sigaction`, and there is room for the one that is asked for.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(libc::SIGUSR1, std::ptr::null(), &raw mut action);
            assert_eq!(asked, 0);
            action
        };
        let both = libc::SA_ONSTACK | libc::SA_RESTART;
        assert_eq!(action.sa_flags & both, both);
    });
}

#[test]
fn the_time_between_two_streams_ends_no_process() {
    check_in_child("the_time_between_two_streams_ends_no_process", || {
        drop(Signals::new([Signal::SIGTERM]).unwrap());
        raise(Signal::SIGTERM);
        let signals = Signals::new([Signal::SIGTERM]).unwrap();
        wait_until(|| {
            raise(Signal::SIGTERM);
            signals.try_recv().is_ok()
        });
    });
}

#[test]
fn a_child_of_fork_receives_its_own_signals() {
    check_in_child("a_child_of_fork_receives_its_own_signals", || {
        let of_parent = Signals::new([Signal::SIGUSR1]).unwrap();
        // SAFETY: this process has one OS thread that takes locks, this one; the child leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let signals = Signals::new([Signal::SIGUSR1]).unwrap();
            raise(Signal::SIGUSR1);
            let seen = signals.recv_timeout(60_000 * MS);
            let code = if seen == Ok(Signal::SIGUSR1) { 42 } else { 43 };
            // SAFETY: as above.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the place is valid.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 42);
        // The parent has received nothing of it, and goes on.
        assert!(of_parent.try_recv().is_err());
        raise(Signal::SIGUSR1);
        assert_eq!(of_parent.recv().unwrap(), Signal::SIGUSR1);
    });
}
