//! Starting green threads.
#![allow(
    unsafe_code,
    reason = "one door for threads that borrow and threads that do not"
)]

use std::io;

use crate::builder::{NEEDS_OWN, checked_stack_size, unsupported};
use crate::carrier;
use crate::cells::Piece;
use crate::coroutine::Control;
use crate::exception;
use crate::green_thread::{Settings, Task};
use crate::handle::GreenThreadId;
use crate::join::{self, JoinHandle, Packet};
use crate::runtime::{self, Inner};
use crate::scope::{Scope, ScopedJoinHandle};
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;
use crate::worker::{Worker, count};

/// What a new thread is to be like.
#[allow(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) pinned: bool,
    pub(crate) patched: Option<bool>,
    /// Somebody who runs already waits for it in `join`: it runs also in a runtime that closes.
    pub(crate) is_half: bool,
    /// Another worker is to run it.
    pub(crate) is_for_others: bool,
    /// Its body is only to be dropped, as if it were killed before it began.
    pub(crate) is_doomed: bool,
    /// The floating-point control that it begins with, if not the caller's.
    pub(crate) control: Option<Control>,
}

/// Makes a green thread and queues it. In a runtime that closes its body never runs, unless it is half
/// of a `join`.
///
/// # Safety
/// What `body` and its result borrow outlives the thread, and the result is taken or dropped while
/// it is valid.
pub(crate) unsafe fn start<F, T>(inner: &Arc<Inner>, request: Request, body: F) -> Packet<T>
where
    F: FnOnce() -> T,
{
    #[cfg(loom)]
    if crate::thin::is_active() {
        // SAFETY: by contract.
        return unsafe { crate::thin::start(request, body) };
    }
    let runtime = Arc::as_ptr(inner);
    // Hooked calls tell threads apart by their thread-locals.
    let patched = match inner.settings.own {
        Some(_) => request.patched.or(inner.settings.patched),
        None => Some(false),
    };
    #[cfg(not(loom))]
    if patched == Some(true) {
        crate::patch::prepare();
    }
    let settings = |id: GreenThreadId| Settings {
        id,
        runtime,
        name: request.name,
        stack_size: request.stack_size.unwrap_or(inner.settings.stack_size),
        pinned: request.pinned,
        patched,
        control: request.control.unwrap_or_else(Control::current),
    };
    let closing = inner.is_closing() && (!request.is_half || inner.is_stopping());
    let here = carrier::with_core(runtime, |worker, core| {
        count(&worker.counters.spawned);
        (core.next_id(), kept::<F, T>(worker))
    });
    if here.is_none() {
        inner.spawned_outside.fetch_add(1, Ordering::AcqRel);
    }
    let is_here = here.is_some();
    let (id, kept) = here.unwrap_or_else(|| (GreenThreadId::next(), None));
    // SAFETY: by contract; the runtime is alive until the thread is DONE because it waits for all
    // that were counted above or below, and stays for ever if it does so in vain.
    let task = unsafe { Task::new(body, settings(id), true, kept) };
    // SAFETY: the thread was made with a handle, once.
    let packet = unsafe { Packet::new(task.handle_reference()) };
    if closing && !doom(inner, &task) {
        return packet;
    }
    if request.is_doomed {
        task.doomed.set(true);
    }
    queue(inner, task, is_here && !request.is_for_others);
    packet
}

/// Memory that this worker has kept for such a thread. Inside the door.
#[inline(always)]
fn kept<F: FnOnce() -> T, T>(worker: &Worker) -> Option<Piece> {
    let class = Task::class::<F, T>()?;
    // SAFETY: the caller holds the seat, inside the door; the reference ends with the statement.
    unsafe { worker.cells() }.get(class)
}

/// Queues a thread that has not started. `here`: in the worker's own queue, as the caller holds a seat, or
/// did so just now.
#[inline(always)]
fn queue(inner: &Arc<Inner>, task: Task, here: bool) {
    let mut task = Some(task);
    if here {
        carrier::with_core(Arc::as_ptr(inner), |_, core| {
            core.push_fresh(task.take().expect("once"));
        });
    }
    // There is no seat here, or it has just been seized, or others are to have it.
    if let Some(task) = task {
        if let Err(task) = inner.injector.push(task) {
            refuse(inner, &task);
        } else {
            inner.notify();
        }
        return;
    }
    if inner.workers.len() > 1 && !cfg!(weald_fault = "spawn_tells_no_other_worker") {
        inner.notify();
    }
}

/// Starts a green thread without a handle that drops something of the user's: as its destructor may wait,
/// the carriers' loop hands it over. No exception interrupts it, nor does a shutdown.
pub(crate) fn discard<T: Send + 'static>(inner: &Arc<Inner>, value: T) {
    start_detached(inner, Birth::Doomed, move || drop(value));
}

/// What is said of a thread without a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    /// Nothing in particular.
    Ordinary,
    /// Its body is only to be dropped.
    Doomed,
    /// As `Doomed`; and it has been counted as spawned.
    Counted,
}

/// Starts a green thread without a handle: from the carriers' loop, which must not drop one, as the thread
/// may have ended by then and its result would be the handle's.
pub(crate) fn start_detached<F>(inner: &Arc<Inner>, birth: Birth, body: F)
where
    F: FnOnce() + Send + 'static,
{
    let runtime = Arc::as_ptr(inner);
    let here = carrier::with_core(runtime, |worker, core| {
        if birth != Birth::Counted {
            count(&worker.counters.spawned);
        }
        (core.next_id(), kept::<F, ()>(worker))
    });
    if here.is_none() && birth != Birth::Counted {
        inner.spawned_outside.fetch_add(1, Ordering::AcqRel);
    }
    let is_here = here.is_some();
    let (id, kept) = here.unwrap_or_else(|| (GreenThreadId::next(), None));
    let settings = Settings {
        id,
        runtime,
        name: None,
        stack_size: inner.settings.stack_size,
        pinned: false,
        patched: match inner.settings.own {
            Some(_) => inner.settings.patched,
            None => Some(false),
        },
        control: Control::current(),
    };
    // SAFETY: the body is `'static`; the runtime is there as in `start`.
    let task = unsafe { Task::new(body, settings, false, kept) };
    task.doomed.set(birth != Birth::Ordinary);
    queue(inner, task, is_here);
}

/// In a runtime that closes: the thread's body is only to be dropped, by the thread. False: the
/// runtime has stopped, and that has been done here.
#[cold]
fn doom(inner: &Arc<Inner>, task: &Task) -> bool {
    if inner.is_stopping() {
        refuse(inner, task);
        return false;
    }
    task.doomed.set(true);
    true
}

/// Ends a thread that has not started and that nobody will run any more, since the runtime has stopped:
/// here, in a thread that outlives it.
#[cold]
pub(crate) fn refuse(inner: &Inner, task: &Task) {
    let _hold = exception::Hold::new();
    task.doomed.set(true);
    // SAFETY: the caller holds the running reference of a thread that has not started, so nobody else is
    // the thread.
    unsafe { Task::run_body(task) };
    let rest = join::wind_up(task, || (), || ());
    inner.ended_outside.fetch_add(1, Ordering::AcqRel);
    join::end(task, rest);
    inner.one_ended();
}

/// Starts a green thread in the runtime of the caller, or in the default one.
///
/// Returns at once; the new thread runs when a worker gets to it. Dropping the handle detaches it.
/// If the runtime is being shut down, the handle is that of a thread whose body never runs.
///
/// A thread gets its stack when it first runs. If the system gives no more stacks, it waits until
/// another thread has ended. If no other thread has one that would do, it never runs: a line on standard error
/// names the bound and what raises it, and `join` gives that text as the payload.
///
/// # Examples
/// ```
/// let answer = weald_scheduler::spawn(|| 6 * 7);
/// assert_eq!(answer.join().unwrap(), 42);
/// ```
///
/// # Panics
/// If the default runtime cannot be started.
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    carrier::with_runtime_arc(|inner| {
        // SAFETY: `f` and its result are `'static`.
        unsafe { start(inner, Request::default(), f) }
    })
}

/// Settings for one green thread: name, stack, whether it may migrate.
///
/// # Examples
/// ```
/// let handle = weald_scheduler::Builder::new()
///     .name("resolver".to_string())
///     .stack_size(64 << 10)
///     .spawn(|| weald_scheduler::current().name().map(String::from))?;
/// assert_eq!(handle.join().unwrap().as_deref(), Some("resolver"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    pinned: bool,
    patched: Option<bool>,
}

impl Builder {
    /// The runtime's settings, no name.
    pub fn new() -> Self {
        Self::default()
    }

    /// The thread's name, for messages.
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// The thread's stack in bytes: 16 KiB to 1 GiB, rounded up to pages.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// `true`: once started the thread never leaves its OS thread, whatever the runtime's setting.
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    /// Whether calls of libc that would block suspend the thread instead, where the program is
    /// linked with `weald-patch`. Without a word it is as the runtime says. It needs
    /// [`ThreadLocals::Own`](crate::ThreadLocals), without which `spawn` fails with `Unsupported`.
    ///
    /// # Examples
    /// ```
    /// let handle = weald_scheduler::Builder::new().patched(false).spawn(|| ())?;
    /// # handle.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn patched(mut self, patched: bool) -> Self {
        self.patched = Some(patched);
        self
    }

    fn request(self, inner: &Inner) -> io::Result<Request> {
        let stack_size = self.stack_size.map(checked_stack_size).transpose()?;
        if let Some(size) = stack_size {
            crate::stack::check_limit(size, inner.settings.guard)?;
        }
        if self.patched == Some(true) && inner.settings.own.is_none() {
            let reason = crate::thread_locals::support().err();
            return Err(unsupported(reason.unwrap_or(NEEDS_OWN)));
        }
        Ok(Request {
            name: self.name.map(Into::into),
            stack_size,
            pinned: self.pinned,
            patched: self.patched,
            ..Request::default()
        })
    }

    /// Starts the thread. As [`spawn`](crate::spawn()).
    ///
    /// # Errors
    /// `InvalidInput` for a stack size out of its range, with value and bound in the text;
    /// `OutOfMemory` for one that can never be had, as the process may not map so much
    /// (`RLIMIT_AS`). A stack that cannot be had at the moment is no error: the thread waits for it.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let inner = runtime::here();
        let request = self.request(&inner)?;
        // SAFETY: `f` and its result are `'static`.
        Ok(unsafe { start(&inner, request, f) })
    }

    /// Starts the thread in a scope. As [`Scope::spawn`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Examples
    /// ```
    /// let word = String::from("borrowed");
    /// weald_scheduler::scope(|scope| {
    ///     let builder = weald_scheduler::Builder::new().name("reader".to_string());
    ///     let length = builder.spawn_scoped(scope, || word.len()).unwrap();
    ///     assert_eq!(length.join().unwrap(), 8);
    /// });
    /// ```
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let inner = runtime::here();
        let request = self.request(&inner)?;
        Ok(scope.start(&inner, request, f))
    }
}
