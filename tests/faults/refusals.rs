//! What the kernel refuses. Each test runs in a process of its own, with limits or under strace(1), which makes
//! system calls fail.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use weald::Runtime;

use crate::support::{
    HOUR, LIMIT, MS, caught, green_pair, in_child, panic_text, v4, with_deadline,
};
use crate::{echo, skip};

/// The name of the variable that makes this binary play the part under strace.
const INJECTED: &str = "WEALD_TEST_INJECTED";

/// Runs `body` in a process whose system calls fail as strace's `inject=` says. A test must call this first.
fn injected(test: &str, inject: &str, body: impl FnOnce() + Send) {
    if std::env::var_os(INJECTED).is_some() {
        with_deadline(LIMIT, body);
        std::process::exit(0);
    }
    let call = inject.split(':').next().unwrap();
    let strace = |rule: &str| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]);
        command.args(["-e", &format!("trace={call}"), "-e", rule]);
        command.stdin(Stdio::null());
        command
    };
    let works = strace(&format!("inject={inject}")).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip("strace does not work here");
        return;
    }
    let mut child = strace(&format!("inject={inject}"));
    child.arg(std::env::current_exe().unwrap());
    child.arg(format!("refusals::{test}"));
    child.args(["--exact", "--nocapture", "--test-threads=1"]);
    child.env(INJECTED, test);
    let output = with_deadline(2 * LIMIT, || child.output().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Checks that a server echoes although the first calls of `accept` failed.
fn serves_in_the_end() {
    let rt = Runtime::builder().workers(1).build().unwrap();
    rt.run(|| {
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), echo);
        let connect = |_| weald::connect_tcp(server.local_addr()).unwrap();
        let clients: Vec<_> = (0..5).map(connect).collect();
        for mut client in clients {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn enfile_a_server_goes_on_when_the_system_has_descriptors_again() {
    let test = "enfile_a_server_goes_on_when_the_system_has_descriptors_again";
    injected(test, "accept4:error=ENFILE:when=1..3", serves_in_the_end);
}

#[test]
fn enfile_accept_says_so_and_works_again_later() {
    let test = "enfile_accept_says_so_and_works_again_later";
    injected(test, "accept4:error=ENFILE:when=1..2", || {
        let rt = Runtime::builder().workers(1).build().unwrap();
        rt.run(|| {
            let listener = weald::tcp_listener(v4()).unwrap();
            let client = weald::connect_tcp(listener.local_addr().unwrap()).unwrap();
            for _ in 0..2 {
                let error = listener.accept().map(drop).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
            }
            let (_far, from) = listener.accept().unwrap();
            assert_eq!(from, client.local_addr().unwrap());
        });
    });
}

#[test]
fn econnaborted_a_client_that_is_gone_before_accept_ends_no_server() {
    let test = "econnaborted_a_client_that_is_gone_before_accept_ends_no_server";
    injected(
        test,
        "accept4:error=ECONNABORTED:when=1..3",
        serves_in_the_end,
    );
}

#[test]
fn enobufs_a_server_goes_on_when_the_kernel_has_memory_again() {
    let test = "enobufs_a_server_goes_on_when_the_kernel_has_memory_again";
    injected(test, "accept4:error=ENOBUFS:when=1..3", serves_in_the_end);
}

#[test]
fn emfile_connect_and_listen_say_so_and_work_again_later() {
    let test = "emfile_connect_and_listen_say_so_and_work_again_later";
    injected(test, "socket:error=EMFILE:when=1..2", || {
        let rt = Runtime::builder().workers(1).build().unwrap();
        rt.run(|| {
            let error = weald::tcp_listener(v4()).map(drop).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            let error = weald::connect_tcp("127.0.0.1:9").map(drop).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            drop(green_pair(v4()));
        });
    });
}

#[test]
fn enomem_a_runtime_whose_poller_cannot_be_made_is_an_error() {
    let test = "enomem_a_runtime_whose_poller_cannot_be_made_is_an_error";
    injected(test, "epoll_create1:error=ENOMEM:when=2", || {
        let error = Runtime::builder().workers(2).build().map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(weald::yield_now);
    });
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: libc::rlim_t) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are to a live rlimit, and the soft limit is not above the hard one.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
        limit.rlim_cur = soft.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
    }
}

/// The address space of this process, in bytes.
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn enomem_a_green_thread_without_a_stack_is_an_error_and_the_others_go_on() {
    let test = "refusals::enomem_a_green_thread_without_a_stack_is_an_error_and_the_others_go_on";
    let child = in_child(test, &[], || {
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(|| {
            let other = weald::spawn(weald::park);
            weald::yield_now();
            set_limit(libc::RLIMIT_AS, address_space() + (512 << 20));
            let large = || weald::Builder::new().stack_size(1 << 30).spawn(|| ());
            match large() {
                Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfMemory),
                Ok(thread) => {
                    let text = panic_text(&*thread.join().unwrap_err());
                    assert!(text.contains("stack"), "{text:?}");
                }
            }
            other.thread().unpark();
            other.join().unwrap();
            weald::spawn(|| ()).join().unwrap();
            set_limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
            large().unwrap().join().unwrap();
        });
        println!("recovered");
    });
    let recovered = child.stdout.contains("recovered");
    assert!(child.success && recovered, "{child:?}");
}

/// From here on this process can start no OS thread.
fn no_more_threads() -> bool {
    // SAFETY: no precondition. Root may start threads beyond any limit, so this stops being root.
    unsafe {
        if libc::geteuid() == 0 && libc::setresuid(65534, 65534, 65534) != 0 {
            return false;
        }
    }
    set_limit(libc::RLIMIT_NPROC, 0);
    std::thread::Builder::new().spawn(|| ()).is_err()
}

/// What the child prints if the limit has no effect.
const NO_LIMIT: &str = "there is no limit of OS threads here";

#[track_caller]
fn check_went_on(child: &crate::support::Child) {
    if child.stdout.contains(NO_LIMIT) {
        skip(NO_LIMIT);
        return;
    }
    assert!(
        child.success && child.stdout.contains("went on"),
        "{child:?}"
    );
}

#[test]
fn eagain_a_runtime_without_os_threads_is_an_error() {
    let test = "refusals::eagain_a_runtime_without_os_threads_is_an_error";
    let child = in_child(test, &[], || {
        if !no_more_threads() {
            println!("{NO_LIMIT}");
            return;
        }
        let error = Runtime::builder().workers(2).build().map(drop).unwrap_err();
        let refused = std::io::Error::from_raw_os_error(libc::EAGAIN);
        assert_eq!(error.kind(), refused.kind(), "{error}");
        assert!(error.to_string().contains(&refused.to_string()), "{error}");
        set_limit(libc::RLIMIT_NPROC, libc::RLIM_INFINITY);
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(weald::yield_now);
        println!("went on");
    });
    check_went_on(&child);
}

#[test]
fn eagain_a_running_runtime_goes_on_without_more_os_threads() {
    let test = "refusals::eagain_a_running_runtime_goes_on_without_more_os_threads";
    let child = in_child(test, &[], || {
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(weald::yield_now);
        if !no_more_threads() {
            println!("{NO_LIMIT}");
            return;
        }
        // Each of these would need one more OS thread: for a blocking call, for a thread that computes, to look up a
        // name.
        let ended = Arc::new(AtomicUsize::new(0));
        let counts = |body: fn()| {
            let ended = Arc::clone(&ended);
            rt.spawn(move || {
                body();
                ended.fetch_add(1, SeqCst);
            })
        };
        let crowd = |_| {
            [
                counts(|| weald::blocking(|| std::thread::sleep(5 * MS))),
                counts(|| std::thread::sleep(20 * MS)),
                counts(|| weald::sleep(MS)),
                counts(|| drop(caught(|| weald::connect_tcp("localhost:9")))),
            ]
        };
        for thread in (0..8).flat_map(crowd).collect::<Vec<_>>() {
            thread.join().unwrap();
        }
        assert_eq!(ended.load(SeqCst), 32);
        rt.run(|| drop(green_pair(v4())));
        println!("went on");
    });
    check_went_on(&child);
}
