//! The public contract as types: every name with its signature. If this compiles, programs written against it compile
//! too. The few things that run are cheap.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::type_complexity,
    reason = "the types are what is checked, so they are written out"
)]

use std::any::Any;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use weald::{
    Builder, Elapsed, Exception, GreenThread, GreenThreadId, InstallError, JoinHandle, Killed,
    Metrics, Runtime, RuntimeBuilder, Scope, ScopedJoinHandle, ThreadLocals, Timer,
};

type BoxError = Box<dyn Error + Send + Sync>;

fn is_send_sync<T: Send + Sync>() {}
fn is_static<T: 'static>() {}
fn is_error<T: Error + Send + Sync + 'static>() {}
fn scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    builder: Builder,
) -> (
    ScopedJoinHandle<'scope, u8>,
    io::Result<ScopedJoinHandle<'scope, u8>>,
) {
    (scope.spawn(|| 1), builder.spawn_scoped(scope, || 2))
}
fn is_handle<T: Clone + Send + Sync>() {}
fn is_id<T: Copy + Eq + Hash + Debug>() {}
fn is_exception<T: Send + Debug + Display + 'static>() {}
fn green<S: weald::net::WrapSocket>(socket: S) -> S::Green {
    weald::wrap_socket(socket)
}

fn reads_and_writes<T: io::Read + io::Write + std::os::fd::AsFd + Send + Sync>()
where
    for<'a> &'a T: io::Read + io::Write,
{
}

#[test]
fn the_runtime_has_its_names() {
    let _: fn() -> RuntimeBuilder = Runtime::builder;
    let _: fn(RuntimeBuilder, usize) -> RuntimeBuilder = RuntimeBuilder::workers;
    let _: fn(RuntimeBuilder, usize) -> RuntimeBuilder = RuntimeBuilder::stack_size;
    let _: fn(RuntimeBuilder, String) -> RuntimeBuilder = RuntimeBuilder::thread_name;
    let _: fn(RuntimeBuilder, &'static str) -> RuntimeBuilder = RuntimeBuilder::thread_name;
    let _: fn(RuntimeBuilder) -> io::Result<Runtime> = RuntimeBuilder::build;
    let _: fn(RuntimeBuilder) -> Result<(), InstallError> = RuntimeBuilder::install;
    let _: fn(RuntimeBuilder, ThreadLocals) -> RuntimeBuilder = RuntimeBuilder::thread_locals;
    let _: unsafe fn(RuntimeBuilder) -> RuntimeBuilder = RuntimeBuilder::share_thread_locals;
    let _ = (ThreadLocals::Own, ThreadLocals::Pinned);
    let _: fn(&InstallError) -> bool = InstallError::is_already_running;
    is_error::<InstallError>();
    is_send_sync::<Runtime>();
    let _: fn(&Runtime, fn() -> String) -> String = Runtime::run::<String>;
    let _: fn(&Runtime, fn() -> u8) -> JoinHandle<u8> = Runtime::spawn::<fn() -> u8, u8>;
    let _: fn(Runtime, Duration) -> bool = Runtime::shutdown;
    let _: fn(&Runtime) -> Metrics = Runtime::metrics;
    let metrics = Runtime::builder().workers(1).build().unwrap().metrics();
    let _: [usize; 6] = [
        metrics.workers,
        metrics.live,
        metrics.parked,
        metrics.injector_len,
        metrics.run_queue_len,
        metrics.timers,
    ];
    let _: [u64; 5] = [
        metrics.spawned,
        metrics.steals,
        metrics.parks,
        metrics.polls,
        metrics.stack_bytes,
    ];
    let _ = format!("{:?}", metrics.clone());
}

#[test]
fn green_threads_have_their_names() {
    let _: fn(fn() -> u8) -> JoinHandle<u8> = weald::spawn::<fn() -> u8, u8>;
    let _: fn(fn() -> u8, fn() -> i8) -> (u8, i8) = weald::join::<fn() -> u8, fn() -> i8, u8, i8>;
    let _: fn() -> Builder = Builder::new;
    let _: fn(Builder, String) -> Builder = Builder::name;
    let _: fn(Builder, usize) -> Builder = Builder::stack_size;
    let _: fn(Builder, bool) -> Builder = Builder::pinned;
    let _: fn(Builder, fn()) -> io::Result<JoinHandle<()>> = Builder::spawn::<fn(), ()>;
    let sum = weald::scope(|s| {
        let (one, two) = scoped(s, Builder::new());
        let two = two.unwrap();
        let _: (&GreenThread, bool) = (two.thread(), two.is_finished());
        let results: [thread::Result<u8>; 2] = [one.join(), two.join()];
        results.map(Result::unwrap).iter().sum::<u8>()
    });
    assert_eq!(sum, 3);

    is_send_sync::<JoinHandle<std::cell::Cell<u8>>>();
    let _: fn(JoinHandle<u8>) -> thread::Result<u8> = JoinHandle::join;
    let _: fn(&JoinHandle<u8>) -> bool = JoinHandle::is_finished;
    let _: fn(&JoinHandle<u8>) -> &GreenThread = JoinHandle::thread;

    is_handle::<GreenThread>();
    is_id::<GreenThreadId>();
    let _: fn(&GreenThread) -> GreenThreadId = GreenThread::id;
    let _: fn(&GreenThread) -> Option<&str> = GreenThread::name;
    let _: fn(&GreenThread) = GreenThread::unpark;
    let _: fn(&GreenThread, &'static str) = GreenThread::throw;
    let _: fn(&GreenThread, io::Error) = GreenThread::throw;
    let _: fn(&GreenThread) = GreenThread::kill;

    let _: fn() -> GreenThread = weald::current;
    let _: fn() -> bool = weald::is_green;
    let _: [fn(); 3] = [weald::yield_now, weald::park, weald::checkpoint];
    let _: [fn(Duration); 2] = [weald::park_timeout, weald::sleep];
    let _: fn(Instant) = weald::sleep_until;
    weald::green_local! {
        static DEPTH: std::cell::Cell<u8> = std::cell::Cell::new(7);
        static WORDS: Vec<u8> = Vec::new();
    }
    assert_eq!(DEPTH.with(std::cell::Cell::get), 7);
    assert!(WORDS.with(Vec::is_empty));
    // Neither `Send` nor `'static`.
    let local = std::rc::Rc::new(5);
    let seen: &i32 = weald::blocking(|| &*local);
    assert_eq!(*seen, 5);
}

#[test]
fn timers_and_exceptions_have_their_names() {
    let _: fn(Duration, fn()) -> Timer = |delay, f| weald::call_after(delay, f);
    let _: fn(Duration, fn()) -> Timer = |delay, f| weald::call_after_local(delay, f);
    let _: fn(Duration, &'static str) -> Timer = |delay, exc| weald::exc_after(delay, exc);
    let _: fn(Duration, BoxError) -> Timer = |delay, exc| weald::exc_after(delay, exc);
    let _: fn(&Timer) -> bool = Timer::cancel;
    is_send_sync::<Timer>();
    is_static::<Timer>();

    // A value that is not unwind safe may be captured.
    let mut cell = std::cell::Cell::new(0);
    let counted: Result<(), Elapsed> = weald::timeout(Duration::MAX, || cell.set(1));
    counted.unwrap();
    let caught: Result<i32, Elapsed> = weald::catch(|| *cell.get_mut());
    assert_eq!(caught.unwrap(), 1);
    let _ = weald::catch::<io::Error, _>(|| ());

    is_exception::<Exception>();
    is_error::<Killed>();
    is_error::<Elapsed>();
    let _: fn(&Exception) -> Option<&Killed> = Exception::downcast_ref::<Killed>;
    let _: fn(Exception) -> BoxError = Exception::into_inner;

    let thread = weald::spawn(weald::park);
    thread.thread().kill();
    let payload: Box<dyn Any + Send> = thread.join().unwrap_err();
    let killed = |e: &Box<dyn Any + Send>| {
        let killed: &Killed = e.downcast_ref::<Exception>()?.downcast_ref::<Killed>()?;
        Some(killed.to_string())
    };
    assert!(killed(&payload).is_some());
}

#[test]
fn tcp_has_its_names() {
    use weald::net::{ServerHandle, ServerOptions, TcpListener, TcpStream};

    let _: fn(&'static str) -> io::Result<TcpListener> = |addr| weald::tcp_listener(addr);
    let _: fn(SocketAddr) -> io::Result<TcpListener> = |addr| weald::tcp_listener(addr);
    let _: fn((&'static str, u16), u32) -> io::Result<TcpListener> =
        |addr, backlog| weald::tcp_listener_with(addr, backlog);
    let _: fn(&[SocketAddr]) -> io::Result<TcpStream> = |addr| weald::connect_tcp(addr);
    let _: fn(String, SocketAddr) -> io::Result<TcpStream> =
        |addr, local| weald::connect_tcp_from(addr, local);
    let _: fn(TcpListener, fn(TcpStream, SocketAddr)) -> ServerHandle =
        |listener, handler| weald::tcp_server(listener, handler);
    let _: fn(TcpListener, ServerOptions, fn(TcpStream, SocketAddr)) -> ServerHandle =
        |listener, options, handler| weald::tcp_server_with(listener, options, handler);
    let _: fn(ServerOptions, usize) -> ServerOptions = ServerOptions::max_connections;
    let _: fn(&ServerHandle) -> SocketAddr = ServerHandle::local_addr;
    let _: fn(ServerHandle) = ServerHandle::stop;
    let _: fn(ServerHandle, Duration) -> bool = ServerHandle::shutdown;

    let _: fn(std::net::TcpStream) -> TcpStream = green;
    let _: fn(std::net::TcpListener) -> TcpListener = green;
    let _: fn(std::net::TcpStream) -> TcpStream = TcpStream::from;
    let _: fn(TcpStream) -> std::net::TcpStream = TcpStream::into_std;
    let _: fn(TcpListener) -> std::net::TcpListener = TcpListener::into_std;
}

#[test]
fn the_other_sockets_have_their_names() {
    use std::os::unix::net as std_unix;
    use weald::net::unix::{self, UnixDatagram, UnixListener, UnixStream};
    use weald::net::{Fd, PollFd, Selected, UdpSocket};

    type List<'a> = &'a [&'a dyn std::os::fd::AsFd];
    type Select = fn(List<'_>, List<'_>, List<'_>, Option<Duration>) -> io::Result<Selected>;
    type Pipe = Fd<std::os::fd::OwnedFd>;

    let _: fn(&'static str) -> io::Result<UdpSocket> = UdpSocket::bind;
    let _: fn(std::net::UdpSocket) -> UdpSocket = green;
    let _: fn(std::net::UdpSocket) -> UdpSocket = UdpSocket::from;
    let _: fn(UdpSocket) -> std::net::UdpSocket = UdpSocket::into_std;
    let _: fn(std_unix::UnixStream) -> UnixStream = green;
    let _: fn(std_unix::UnixListener) -> UnixListener = green;
    let _: fn(std_unix::UnixDatagram) -> UnixDatagram = green;
    let _: fn(std_unix::UnixStream) -> UnixStream = UnixStream::from;
    let _: fn(UnixStream) -> std_unix::UnixStream = UnixStream::into_std;
    let _: fn(UnixListener) -> std_unix::UnixListener = UnixListener::into_std;
    let _: fn(UnixDatagram) -> std_unix::UnixDatagram = UnixDatagram::into_std;
    let _: fn(&UnixListener) -> unix::Incoming<'_> = UnixListener::incoming;
    let _: fn(&UnixStream) -> io::Result<std_unix::SocketAddr> = UnixStream::local_addr;
    let _: fn(&UnixStream) -> io::Result<unix::SocketAddr> = UnixStream::peer_addr;
    reads_and_writes::<UnixStream>();

    let _: fn(std::os::fd::OwnedFd) -> Pipe = Fd::new;
    let _: [fn(&Pipe) -> io::Result<()>; 2] = [Fd::readable, Fd::writable];
    let _: Select = weald::select;
    let Selected {
        read,
        write,
        except,
    } = Selected::default();
    let _: [Vec<usize>; 3] = [read, write, except];
    assert_eq!(Selected::default(), Selected::default());
    let _ = format!("{:?}", Selected::default());
    let _: fn(&mut [PollFd<'_>], Option<Duration>) -> io::Result<usize> = weald::net::poll;
    reads_and_writes::<Pipe>();
}

/// A guard for reading is covariant, as std's is.
fn shorter<'a, 'short>(
    guard: weald::sync::RwLockReadGuard<'a, &'static str>,
) -> weald::sync::RwLockReadGuard<'a, &'short str> {
    guard
}

#[test]
fn locks_have_their_names() {
    use weald::sync::{
        Barrier, BarrierWaitResult, Condvar, Event, LazyLock, LockResult, Mutex, MutexGuard, Once,
        OnceLock, OnceState, Permit, PoisonError, Promise, RwLock, RwLockReadGuard,
        RwLockWriteGuard, Semaphore, TryLockError, TryLockResult, WaitGroup, WaitTimeoutResult,
    };

    static LOCK: Mutex<u8> = Mutex::new(1);
    static WORDS: RwLock<Vec<u8>> = RwLock::new(Vec::new());
    static CHANGED: Condvar = Condvar::new();
    static TOGETHER: Barrier = Barrier::new(1);
    static START: Once = Once::new();
    static CELL: OnceLock<u8> = OnceLock::new();
    static LAZY: LazyLock<u8> = LazyLock::new(|| 3);
    static PLACES: Semaphore = Semaphore::new(2);
    static GO: Event = Event::new();

    is_send_sync::<Mutex<std::cell::Cell<u8>>>();
    is_send_sync::<RwLock<u8>>();
    let guard: LockResult<MutexGuard<'static, u8>> = LOCK.lock();
    let guard: MutexGuard<'static, u8> = guard.unwrap();
    let tried: TryLockResult<MutexGuard<'static, u8>> = LOCK.try_lock();
    assert!(matches!(tried, Err(TryLockError::WouldBlock)));
    let limit = Duration::from_millis(1);
    assert!(LOCK.try_lock_for(limit).is_err());
    assert!(LOCK.try_lock_until(Instant::now()).is_err());
    let waited: LockResult<(MutexGuard<'_, u8>, WaitTimeoutResult)> =
        CHANGED.wait_timeout(guard, limit);
    assert!(waited.unwrap().1.timed_out());
    CHANGED.notify_one();
    CHANGED.notify_all();
    let reader: LockResult<RwLockReadGuard<'static, Vec<u8>>> = WORDS.read();
    drop(reader.unwrap_or_else(PoisonError::into_inner));
    let word = RwLock::new("word");
    assert_eq!(*shorter(word.read().unwrap()), "word");
    let writer: RwLockWriteGuard<'static, Vec<u8>> = WORDS.write().unwrap();
    drop(RwLockWriteGuard::downgrade(writer));
    drop(WORDS.try_read_for(limit).unwrap());
    drop(WORDS.try_write_until(Instant::now() + limit).unwrap());
    let led: BarrierWaitResult = TOGETHER.wait();
    assert!(led.is_leader());
    START.call_once_force(|state: &OnceState| assert!(!state.is_poisoned()));
    START.wait();
    assert_eq!((CELL.get_or_init(|| 2), *LAZY), (&2, 3));
    let permit: Permit<'static> = PLACES.acquire();
    permit.forget();
    let other: Option<Permit<'static>> = PLACES.acquire_timeout(limit);
    drop(other);
    PLACES.add_permits(1);
    assert!(PLACES.try_acquire().is_some());
    assert_eq!(PLACES.available_permits(), 2);
    GO.set();
    GO.reset();
    let _: (bool, bool) = (GO.is_set(), GO.wait_timeout(limit));
    is_send_sync::<Promise<u8>>();
    let group = WaitGroup::new();
    drop(group.clone());
    group.wait();
}

#[test]
fn channels_and_pools_have_their_names() {
    use weald::sync::channel::{
        self, Receiver, RecvError, RecvTimeoutError, Select, SendError, SendTimeoutError, Sender,
        TryRecvError, TrySendError,
    };
    use weald::{GreenPile, GreenPool};

    let _: fn(usize) -> (Sender<u8>, Receiver<u8>) = channel::bounded;
    let _: fn() -> (Sender<u8>, Receiver<u8>) = channel::unbounded;
    let _: [fn(Duration) -> Receiver<Instant>; 2] = [channel::after, channel::tick];
    let _: fn() -> Receiver<u8> = channel::never;
    let _: fn(&Sender<u8>, u8) -> Result<(), SendError<u8>> = Sender::send;
    let _: fn(&Sender<u8>, u8) -> Result<(), TrySendError<u8>> = Sender::try_send;
    let _: fn(&Sender<u8>, u8, Duration) -> Result<(), SendTimeoutError<u8>> = Sender::send_timeout;
    let _: fn(&Sender<u8>, u8, Instant) -> Result<(), SendTimeoutError<u8>> = Sender::send_deadline;
    let _: fn(&Receiver<u8>) -> Result<u8, RecvError> = Receiver::recv;
    let _: fn(&Receiver<u8>) -> Result<u8, TryRecvError> = Receiver::try_recv;
    let _: fn(&Receiver<u8>, Duration) -> Result<u8, RecvTimeoutError> = Receiver::recv_timeout;
    let _: fn(&Receiver<u8>, Instant) -> Result<u8, RecvTimeoutError> = Receiver::recv_deadline;
    is_error::<SendError<u8>>();
    is_error::<RecvTimeoutError>();
    is_send_sync::<Sender<std::cell::Cell<u8>>>();
    is_send_sync::<Receiver<std::cell::Cell<u8>>>();
    is_static::<Select<'static>>();
    is_send_sync::<Select<'static>>();

    let (sender, receiver) = channel::unbounded();
    let (one, taken) = weald::sync::oneshot::channel::<u8>();
    one.send(1).unwrap();
    let handle = weald::spawn(|| ());
    for _ in 0..2 {
        weald::select! {
            recv(receiver) -> word => assert_eq!(word, Ok("word")),
            send(sender, "word") -> sent => sent.unwrap(),
            default(Duration::from_secs(60)) => unreachable!(),
        }
    }
    weald::select! { recv(taken.end()) -> one => assert_eq!(one, Ok(1)) }
    weald::select! { join(&handle) -> _ => {} }
    handle.join().unwrap();

    let pool: GreenPool = GreenPool::new(2);
    let spawned: JoinHandle<u8> = pool.spawn(|| 5);
    assert_eq!(spawned.join().unwrap(), 5);
    let results: Vec<thread::Result<u8>> = pool.imap([1_u8, 2], |n| n).collect();
    assert_eq!(results.len(), 2);
    pool.wait_all();
    let _: fn(&GreenPool) -> GreenPile<u8> = GreenPile::new;
    assert_eq!(weald::block_on(async { 6 }), 6);
}

#[cfg(feature = "tls")]
#[test]
fn tls_has_its_names() {
    use weald::net::{Identity, SslConnector, SslListener, SslStream, TcpStream};

    let _: fn(&'static str, Identity) -> io::Result<SslListener> =
        |addr, identity| weald::ssl_listener(addr, identity);
    let _: fn(&str) -> io::Result<SslStream> = weald::connect_ssl;
    let _: fn(&str, &SslConnector) -> io::Result<SslStream> = weald::connect_ssl_with;
    let _: fn(&str, &[u8]) -> io::Result<Identity> = |cert, key| Identity::from_pem(cert, key);
    let _: fn(&str, String) -> io::Result<Identity> =
        |cert, key| Identity::from_pem_files(cert, key);
    let _: fn() -> SslConnector = SslConnector::new;
    let _: fn(&[u8]) -> io::Result<SslConnector> = |roots| SslConnector::from_pem(roots);
    let _: fn(&SslConnector) -> SslConnector = Clone::clone;
    let _: fn(&SslListener) -> io::Result<(SslStream, SocketAddr)> = SslListener::accept;
    let _: fn(&SslListener) -> io::Result<SocketAddr> = SslListener::local_addr;
    let _: fn(&SslStream) -> io::Result<SocketAddr> = SslStream::peer_addr;
    let _: fn(&SslStream) -> io::Result<()> = SslStream::handshake;
    let _: fn(&SslStream, std::net::Shutdown) -> io::Result<()> = SslStream::shutdown;
    reads_and_writes::<SslStream>();
    reads_and_writes::<TcpStream>();
}
