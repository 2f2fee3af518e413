//! The acceptor: a green thread that starts another one for each connection. It backs off when it lacks something.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weald_scheduler::Builder;
use weald_scheduler::io::{WaitQueue, Woken};

use super::connections::{Entry, Shared, end_by};
use super::listener::Listener;

/// The first pause after an `accept` that failed for lack of something; it doubles up to `LONGEST`.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// After this many broken connections in a row the server pauses, as the fault may be the listener's.
const BROKEN: u32 = 32;

/// Accept errors are logged once in this time at most.
const QUIET: Duration = Duration::from_secs(1);

/// The state of the acceptor.
pub(super) struct Server<L: Listener, H> {
    opener: L::Opener,
    listener: L,
    /// The most connections.
    bound: usize,
    shared: Arc<Shared>,
    handler: Arc<H>,
    complaints: Complaints,
    pause: Duration,
}

/// Limits the log: counts the errors that were left out since the last line.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    left_out: u64,
}

impl Complaints {
    fn say(&mut self, text: &str) {
        let now = Instant::now();
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < QUIET)
        {
            self.left_out += 1;
            return;
        }
        self.last = Some(now);
        match std::mem::take(&mut self.left_out) {
            0 => log::warn!("weald: {text}"),
            others => log::warn!("weald: {text} (and {others} more since the last message)"),
        }
    }
}

impl<L: Listener, H> Server<L, H>
where
    H: Fn(L::Stream, L::Addr) + Send + Sync + 'static,
{
    pub(super) fn new(listener: L, bound: usize, shared: &Arc<Shared>, handler: H) -> Self {
        Self {
            opener: listener.opener(),
            listener,
            bound,
            shared: Arc::clone(shared),
            handler: Arc::new(handler),
            complaints: Complaints::default(),
            pause: SHORTEST,
        }
    }

    pub(super) fn accept_all(mut self) {
        let opener = Arc::new(self.opener);
        let shared = self.shared;
        for number in 0_usize.. {
            if !shared.wait_for_room(self.bound) {
                return;
            }
            let accepted = accept(
                &self.listener,
                &shared,
                &mut self.complaints,
                &mut self.pause,
            );
            let Some((accepted, peer)) = accepted else {
                return;
            };
            let mut entry = Entry::new(&shared, number);
            let (handler, opener) = (Arc::clone(&self.handler), Arc::clone(&opener));
            let connection = move || {
                // The entry is dropped last: then the connection is closed.
                if entry.begin()
                    && let Some(stream) = L::open(&opener, accepted)
                {
                    handler(stream, peer);
                }
                drop(entry);
            };
            match Builder::new().spawn(connection) {
                Ok(_) => self.pause = SHORTEST,
                Err(error) => {
                    let text = format!("{}: no thread for a connection: {error}", L::SERVER);
                    self.complaints.say(&text);
                    if !back_off(&mut self.pause) {
                        return;
                    }
                }
            }
        }
    }
}

/// Pauses. Returns false if an exception ends the server.
fn back_off(pause: &mut Duration) -> bool {
    let nobody = WaitQueue::new();
    let end = Instant::now() + *pause;
    *pause = (*pause * 2).min(LONGEST);
    while Instant::now() < end {
        if let Woken::Interrupted(interrupt) = nobody.wait(|| false, Some(end), true) {
            end_by(interrupt);
            return false;
        }
    }
    true
}

/// Waits for the next connection. Returns `None` if there will be no more.
fn accept<L: Listener>(
    listener: &L,
    shared: &Shared,
    complaints: &mut Complaints,
    pause: &mut Duration,
) -> Option<(L::Accepted, L::Addr)> {
    let mut broken = 0;
    loop {
        let mut error = match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) => error,
        };
        let is_plain = error.raw_os_error().is_none() && error.get_ref().is_none();
        if is_plain && error.kind() == io::ErrorKind::TimedOut {
            // The listener's `SO_RCVTIMEO` has passed.
            continue;
        }
        if error.kind() == io::ErrorKind::WouldBlock {
            // The listener was set not to wait. After a wait another process that listens too may have taken the
            // connection, and that may happen any number of times.
            match listener.wait() {
                Ok(true) => continue,
                Ok(false) if broken < BROKEN => {
                    broken += 1;
                    continue;
                }
                Ok(false) => {}
                Err(failed) => error = failed,
            }
        }
        if is_of_thread(&error) {
            // The server ends. A kill unwinds here.
            if cfg!(panic = "unwind") {
                weald_scheduler::checkpoint();
            }
            if !shared.stops.load(Ordering::Relaxed) {
                log::warn!("weald: {} has ended: {error}", L::SERVER);
            }
            return None;
        }
        if is_of_connection(&error) && broken < BROKEN {
            broken += 1;
            continue;
        }
        if is_of_listener(&error) {
            log::error!(
                "weald: {} at {:?} has ended: {error}",
                L::SERVER,
                listener.local_addr().ok()
            );
            return None;
        }
        let text = format!(
            "{}: accept: {error}; tries again in {:?}",
            L::SERVER,
            *pause
        );
        complaints.say(&text);
        if !back_off(pause) {
            return None;
        }
    }
}

/// Tells if the error is an exception, or that the runtime's poller has closed. Other errors without a number come
/// from what a peer may have chosen, and do not end the server.
fn is_of_thread(error: &io::Error) -> bool {
    if error.raw_os_error().is_some() {
        return false;
    }
    match error.kind() {
        io::ErrorKind::NotConnected => true,
        // The scheduler reports an exception with the exception inside the error.
        io::ErrorKind::Other | io::ErrorKind::TimedOut => error.get_ref().is_some(),
        _ => false,
    }
}

/// Tells if the descriptor will accept nothing any more: it is closed, shut down or not a listener.
fn is_of_listener(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP)
    )
}

/// Tells if the connection was gone before it was accepted; accept(2). An error without a number means that std has
/// no address for the peer.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        None | Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}
