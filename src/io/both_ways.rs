//! Copying between two connections in both directions, as proxies do.
//!
//! Each direction is a green thread of a scope. The caller waits for both directions, for the first error, or for an
//! exception of its own. Then it kills what still runs.
//!
//! This uses a scope and not a group. A call that returns `io::Result` returns its exception as an error; the end of
//! a group would raise a lasting exception (a limit, a kill) a second time, by unwinding.
//!
//! Invariant 1: `Ends` is told of each direction exactly once, also if its thread never runs or unwinds.
//! Invariant 2: a direction is killed only after it has begun. So its thread ends by itself, and the scope never sees
//! a child that unwinds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weald_net::TcpStream;
use weald_net::unix::UnixStream;
use weald_scheduler::io::{WaitQueue, Woken};

/// A connection that one thread may read while another one writes, and that can end one direction and keep the other.
/// [`copy_bidirectional`] needs this. `&Self` reads and writes.
///
/// # Examples
/// ```
/// fn is_duplex<T: weald::io::Duplex>() {}
/// is_duplex::<weald::net::TcpStream>();
/// is_duplex::<weald::net::unix::UnixStream>();
/// ```
pub trait Duplex: Sync {
    /// Tells the peer that nothing more comes. Reads go on.
    ///
    /// # Errors
    /// The system's, or the protocol's.
    fn shutdown_write(&self) -> io::Result<()>;
}

impl Duplex for TcpStream {
    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Duplex for UnixStream {
    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(feature = "tls")]
impl<S: weald_net::SslTransport> Duplex for weald_net::SslStream<S> {
    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Copies what comes from `a` to `b` and what comes from `b` to `a`, until both have ended. Returns how many bytes
/// went from `a` to `b`, and how many from `b` to `a`.
///
/// When one side has ended, the other side is told ([`Duplex::shutdown_write`]), and what it still sends is copied.
/// So a request whose end is marked by a half-closed connection gets its answer. The connections stay open; they
/// close when they are dropped. This is a blocking call. On a plain OS thread, green threads of the default runtime
/// do the copying. Each direction has a buffer of 16 KiB on the heap.
///
/// # Errors
/// The first error of either direction, which ends the other direction too; an exception. Close the connections after
/// an error: bytes that were read and not yet written, up to 16 KiB each way, are lost, and so are the counts.
///
/// # Examples
/// A proxy. `upstream` is the address that it connects to.
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
///
/// # let echo = weald::tcp_server(weald::tcp_listener("127.0.0.1:0")?, |stream, _| {
/// #     let _ = weald::io::copy(&mut &stream, &mut &stream);
/// # });
/// # let upstream = echo.local_addr();
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let proxy = weald::tcp_server(listener, move |client, peer| {
///     let copied = weald::connect_tcp(upstream)
///         .and_then(|server| weald::io::copy_bidirectional(&client, &server));
///     match copied {
///         Ok((up, down)) => println!("{peer}: {up} bytes up, {down} down"),
///         Err(error) => println!("{peer}: {error}"),
///     }
/// });
///
/// let mut client = weald::connect_tcp(proxy.local_addr())?;
/// client.write_all(b"through and back")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert_eq!(answer, "through and back");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn copy_bidirectional<A, B>(a: &A, b: &B) -> io::Result<(u64, u64)>
where
    A: Duplex + ?Sized,
    B: Duplex + ?Sized,
    for<'a> &'a A: Read + Write,
    for<'b> &'b B: Read + Write,
{
    weald_scheduler::io::enter()?;
    let ends = Ends::default();
    weald_scheduler::scope(|scope| {
        let (there, back) = (Way::new(&ends, 0), Way::new(&ends, 1));
        let threads = [
            scope.spawn(move || there.go(|| one_way(a, b))),
            scope.spawn(move || back.go(|| one_way(b, a))),
        ];
        let result = ends.wait();
        if result.is_err() {
            // Invariant 2.
            let begun = ends.wait_until_begun();
            for (thread, has_begun) in threads.into_iter().zip(begun) {
                if has_begun {
                    thread.thread().kill();
                } else {
                    // The runtime is ending and starts no more threads. The join has seen that.
                    drop(thread.join());
                }
            }
        }
        result
    })
}

/// Copies from one side to the other until the first one has ended, and then tells the other.
fn one_way<'a, A: ?Sized, B: Duplex + ?Sized>(from: &'a A, to: &'a B) -> io::Result<u64>
where
    &'a A: Read,
    &'a B: Write,
{
    let (mut reader, mut writer) = (from, to);
    let moved = super::copy(&mut reader, &mut writer)?;
    writer.flush()?;
    match to.shutdown_write() {
        // The peer has closed both directions already. The other direction will notice that by itself.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(moved),
        done => done.map(|()| moved),
    }
}

/// How far both directions are.
#[derive(Default)]
struct Ends {
    state: Mutex<State>,
    news: WaitQueue,
}

#[derive(Default)]
struct State {
    begun: [bool; 2],
    /// This direction has ended, and `Ends` was told.
    ended: [bool; 2],
    moved: [u64; 2],
    /// The first error.
    error: Option<io::Error>,
}

impl State {
    fn is_over(&self) -> bool {
        self.error.is_some() || self.ended == [true; 2]
    }

    fn is_begun(&self) -> bool {
        (0..2).all(|index| self.begun[index] || self.ended[index])
    }
}

impl Ends {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for both ends or for the first error.
    fn wait(&self) -> io::Result<(u64, u64)> {
        loop {
            {
                let mut state = self.state();
                if state.is_over() {
                    let [there, back] = state.moved;
                    return state.error.take().map_or(Ok((there, back)), Err);
                }
            }
            let is_over = || self.state().is_over();
            if let Woken::Interrupted(interrupt) = self.news.wait(is_over, None, true) {
                return Err(interrupt.into_io());
            }
        }
    }

    /// Waits until each direction has begun, or has ended without beginning. Raises nothing. Returns which ones have
    /// begun.
    fn wait_until_begun(&self) -> [bool; 2] {
        loop {
            {
                let state = self.state();
                if state.is_begun() {
                    return state.begun;
                }
            }
            self.news.wait(|| self.state().is_begun(), None, false);
        }
    }
}

/// One direction.
struct Way<'a> {
    ends: &'a Ends,
    index: usize,
}

impl<'a> Way<'a> {
    fn new(ends: &'a Ends, index: usize) -> Self {
        Self { ends, index }
    }

    /// Runs the direction. A kill that unwinds the copying becomes its error.
    fn go(self, copy: impl FnOnce() -> io::Result<u64>) {
        self.ends.state().begun[self.index] = true;
        self.ends.news.wake_all();
        let result = crate::catch::<crate::Killed, _>(copy)
            .unwrap_or_else(|killed| Err(io::Error::other(killed)));
        let mut state = self.ends.state();
        match result {
            Ok(moved) => state.moved[self.index] = moved,
            Err(error) => {
                state.error.get_or_insert(error);
            }
        }
    }
}

/// Invariant 1: a thread owns its `Way`.
impl Drop for Way<'_> {
    fn drop(&mut self) {
        let mut state = self.ends.state();
        let (index, unwinds) = (self.index, std::thread::panicking());
        if !state.begun[index] || unwinds {
            let text = "one direction has ended without a result";
            state.error.get_or_insert_with(|| io::Error::other(text));
        }
        state.ended[index] = true;
        drop(state);
        self.ends.news.wake_all();
    }
}
