//! The handle of a server: looks at it and ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weald_scheduler::JoinHandle;
use weald_scheduler::io::Woken;

use super::connections::Shared;

/// How long `shutdown` waits for handlers that were killed and only compute.
const HOG_LIMIT: Duration = Duration::from_secs(5);

/// The handle of a running server; from [`tcp_server`](crate::tcp_server), `ssl_server` or
/// [`unix_server`](crate::unix_server). Dropping it detaches the server, which goes on.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let server = weald::tcp_server(listener, |_stream, _peer| {});
/// assert!(server.is_running());
/// assert_eq!(server.connections(), 0);
/// assert!(server.shutdown(Duration::from_secs(1)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ServerHandle<A = SocketAddr> {
    pub(super) acceptor: JoinHandle<()>,
    pub(super) addr: A,
    pub(super) shared: Arc<Shared>,
}

impl<A> ServerHandle<A> {
    /// Returns the address that the server listens at: a [`SocketAddr`], or the address of a Unix socket.
    pub fn local_addr(&self) -> A
    where
        A: Clone,
    {
        self.addr.clone()
    }

    /// Tells if the server accepts connections. Besides `stop` and `shutdown` two things end it: the end of its
    /// runtime, or a listener that can accept nothing any more, because shutdown(2) was called on a clone of it for
    /// example. The log tells. Handlers that run go on.
    pub fn is_running(&self) -> bool {
        !self.acceptor.is_finished()
    }

    /// Returns how many connections were accepted and have not ended: handlers that run or are about to.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Stops accepting: later connects are refused. Handlers that run go on. Waits until the listener is closed,
    /// which is soon. No exception is raised meanwhile.
    pub fn stop(self) {
        self.close();
    }

    fn close(self) -> Arc<Shared> {
        self.shared.stops.store(true, Ordering::Relaxed);
        self.acceptor.thread().kill();
        // The kill ends it; its result tells nothing else.
        let _ = weald_scheduler::io::take_result(self.acceptor);
        self.shared
    }

    /// Stops accepting and lets the handlers go on during the grace. Then it kills the handlers that are left and
    /// waits until they have unwound, at most 5 s for a handler that only computes. Returns true if nothing had to be
    /// killed. It waits, but raises no exception, as [`Runtime::shutdown`](weald_scheduler::Runtime::shutdown).
    ///
    /// In a program that is built with `panic = "abort"` nothing can be killed. There, handlers that are left after
    /// the grace go on.
    ///
    /// # Panics
    /// If one of the server's handlers calls it: the handler could not wait for itself.
    pub fn shutdown(self, grace: Duration) -> bool {
        self.shared.refuse_handlers();
        let shared = self.close();
        if wait_for_end(&shared, weald_scheduler::io::deadline(grace)) {
            return true;
        }
        if cfg!(panic = "abort") {
            return false;
        }
        for handler in shared.close() {
            handler.kill();
        }
        wait_for_end(&shared, Some(Instant::now() + HOG_LIMIT));
        false
    }
}

/// Waits until no handler is left. Returns false if the deadline has passed.
fn wait_for_end(shared: &Shared, deadline: Option<Instant>) -> bool {
    loop {
        let none = || shared.connections() == 0;
        if none() {
            return true;
        }
        if let Woken::TimedOut = shared.ended.wait(none, deadline, false) {
            return none();
        }
    }
}
