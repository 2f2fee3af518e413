//! Green threads for all cores: plain blocking Rust, with a million threads at once.
//!
//! A *green thread* is a coroutine with a stack of its own. A blocking call suspends the green thread and not the OS
//! thread. If you know `std::thread` and `std::net`, you know weald already. The default runtime starts at its first
//! use, with a worker for each core; [`Runtime`] makes others.
//!
//! # Spawning
//! ```
//! let answer = weald::spawn(|| 6 * 7);
//! assert_eq!(answer.join().unwrap(), 42);
//!
//! let words = vec!["plain", "blocking", "Rust"];
//! let letters: usize = weald::scope(|s| {
//!     let threads: Vec<_> = words.iter().map(|word| s.spawn(move || word.len())).collect();
//!     threads.into_iter().map(|thread| thread.join().unwrap()).sum()
//! });
//! assert_eq!(letters, 17);
//! ```
//!
//! # Computing
//! [`join`] runs two closures, at the same time if a worker is idle. If none is, it costs some nanoseconds. Use it
//! for computations that split again and again.
//! ```
//! fn largest(numbers: &[u32]) -> u32 {
//!     if let [number] = numbers {
//!         return *number;
//!     }
//!     let (left, right) = numbers.split_at(numbers.len() / 2);
//!     let (left, right) = weald::join(|| largest(left), || largest(right));
//!     left.max(right)
//! }
//! assert_eq!(largest(&[3, 1, 4, 1, 5]), 5);
//! ```
//!
//! # Sleeping, and calls in the future
//! ```
//! use std::time::Duration;
//!
//! weald::sleep(Duration::from_millis(1));
//! let me = weald::current();
//! weald::call_after(Duration::from_millis(1), move || me.unpark());
//! weald::park();
//! let never = weald::call_after(Duration::from_secs(60), || unreachable!());
//! assert!(never.cancel());
//! ```
//!
//! # Errors from outside
//! [`exc_after`] raises an error in the caller's own future. [`timeout`] bounds how long a closure waits.
//! [`GreenThread::throw`] and [`GreenThread::kill`] reach another thread. Such errors are raised only in blocking
//! calls: a call that returns `io::Result` returns the error, any other call unwinds.
//! ```
//! use std::time::Duration;
//!
//! let limit = Duration::from_millis(5);
//! assert!(weald::timeout(limit, || weald::sleep(Duration::MAX)).is_err());
//! ```
//!
//! # Sockets
//! [`net`] has the types of `std::net` and `std::os::unix::net`. [`wrap_socket`] makes std's sockets green, and
//! [`net::Fd`] any other descriptor. [`select`](fn@select) waits for several of them.
//! ```
//! use std::io::{Read, Write};
//!
//! let listener = weald::tcp_listener("127.0.0.1:0")?;
//! let server = weald::tcp_server(listener, |mut stream, _peer| {
//!     let mut byte = [0];
//!     while let Ok(1) = stream.read(&mut byte) {
//!         if stream.write_all(&byte).is_err() {
//!             break;
//!         }
//!     }
//! });
//! let mut stream = weald::connect_tcp(server.local_addr())?;
//! stream.write_all(b"!")?;
//! let mut byte = [0];
//! stream.read_exact(&mut byte)?;
//! assert_eq!(&byte, b"!");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # TLS
//! TLS works the same, with `ssl_listener`, `ssl_server` and `connect_ssl`, on rustls. `net::SslStream` speaks TLS
//! over any green stream.
//! ```
//! # #[cfg(feature = "tls")]
//! # fn example() -> std::io::Result<()> {
//! use std::io::{Read, Write};
//!
//! # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
//! # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
//! let identity = weald::net::Identity::from_pem(&chain, &key)?;
//! let listener = weald::ssl_listener("127.0.0.1:0", identity)?;
//! let server = weald::ssl_server(listener, |mut stream, _peer| {
//!     // The handshake is done; it ran in this connection's own thread.
//!     let _ = stream.write_all(b"welcome");
//! });
//! let addr = format!("localhost:{}", server.local_addr().port());
//! let trusts = weald::net::SslConnector::from_pem(&chain)?;
//! let mut text = String::new();
//! weald::connect_ssl_with(&addr, &trusts)?.read_to_string(&mut text)?;
//! assert_eq!(text, "welcome");
//! # Ok(())
//! # }
//! # #[cfg(feature = "tls")]
//! # example().unwrap();
//! ```

#[cfg(all(feature = "macros", not(loom)))]
#[doc(hidden)]
pub mod entry;
#[cfg(not(loom))]
pub mod fs;
#[cfg(not(loom))]
pub mod io;
#[cfg(loom)]
pub mod model;
mod pool;
#[cfg(not(loom))]
pub mod process;
#[cfg(all(feature = "signal", not(loom)))]
pub mod signal;

#[cfg(loom)]
pub use crate::model::model;
pub use crate::pool::{GreenPile, GreenPool, Imap};

/// Green sockets: the types of `std::net`.
#[cfg(not(loom))]
pub mod net {
    #[cfg(feature = "tls")]
    pub use weald_net::{
        ClientCertificates, Identity, SslAcceptor, SslAcceptorBuilder, SslConnector,
        SslConnectorBuilder, SslIncoming, SslListener, SslReader, SslRoots, SslStream,
        SslTransport, SslWriter, crypto_provider, rustls,
    };
    pub use weald_net::{
        Fd, Incoming, PollFd, Resolve, Selected, ServerHandle, ServerOptions, Shutdown, SocketAddr,
        SocketBuilder, SystemResolver, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
        WrapSocket, poll, resolve, set_resolver, unix,
    };
}

/// Locks, channels and `select!`, between green threads and OS threads in any mix.
pub mod sync {
    pub use weald_sync::{
        Barrier, BarrierWaitResult, Condvar, Event, LazyLock, LockResult, Mutex, MutexGuard, Once,
        OnceLock, OnceState, OwnedPermit, Permit, PoisonError, Promise, PromiseError, RawMutex,
        RawRwLock, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, TryLockError,
        TryLockResult, WaitGroup, WaitTimeoutResult, channel, oneshot,
    };
}

#[cfg(all(feature = "tls", not(loom)))]
pub use weald_net::{
    connect_ssl, connect_ssl_with, ssl_listener, ssl_listener_with, ssl_server, ssl_server_with,
};
pub use weald_sync::{block_on, select};

#[cfg(not(loom))]
pub use weald_net::{
    connect_tcp, connect_tcp_from, select, tcp_listener, tcp_listener_with, tcp_server,
    tcp_server_with, unix_server, unix_server_with, wrap_socket,
};
pub use weald_scheduler::{
    Awaited, Builder, Changes, Deadlock, Doing, Dump, DumpedGroup, DumpedThread, Elapsed,
    Exception, Frame, GreenThread, GreenThreadId, Group, InstallError, JoinHandle, Killed,
    Latencies, LocalKey, Metrics, Outcome, Runtime, RuntimeBuilder, Scope, ScopedJoinHandle,
    ThreadLocals, Timer, Trace, WaitsFor, WorkerMetrics, blocking, call_after, call_after_local,
    catch, checkpoint, current, dump, exc_after, green_local, group, is_green, join, metrics, park,
    park_timeout, scope, sleep, sleep_until, spawn, timeout, trace, worker_metrics, yield_now,
};

#[cfg(all(feature = "macros", not(loom)))]
pub use weald_macros::{main, test};
#[cfg(not(loom))]
pub use weald_scheduler::{OnOsThread, RuntimeHandle, on_os_thread, on_os_thread_unsend, runtimes};

/// The README's example, compiled.
#[cfg(all(doctest, feature = "macros", feature = "signal"))]
#[doc = include_str!("../README.md")]
mod readme {}

/// The example of `docs/exceptions.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/exceptions.md")]
mod exceptions {}

/// The example of `docs/hangs.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/hangs.md")]
mod hangs {}

/// The examples of `docs/tracing.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/tracing.md")]
mod tracing {}

/// The example of `docs/fork-join.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/fork-join.md")]
mod fork_join {}

/// The example of `docs/machines.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/machines.md")]
mod machines {}

/// The example of `docs/crates-in-own.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/crates-in-own.md")]
mod crates_in_own {}
