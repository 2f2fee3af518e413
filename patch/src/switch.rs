//! Which calls are switched on.

use std::fmt;

use weald_scheduler::patch;

/// A kind of calls that can be switched on.
///
/// # Examples
/// ```
/// use weald_patch::{Kind, is_patched};
/// assert!(!is_patched(Kind::Sleep));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `connect`, `accept`, `send`, `recv` and similar calls; `read` and `write` on what can be polled.
    Sockets,
    /// `nanosleep`, `clock_nanosleep`, `usleep`, `sleep`.
    Sleep,
    /// `poll`, `ppoll`, `select`, `pselect`, `epoll_wait`, `epoll_pwait`.
    Select,
    /// `syscall(SYS_futex, ..)`: locks, channels and `park` of std and parking_lot; libc's read-write locks,
    /// condition variables and semaphores; `msgrcv`, `msgsnd`, `semop`.
    Sync,
    /// `getaddrinfo`.
    Names,
    /// `wait`, `wait4`, `waitpid`, `waitid`; `system`, `pause`, `sigwait` and similar calls.
    Process,
    /// `read`, `write`, `pread`, `pwrite` on ordinary files; `flock`. A call that must wait for the disk keeps its OS
    /// thread, and the worker continues on another one.
    Files,
    /// `pthread_create`, `pthread_join`, `pthread_detach`: `std::thread::spawn` in a green thread starts a green
    /// thread.
    Threads,
}

impl Kind {
    pub(crate) const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// Tells why nothing can be patched.
///
/// # Examples
/// ```
/// if let Err(unsupported) = weald_patch::sleep() {
///     println!("not here: {unsupported}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(&'static str);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unsupported {}

fn switch_on(kinds: &[Kind]) -> Result<(), Unsupported> {
    patch::available().map_err(Unsupported)?;
    patch::switch_on(kinds.iter().fold(0, |bits, kind| bits | kind.bit()));
    Ok(())
}

/// Tells if calls of this kind are switched on for the process.
pub fn is_patched(kind: Kind) -> bool {
    patch::is_on() & kind.bit() != 0
}

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident),+;)*) => {$(
        $(#[$doc])*
        ///
        /// It applies to the whole process from now on, also to green threads that run already. It cannot be switched
        /// off again; `Builder::patched(false)` exempts a green thread.
        ///
        /// # Errors
        /// If green threads have no thread-locals of their own. The text says why.
        pub fn $name() -> Result<(), Unsupported> {
            switch_on(&[$(Kind::$kind),+])
        }
    )*};
}

switches! {
    /// Makes sockets, pipes and all else that can be polled green ([`Kind::Sockets`]).
    sockets: Sockets;
    /// Makes sleeping green ([`Kind::Sleep`]).
    sleep: Sleep;
    /// Makes `poll`, `select` and `epoll_wait` green ([`Kind::Select`]).
    select: Select;
    /// Makes locks, channels and `park` of std and of similar crates green ([`Kind::Sync`]).
    sync: Sync;
    /// Makes name look-ups green ([`Kind::Names`]).
    dns: Names;
    /// Makes waiting for processes green ([`Kind::Process`]).
    process: Process;
    /// Lets the worker continue while a file waits for its disk ([`Kind::Files`]).
    files: Files;
    /// Makes threads that green threads start green ([`Kind::Threads`]).
    threads: Threads;
    /// Makes all of these green.
    all: Sockets, Sleep, Select, Sync, Names, Process, Files, Threads;
    /// eventlet's name for [`sockets`].
    wrap_socket_with_coroutine_socket: Sockets;
    /// eventlet's name for [`select`].
    wrap_select_with_coroutine_select: Select;
}
