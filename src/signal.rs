//! Signals of the process, received by blocking calls.
//!
//! The handler runs wherever the kernel delivers the signal: on any OS thread, in the middle of any code. So it only
//! counts the signal and writes a byte into a pipe (signal-safety(7)). An OS thread, `weald-signals`, reads the pipe
//! and puts a message into the channel of each [`Signals`] that wants the signal. The OS thread starts with the first
//! `Signals` and stays, as the handlers do.
//!
//! The crate signal-hook installs the handlers. It also calls the handler that was there before, and the handlers of
//! others that use signal-hook.
//!
//! A child of `fork` has the handlers but not the OS thread. Its first `Signals` makes a pipe and an OS thread of its
//! own.
//!
//! Invariant 1: a signal is counted before its byte is written, and the counts are taken after a byte was read. So
//! each count is taken, also if the pipe is full and a byte is lost.
//! Invariant 2: a `Signals` is in `RECEIVERS` before the handlers of its signals are installed. So no signal is
//! missed after `new` has returned.
//! Invariant 3: `Unread` counts at least the messages in the channel. Only the OS thread sends, under the list's
//! lock, and before it sends it takes out of `Unread` what has left the channel.
#![allow(unsafe_code, reason = "a signal handler")]

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, PipeReader, Read as _};
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use libc::c_int;
use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level;
use weald_scheduler::io::{Pollable, WaitQueue, Woken};
use weald_scheduler::patch::Bypass;

use crate::sync::channel::{Receiver, Sender, unbounded};

/// Signals have numbers below this; signal(7).
const NUMBERS: usize = 65;

/// How many signals of one kind a `Signals` holds unread. Further ones are merged with them, as the kernel merges
/// pending signals.
const MOST_UNREAD: u16 = 256;

/// By number, how many signals the handler has counted and the OS thread has not yet taken.
static COUNTS: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];

/// The end of the pipe that the handler writes into; -1 before there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The process whose OS thread reads that pipe. A child of `fork` has the pipe but not the OS thread.
static OWNER: AtomicU32 = AtomicU32::new(0);

static RECEIVERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// The signals that have a handler, as bits `number - 1`. The lock is held while a handler is installed.
static INSTALLED: Mutex<u64> = Mutex::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A signal, by its number.
///
/// # Examples
/// ```
/// use weald::signal::Signal;
/// assert_eq!(Signal::SIGTERM.to_string(), "SIGTERM");
/// assert_eq!(Signal::from(15), Signal::SIGTERM);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(c_int);

impl Signal {
    /// A child has ended or stopped.
    pub const SIGCHLD: Self = Self(libc::SIGCHLD);
    /// The terminal has gone. By custom also a request to read the settings again.
    pub const SIGHUP: Self = Self(libc::SIGHUP);
    /// Ctrl-C at the terminal.
    pub const SIGINT: Self = Self(libc::SIGINT);
    /// Ctrl-\ at the terminal.
    pub const SIGQUIT: Self = Self(libc::SIGQUIT);
    /// A polite request to end: `kill`, `docker stop`, systemd.
    pub const SIGTERM: Self = Self(libc::SIGTERM);
    /// For the program's own use.
    pub const SIGUSR1: Self = Self(libc::SIGUSR1);
    /// For the program's own use.
    pub const SIGUSR2: Self = Self(libc::SIGUSR2);
    /// The terminal's window has another size.
    pub const SIGWINCH: Self = Self(libc::SIGWINCH);

    /// Returns the system's number, as in `libc`.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Returns its index in tables by number. No signal has 0.
    fn place(self) -> usize {
        let place = usize::try_from(self.0).unwrap_or(0);
        if place < NUMBERS { place } else { 0 }
    }

    /// Returns its bit in a set of signals; `None` if there is no such signal.
    fn bit(self) -> Option<u64> {
        self.place().checked_sub(1).map(|shift| 1 << shift)
    }
}

impl From<i32> for Signal {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

/// Shows the signal's name, "SIGTERM" for example, or "signal 42" for a signal without a name.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match low_level::signal_name(self.0) {
            Some(name) => f.pad(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Waits until somebody asks the process to end: `SIGTERM` (`kill`, `docker stop`, systemd) or `SIGINT`
/// (Ctrl-C). Returns which of them it was.
///
/// A blocking call: it suspends a green thread, and blocks a plain OS thread. All callers that wait are told.
///
/// From the first call on these signals no longer end the process by themselves, also after the call has returned. If
/// a second Ctrl-C is to end the program at once, call `shutdown` again, in a green thread that then exits. Signals
/// that arrive while no call waits are not kept; [`Signals`] keeps them.
///
/// # Errors
/// An exception (`kill`, a limit) has ended the wait; the system gives no pipe or no OS thread.
///
/// # Examples
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let server = weald::tcp_server(listener, |_stream, _peer| {});
/// let signal = weald::signal::shutdown()?;
/// println!("{signal}: ends");
/// server.shutdown(std::time::Duration::from_secs(10));
/// # Ok(())
/// # }
/// ```
pub fn shutdown() -> io::Result<Signal> {
    Signals::new([Signal::SIGTERM, Signal::SIGINT])?.recv()
}

/// A stream of signals: those that the process gets after this was made.
///
/// Each `Signals` gets each of its signals. The kernel merges signals of one kind that come in quick succession, so
/// fewer of them may be received. The same happens to signals of one kind beyond 256 that were not received. But
/// after each signal there is at least one to receive. Signals of different kinds have no order.
///
/// It is also a channel's receiver: `recv(signals) -> signal` in [`select!`](crate::select!),
/// [`try_recv`](Receiver::try_recv), [`recv_timeout`](Receiver::recv_timeout), [`iter`](Receiver::iter).
/// `readable(&signals)` works too.
///
/// Once a program has asked for a kind of signal, its default action is off, also after the `Signals` was dropped.
/// Handlers that were installed before are still called, also weald's own for `SIGQUIT`.
///
/// In a child of `fork` the `Signals` of the parent receive nothing until the child makes one of its own.
///
/// # Examples
/// ```
/// use weald::signal::{Signal, Signals};
/// use weald::sync::channel::after;
///
/// let signals = Signals::new([Signal::SIGUSR1])?;
/// // SAFETY: `raise` has no precondition.
/// unsafe { libc::raise(libc::SIGUSR1) };
/// assert_eq!(signals.recv()?, Signal::SIGUSR1);
///
/// let seen = weald::select! {
///     recv(signals) -> signal => signal.ok(),
///     recv(after(std::time::Duration::from_millis(1))) -> _ => None,
/// };
/// assert_eq!(seen, None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Signals {
    receiver: Receiver<Signal>,
    shared: Arc<Shared>,
}

/// What a `Signals` and the OS thread share.
struct Shared {
    /// The kinds of signals that it wants, as bits `number - 1`.
    wants: u64,
    sender: Sender<Signal>,
    unread: Mutex<Unread>,
    /// Counts the messages that were sent.
    sent: AtomicUsize,
    /// Threads that wait in `recv` or for `readable`.
    waiting: WaitQueue,
}

/// The messages in a channel (invariant 3).
struct Unread {
    order: VecDeque<Signal>,
    /// By number, how many messages of each kind there are.
    counts: [u16; NUMBERS],
}

impl Signals {
    /// Begins to receive these signals: [`Signal`]s, or their numbers as in `libc`. If the list is empty, it never
    /// receives one.
    ///
    /// # Errors
    /// `InvalidInput` for a signal that nobody can or should catch: `SIGKILL`, `SIGSTOP`, the signals of a fault
    /// (`SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE`), and numbers that are no signal's. The system's error if it gives no
    /// pipe or no OS thread. For kinds that come before the bad one the default action may be off.
    pub fn new<S: Into<Signal>>(signals: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let mut wants = 0;
        for signal in signals {
            let signal = signal.into();
            let is_fault = FORBIDDEN.contains(&signal.0) || signal.0 == libc::SIGBUS;
            let Some(bit) = signal.bit().filter(|_| !is_fault) else {
                let text = format!("{signal} cannot be received");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            };
            wants |= bit;
        }
        let (sender, receiver) = unbounded();
        let shared = Arc::new(Shared {
            wants,
            sender,
            unread: Mutex::new(Unread {
                order: VecDeque::new(),
                counts: [0; NUMBERS],
            }),
            sent: AtomicUsize::new(0),
            waiting: WaitQueue::new(),
        });
        // The locks are std's, and the OS thread is not a green thread of the caller's. So hooks of libc that may
        // serve the caller must not apply here.
        let _bypass = Bypass::enter();
        let mut receivers = lock(&RECEIVERS);
        receivers.retain(|one| one.strong_count() > 0);
        receivers.push(Arc::downgrade(&shared));
        drop(receivers);
        install(wants)?;
        Ok(Self { receiver, shared })
    }

    /// Waits for the next signal. A blocking call.
    ///
    /// # Errors
    /// An exception (`kill`, a limit) has ended the wait. No signal is lost.
    pub fn recv(&self) -> io::Result<Signal> {
        weald_scheduler::io::enter()?;
        loop {
            let sent = self.shared.sent.load(Ordering::Acquire);
            if let Ok(signal) = self.receiver.try_recv() {
                weald_scheduler::io::spend();
                return Ok(signal);
            }
            // If the look has missed a message, `sent` goes up after the look.
            let is_sent = || self.shared.sent.load(Ordering::Acquire) != sent;
            if let Woken::Interrupted(interrupt) = self.shared.waiting.wait(is_sent, None, true) {
                return Err(interrupt.into_io());
            }
        }
    }
}

impl Deref for Signals {
    type Target = Receiver<Signal>;

    fn deref(&self) -> &Receiver<Signal> {
        &self.receiver
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

impl Pollable for Signals {
    fn poll_now(&self, writes: bool) -> io::Result<bool> {
        Ok(!writes && !self.receiver.is_empty())
    }

    fn waiters(&self, _writes: bool) -> &WaitQueue {
        &self.shared.waiting
    }

    fn watch(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// Sends a message for each time that the signal has come.
    fn tell(&self, signal: Signal, often: u32) {
        let mut unread = lock(&self.unread);
        let unread = &mut *unread;
        let is_left = self.sender.len();
        while unread.order.len() > is_left
            && let Some(read) = unread.order.pop_front()
        {
            unread.counts[read.place()] -= 1;
        }
        for _ in 0..often {
            let count = &mut unread.counts[signal.place()];
            if *count == MOST_UNREAD {
                break;
            }
            *count += 1;
            unread.order.push_back(signal);
            // The channel has no bound. If the receiver is gone, nobody wants the message.
            let _ = self.sender.try_send(signal);
        }
        self.sent.fetch_add(1, Ordering::Release);
        self.waiting.wake_all();
    }
}

/// Installs handlers for those of the signals that have none.
fn install(wants: u64) -> io::Result<()> {
    let mut installed = lock(&INSTALLED);
    let process = std::process::id();
    if wants != 0 && OWNER.load(Ordering::Relaxed) != process {
        // A child keeps the parent's pipe open, as a handler may be about to write into it.
        let (reader, writer) = io::pipe()?;
        set_nonblocking(&writer)?;
        thread::Builder::new()
            .name(String::from("weald-signals"))
            .spawn(move || tell_all(reader))?;
        PIPE.store(writer.into_raw_fd(), Ordering::Release);
        OWNER.store(process, Ordering::Relaxed);
    }
    let all = (1..).take(NUMBERS - 1).map(Signal);
    for (signal, bit) in all.filter_map(|signal| Some((signal, signal.bit()?))) {
        if wants & bit & !*installed != 0 {
            install_one(signal)?;
            *installed |= bit;
        }
    }
    Ok(())
}

fn install_one(signal: Signal) -> io::Result<()> {
    let (number, place) = (signal.0, signal.place());
    // SAFETY: `on_signal` does only what a handler may.
    unsafe { low_level::register(number, move || on_signal(place)) }?;
    // Without the flag signal-hook's handler would run on the stack of the interrupted thread. A green thread's stack
    // may be small and nearly used up.
    let mut action: libc::sigaction =
        // SAFETY: all zeros is a valid `sigaction`.
        unsafe { std::mem::zeroed() };
    // SAFETY: the place for the action has room. Then the action is set again as it was, except for the flag.
    let failed = unsafe {
        libc::sigaction(number, ptr::null(), &raw mut action) != 0 || {
            action.sa_flags |= libc::SA_ONSTACK;
            libc::sigaction(number, &raw const action, ptr::null_mut()) != 0
        }
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_nonblocking(pipe: &io::PipeWriter) -> io::Result<()> {
    let fd = pipe.as_raw_fd();
    // SAFETY: the descriptor is open; the calls read and set its flags.
    let failed = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags < 0 || libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) < 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The work of the handler. signal-hook keeps `errno` for the interrupted code.
fn on_signal(place: usize) {
    // Invariant 1. Pairs with the swap in `tell_all`.
    COUNTS[place].fetch_add(1, Ordering::Release);
    let byte = 0_u8;
    let fd = PIPE.load(Ordering::Acquire);
    // The system call is made directly, as `write` may be a hook of `weald-patch`, which takes locks. If the pipe is
    // full, it will be read anyway.
    #[cfg(target_os = "linux")]
    // SAFETY: it may be called here, and is given one byte.
    unsafe {
        libc::syscall(libc::SYS_write, fd, &raw const byte, 1_usize);
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: it may be called here, and is given one byte.
    unsafe {
        libc::write(fd, (&raw const byte).cast(), 1);
    }
}

/// The body of the OS thread.
fn tell_all(mut pipe: PipeReader) {
    let mut bytes = [0; 64];
    loop {
        match pipe.read(&mut bytes) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
            _ => {}
        }
        for (signal, count) in (0..).map(Signal).zip(&COUNTS) {
            // Pairs with the handler's addition.
            let often = count.swap(0, Ordering::Acquire);
            let Some(bit) = signal.bit().filter(|_| often > 0) else {
                continue;
            };
            let receivers: Vec<_> = lock(&RECEIVERS).iter().filter_map(Weak::upgrade).collect();
            for one in receivers.iter().filter(|one| one.wants & bit != 0) {
                one.tell(signal, often);
            }
        }
    }
}
