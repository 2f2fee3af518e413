//! Makes standard blocking code green: libc's calls that would block a thread suspend the green thread instead. The
//! code need not be changed and need not know of weald.
//!
//! This is eventlet's monkey patching. In a program that is linked with this crate, the crate defines `read`, `recv`,
//! `connect`, `poll`, `clock_nanosleep`, `syscall` (for futexes) and similar functions in libc's place. So std, all
//! crates and the C libraries of the process call them. There are two steps:
//!
//! 1. *Linked*: the program names this crate in its code, if only by `extern crate weald_patch as _;`. Plain OS
//!    threads notice nothing but some nanoseconds a call.
//! 2. *Switched on*: by [`all`] or one of its parts for the process, by `Builder::patched(true)` for one green
//!    thread, or by `RuntimeBuilder::patched(true)` for the green threads of a runtime.
//!
//! ```
//! # if weald_patch::all().is_err() { return }
//! use std::time::{Duration, Instant};
//!
//! let start = Instant::now();
//! let threads: Vec<_> = (0..100)
//!     .map(|_| weald::spawn(|| std::thread::sleep(Duration::from_millis(50))))
//!     .collect();
//! for thread in threads {
//!     thread.join().unwrap();
//! }
//! assert!(start.elapsed() < Duration::from_secs(1)); // not 5 s
//! ```
//!
//! # What is promised
//! - In the child of a fork nothing is patched.
//! - Settings of a descriptor are remembered between calls. A change that this process makes by libc's functions
//!   takes effect at once. A change that is made otherwise (by another process that shares the file, by io_uring, by
//!   a system call without libc) is noticed by a waiting call within 100 ms.
//! - Blocking is as before: `O_NONBLOCK`, `SO_RCVTIMEO`, `SO_SNDTIMEO`, `SO_RCVLOWAT` and `MSG_DONTWAIT` are the
//!   user's, a blocking `write` takes all, and `dup` and `fork` work without this crate. An error on an OS thread is
//!   the same error on a green thread, at once.
//! - If `close`, `dup2` or `dup3` closes a number that calls wait for, these calls get `EBADF`, and a `poll` returns
//!   `POLLNVAL` for it. None of them takes data of the next file with this number. (On an OS thread they would wait
//!   on.)
//! - `close` in a signal handler is safe only for a number that no green thread waits for. (On an OS thread it always
//!   is.)
//! - A waiting call uses no CPU, whatever state its descriptor is in.
//! - An exception (`exc_after`, `timeout`, `kill`) never unwinds through C. A call that it ends fails with
//!   `ECANCELED`, or with `ETIMEDOUT` for a `timeout`, and the exception is raised at the next call of weald. One
//!   sleep returns early instead. Calls that cannot fail go on: see the table. If the limit of a `timeout` passes
//!   while such calls wait, the `timeout` is `Err` when its closure returns, late. A killed thread that ends without
//!   another call of weald has `Exception` as its result. weald knows nothing of the calls in the last two rows of
//!   the table: a limit that passes in such a call is reported by the next call of another row. If there is none,
//!   `timeout` is `Ok`.
//! - Signals: a suspended green thread never sees `EINTR`.
//!
//! # What each call does
//!
//! | call | a patched green thread that must wait | an exception |
//! |---|---|---|
//! | `read`, `readv`, `write`, `writev`, `preadv2`, `pwritev2` on what can be polled | is suspended | ends it |
//! | the same, on the output of a child or to standard output and error | is suspended | does not end it: std panics on any error |
//! | `recv`, `recvfrom`, `recvmsg`, `recvmmsg`, `send`, `sendto`, `sendmsg`, `sendmmsg`, `accept`, `accept4`, `connect` | is suspended | ends it |
//! | `recvmsg` with `MSG_WAITALL` or `SO_RCVLOWAT` and room for control data, of a stream | keeps its OS thread | does not end it |
//! | `sendfile`, `splice`, `tee`, `vmsplice` | is suspended; keeps its OS thread while a file's disk is waited for | ends it |
//! | `poll`, `select`, `epoll_wait` and their `p` forms without a signal mask, `epoll_pwait2` | is suspended; see below for several descriptors | ends it |
//! | `ppoll`, `pselect`, `epoll_pwait`, `epoll_pwait2` with a signal mask | keeps its OS thread | does not end it |
//! | `sleep`, `usleep`, `nanosleep`, `clock_nanosleep` | is suspended | ends one sleep |
//! | `clock_nanosleep` by another clock than `CLOCK_MONOTONIC` and `CLOCK_REALTIME` | keeps its OS thread | does not end it |
//! | `syscall(SYS_futex, ..)`: `Mutex`, `Condvar`, channels and `park` of std and parking_lot | is suspended | does not end it |
//! | `pthread_rwlock_rdlock`, `pthread_rwlock_wrlock` and their timed forms | is suspended; a thread that loses the lock to others again and again for 20 ms keeps its OS thread and waits in libc's own queue | does not end it |
//! | `pthread_cond_wait` and its timed forms | is suspended | does not end it |
//! | the same for condition variables that processes share; `pthread_cond_wait` with a mutex that checks errors, is robust, has priorities or is shared | keeps its OS thread | does not end it |
//! | `sem_wait`, `sem_timedwait`, `sem_clockwait` | is suspended | does not end it |
//! | `flock`, `fcntl` with `F_SETLKW` or `F_OFD_SETLKW`, `lockf` | is suspended, and tries again after pauses | ends it |
//! | `open` of a FIFO | is suspended, and tries again after pauses | ends it |
//! | `waitpid`, `wait4`, `waitid` of one child | is suspended | ends it |
//! | `wait`, `wait3`, `waitpid(-1, ..)`: for any child, for a group, for a child that stops | is suspended, and tries again after pauses | ends it |
//! | `getaddrinfo` | is suspended | ends it |
//! | `pthread_join` of a green thread | is suspended | does not end it |
//! | `pthread_timedjoin_np`, `pthread_clockjoin_np` of a green thread | is suspended, and looks again after pauses | does not end it |
//! | `pthread_join` of an OS thread, and its timed forms | keeps its OS thread | does not end it |
//! | `read`, `write`, `pread`, `pwrite`, `copy_file_range` on files | keeps its OS thread while it waits for the disk | does not end it |
//! | `system`, `msgrcv`, `msgsnd`, `semop`, `semtimedop`, `sigwait` and similar calls, `sigsuspend`, `pause` | keeps its OS thread | does not end it |
//! | `pthread_mutex_lock` and its timed forms (the mutexes of C and C++), and taking the mutex back at the end of `pthread_cond_wait`: these are libc's own, as allocators use them | keeps its OS thread; the monitor sees it after some milliseconds | does not end it, and is not told |
//! | stdio (`fgets`, ..), `pthread_barrier_wait`, `gethostbyname`, `getnameinfo`, `mq_receive`, `pclose`, C11's `mtx_lock` and `cnd_wait`, system calls that libc does not make | keeps its OS thread; the monitor sees it after some milliseconds | does not end it, and is not told |
//!
//! Pauses are 0.1 to 10 ms, and up to 100 ms if many calls pause; with more than 500 of them, 0.2 ms for each. When
//! this process releases a lock, the pause of a call that waits for it ends at once.
//!
//! A wait of `poll` or `select` for several descriptors takes a descriptor itself while it lasts. Such waits have at
//! most an eighth of `RLIMIT_NOFILE`; further ones look after pauses and take none.
//!
//! If a green thread keeps its OS thread, the worker continues with another one, as long as the runtime has some in
//! reserve (`RuntimeBuilder::spare_threads`).
//!
//! # What is not
//! - The end of a thread that ignores errors. Under `kill`, and so when its runtime is dropped, its calls fail, but a
//!   loop in code that does not know weald may try for ever; `drop` leaves it behind after 5 s. Programs that consist
//!   of such code use a runtime that is never dropped, as `RuntimeBuilder::install` makes. Their threads end with the
//!   process, as all threads do.
//! - `EDEADLK` of `fcntl(F_SETLKW)` comes late, within some seconds, and not at all if a process of another user
//!   takes part.
//! - Patched calls are not cancellation points of `pthread_cancel`.
//! - The `pthread_t` of a green thread made by a patched `pthread_create` is good for `pthread_join`,
//!   `pthread_tryjoin_np`, `pthread_timedjoin_np`, `pthread_detach` and comparing. Other calls that take one, such as
//!   `pthread_kill` and `pthread_cancel`, know nothing of green threads: they fail with `ESRCH`.
//! - `pthread_exit` of a green thread unwinds. Destructors run, but the handlers of `pthread_cleanup_push` do not in
//!   C code that is compiled without `-fexceptions`.
//! - Inside `blocking` nothing is patched: there the program has asked for the system's call.
//! - If a runtime refuses a thread of std, or ends it before it has started, at shutdown, the thread never runs. Its
//!   `join` panics, as std's does for a thread that left no result.
//! - A `cdylib` that another program opens by `dlopen` is too late to take libc's place.
//! - Two crates that both define `read` do not link.
//!
//! # What has blocked all the same
//! With `WEALD_PATCH_REPORT=1` in the environment the process reports on stderr, when it ends, which calls have kept
//! an OS thread for more than 10 ms without weald's knowledge: how often, for how long, and with their stacks.
//!
//! The report is about the whole process, so it is for programs, not for libraries.
//!
//! # Platform-specific behavior
//! Linux on x86-64. Green threads need thread-locals of their own (`ThreadLocals::Own`): std's channels and others
//! tell threads apart by thread-locals, and hang if two green threads share them. On other systems [`all`] and its
//! parts return errors that say why. That includes AArch64: this crate compiles there, but `Own` is off, as nobody
//! has run it yet.

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("weald-patch supports only Linux on x86-64 and AArch64");

#[macro_use]
mod for_models;

// Without a dynamic glibc green threads cannot have thread-locals of their own, and `switch` says so.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod ask;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod closing;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod deadlock;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod epoll;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod firm;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod futex;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod hooks;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod known;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod members;
pub mod original;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod pauses;
mod raw;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod several;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod shim;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod slot;
mod switch;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod wait;

pub use crate::switch::{
    Kind, Unsupported, all, dns, files, is_patched, process, select, sleep, sockets, sync, threads,
    wrap_select_with_coroutine_select, wrap_socket_with_coroutine_socket,
};
