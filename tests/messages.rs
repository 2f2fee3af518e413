//! What the process prints: a panic names its green thread, exceptions are silent, and a broken pipe kills nobody.
//! Each case runs in a process of its own.

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

/// Two green threads panic and wait in a destructor, side by side; one is killed meanwhile.
fn panic_side_by_side() {
    for rt in support::MODES.map(|mode| support::runtime(1, mode)) {
        rt.run(|| {
            let go = support::Flag::default();
            let threads = ["first", "second"].map(|text| {
                let (waits, go) = (support::Flag::default(), go.clone());
                let tells = waits.clone();
                let thread = weald::spawn(move || {
                    let _guard = support::OnDrop(move || {
                        tells.set();
                        go.wait();
                    });
                    panic!("{text}");
                });
                waits.wait();
                thread
            });
            threads[1].thread().kill();
            settle();
            go.set();
            let texts = threads.map(|thread| support::panic_text(&*thread.join().unwrap_err()));
            assert_eq!(texts, ["first", "second"]);
        });
    }
}

#[test]
fn nothing_depends_on_the_panic_hook_that_the_runtime_sets() {
    let name = "nothing_depends_on_the_panic_hook_that_the_runtime_sets";
    let child = in_child(name, &[], || {
        // The hook is set before the first runtime, over its hook, or not at all.
        std::panic::set_hook(Box::new(|_| eprintln!("mine")));
        panic_side_by_side();
        std::panic::set_hook(Box::new(|_| eprintln!("mine")));
        panic_side_by_side();
        drop(std::panic::take_hook());
        panic_side_by_side();
        println!("went on");
    });
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("went on"));
    let mine = child.stderr.matches("mine\n").count();
    assert_eq!(mine, 4 * support::MODES.len(), "{}", child.stderr);
}

#[cfg(unix)]
#[test]
fn a_panic_whose_message_nobody_can_read_is_a_panic_like_any_other() {
    use std::os::fd::AsRawFd;

    let name = "a_panic_whose_message_nobody_can_read_is_a_panic_like_any_other";
    let child = in_child(name, &[], || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // SAFETY: no pointers; the number stays open, for another file.
        unsafe { libc::dup2(writer.as_raw_fd(), 2) };
        panic_side_by_side();
        println!("went on");
    });
    assert!(child.success);
    assert!(child.stdout.contains("went on"));
}

#[test]
fn a_panic_waits_for_nobody_who_holds_standard_error() {
    let name = "a_panic_waits_for_nobody_who_holds_standard_error";
    let child = in_child(name, &[], || {
        for rt in support::MODES.map(|mode| support::runtime(1, mode)) {
            rt.run(|| {
                let _held = std::io::stderr().lock();
                let alder = Builder::new().name("alder".to_owned());
                let alder = alder.spawn(|| panic!("what went wrong")).unwrap();
                assert!(alder.join().is_err());
            });
        }
        println!("went on");
    });
    assert!(child.stdout.contains("went on"), "{}", child.stderr);
    let named = child.stderr.matches("in green thread 'alder'").count();
    assert_eq!(named, support::MODES.len(), "{}", child.stderr);
}

#[test]
fn the_first_use_may_be_in_a_drop_that_unwinds() {
    let name = "the_first_use_may_be_in_a_drop_that_unwinds";
    let child = in_child(name, &[], || {
        struct First;
        impl Drop for First {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                assert_eq!(weald::spawn(|| 5).join().unwrap(), 5);
                let own = support::runtime(1, *support::MODES.last().unwrap());
                assert_eq!(own.run(|| 6), 6);
            }
        }
        let unwound = caught(|| {
            let _first = First;
            panic!("the first one");
        });
        assert!(unwound.is_err());
        drop(support::runtime(1, support::MODES[0]));
        let alder = Builder::new().name("alder".to_owned());
        let alder = alder.spawn(|| panic!("what went wrong")).unwrap();
        assert!(alder.join().is_err());
        println!("went on");
    });
    assert!(child.success, "{}", child.stderr);
    assert!(child.stdout.contains("went on"));
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
            // The same from a plain OS thread.
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

#[test]
fn a_hog_is_reported_once_with_its_name_and_its_stack_when_it_is_back() {
    struct Channel(std::sync::mpsc::SyncSender<String>);
    impl log::Log for Channel {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            // A test that has heard enough does not listen any more.
            let _ = self.0.send(record.args().to_string());
        }
        fn flush(&self) {}
    }
    #[inline(never)]
    fn computes(records: &std::sync::mpsc::Receiver<String>) {
        let record = records.recv().unwrap();
        assert!(
            record.contains("alder") && record.contains("has kept its OS thread"),
            "{record}"
        );
        weald::sleep(MS);
    }
    let child = in_child(
        "a_hog_is_reported_once_with_its_name_and_its_stack_when_it_is_back",
        &[],
        || {
            let (sender, records) = std::sync::mpsc::sync_channel(16);
            log::set_logger(Box::leak(Box::new(Channel(sender)))).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
            let rt = weald::Runtime::builder()
                .workers(1)
                .hog_report(100 * MS)
                .build()
                .unwrap();
            let records = rt.run(move || {
                let hog = move || {
                    computes(&records);
                    records
                };
                Builder::new()
                    .name("alder".to_owned())
                    .spawn(hog)
                    .unwrap()
                    .join()
                    .unwrap()
            });
            let record = records.recv().unwrap();
            assert!(
                record.contains("alder") && record.contains("computes"),
                "{record}"
            );
            drop(rt);
            assert!(records.try_recv().is_err());
            println!("told");
        },
    );
    assert!(
        child.success && child.stdout.contains("told"),
        "{}",
        child.stderr
    );
}

#[test]
fn sigquit_writes_a_dump_and_the_process_goes_on() {
    let test = "sigquit_writes_a_dump_and_the_process_goes_on";
    check_sigquit(test, &[], |builder| builder.dump_on_sigquit(true));
}

#[test]
fn the_environment_asks_for_dumps_without_a_line_of_code() {
    let test = "the_environment_asks_for_dumps_without_a_line_of_code";
    check_sigquit(test, &[("WEALD_DUMP_ON", "quit")], |builder| builder);
}

fn check_sigquit(
    name: &str,
    env: &[(&str, &str)],
    set: fn(weald::RuntimeBuilder) -> weald::RuntimeBuilder,
) {
    let child = in_child(name, env, || {
        let (mut told, error) = std::io::pipe().unwrap();
        // SAFETY: both are open descriptors; what is replaced is closed.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&error), 2) };
        let rt = set(weald::Runtime::builder().workers(1)).build().unwrap();
        rt.run(|| {
            let sleeper = Builder::new()
                .name("alder".to_owned())
                .spawn(weald::park)
                .unwrap();
            settle();
            for _ in 0..2 {
                // SAFETY: the signal has a handler.
                assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGQUIT) }, 0);
                let mut text = String::new();
                while !text.contains("alder") || !text.contains("park") {
                    let mut some = [0; 4096];
                    let got = weald::blocking(|| told.read(&mut some).unwrap());
                    text.push_str(&String::from_utf8_lossy(&some[..got]));
                }
            }
            sleeper.thread().unpark();
            sleeper.join().unwrap();
        });
        println!("went on");
    });
    assert!(
        child.success && child.stdout.contains("went on"),
        "{}",
        child.stderr
    );
}

#[test]
fn a_handler_of_sigquit_that_was_there_is_called_as_well() {
    static CALLED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    extern "C" fn count(_: libc::c_int) {
        CALLED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    let test = "a_handler_of_sigquit_that_was_there_is_called_as_well";
    let child = in_child(test, &[], || {
        let handler: extern "C" fn(libc::c_int) = count;
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGQUIT, handler as libc::sighandler_t) };
        let rt = weald::Runtime::builder().workers(1).dump_on_sigquit(true);
        let rt = rt.build().unwrap();
        // SAFETY: the signal has a handler, which runs before the call returns or soon after.
        assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGQUIT) }, 0);
        support::wait_until(|| CALLED.load(std::sync::atomic::Ordering::SeqCst) == 1);
        drop(rt);
    });
    assert!(child.success, "{}", child.stderr);
}
