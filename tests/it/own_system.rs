//! With `ThreadLocals::Own`: how the C library and the kernel treat green threads. `docs/thread-locals.md` has the
//! list.

use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use weald::Runtime;

use crate::support::{
    Flag, LIMIT, in_child, on_two_workers as check, own_runtime, spin, with_deadline,
};

/// Threads that run most of the time, on either worker, until the flag is set.
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
    // SAFETY: the call sets the value that is set already.
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

/// Without this, the C library's locks rely on being alone in the process, and do not lock.
#[test]
fn a_green_threads_control_block_says_that_there_are_several_threads() {
    fn several() -> u32 {
        // `header.multiple_threads` of glibc's `struct pthread`, which begins with the words of the ABI on x86-64.
        let offset = if cfg!(target_arch = "x86_64") {
            0x18
        } else {
            0
        };
        // SAFETY: the control block of the running thread.
        unsafe {
            let place = usize::try_from(libc::pthread_self()).unwrap() + offset;
            std::ptr::with_exposed_provenance::<u32>(place).read()
        }
    }
    check(|rt| {
        let right = std::thread::spawn(several).join().unwrap();
        for _ in 0..10 {
            assert_eq!(rt.run(several), right);
        }
    });
}

/// Bytes of memory that the process has.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// While a green thread's thread-locals are the current ones, the scheduler runs code of libraries. They must not
/// remember anything there: the thread may end, and many others use its block after it.
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

/// The first words of `struct __res_state` in `resolv.h`.
#[repr(C)]
struct Resolver {
    _seconds_and_tries: [i32; 2],
    options: u64,
}

unsafe extern "C" {
    fn __res_state() -> *mut Resolver;
    fn __h_errno_location() -> *mut i32;
    fn __res_init() -> i32;
    fn dlerror() -> *const libc::c_char;
    fn inet_ntoa(address: libc::in_addr) -> *const libc::c_char;
    fn strsignal(signal: i32) -> *const libc::c_char;
    fn pthread_setcancelstate(state: i32, old: *mut i32) -> i32;
    fn pthread_setcanceltype(kind: i32, old: *mut i32) -> i32;
}

/// What the C library keeps for the running thread.
fn kept() -> String {
    let (mut state, mut kind) = (-1, -1);
    // SAFETY: all of it is the running thread's own.
    unsafe {
        pthread_setcancelstate(0, &raw mut state);
        pthread_setcanceltype(0, &raw mut kind);
        let locale = libc::uselocale(std::ptr::null_mut()) as usize;
        // The other words of a new OS thread may be those of the last thread on its stack.
        let options = (*__res_state()).options;
        let error = dlerror().is_null();
        let h_errno = *__h_errno_location();
        let class = libc::isalpha(i32::from(b'a')) != 0;
        let errno = *libc::__errno_location();
        format!("{state} {kind} {locale:x} {options:x} {error} {h_errno} {class} {errno}")
    }
}

/// Changes all that `kept` looks at, and more.
fn change(locale: usize) {
    // SAFETY: all of it is the running thread's own, and the locale is freed after its end.
    unsafe {
        libc::uselocale(locale as libc::locale_t);
        pthread_setcancelstate(1, std::ptr::null_mut());
        pthread_setcanceltype(1, std::ptr::null_mut());
        assert_eq!(__res_init(), 0);
        (*__res_state()).options |= 2;
        *__h_errno_location() = 3;
        inet_ntoa(libc::in_addr {
            s_addr: 0x0102_0304,
        });
        assert!(!strsignal(1234).is_null());
        assert!(!libc::strerror(123_456).is_null());
        let nobody = libc::dlsym(libc::RTLD_DEFAULT, c"nobody has this name".as_ptr());
        assert!(nobody.is_null());
        *libc::__errno_location() = 7;
    }
}

#[test]
fn what_the_c_library_keeps_per_thread_does_not_pass_to_the_next_green_thread() {
    for workers in [1, 2] {
        with_deadline(LIMIT, || {
            let Some(rt) = own_runtime(workers) else {
                return;
            };
            let new = || {
                // Code that ran before on a new OS thread may have set it.
                // SAFETY: the running thread's own.
                unsafe { *libc::__errno_location() = 0 };
                kept()
            };
            let right = std::thread::spawn(new).join().unwrap();
            for _ in 0..20 {
                // SAFETY: no locale is given to change.
                let locale = unsafe {
                    libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), std::ptr::null_mut())
                };
                let place = locale as usize;
                rt.run(move || change(place));
                assert_eq!(rt.run(kept), right);
                let (changed, is_changed) = mpsc::channel();
                let killed = rt.spawn(move || {
                    change(place);
                    changed.send(()).unwrap();
                    weald::park();
                });
                is_changed.recv().unwrap();
                killed.thread().kill();
                assert!(killed.join().is_err());
                // SAFETY: nobody uses it any more.
                unsafe { libc::freelocale(locale) };
                let crowd: Vec<_> = (0..10).map(|_| rt.spawn(kept)).collect();
                for one in crowd {
                    assert_eq!(one.join().unwrap(), right);
                }
            }
        });
    }
}

#[test]
fn what_the_c_library_allocates_per_thread_is_freed() {
    let test = "own_system::what_the_c_library_allocates_per_thread_is_freed";
    let child = in_child(test, &[], || {
        let Some(rt) = own_runtime(1) else { return };
        let rounds = |count: usize| {
            for _ in 0..count {
                rt.run(|| change(usize::MAX));
            }
        };
        rounds(1000);
        let before = resident_bytes();
        rounds(20_000);
        let more = resident_bytes().saturating_sub(before);
        // If each left an error of `dlerror` and two messages, that would be more than 200 bytes.
        assert!(more < 1 << 20, "{more} bytes for 20,000 green threads");
    });
    assert!(child.success, "{child:?}");
}

#[test]
fn a_green_thread_that_ends_with_a_robust_mutex_tells_the_next_owner() {
    check(|rt| {
        // SAFETY: a mutex of this stack, initialised before its use and destroyed after.
        unsafe {
            let mut kind = std::mem::zeroed();
            let mut mutex = std::mem::zeroed();
            libc::pthread_mutexattr_init(&raw mut kind);
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            assert_eq!(libc::pthread_mutexattr_setrobust(&raw mut kind, robust), 0);
            libc::pthread_mutex_init(&raw mut mutex, &raw const kind);
            let place = &raw mut mutex as usize;
            let mutex =
                move || std::ptr::with_exposed_provenance_mut::<libc::pthread_mutex_t>(place);
            for _ in 0..10 {
                let (locked, is_locked) = mpsc::channel();
                let go_on = Flag::default();
                let holds = rt.spawn({
                    let go_on = go_on.clone();
                    move || {
                        assert_eq!(libc::pthread_mutex_lock(mutex()), 0);
                        locked.send(()).unwrap();
                        go_on.wait();
                    }
                });
                is_locked.recv().unwrap();
                let waits = std::thread::spawn(move || {
                    let told = libc::pthread_mutex_lock(mutex());
                    assert_eq!(libc::pthread_mutex_consistent(mutex()), 0);
                    assert_eq!(libc::pthread_mutex_unlock(mutex()), 0);
                    told
                });
                crate::support::settle();
                go_on.set();
                holds.join().unwrap();
                assert_eq!(waits.join().unwrap(), libc::EOWNERDEAD);
                // The next thread on that block begins without it.
                rt.run(|| {
                    assert_eq!(libc::pthread_mutex_lock(mutex()), 0);
                    assert_eq!(libc::pthread_mutex_unlock(mutex()), 0);
                });
            }
            libc::pthread_mutex_destroy(mutex());
        }
    });
}

/// Makes these calls fail with this error from now on, in this process.
#[cfg(target_arch = "x86_64")]
fn refuse(calls: &[libc::c_long], error: i32) -> bool {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    let answer = libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for &call in calls {
        filter.push(libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                u32::try_from(call).unwrap(),
            )
        });
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
    // SAFETY: the structures are the kernel's, and live for the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn system_calls_that_are_refused_do_not_refuse_own_thread_locals() {
    let test = "own_system::system_calls_that_are_refused_do_not_refuse_own_thread_locals";
    for error in [libc::EPERM, libc::EINVAL, libc::ENOSYS] {
        let variable = [("WEALD_TEST_ERROR", error.to_string())];
        let variable = variable
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let child = in_child(test, &variable, || {
            let error = std::env::var("WEALD_TEST_ERROR").unwrap();
            let calls = [
                libc::SYS_process_madvise,
                libc::SYS_pidfd_open,
                libc::SYS_sched_setattr,
                libc::SYS_get_robust_list,
                libc::SYS_arch_prctl,
            ];
            if !refuse(&calls, error.parse().unwrap()) {
                println!("no seccomp here");
                return;
            }
            let rt = Runtime::builder().workers(2).build().unwrap();
            let sum: u64 = rt.run(|| {
                let start = |n| weald::spawn(move || (weald::sleep(Duration::from_millis(1)), n).1);
                let all: Vec<_> = (0..100_u64).map(start).collect();
                all.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(sum, 4950);
            println!("{:?}", rt.thread_locals());
        });
        assert!(child.success, "{child:?}");
        if own_runtime(1).is_some() && !child.stdout.contains("no seccomp here") {
            assert!(child.stdout.contains("Some(Own)"), "{error}: {child:?}");
        }
    }
}
