//! No descriptors left: `accept` says so, servers back off, report and recover, `select` and `poll` wait without a
//! descriptor, and nothing spins. Each case runs in a process of its own.

#![allow(
    unsafe_code,
    reason = "the limit is the kernel's, and so is the clock of the processor's time"
)]
#![allow(
    clippy::similar_names,
    reason = "`client` and `clients`, `served` and `server` read well"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use support::{in_child, v4};

fn limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit.
    let outcome = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(outcome, 0);
    limit
}

fn set_limit(soft: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: soft,
        ..limit()
    };
    // SAFETY: the pointer is to a live rlimit, and the soft limit is not above the hard one.
    let outcome = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(outcome, 0);
}

/// Leaves room for this many more descriptors.
fn leave(room: libc::rlim_t) {
    // SAFETY: dup of standard error gives the lowest free number, which is closed again.
    let lowest_free = unsafe {
        let fd = libc::dup(2);
        assert!(fd >= 0);
        libc::close(fd);
        fd
    };
    set_limit(libc::rlim_t::try_from(lowest_free).unwrap() + room);
}

/// The processor's time that this process has used.
fn processor_time() -> Duration {
    // SAFETY: all zeroes is a valid rusage, and the pointer is to a live one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let time = |t: libc::timeval| {
        Duration::new(
            u64::try_from(t.tv_sec).unwrap(),
            u32::try_from(t.tv_usec).unwrap() * 1000,
        )
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Clients whose connections lie in the listener's queue.
fn queue_up(to: SocketAddr, clients: usize) -> Vec<StdStream> {
    (0..clients)
        .map(|_| StdStream::connect(to).unwrap())
        .collect()
}

#[test]
fn accept_gives_the_error_back_and_works_again_later() {
    let child = in_child(
        "accept_gives_the_error_back_and_works_again_later",
        &[],
        || {
            let rt = weald::Runtime::builder().workers(1).build().unwrap();
            rt.run(|| {
                let before = limit().rlim_cur;
                let listener = weald::tcp_listener(v4()).unwrap();
                let clients = queue_up(listener.local_addr().unwrap(), 2);
                // The listener waits once, so that it has all that it needs itself.
                let first = listener.accept().unwrap();
                leave(0);
                for _ in 0..3 {
                    let error = listener.accept().map(drop).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                }
                set_limit(before);
                let second = listener.accept().unwrap();
                assert_ne!(first.1, second.1);
                drop(clients);
            });
            println!("recovered");
        },
    );
    assert!(
        child.success && child.stdout.contains("recovered"),
        "{}",
        child.stderr
    );
}

#[test]
fn waits_for_several_descriptors_need_none_of_their_own() {
    let name = "waits_for_several_descriptors_need_none_of_their_own";
    let child = in_child(name, &[], || {
        for (mode, workers) in support::MODES.into_iter().flat_map(|m| [(m, 1), (m, 2)]) {
            let rt = support::runtime(workers, mode);
            let before = limit().rlim_cur;
            let (reader, mut writer) = std::io::pipe().unwrap();
            let reader = std::sync::Arc::new(reader);
            // What the runtime itself needs is opened first.
            rt.run(|| weald::sleep(support::MS));
            leave(5);
            let waiters: Vec<_> = (0..200)
                .map(|number| {
                    let reader = reader.clone();
                    let ask = move || match number % 3 {
                        0 => weald::select(&[&*reader], &[], &[], None).map(|told| told.read.len()),
                        1 => {
                            let asked = weald::net::PollFd::new(&*reader, weald::net::PollFd::IN);
                            weald::net::poll(&mut [asked], Some(support::HOUR))
                        }
                        _ => weald::net::Fd::new(&*reader).readable().map(|()| 1),
                    };
                    rt.spawn(move || {
                        // Some are plain OS threads.
                        if number < 6 {
                            weald::blocking(ask)
                        } else {
                            ask()
                        }
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(200));
            let used = processor_time();
            std::thread::sleep(Duration::from_millis(500));
            let used = processor_time().saturating_sub(used);
            assert!(used < Duration::from_millis(50), "{used:?} of 500 ms");
            writer.write_all(b"!").unwrap();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap().unwrap(), 1);
            }
            set_limit(before);
        }
        println!("all told");
    });
    assert!(
        child.success && child.stdout.contains("all told"),
        "{}",
        child.stderr
    );
}

#[test]
fn waits_for_several_descriptors_never_use_up_those_of_the_process() {
    const LIMIT: libc::rlim_t = 240;
    const WAITERS: usize = 200;
    let name = "waits_for_several_descriptors_never_use_up_those_of_the_process";
    let child = in_child(name, &[], || {
        set_limit(LIMIT);
        for (mode, workers) in support::MODES.into_iter().flat_map(|m| [(m, 1), (m, 2)]) {
            let rt = support::runtime(workers, mode);
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let (reader, mut writer) = std::io::pipe().unwrap();
            let (other, _other) = std::io::pipe().unwrap();
            let both = std::sync::Arc::new((reader, other));
            // What the runtime itself needs is opened first.
            rt.run(|| weald::sleep(support::MS));
            let before = open();
            let asking = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let start = || -> Vec<_> {
                (0..WAITERS)
                    .map(|_| {
                        let (both, asking) = (both.clone(), asking.clone());
                        rt.spawn(move || {
                            asking.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            weald::select(&[&both.0, &both.1], &[], &[], None)
                        })
                    })
                    .collect()
            };
            let settle = |count| {
                while asking.load(std::sync::atomic::Ordering::SeqCst) < count {
                    std::thread::yield_now();
                }
                // They are on their way to wait.
                std::thread::sleep(Duration::from_millis(50));
            };
            let told = start();
            settle(WAITERS);
            let used = open().saturating_sub(before);
            let eighth = usize::try_from(LIMIT / 8).unwrap();
            assert!(used <= eighth, "{used} descriptors");
            writer.write_all(b"!").unwrap();
            for waiter in told {
                assert_eq!(waiter.join().unwrap().unwrap().read, [0]);
            }
            (&both.0).read_exact(&mut [0]).unwrap();
            let killed = start();
            settle(2 * WAITERS);
            for waiter in &killed {
                waiter.thread().kill();
            }
            for waiter in killed {
                assert!(
                    !matches!(waiter.join(), Ok(Ok(_))),
                    "an exception ends each"
                );
            }
        }
        println!("all told");
    });
    assert!(
        child.success && child.stdout.contains("all told"),
        "{}",
        child.stderr
    );
}

/// Counts what is logged.
struct Logged(std::sync::Mutex<Vec<String>>);

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Warn {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

static LOGGED: Logged = Logged(std::sync::Mutex::new(Vec::new()));

#[test]
fn a_server_without_descriptors_says_so_once_a_second_at_most() {
    let name = "a_server_without_descriptors_says_so_once_a_second_at_most";
    let child = in_child(name, &[], || {
        log::set_logger(&LOGGED).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let rt = weald::Runtime::builder().workers(2).build().unwrap();
        let path = std::env::temp_dir().join(format!("weald-exhausted-{}", std::process::id()));
        let (tcp, unix) = rt.run(|| {
            drop(support::green_pair(v4()));
            weald::sleep(support::MS);
            (
                weald::tcp_listener(v4()).unwrap(),
                weald::net::unix::UnixListener::bind(&path).unwrap(),
            )
        });
        let _clients = queue_up(tcp.local_addr().unwrap(), 3);
        let _others: Vec<_> = (0..3)
            .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
            .collect();
        leave(0);
        let (tcp, unix) = rt.run(move || {
            (
                weald::tcp_server(tcp, |_, _| {}),
                weald::unix_server(unix, |_, _| {}),
            )
        });
        std::thread::sleep(Duration::from_millis(1500));
        assert!(tcp.is_running() && unix.is_running());
        let logged = LOGGED.0.lock().unwrap().clone();
        for server in ["tcp_server", "unix_server"] {
            let lines = logged.iter().filter(|line| line.contains(server)).count();
            assert!((1..=3).contains(&lines), "{logged:#?}");
        }
        let _ = std::fs::remove_file(&path);
        println!("told");
    });
    assert!(
        child.success && child.stdout.contains("told"),
        "{}",
        child.stderr
    );
}

#[test]
fn a_server_backs_off_and_recovers_and_does_not_spin() {
    let child = in_child(
        "a_server_backs_off_and_recovers_and_does_not_spin",
        &[],
        || {
            let rt = weald::Runtime::builder().workers(2).build().unwrap();
            let before = limit().rlim_cur;
            // Everything that the runtime itself needs is opened first.
            let listener = rt.run(|| {
                drop(support::green_pair(v4()));
                weald::sleep(support::MS);
                weald::tcp_listener(v4()).unwrap()
            });
            let mut clients = queue_up(listener.local_addr().unwrap(), 30);
            leave(3);
            let server = rt.run(move || {
                weald::tcp_server(listener, |mut stream, _| {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte) {
                        if stream.write_all(&byte).is_err() {
                            break;
                        }
                    }
                })
            });
            std::thread::sleep(Duration::from_millis(200));
            let before_it = processor_time();
            std::thread::sleep(Duration::from_secs(1));
            let busy = processor_time().saturating_sub(before_it);
            assert!(
                busy < Duration::from_millis(300),
                "{busy:?} of processor time in one second without descriptors"
            );
            let mut byte = [0];
            let served = clients.iter_mut().filter(|client| {
                client
                    .set_read_timeout(Some(Duration::from_millis(20)))
                    .unwrap();
                (&**client).write_all(b"a").unwrap();
                (&**client).read_exact(&mut byte).is_ok()
            });
            let served = served.count();
            assert!(served < 30, "the limit was not felt");
            set_limit(before);
            for client in &mut clients {
                client.set_read_timeout(None).unwrap();
                client.write_all(b"b").unwrap();
                // Connections that were not served before also have their first byte to read.
                loop {
                    client.read_exact(&mut byte).unwrap();
                    if &byte == b"b" {
                        break;
                    }
                }
            }
            drop(clients);
            assert!(server.shutdown(support::HOUR));
            println!("recovered");
        },
    );
    assert!(
        child.success && child.stdout.contains("recovered"),
        "{}",
        child.stderr
    );
}
