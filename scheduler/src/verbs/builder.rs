//! Settings with their units, bounds and defaults.

use std::io;
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::engine::settings::{
    Hooks, NEEDS_OWN, OnSilence, Settings, WORKERS, checked_stack_size, out_of_range, unsupported,
};
use crate::green::handle::GreenThread;
use crate::parts::cpus::Cpus;
use crate::parts::shadow_stack;
use crate::parts::stack;
use crate::parts::thread_locals;
use crate::verbs::runtime::Runtime;
use crate::verbs::variables::{Locals, dump_variable, locals_variable, variable};
use crate::watch::dump::Dump;
use crate::watch::silence;

/// How many carriers there may be beside one for each worker. They serve hogs, green threads in `blocking`, and pinned
/// threads whose carrier has no seat. Go's bound on OS threads. A program that reaches the bound stands still, so the
/// bound is far beyond what a program needs that does not lose threads.
const SPARES: usize = 10_000;

/// Linux gives a process some 65,000 mappings, of which an OS thread takes two for its stack and some
/// more for what the C library allocates on it.
const SPARE_THREADS: std::ops::RangeInclusive<usize> = 1..=30_000;

/// No green thread computes so long between two blocking calls on purpose.
const HOG_REPORT: Duration = Duration::from_secs(1);

/// What a `thread_local!` belongs to in a runtime, and whether started green threads migrate.
///
/// The third way, [`RuntimeBuilder::share_thread_locals`], is `unsafe` and so not a value here.
///
/// # Examples
/// ```
/// use weald::{Runtime, ThreadLocals};
/// let rt = Runtime::builder().thread_locals(ThreadLocals::Pinned).workers(1).build()?;
/// # drop(rt);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadLocals {
    /// To the green thread: each green thread has thread-locals of its own, and migrates freely. The default where it
    /// works: with glibc on x86-64 Linux, if a test at the first such runtime finds nothing unexpected. If it is asked
    /// for and does not work, `build` returns `Unsupported` with the reason.
    Own,
    /// To the OS thread. A green thread that has started never leaves its OS thread; other workers steal only threads
    /// that have not started. The default elsewhere, with a warning of the `log` crate that says why.
    Pinned,
}

/// Settings for a [`Runtime`]; made by [`Runtime::builder`].
///
/// # Examples
/// ```
/// let rt = weald::Runtime::builder()
///     .workers(2)
///     .stack_size(128 << 10)
///     .thread_name("crawler")
///     .build()?;
/// assert_eq!(rt.metrics().workers, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "settings do nothing before `build` or `install`"]
pub struct RuntimeBuilder {
    workers: Option<usize>,
    stack_size: usize,
    guard_size: usize,
    name: Option<String>,
    thread_name: String,
    locals: Option<Locals>,
    spares: usize,
    hog_report: Duration,
    dump_on_sigquit: bool,
    hooks: Hooks,
    on_silence: Option<OnSilence>,
    patched: Option<bool>,
}

impl RuntimeBuilder {
    pub(crate) fn new() -> Self {
        Self {
            workers: None,
            stack_size: stack::DEFAULT_STACK,
            guard_size: stack::DEFAULT_GUARD,
            name: None,
            thread_name: String::from("weald"),
            locals: None,
            spares: SPARES,
            hog_report: HOG_REPORT,
            dump_on_sigquit: false,
            hooks: Hooks::default(),
            on_silence: None,
            patched: None,
        }
    }

    /// The settings of the default runtime: those of the environment.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let mut builder = Self::new();
        if let Some(workers) = variable("WEALD_WORKERS", &WORKERS)? {
            builder = builder.workers(workers);
        }
        let sizes = stack::MIN_STACK..=stack::MAX_STACK;
        if let Some(size) = variable("WEALD_STACK_SIZE", &sizes)? {
            builder = builder.stack_size(size);
        }
        Ok(builder)
    }

    /// How many workers: green threads that run at the same time. 1 to 1024.
    /// [`Runtime::set_workers`] changes it later.
    ///
    /// If not said, there are as many as the process may use CPUs: as its affinity has, or as the quotas of its control group and
    /// of all groups above it allow (`cpu.max`, `cpu.cfs_quota_us`), rounded down, one at least. That is asked again while
    /// the runtime runs, once a second at most and not while all of it sleeps, and workers come and go as by `set_workers`. What cannot
    /// be read counts as no limit.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The stack of a green thread in bytes: 16 KiB to 1 GiB, rounded up to pages. The default is 256 KiB. It is address
    /// space: only the pages that are touched cost memory.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }

    /// The guard below each stack in bytes: 4 KiB to 1 GiB. The default is 64 KiB. It is rounded up to a
    /// power of two of pages, and has one page more.
    ///
    /// A green thread that goes beyond its stack touches the guard, which ends the process with a
    /// message that names the thread. Code from a Rust compiler never steps over a guard, however
    /// large its frames. C code that was compiled without `-fstack-clash-protection` can do so, if a
    /// frame is larger than the guard and its far end is touched first. It would then write to
    /// another green thread's stack. So a program that calls such code sets this to the size of the largest
    /// frame.
    ///
    /// The guard is not part of the stack: all of [`stack_size`](Self::stack_size) can be used. It
    /// costs only address space. If the kernel has `MADV_GUARD_INSTALL` (Linux from 6.13), a guard is one marker per page
    /// in the page tables. Otherwise each guard takes two of the process's mappings (`vm.max_map_count`). If the kernel
    /// counts every mapped byte (`vm.overcommit_memory = 2`), or `RLIMIT_AS` is set, guards count as well.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).guard_size(1 << 20).build()?;
    /// assert_eq!(rt.run(|| 6 * 7), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn guard_size(mut self, bytes: usize) -> Self {
        self.guard_size = bytes;
        self
    }

    /// The runtime's name, for dumps and logs. The default is that of its OS threads ([`thread_name`](Self::thread_name)).
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).name("crawler").build()?;
    /// assert_eq!(rt.name(), "crawler");
    /// assert!(rt.dump().to_string().starts_with("crawler: 0 green threads"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The beginning of the names of the runtime's OS threads. The default is `weald`. A zero byte becomes a space.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// How many OS threads there may be beside one for each worker: 1 to 30,000. The default is 10,000.
    ///
    /// Such an OS thread takes over the worker of a green thread that computes for long, blocks its OS thread for
    /// long, or is in [`blocking`](crate::blocking()). It starts when it is needed, and ends when it
    /// has been idle for ten seconds. A thousand blocked OS threads cost some 20 MiB of memory and 2 GiB of address space.
    ///
    /// The bound may be reached, or the system may refuse an OS thread. Then a worker whose green thread does
    /// not come back stands still, and so do the threads that wait for this worker. There is a line in the
    /// log, at most one a minute. [`Metrics::stalled`](crate::Metrics::stalled) says how many workers stand still,
    /// [`Dump`](crate::Dump) says why, and [`Metrics::unrelieved`](crate::Metrics::unrelieved) counts such cases.
    ///
    /// When as many calls of [`blocking`](crate::blocking()) run as the bound allows, a further call waits as a green
    /// thread. There is a line in the log for that, too, and
    /// [`Metrics::waiting_to_block`](crate::Metrics::waiting_to_block) and [`Dump`](crate::Dump) say how many calls wait.
    ///
    /// The system's own bounds are `ulimit -u`, `pids.max` of a control group, `kernel.threads-max` and
    /// `vm.max_map_count` (Linux).
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).spare_threads(100).build()?;
    /// assert_eq!(rt.metrics().spare_threads, 100);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spare_threads(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    /// If a green thread keeps its OS thread for so long without a blocking call of weald's, this is
    /// logged, once, as a warning of the `log` crate with the thread's name. The default is one second;
    /// [`Duration::MAX`] means never. Other threads do not wait for so long: they go on after some
    /// milliseconds.
    ///
    /// Where the thread was is known only when it makes its next blocking call. Then there is a second record,
    /// with the calls that it was in, as in [`Trace`](crate::Trace), if it kept its OS thread for at least 50 ms.
    pub fn hog_report(mut self, after: Duration) -> Self {
        self.hog_report = after;
        self
    }

    /// When the process gets `SIGQUIT` (Ctrl-\\ at a terminal), the runtime's [`dump`](crate::dump()) is written to
    /// standard error, and the signal no longer ends the process. The default is false. A handler that the
    /// program has set before is called as well. The variable `WEALD_DUMP_ON=quit` of the environment does the same for all
    /// runtimes of a program, without a line of code.
    ///
    /// The handler and the OS thread that writes stay until the process ends. If the system refuses them, `build` fails
    /// with the system's error.
    pub fn dump_on_sigquit(mut self, on: bool) -> Self {
        self.dump_on_sigquit = on;
        self
    }

    /// Calls `tell`, once in the runtime's life, when green threads of it are found to wait for each other for ever: each of them
    /// waits, without a limit, for a lock of `weald::sync` that the next one has (or a `Once` whose closure it runs), or for its end.
    /// [`Dump::deadlocks`] has them, and their traces are in the dump. Without a setting nobody looks for them by itself, and nothing is said;
    /// [`dump`](crate::dump()) tells of them all the same.
    ///
    /// The runtime looks when all of its green threads have waited for half a second. It tells only what is certain:
    /// that none of these threads can go on unless an exception comes from outside, such as a
    /// [`kill`](crate::GreenThread::kill). Where an OS thread, a descriptor, a limit or
    /// another green thread might end a wait it says nothing. A limit is that of the wait itself, a [`timeout`](crate::timeout()) around
    /// it, or one around the [`group`](crate::group()) or [`join`](crate::join()) that the thread belongs to. The runtime does not see
    /// deadlocks over channels, condition
    /// variables, semaphores, `park`, locks that were taken by a `try_` method, and locks of std that `weald-patch` has made green: a lock of std
    /// does not say who has it. The holder of a lock is read from
    /// `/proc/self/mem`, with feature `traces`: where that cannot be had (macOS, a filter of system calls) only threads
    /// that wait for each other's end are found. Nor does the runtime see deadlocks with an OS thread or a thread of another runtime
    /// in the circle. A thread that closes a circle while it blocks an OS thread, with [`own_thread`](crate::Builder::own_thread) or inside of
    /// [`blocking`](crate::blocking()), is seen as well.
    ///
    /// `tell` runs on an OS thread of its own and may block; a panic in it is logged and ignored. A program may go on, write the dump
    /// down, or end.
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc;
    /// use weald::{Runtime, current};
    ///
    /// let (sender, told) = mpsc::channel();
    /// let rt = Runtime::builder()
    ///     .workers(1)
    ///     .on_deadlock(move |dump| {
    ///         let _ = sender.send(dump.clone());
    ///     })
    ///     .build()?;
    /// // Two threads that wait for each other's end.
    /// let (handle, first) = mpsc::channel::<weald::JoinHandle<()>>();
    /// let second = rt.spawn(move || drop(first.recv().unwrap().join()));
    /// let second_thread = second.thread().clone();
    /// handle.send(rt.spawn(move || drop(second.join()))).unwrap();
    /// let dump = told.recv().unwrap();
    /// assert_eq!(dump.deadlocks[0].threads.len(), 2);
    /// assert!(dump.to_string().contains("DEADLOCK: 2 green threads wait for each other"));
    /// second_thread.kill();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_deadlock(mut self, tell: impl Fn(&Dump) + Send + Sync + 'static) -> Self {
        self.on_silence = Some(silence::tells(Arc::new(tell)));
        self
    }

    /// What thread-locals belong to. If there are several settings, the last one counts. If there is none, the
    /// environment's `WEALD_THREAD_LOCALS` counts: `own` or `pinned`.
    pub fn thread_locals(mut self, locals: ThreadLocals) -> Self {
        self.locals = Some(match locals {
            ThreadLocals::Own => Locals::Own,
            ThreadLocals::Pinned => Locals::Pinned,
        });
        self
    }

    /// Lets started green threads migrate although thread-locals belong to the OS threads. This is the
    /// cheapest mode, for programs of millions of green threads.
    ///
    /// # Safety
    /// No green thread of the runtime may hold anything that belongs to an OS thread over a
    /// blocking call: a reference into a `thread_local!`, a value taken out of one (`Rc`, a random
    /// generator), a guard of `std::sync` or of a reentrant lock such as stdout's, `errno`. And the
    /// compiler may keep the *address* of a thread-local over a blocking call in the same function,
    /// so a function that makes blocking calls reads thread-locals only through functions that are
    /// not inlined. Both hold for all code that the green threads run, libraries included.
    ///
    /// # Examples
    /// ```
    /// use weald::Runtime;
    /// // SAFETY: the green threads below use no thread-locals.
    /// let rt = unsafe { Runtime::builder().workers(1).share_thread_locals() }.build()?;
    /// assert_eq!(rt.run(|| 6 * 7), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[allow(
        unsafe_code,
        reason = "the caller promises what the compiler cannot check"
    )]
    pub unsafe fn share_thread_locals(mut self) -> Self {
        self.locals = Some(Locals::Shared);
        self
    }

    /// Calls `hook` on the OS thread each time a green thread has left its stack. It must not
    /// block; a panic in it is logged and ignored. Costs nothing if not set.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// let count = Arc::new(AtomicUsize::new(0));
    /// let (a, b, c) = (count.clone(), count.clone(), count.clone());
    /// let rt = weald::Runtime::builder()
    ///     .workers(1)
    ///     .on_resume(move |_| { a.fetch_add(1, Relaxed); })
    ///     .on_suspend(move |_| { b.fetch_add(10, Relaxed); })
    ///     .on_end(move |_| { c.fetch_add(100, Relaxed); })
    ///     .build()?;
    /// rt.run(weald::yield_now);
    /// assert_eq!(count.load(Relaxed), 112);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_suspend(mut self, hook: impl Fn(&GreenThread) + Send + Sync + 'static) -> Self {
        self.hooks.suspend = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` on the OS thread each time before a green thread begins or goes on. As
    /// [`on_suspend`](Self::on_suspend).
    pub fn on_resume(mut self, hook: impl Fn(&GreenThread) + Send + Sync + 'static) -> Self {
        self.hooks.resume = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` in each green thread when its body has ended and its locals are dropped. As
    /// [`on_suspend`](Self::on_suspend).
    pub fn on_end(mut self, hook: impl Fn(&GreenThread) + Send + Sync + 'static) -> Self {
        self.hooks.end = Some(Arc::new(hook));
        self
    }

    /// Whether calls of libc that would block suspend a green thread of this runtime instead, where
    /// the program is linked with `weald-patch`; see there. The default is the process's setting.
    /// [`Builder::patched`](crate::Builder::patched) overrides it for one thread.
    ///
    /// It needs [`ThreadLocals::Own`], without which `build` fails with `Unsupported`: locks and
    /// channels of std know a thread by its thread-locals.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).patched(false).build()?;
    /// # rt.run(|| ());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn patched(mut self, patched: bool) -> Self {
        self.patched = Some(patched);
        self
    }

    pub(crate) fn settings(self) -> io::Result<Settings> {
        shadow_stack::check()?;
        let workers = self
            .workers
            .unwrap_or_else(|| Cpus::new().usable().min(*WORKERS.end()));
        if !WORKERS.contains(&workers) {
            return Err(out_of_range("workers", workers, WORKERS));
        }
        let stack_size = checked_stack_size(self.stack_size)?;
        let guards = stack::MIN_GUARD..=stack::MAX_GUARD;
        if !guards.contains(&self.guard_size) {
            return Err(out_of_range("guard size in bytes", self.guard_size, guards));
        }
        let guard = stack::Guard::of(self.guard_size);
        stack::check_settings()?;
        stack::check_limit(stack_size, guard)?;
        if !SPARE_THREADS.contains(&self.spares) {
            return Err(out_of_range("spare_threads", self.spares, SPARE_THREADS));
        }
        let said = match self.locals {
            Some(locals) => Some(locals),
            None => locals_variable()?,
        };
        let own = match said {
            Some(Locals::Own) => Some(thread_locals::support().map_err(unsupported)?),
            Some(Locals::Pinned | Locals::Shared) => None,
            None => thread_locals::support().map_err(fall_back).ok(),
        };
        if self.patched == Some(true) && own.is_none() {
            let reason = thread_locals::support().err();
            return Err(unsupported(reason.unwrap_or(NEEDS_OWN)));
        }
        let hooks = self.hooks;
        let any = hooks.suspend.is_some() || hooks.resume.is_some() || hooks.end.is_some();
        Ok(Settings {
            workers,
            follows_limits: self.workers.is_none(),
            stack_size,
            guard,
            name: self.name.unwrap_or_else(|| self.thread_name.clone()),
            // std takes no name with a zero in it, and panics.
            thread_name: self.thread_name.replace('\0', " "),
            pins: own.is_none() && said != Some(Locals::Shared),
            own,
            spares: self.spares,
            hog_report: self.hog_report,
            dump_on_sigquit: self.dump_on_sigquit || dump_variable()?,
            hooks: any.then_some(hooks),
            on_silence: self.on_silence,
            patched: self.patched,
        })
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// - `InvalidInput` for a value out of its range. The text has the value and the bound.
    /// - `Unsupported` for a mode of thread-locals that does not work here, and if the processor keeps shadow stacks
    ///   (x86 CET, AArch64 GCS), on which green threads cannot run.
    /// - The system's error if an OS thread or a poller cannot be made.
    pub fn build(self) -> io::Result<Runtime> {
        if cfg!(panic = "abort") {
            log::warn!(
                "weald: in a program that is built with panic = \"abort\" an exception that must unwind ends the process"
            );
        }
        Runtime::start(self.settings()?)
    }
}

impl Runtime {
    /// Settings for a new runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    /// What thread-locals belong to in this runtime. `None`: to the OS threads, although started
    /// green threads migrate
    /// ([`share_thread_locals`](RuntimeBuilder::share_thread_locals)).
    ///
    /// # Examples
    /// ```
    /// use weald::{Runtime, ThreadLocals};
    /// let rt = Runtime::builder().workers(1).thread_locals(ThreadLocals::Pinned).build()?;
    /// assert_eq!(rt.thread_locals(), Some(ThreadLocals::Pinned));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn thread_locals(&self) -> Option<ThreadLocals> {
        let settings = &self.inner.settings;
        match (settings.own, settings.pins) {
            (Some(_), _) => Some(ThreadLocals::Own),
            (None, true) => Some(ThreadLocals::Pinned),
            (None, false) => None,
        }
    }
}

/// Says once why green threads are pinned.
fn fall_back(reason: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "weald: green threads are pinned to OS threads once they have started, as they cannot \
             have thread-locals of their own here: {reason}"
        );
    });
}
