//! What the process says and does not say: panics name their green thread, exceptions are silent, a broken pipe kills nobody.
//! Each case in a process of its own.

#![allow(
    unsafe_code,
    reason = "signals are set up by hand, and the support module asks the kernel"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use std::io::{Read as _, Write as _};

use support::{HOUR, MS, Mark, caught, green_pair, in_child, settle, v4, was_killed};
use weald::Builder;

#[test]
fn a_panic_message_names_the_green_thread() {
    let child = in_child("a_panic_message_names_the_green_thread", &[], || {
        let alder = Builder::new()
            .name("alder".to_owned())
            .spawn(|| panic!("what went wrong"));
        assert!(alder.unwrap().join().is_err());
        println!("went on");
    });
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("went on"));
    assert!(child.stderr.contains("what went wrong"), "{}", child.stderr);
    assert!(child.stderr.contains("alder"), "{}", child.stderr);
}

#[test]
fn exceptions_print_nothing() {
    let child = in_child("exceptions_print_nothing", &[], || {
        let sleeper = weald::spawn(|| weald::sleep(HOUR));
        settle();
        sleeper.thread().kill();
        assert!(was_killed(&sleeper.join()));
        weald::spawn(|| {
            weald::current().throw(Mark(1));
            assert!(caught(weald::checkpoint).is_err());
            weald::current().throw("text");
            weald::checkpoint();
        })
        .join()
        .unwrap_err();
        assert!(weald::timeout(MS, || weald::sleep(HOUR)).is_err());
        assert!(
            weald::catch::<Mark, _>(|| {
                weald::exc_after(MS, Mark(2));
                weald::sleep(HOUR);
            })
            .is_err()
        );
        let rt = weald::Runtime::builder().workers(1).build().unwrap();
        drop(rt.spawn(weald::park));
        rt.shutdown(MS);
    });
    assert!(child.success, "{}", child.stderr);
    assert_eq!(child.stderr, "");
}

#[test]
fn a_write_into_a_closed_connection_is_an_error_and_no_signal() {
    let child = in_child(
        "a_write_into_a_closed_connection_is_an_error_and_no_signal",
        &[],
        || {
            // SAFETY: the default action is a valid one. Rust's start-up ignores the signal, which would hide it.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let rt = weald::Runtime::builder().workers(2).build().unwrap();
            let write = || {
                let (mut near, far) = green_pair(v4());
                drop(far);
                let kind = loop {
                    if let Err(error) = near.write(b"into the void") {
                        break error.kind();
                    }
                    weald::sleep(MS);
                };
                assert!(
                    matches!(
                        kind,
                        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
                    ),
                    "{kind}"
                );
                let again = near
                    .write_vectored(&[std::io::IoSlice::new(b"again")])
                    .unwrap_err();
                assert_eq!(again.kind(), std::io::ErrorKind::BrokenPipe);
            };
            rt.run(write);
            write();
            println!("still here");
        },
    );
    assert_eq!(child.signal, None);
    assert!(
        child.success && child.stdout.contains("still here"),
        "{}",
        child.stderr
    );
}

#[test]
fn no_call_is_interrupted_by_a_signal() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let child = in_child("no_call_is_interrupted_by_a_signal", &[], || {
        // SAFETY: an empty handler, without SA_RESTART so that every slow call of the kernel is cut short.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            assert_eq!(
                libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
                0
            );
        }
        let check = || {
            let (mut near, mut far) = green_pair(v4());
            let listener = weald::tcp_listener(v4()).unwrap();
            let to = listener.local_addr().unwrap();
            let reader = weald::spawn(move || {
                near.read_exact(&mut [0]).unwrap();
                assert!(weald::timeout(50 * MS, || near.peek(&mut [0])).is_err());
            });
            let acceptor = weald::spawn(move || listener.accept().map(drop).unwrap());
            weald::sleep(50 * MS);
            far.write_all(b"x").unwrap();
            let _client = weald::connect_tcp(to).unwrap();
            reader.join().unwrap();
            acceptor.join().unwrap();
        };
        let rt = weald::Runtime::builder().workers(2).build().unwrap();
        let done = support::Flag::default();
        std::thread::scope(|s| {
            s.spawn(|| {
                while !done.is_set() {
                    for task in std::fs::read_dir("/proc/self/task").unwrap() {
                        let task: libc::pid_t =
                            task.unwrap().file_name().to_str().unwrap().parse().unwrap();
                        // SAFETY: the signal has a handler; a thread that has ended gives an error and no harm.
                        unsafe {
                            libc::syscall(libc::SYS_tgkill, libc::getpid(), task, libc::SIGUSR1)
                        };
                    }
                    std::thread::sleep(MS);
                }
            });
            rt.run(check);
            // And from a plain OS thread.
            let (mut near, mut far) = green_pair(v4());
            let reader = s.spawn(move || near.read_exact(&mut [0]).unwrap());
            weald::sleep(50 * MS);
            far.write_all(b"y").unwrap();
            reader.join().unwrap();
            done.set();
        });
        println!("undisturbed");
    });
    assert!(
        child.success && child.stdout.contains("undisturbed"),
        "{}",
        child.stderr
    );
}
