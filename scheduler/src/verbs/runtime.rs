//! `Runtime`: its start and its shutdown, step by step.
//!
//! Shutdown:
//! 1. *closing*: from now on a spawn makes a thread that only drops its body, and `call_after` starts nothing.
//! 2. The grace passes, or the last green thread ends.
//! 3. *killing*: every thread in the registry is killed, once. A thread that enters the registry later, because
//!    it leaves its stack for the first time, is killed by its carrier. The lock of the registry decides
//!    which of the two kills a thread. A thread that starts later only drops its body.
//! 4. *stopping*: when all have ended, or when no thread has ended for [`HOG_LIMIT`]. The injector is closed, the
//!    carriers leave their loops, and the pollers close. (A thread that waits for a socket with such a poller looks for
//!    another runtime.)
//! 5. The OS threads are joined, and the caller drops what timers still hold. But if a
//!    green thread is left, because it only computes or does not come back from a wait, nothing is
//!    given back: wakers, timers and queues point to that thread, and it points to the runtime. The runtime's memory
//!    stays for ever then.
//!
//! A spawn that has not seen *closing* counts its thread before it queues it, so step 2 waits for
//! the thread. `ends.rs` says how it is known that all threads have ended.
#![allow(
    unsafe_code,
    reason = "a closure that borrows, run to its end before `run` returns"
)]

use std::io;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::engine::carrier;
#[cfg(not(loom))]
use crate::engine::carrier::Carrier;
use crate::engine::inner::{CLOSING, Inner, KILLING, STOPPING};
use crate::engine::settings::Settings;
use crate::green::current;
use crate::green::green_thread::Task;
use crate::green::request::Request;
use crate::parts::ends;
use crate::parts::stack;
use crate::parts::threads::Which;
use crate::run;
use crate::run::birth;
use crate::shim::barrier;
use crate::shim::clock;
use crate::shim::sync::Arc;
use crate::verbs::join::JoinHandle;
use crate::verbs::make;
use crate::wait::exception;
use crate::wait::wait_queue::Woken;
use crate::watch::dump::{self, Dump};
use crate::watch::metrics::Metrics;
use crate::watch::workers::WorkerMetrics;

/// How long shutdown waits for green threads that were killed, after the last one that ended: DESIGN 4.1.
const HOG_LIMIT: Duration = Duration::from_secs(5);

/// After this time a shutdown looks again whether threads have ended. Mostly the last thread wakes it. A fence at the
/// end of each thread would be needed to make that sure, and is saved.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Inner {
    /// Waits until no green thread is left, at most until the deadline. True: none is left.
    fn wait_for_end(&self, deadline: Instant) -> bool {
        loop {
            if self.all_ended() {
                return true;
            }
            let now = clock::now();
            if now >= deadline {
                return false;
            }
            let next = (now + LOOK_AGAIN).min(deadline);
            // However it ends: the loop looks again.
            let _: Woken = self.ending.wait(|| self.live() == 0, Some(next), false);
        }
    }
}

/// Worker threads that run green threads, with everything that they share.
///
/// Most programs need no value of this type: [`spawn`](crate::spawn()) and the other free functions
/// use the runtime of the running green thread, else the default one, which starts at its first use
/// with a worker for each CPU that the process may use
/// ([`RuntimeBuilder::workers`](crate::RuntimeBuilder::workers)). `WEALD_WORKERS` and `WEALD_STACK_SIZE` (bytes) override its
/// settings; a bad value panics at the first use. Any number of runtimes may live in one process.
///
/// Dropping a runtime is [`shutdown`](Runtime::shutdown) without a grace: its green threads are
/// killed. In a program that is built with `panic = "abort"` they stay where they wait instead.
///
/// # Examples
/// ```
/// use weald::Runtime;
///
/// let rt = Runtime::builder().workers(2).build()?;
/// let answer = rt.run(|| weald::spawn(|| 42).join().unwrap());
/// assert_eq!(answer, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
    shut: bool,
}

impl Runtime {
    pub(crate) fn start(settings: Settings) -> io::Result<Self> {
        #[cfg(not(loom))]
        {
            crate::verbs::panic_hook::install();
            crate::shim::os_threads::prepare();
        }
        if let Err(error) = stack::overflow::install() {
            log::warn!("weald: a stack overflow will not be told as such: {error}");
        }
        stack::overflow::set_describe(describe_running);
        barrier::prepare();
        let inner = Arc::new(Inner::new(settings, run::start)?);
        let runtime = Self {
            inner: Arc::clone(&inner),
            shut: false,
        };
        inner.seats.open(&inner)?;
        #[cfg(not(loom))]
        {
            crate::verbs::leftovers::has_started(&inner);
            crate::watch::runtimes::enter(&inner);
            if crate::verbs::trace::begin_if_wanted() {
                crate::watch::sigquit::write_traces()?;
            }
        }
        #[cfg(not(loom))]
        if inner.settings.dump_on_sigquit {
            crate::watch::sigquit::watch(&inner)?;
        }
        // A model has few threads; the monitor has models of its own.
        if !cfg!(loom) {
            let watched = Arc::clone(&inner);
            let name = format!("{}-monitor", inner.settings.thread_name);
            let run = move || run::watch(&watched);
            inner.threads.start(Which::Monitor, name, run)?;
        }
        Ok(runtime)
    }

    /// Runs `f` as a green thread of this runtime while the caller waits, and returns its value.
    ///
    /// `f` may borrow from the caller. A plain OS thread waits by blocking, a green thread, of this
    /// or any other runtime, by parking. The wait cannot be interrupted: an exception for the
    /// caller is held until `f` has ended. If all green threads wait for each other, so does the
    /// caller, for ever, as it would for OS threads; [`metrics`](Self::metrics) then tells as many
    /// parked as live.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// let words = vec!["plain", "blocking", "Rust"];
    /// let letters: usize = rt.run(|| words.iter().map(|word| word.len()).sum());
    /// assert_eq!(letters, 17);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Panics
    /// With the panic of `f`; or if the runtime is being shut down, so that `f` cannot run.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        exception::check_may_wait();
        // SAFETY: this function returns only when the thread has ended, so what `f` borrows is
        // there as long as it runs; the result is taken here.
        let handle = unsafe { make::start(&self.inner, Request::default(), f) };
        match handle.wait_to_end() {
            Ok(value) => value,
            Err(payload) => exception::go_on(payload),
        }
    }

    /// Starts a green thread in this runtime. As [`spawn`](crate::spawn()).
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// assert_eq!(rt.spawn(|| 1 + 1).join().unwrap(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: `f` and its result are `'static`.
        let handle = unsafe { make::start(&self.inner, Request::default(), f) };
        make::note_site(handle.thread(), Location::caller());
        handle
    }

    /// Ends the runtime. From now on no new green thread starts and no timer fires. Green threads that run
    /// may go on during the grace, then they are killed. Returns when all have ended, with all their
    /// destructors. If no thread has ended for 5 s, the remaining threads, which only compute or wait in a
    /// destructor, are left behind: those that wait never go on, and the memory of the runtime is never
    /// given back. The closures of timers that have not fired are dropped at the end, by the caller.
    ///
    /// In a program that is built with `panic = "abort"` nothing can be killed. Green threads that have
    /// started and not ended after the grace stay where they wait. They never run again, and their destructors never
    /// run. What they hold is not freed, and a `join` of one of them waits for ever.
    ///
    /// In the child of a bare fork(2), which has none of the runtime's OS threads, it does nothing and returns
    /// false.
    ///
    /// True if nothing had to be killed. Blocks the caller: an OS thread, or a green thread of
    /// another runtime. Exceptions for the caller are held meanwhile.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// let waits = rt.spawn(weald::park);
    /// assert!(!rt.shutdown(Duration::ZERO));
    /// assert!(waits.join().is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Panics
    /// If called by one of the runtime's own green threads, which could not wait for itself.
    pub fn shutdown(mut self, grace: Duration) -> bool {
        self.shut(grace)
    }

    fn is_own_thread(&self) -> bool {
        carrier::with_runtime(|inner| std::ptr::eq(inner, Arc::as_ptr(&self.inner))) == Some(true)
    }

    fn shut(&mut self, grace: Duration) -> bool {
        self.shut = true;
        let inner = &self.inner;
        if inner.process != std::process::id() {
            // The runtime's OS threads are in the parent process. So none of its green threads ends here, and
            // nobody releases a lock that was held when the process forked.
            std::mem::forget(Arc::clone(inner));
            return false;
        }
        assert!(
            !self.is_own_thread(),
            "a runtime cannot be shut down by one of its own green threads"
        );
        inner.enter_phase(CLOSING);
        let deadline = clock::now().checked_add(grace).unwrap_or_else(far_future);
        let clean = inner.wait_for_end(deadline);
        let ended = clean || self.kill_all();
        if !ended {
            log::warn!(
                "weald: {} green threads outlive their runtime, whose memory is not given back",
                inner.live()
            );
        }
        self.stop(ended) && clean
    }

    /// Kills the threads that are left and waits for them, as long as threads end. False: some do not end, or nothing
    /// can unwind.
    fn kill_all(&self) -> bool {
        let inner = &self.inner;
        inner.enter_phase(KILLING);
        if cfg!(panic = "abort") {
            // An exception would end the process. Threads that have started stay where they are.
            return false;
        }
        for task in inner.registry.all() {
            exception::kill(&task);
        }
        inner.notify();
        let mut ended = inner.ended();
        let mut limit = clock::now() + HOG_LIMIT;
        loop {
            // A thread that has never left its stack may go on with blocking calls that need not wait.
            #[cfg(not(loom))]
            for task in inner.carriers.iter().filter_map(Carrier::running_thread) {
                exception::kill(&task);
            }
            if inner.wait_for_end((clock::now() + LOOK_AGAIN).min(limit)) {
                return true;
            }
            let now = clock::now();
            let ended_since = inner.ended();
            if ended_since != ended {
                ended = ended_since;
                limit = now + HOG_LIMIT;
            } else if now >= limit {
                return false;
            }
        }
    }

    /// True if no green thread is left.
    fn stop(&self, ended: bool) -> bool {
        let inner = &self.inner;
        inner.enter_phase(STOPPING);
        let mut injected = inner.injector.close();
        for worker in inner.workers.iter() {
            injected.extend(worker.reserved.close());
        }
        inner.seats.stop();
        inner.monitor.stop();
        for worker in inner.workers.iter() {
            worker.poller.unpark();
        }
        if ended {
            inner.threads.join_all();
            self.drop_rest(injected);
        } else {
            std::mem::forget(injected);
        }
        // This is asked even if all had ended before: a timer that has not seen the phase may have started a thread.
        let left = ends::some_are_left(ended, || inner.live());
        if left {
            // That thread points to the runtime, and its queues to the thread.
            std::mem::forget(Arc::clone(inner));
        }
        for worker in inner.workers.iter() {
            worker.poller.close();
        }
        #[cfg(not(loom))]
        crate::verbs::leftovers::has_stopped(inner);
        !left
    }

    /// Drops the user's values that are left in queues and timers. All OS threads that drove the workers
    /// have ended.
    fn drop_rest(&self, injected: impl IntoIterator<Item = Task>) {
        let inner = &self.inner;
        let _hold = exception::Hold::new();
        let refuse = |task: Task| {
            // SAFETY: it came out of a queue, so the running reference is ours.
            if unsafe { (*task.coroutine.get()).is_some() } {
                // The thread has started, so its stack must not be dropped. It counts as live for ever.
                std::mem::forget(task);
            } else {
                birth::refuse(inner, &task);
            }
        };
        injected.into_iter().for_each(refuse);
        inner.starts.take_all().into_iter().for_each(refuse);
        for worker in inner.workers.iter() {
            // SAFETY: nobody holds the seat any more, and the caller alone shuts the runtime down; the
            // reference ends before anything of the user's runs.
            let core = unsafe { worker.core() };
            core.share_spares();
            // SAFETY: as above.
            unsafe { worker.cells() }.flush();
            let (tasks, timers) = core.take_rest(worker);
            tasks.into_iter().for_each(refuse);
            for timer in timers {
                timer.drop_closure();
            }
        }
        let unfired = std::mem::take(&mut *inner.unfired.lock());
        for call in unfired {
            call.drop_closure();
        }
    }

    /// Its name: [`RuntimeBuilder::name`](crate::RuntimeBuilder::name).
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// assert_eq!(rt.name(), "weald");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.inner.settings.name
    }

    /// What [`dump`](crate::dump()) tells, of this runtime, from any thread.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// assert!(rt.dump().stalled.is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn dump(&self) -> Dump {
        dump::of(&self.inner)
    }

    /// Gives the runtime so many workers, 1 to 1024, from now on.
    ///
    /// If there are to be more, the new workers are there when the call returns, and take their part of what is ready.
    ///
    /// If there are to be fewer, the last workers retire, each as soon as the green thread that it runs waits, gives way,
    /// or has kept its OS thread for some ten milliseconds. The other workers run the threads that were queued there.
    /// Sockets that are in use there move to other workers when a thread next waits for them. Waits
    /// that have begun there end there, and the threads that they wake run on other workers. So a retired worker keeps an
    /// OS thread, which has less and less to do. The worker is used again when there are to be more. Started threads that
    /// must stay on its OS thread
    /// ([`ThreadLocals::Pinned`](crate::ThreadLocals::Pinned), [`Builder::pinned`](crate::Builder::pinned)) go on
    /// there until they end, beside the workers that are left. A thread that was to begin on a worker that retires
    /// ([`Builder::worker`](crate::Builder::worker)) begins on another one.
    ///
    /// A runtime that was built with one worker becomes a little slower when it first gets more, because its queues
    /// need no care for thieves until then.
    ///
    /// From now on the number stays as it is. Also if it was the default, which follows the CPUs that the process may use
    /// ([`RuntimeBuilder::workers`](crate::RuntimeBuilder::workers)).
    ///
    /// The call may be made at any time and from anywhere. If there are several at the same time, the last one counts. It
    /// does not suspend the caller, and takes some tens of microseconds for each new worker.
    ///
    /// # Errors
    /// `InvalidInput` for a number out of its range. The text has the value and the bound. The system's error if it
    /// gives no poller or no OS thread for a new worker; then there are as many workers as it gave.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// rt.set_workers(3)?;
    /// assert_eq!(rt.metrics().workers, 3);
    /// rt.set_workers(2)?;
    /// assert_eq!(rt.run(|| weald::metrics().workers), 2);
    /// assert!(rt.set_workers(0).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_workers(&self, workers: usize) -> io::Result<()> {
        #[cfg(not(loom))]
        let _bypass = crate::shim::bypass::Bypass::enter();
        Inner::set_workers(&self.inner, workers)
    }

    /// Counters of the runtime, read without stopping any thread. Each was right at some moment during the call, but not
    /// all at the same moment.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(3).build()?;
    /// assert_eq!(rt.metrics().workers, 3);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.inner)
    }

    /// What each worker has done, how long it was busy, and how long threads waited for it; read without stopping
    /// anyone. The workers that have retired are not among them.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// rt.run(|| (0..100).for_each(|_| weald::yield_now()));
    /// let worker = &rt.worker_metrics()[0];
    /// assert!(worker.dispatches >= 100);
    /// assert!(worker.busy > std::time::Duration::ZERO);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn worker_metrics(&self) -> Vec<WorkerMetrics> {
        WorkerMetrics::of_all(&self.inner)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.shut {
            return;
        }
        if self.is_own_thread() && std::thread::panicking() {
            // This thread must not wait for itself, and must not panic again.
            self.inner.enter_phase(KILLING);
            log::error!("weald: a runtime was dropped by one of its own green threads");
            return;
        }
        self.shut(Duration::ZERO);
    }
}

/// What `Duration::MAX` from now means.
fn far_future() -> Instant {
    clock::now() + Duration::from_secs(u64::from(u32::MAX))
}

/// Tells the overflow handler which thread runs on this OS thread.
fn describe_running(tell: &mut dyn FnMut(&str, u64)) {
    if let Some(header) = current::green() {
        // SAFETY: what runs here is alive.
        let header = unsafe { &*header };
        tell(header.name().unwrap_or("<unnamed>"), header.id.get());
    }
}
