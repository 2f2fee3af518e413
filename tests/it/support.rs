//! What all modules here use: a deadline against hangs, a runtime in each mode, errors to throw, pairs of sockets.
//!
//! Nothing here waits for time if there is an event to wait for. [`settle`] is the exception: a green thread that is
//! about to wait gives no sign once it waits. So a test that wants it parked gives it a moment, and is correct either
//! way.

#![allow(
    dead_code,
    reason = "several test binaries include this file, each uses a part"
)]

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use weald::{Exception, Killed, Runtime, RuntimeBuilder, ThreadLocals};

/// After this many seconds a test counts as hanging, whatever the machine does.
pub(crate) const LIMIT: u64 = 60;

/// The same for as many random programs as `PROPTEST_CASES` asks for.
pub(crate) fn fuzz_limit() -> u64 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok());
    10 * LIMIT + cases.unwrap_or(0) / 100
}

/// Longer than any test lives, for waits that something else has to end.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// Runs `body` on a fresh OS thread. Ends the process with the test's name if `body` has not returned after `secs`
/// seconds.
pub(crate) fn with_deadline<T: Send>(secs: u64, body: impl FnOnce() -> T + Send) -> T {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, ended) = channel::<()>();
    thread::scope(|s| {
        let runner = thread::Builder::new().name(name.clone());
        let runner = runner.spawn_scoped(s, move || {
            let _done = done;
            body()
        });
        let runner = runner.expect("the machine has threads left");
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_secs(secs)) {
            // This bypasses the harness, whose captured output would be lost with the process.
            let _ = writeln!(io::stderr(), "\nHANGS after {secs} s: {name}");
            std::process::abort();
        }
        runner.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The modes of thread-locals in which every rule must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pinned,
    Shared,
    Own,
}

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(weald_sanitizer = "address", weald_sanitizer = "thread"))
))]
pub(crate) const MODES: [Mode; 3] = [Mode::Pinned, Mode::Shared, Mode::Own];
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(weald_sanitizer = "address", weald_sanitizer = "thread"))
)))]
pub(crate) const MODES: [Mode; 2] = [Mode::Pinned, Mode::Shared];

pub(crate) fn runtime(workers: usize, mode: Mode) -> Runtime {
    let builder = builder(workers, mode);
    builder.build().expect("workers and mode are in bounds")
}

pub(crate) fn builder(workers: usize, mode: Mode) -> RuntimeBuilder {
    let builder = Runtime::builder().workers(workers);
    match mode {
        Mode::Pinned => builder.thread_locals(ThreadLocals::Pinned),
        // SAFETY: the tests that use this helper hold nothing thread-local over a blocking call.
        Mode::Shared => unsafe { builder.share_thread_locals() },
        Mode::Own => builder.thread_locals(ThreadLocals::Own),
    }
}

/// Returns a runtime in which green threads have thread-locals of their own, or `None` if that is not possible here.
pub(crate) fn own_runtime(workers: usize) -> Option<Runtime> {
    let builder = Runtime::builder().workers(workers);
    match builder.thread_locals(ThreadLocals::Own).build() {
        Ok(rt) => Some(rt),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            eprintln!("not tested: {error}");
            None
        }
        Err(error) => panic!("workers and mode are in bounds: {error}"),
    }
}

/// Prints which variant was running when a check panicked.
struct Variant(String);

impl Drop for Variant {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("... failed {}", self.0);
        }
    }
}

/// Runs the check in each mode with this many workers. The check runs on an OS thread and gets the runtime.
pub(crate) fn each_mode_on(workers: usize, check: impl Fn(&Runtime) + Sync) {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let _variant = Variant(format!("in mode {mode:?} with {workers} workers"));
            let rt = runtime(workers, mode);
            check(&rt);
        });
    }
}

/// Runs the check in each mode, with 1 and with 2 workers.
pub(crate) fn each_mode(check: impl Fn(&Runtime) + Sync) {
    each_mode_on(1, &check);
    each_mode_on(2, &check);
}

/// Runs the check as a green thread, in each mode, with 1 and with 2 workers.
pub(crate) fn in_each_mode(check: impl Fn() + Sync) {
    each_mode(|rt| rt.run(&check));
}

/// Runs the check as a green thread in each mode, and on a plain OS thread.
pub(crate) fn everywhere(check: impl Fn() + Sync) {
    in_each_mode(&check);
    with_deadline(LIMIT, || {
        let _variant = Variant("on a plain OS thread".to_owned());
        check();
    });
}

/// Waits for an event that another thread brings about; the caller's deadline guards against a hang.
pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) {
    while !happened() {
        weald::sleep(MS);
    }
}

/// Gives a thread that said it is about to wait the time to do so.
pub(crate) fn settle() {
    weald::sleep(10 * MS);
}

/// Computes for this long without any blocking call, and so holds its worker.
pub(crate) fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// An event that has happened or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag(Arc<AtomicBool>);

impl Flag {
    pub(crate) fn set(&self) {
        self.0.store(true, SeqCst);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Waits by weald's own sleep: a green thread that waits here holds no worker.
    pub(crate) fn wait(&self) {
        wait_until(|| self.is_set());
    }

    /// Waits without any blocking call, for a thread that must keep its worker, or that must not be interrupted.
    pub(crate) fn spin(&self) {
        while !self.is_set() {
            thread::yield_now();
        }
    }
}

/// Counts how often something has happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, SeqCst)
    }

    pub(crate) fn sub(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Waits as `Flag::spin` does, until it has happened this often.
    pub(crate) fn spin(&self, often: usize) {
        while self.get() < often {
            thread::yield_now();
        }
    }

    /// Returns a value, which is also an error, that counts its own drop.
    pub(crate) fn on_drop(&self) -> Counted {
        Counted(self.clone())
    }
}

#[derive(Debug)]
pub(crate) struct Counted(Count);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add();
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counts its drop")
    }
}

impl Error for Counted {}

/// Does something when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// An exception of the tests. Its number tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) u32);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark {}", self.0)
    }
}

impl Error for Mark {}

/// Returns what `f` unwound with, if it did.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> thread::Result<T> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Returns the exception of type `E` that a result holds.
pub(crate) fn exception_in<E: Error + 'static, T>(result: &thread::Result<T>) -> Option<&E> {
    let payload = result.as_ref().err()?;
    payload.downcast_ref::<Exception>()?.downcast_ref::<E>()
}

pub(crate) fn mark_in<T>(result: &thread::Result<T>) -> Option<u32> {
    exception_in::<Mark, T>(result).map(|mark| mark.0)
}

pub(crate) fn was_killed<T>(result: &thread::Result<T>) -> bool {
    exception_in::<Killed, T>(result).is_some()
}

/// Returns the error that an `io::Error` holds.
pub(crate) fn source_of<E: Error + 'static>(error: &io::Error) -> Option<&E> {
    error.get_ref()?.downcast_ref::<E>()
}

pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
}

/// Checks that an error about a setting out of range names the value, and the bound in one of the ways to write it.
#[track_caller]
pub(crate) fn check_names(text: &str, value: &str, bounds: &[&str]) {
    assert!(text.contains(value), "{text:?} does not name {value}");
    let named = bounds.iter().any(|bound| text.contains(bound));
    assert!(named, "{text:?} names none of {bounds:?}");
}

/// Returns the loopback address of each family that this machine has, with port 0.
pub(crate) fn loopbacks() -> Vec<SocketAddr> {
    let both = ["127.0.0.1:0", "[::1]:0"].map(|text| text.parse::<SocketAddr>().unwrap());
    let there = |addr: &SocketAddr| std::net::TcpListener::bind(addr).is_ok();
    both.into_iter().filter(there).collect()
}

pub(crate) fn v4() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Runs the check as a green thread, for each family, in each mode, with 1 and with 2 workers.
pub(crate) fn each_net(check: impl Fn(SocketAddr) + Sync) {
    for addr in loopbacks() {
        in_each_mode(|| check(addr));
    }
}

/// Returns two green ends of one connection.
pub(crate) fn green_pair(addr: SocketAddr) -> (weald::net::TcpStream, weald::net::TcpStream) {
    let listener = weald::tcp_listener(addr).unwrap();
    let near = weald::connect_tcp(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

/// Returns a green end, and the other end as std's socket, for an OS thread.
pub(crate) fn std_pair(addr: SocketAddr) -> (weald::net::TcpStream, std::net::TcpStream) {
    let listener = weald::tcp_listener(addr).unwrap();
    let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    (near, far)
}

/// Tells if `O_NONBLOCK` is set on the open file.
pub(crate) fn is_nonblocking(socket: &impl std::os::fd::AsRawFd) -> bool {
    // SAFETY: the descriptor is open while the socket is borrowed, and F_GETFL changes nothing.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    assert!(flags >= 0);
    flags & libc::O_NONBLOCK != 0
}

/// Returns the kernel's number of this OS thread.
pub(crate) fn os_thread() -> i32 {
    // SAFETY: gettid has no precondition.
    unsafe { libc::gettid() }
}

/// Returns the names of this process's OS threads, as the kernel has them (15 bytes at most).
pub(crate) fn os_thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The name of the variable that makes a test binary play the part of the child.
const CHILD: &str = "WEALD_TEST_CHILD";

/// What a test sees of its process of its own.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) success: bool,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Tells if this process is one that `in_child` has started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Returns a command for this test binary. `WEALD_TEST_RUNNER` names a program that runs it, if the system cannot
/// start it by itself (another processor).
pub(crate) fn this_program() -> std::process::Command {
    let program = std::env::current_exe().unwrap();
    let runner = std::env::var("WEALD_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else {
        return std::process::Command::new(program);
    };
    let mut command = std::process::Command::new(first);
    command.args(words).arg(program);
    command
}

/// Runs `body` in a process of its own: this binary again, restricted to the test `test`, with the variables `env`.
///
/// In the child the call runs `body` and exits, so a test must call this first. In the parent it returns the result
/// of the child.
pub(crate) fn in_child(test: &str, env: &[(&str, &str)], body: impl FnOnce() + Send) -> Child {
    use std::os::unix::process::ExitStatusExt as _;
    let mut command = child_command(test, body);
    command.envs(env.iter().copied());
    command.stdin(std::process::Stdio::null());
    let output = with_deadline(LIMIT, || command.output().unwrap());
    Child {
        success: output.status.success(),
        signal: output.status.signal(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// In the child: runs `body` and exits. In the parent: returns the command that starts the child, for a test with that name.
pub(crate) fn child_command(test: &str, body: impl FnOnce() + Send) -> std::process::Command {
    if is_child() {
        with_deadline(LIMIT / 2, body);
        std::process::exit(0);
    }
    let mut command = this_program();
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    for variable in ["WEALD_WORKERS", "WEALD_STACK_SIZE", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command.env(CHILD, test);
    command
}

/// Runs the check on 2 workers, if green threads can have thread-locals of their own.
pub(crate) fn on_two_workers(check: impl FnOnce(&weald::Runtime) + Send) {
    with_deadline(LIMIT, || {
        if let Some(rt) = own_runtime(2) {
            check(&rt);
        }
    });
}
