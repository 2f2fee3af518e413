//! With `ThreadLocals::Own`: what the C library and the kernel make of green threads. `docs/thread-locals.md` has the list.

use std::cell::Cell;
use std::ffi::CString;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use weald::Runtime;

use crate::support::{Flag, LIMIT, in_child, own_runtime, spin, with_deadline};

/// The check on 2 workers, where the mode is to be had.
fn check(check: impl FnOnce(&Runtime) + Send) {
    with_deadline(LIMIT, || {
        if let Some(rt) = own_runtime(2) {
            check(&rt);
        }
    });
}

/// Threads that mostly run, on either worker, until the flag is set.
fn busy(rt: &Runtime, stop: &Flag) -> Vec<weald::JoinHandle<()>> {
    let thread = |_| {
        let stop = stop.clone();
        rt.spawn(move || {
            while !stop.is_set() {
                spin(Duration::from_micros(50));
                weald::yield_now();
            }
        })
    };
    (0..4).map(thread).collect()
}

fn set_own_group() {
    // SAFETY: sets what is set already.
    assert_eq!(unsafe { libc::setgid(libc::getgid()) }, 0);
}

#[test]
fn setgid_returns_whoever_calls_it() {
    check(|rt| {
        let stop = Flag::default();
        let threads = busy(rt, &stop);
        for _ in 0..20 {
            set_own_group();
            rt.run(set_own_group);
        }
        stop.set();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

thread_local! { static PLACE: Cell<u64> = const { Cell::new(5) } }

fn place() -> usize {
    PLACE.with(|place| std::ptr::from_ref(place) as usize)
}

#[test]
fn a_child_of_fork_goes_on_with_the_green_threads_own() {
    check(|rt| {
        let status = rt.run(|| {
            PLACE.set(6);
            weald::yield_now();
            // SAFETY: the child calls what may be called after a fork, and leaves at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let code = if PLACE.get() == 6 { 42 } else { 43 };
                // SAFETY: as above.
                unsafe { libc::_exit(code) };
            }
            let mut status = 0;
            // SAFETY: the place is valid.
            weald::blocking(|| unsafe { libc::waitpid(child, &raw mut status, 0) });
            weald::yield_now();
            assert_eq!(PLACE.get(), 6);
            status
        });
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 42);
    });
}

#[test]
fn processes_and_os_threads_are_started_by_green_threads() {
    check(|rt| {
        rt.run(|| {
            let said = weald::blocking(|| Command::new("echo").arg("hello").output()).unwrap();
            assert_eq!(said.stdout, b"hello\n");
            let thread = std::thread::spawn(|| (PLACE.get(), std::thread::current().id()));
            let (value, id) = thread.join().unwrap();
            assert_eq!(value, 5);
            assert_ne!(id, std::thread::current().id());
        });
    });
}

#[test]
fn a_signal_handler_runs_on_the_green_threads_own() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn look(_signal: libc::c_int) {
        SEEN.store(place(), SeqCst);
    }
    check(|rt| {
        let look: extern "C" fn(_) = look;
        // SAFETY: nobody else in this process uses the signal, and the handler does no more than it may.
        unsafe { libc::signal(libc::SIGURG, look as libc::sighandler_t) };
        rt.run(|| {
            // SAFETY: sends a signal to this thread.
            assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
            assert_eq!(SEEN.load(SeqCst), place());
        });
        // SAFETY: as it was.
        unsafe { libc::signal(libc::SIGURG, libc::SIG_DFL) };
    });
}

#[test]
fn the_c_library_knows_no_stack_of_a_green_thread_and_says_so() {
    check(|rt| {
        rt.run(|| {
            // SAFETY: the place is valid, and is not used after an error.
            let found = unsafe {
                let mut attributes = std::mem::zeroed();
                libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes)
            };
            assert_eq!(found, libc::ESRCH);
        });
    });
}

#[test]
fn a_mutex_with_priority_inheritance_works_while_nobody_waits_for_it() {
    unsafe extern "C" {
        fn pthread_mutexattr_setprotocol(
            kind: *mut libc::pthread_mutexattr_t,
            protocol: i32,
        ) -> i32;
    }
    check(|rt| {
        rt.run(|| {
            // SAFETY: a mutex of this stack, initialised before its use and destroyed after.
            unsafe {
                let mut kind = std::mem::zeroed();
                let mut mutex = std::mem::zeroed();
                libc::pthread_mutexattr_init(&raw mut kind);
                assert_eq!(pthread_mutexattr_setprotocol(&raw mut kind, 1), 0);
                assert_eq!(libc::pthread_mutex_init(&raw mut mutex, &raw const kind), 0);
                assert_eq!(libc::pthread_mutex_lock(&raw mut mutex), 0);
                weald::yield_now();
                assert_eq!(libc::pthread_mutex_unlock(&raw mut mutex), 0);
                libc::pthread_mutex_destroy(&raw mut mutex);
            }
        });
    });
}

/// Compiles a library with a thread-local and returns its function that counts it up.
fn load_library() -> extern "C" fn() -> i32 {
    let source = "static __thread int count = 41; int next(void) { return ++count; }\n";
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, library) = (folder.join("counts.c"), folder.join("libcounts.so"));
    std::fs::write(&c, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &c])
        .status();
    assert!(compiled.unwrap().success());
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: the library runs nothing when it is loaded, and has a function of this type.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        let next = libc::dlsym(handle, c"next".as_ptr());
        assert!(!next.is_null());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(next)
    }
}

#[test]
fn thread_locals_of_a_library_that_is_loaded_later_are_the_green_threads_own_too() {
    check(|rt| {
        let (send, receive) = mpsc::channel::<extern "C" fn() -> i32>();
        let early = rt.spawn(move || {
            let next = loop {
                match receive.try_recv() {
                    Ok(next) => break next,
                    Err(_) => weald::sleep(Duration::from_millis(1)),
                }
            };
            (next(), next())
        });
        let next = load_library();
        send.send(next).unwrap();
        assert_eq!(early.join().unwrap(), (42, 43));
        // On blocks that are new, and on blocks that were used, by now also by the library.
        for _ in 0..5 {
            let threads: Vec<_> = (0..40)
                .map(|_| {
                    rt.spawn(move || {
                        assert_eq!(next(), 42);
                        weald::yield_now();
                        assert_eq!(next(), 43);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }
    });
}

/// Bytes of memory that the process has.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Whatever the scheduler does while a green thread's thread-locals are the running ones must not be
/// remembered there by a library: the thread may have ended, and its successors are many.
#[test]
fn green_threads_that_come_and_go_leave_nothing_behind() {
    let test = "own_system::green_threads_that_come_and_go_leave_nothing_behind";
    let child = in_child(test, &[], || {
        let Some(rt) = own_runtime(2) else { return };
        let batches = |count: usize| {
            rt.run(|| {
                for _ in 0..count {
                    let batch = (0..1000).map(|_| weald::spawn(weald::yield_now));
                    let batch: Vec<_> = batch.collect();
                    for one in batch {
                        one.join().unwrap();
                    }
                }
            });
        };
        batches(30);
        let before = resident_bytes();
        batches(200);
        let more = resident_bytes().saturating_sub(before);
        // An entry in the deques' list of threads, for every 16th of them, would be 18 MB.
        assert!(more < 8 << 20, "{more} bytes for 200,000 green threads");
    });
    assert!(child.success, "{child:?}");
}
