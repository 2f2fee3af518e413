//! The thin runtime of `weald::model`: each green thread of a user's program is one of loom's threads.
//!
//! Waiting, exceptions, ends and timeouts are production code, because everything of weald works on OS
//! threads too: a thread that waits does so *in place* (`waiter.rs`). Only the start of threads is
//! in this file. With a whole scheduler a single `spawn` would cost a model some thousand permutations.
//! This file also notes which thread waits for what, so that a deadlock can be reported in the program's words.
//!
//! All threads of a model run on one OS thread, so one thread-local of std has the state of the current
//! permutation. It is never borrowed over one of loom's steps.
#![allow(unsafe_code, reason = "starts threads, as `run/start.rs` does")]

use std::any::Any;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::mem::size_of;
use std::thread::Result;

use crate::engine::blocking_calls::Blocking;
use crate::engine::inner::Inner;
use crate::green::current;
use crate::green::green_thread::{Header, Settings, Task};
use crate::green::id::GreenThreadId;
use crate::green::request::Request;
use crate::parts::coroutine::Control;
use crate::parts::random::Random;
use crate::shim::sync::{Arc, end_timed_waits};
use crate::verbs::builder::RuntimeBuilder;
use crate::verbs::join::JoinHandle;
use crate::wait::end;
use crate::wait::exception::{self, Exception};
use crate::wait::scheduler::Scheduler;

pub use crate::shim::doom::{Step, doom};

/// loom's bound, with the program's first thread.
const MAX_THREADS: usize = 5;

/// How many limited waits of a thread may end while others could go on. Without a bound a loop of such waits would never
/// be explored to its end.
const TIMED_WAITS: u32 = 2;

/// What a thread waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// It waits in a queue at this address, which belongs to a thing of that kind.
    Queue(usize, &'static str),
    Selection,
    Unpark,
    Time,
}

/// A thread of the current permutation.
#[derive(Debug)]
struct Known {
    header: usize,
    name: String,
    waits: Option<Wait>,
    ended: bool,
    /// The thread unwinds with a panic, or did when this was last noted.
    unwinds: bool,
    /// The message of its panic, if nobody has seen it.
    panic: Option<String>,
}

/// A value that the program has named.
#[derive(Debug)]
struct Named {
    from: usize,
    to: usize,
    name: String,
}

#[derive(Debug)]
struct Thin {
    inner: Arc<Inner>,
    threads: Vec<Known>,
    handles: Vec<loom::thread::JoinHandle<()>>,
    names: Vec<Named>,
    /// A panic whose handle was dropped.
    lost: Option<String>,
    choices: Random,
}

thread_local! {
    static THIN: RefCell<Option<Thin>> = const { RefCell::new(None) };
}

/// A number for a fair choice. Each permutation has the same numbers.
pub fn random() -> u64 {
    with(|thin| thin.choices.next()).unwrap_or(0)
}

/// Calls `f` with the state of the permutation, if there is one. `f` must take no step of loom's.
fn with<R>(f: impl FnOnce(&mut Thin) -> R) -> Option<R> {
    THIN.try_with(|thin| thin.borrow_mut().as_mut().map(f))
        .ok()
        .flatten()
}

impl Thin {
    fn running(&mut self) -> Option<&mut Known> {
        let header = current::running_if_any() as usize;
        // Another thread may have the memory of a thread that has ended.
        let mut threads = self.threads.iter_mut();
        threads.find(|known| known.header == header && !known.ended)
    }
}

/// Whether this runtime runs the caller.
pub(crate) fn is_active() -> bool {
    with(|_| ()).is_some()
}

pub(crate) fn runtime() -> Option<Arc<Inner>> {
    // The clone is a step of loom's, but one that switches to nobody who would borrow.
    let inner: Option<*const Arc<Inner>> = with(|thin| &raw const thin.inner);
    // SAFETY: the state stays where it is as long as threads run.
    inner.map(|inner| unsafe { (*inner).clone() })
}

/// A runtime without workers and OS threads.
fn runtime_without_workers() -> Arc<Inner> {
    let settings = RuntimeBuilder::new().workers(1).spare_threads(1).settings();
    let mut settings = settings.expect("these settings are possible");
    (settings.workers, settings.spares) = (0, 0);
    let refuse = |_: &_, _| Err(std::io::ErrorKind::Unsupported.into());
    let mut inner = Inner::new(settings, refuse).expect("no worker is made");
    // Each of its threads has an OS thread to block.
    *inner.blocking = Blocking::new(usize::MAX);
    Arc::new(inner)
}

/// Runs a program: one permutation. `Err`: what it panicked with, or what went wrong.
///
/// # Panics
/// If the system's settings for a runtime cannot be made.
pub fn run(program: impl FnOnce() + 'static) -> Result<()> {
    let inner = runtime_without_workers();
    THIN.with(|thin| {
        *thin.borrow_mut() = Some(Thin {
            inner,
            threads: Vec::new(),
            handles: Vec::new(),
            names: Vec::new(),
            lost: None,
            choices: Random::new(0),
        });
    });
    let (task, main) = make(
        Request {
            name: Some("main".into()),
            ..Request::default()
        },
        program,
    );
    live(task);
    let result = main.wait_to_end();
    while let Some(handle) = with(|thin| thin.handles.pop()).flatten() {
        // Its panics are in its result.
        let _step = Step;
        let _ = handle.join();
    }
    let thin = THIN.with(|thin| thin.borrow_mut().take());
    match thin.and_then(|thin| thin.lost) {
        Some(lost) if result.is_ok() => Err(Box::new(lost)),
        _ => result,
    }
}

fn make<F: FnOnce() -> T, T>(request: Request, body: F) -> (Task, JoinHandle<T>) {
    let id = GreenThreadId::next();
    let number = with(|thin| thin.threads.len()).unwrap_or(0);
    let name = request
        .name
        .as_ref()
        .map_or_else(|| format!("green thread {number}"), ToString::to_string);
    let runtime = with(|thin| Inner::address(&thin.inner)).expect("a permutation runs");
    let settings = Settings {
        id,
        runtime,
        name: request.name,
        stack_size: 0,
        pinned: false,
        worker: None,
        has_own_thread: false,
        is_under_limit: request.is_under_limit,
        patched: Some(false),
        control: Control::current(),
    };
    // SAFETY: by the caller's contract; the runtime is kept until all threads have ended.
    let task = unsafe { Task::new::<Scheduler, _, _>(body, settings, true, None) };
    // SAFETY: once.
    let handle = unsafe { JoinHandle::new(task.handle_reference()) };
    let header: *const Header = &raw const *task;
    with(|thin| {
        thin.threads.push(Known {
            header: header as usize,
            name,
            waits: None,
            ended: false,
            unwinds: false,
            panic: None,
        });
    });
    (task, handle)
}

/// Starts a thread.
///
/// # Safety
/// As `spawn::start`.
///
/// # Panics
/// If loom has no more threads.
pub(crate) unsafe fn start<F: FnOnce() -> T, T>(request: Request, body: F) -> JoinHandle<T> {
    let threads = with(|thin| thin.threads.len()).unwrap_or(0);
    assert!(
        threads < MAX_THREADS,
        "a model has at most {MAX_THREADS} green threads, the first one and those of `call_after` \
         among them: this is loom's bound"
    );
    let is_doomed = request.is_doomed;
    let (task, join) = make(request, body);
    task.doomed.set(is_doomed);
    let handle = loom::thread::spawn(move || live(task));
    with(|thin| thin.handles.push(handle));
    join
}

/// The life of a thread, on its own.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the running reference ends here"
)]
fn live(task: Task) {
    end_timed_waits(TIMED_WAITS);
    let header: *const Header = &raw const *task;
    current::set_running(header);
    if exception::is_killed(&task) {
        task.doomed.set(true);
    }
    // SAFETY: this is the thread itself, for the first time.
    unsafe { Task::run_body(&task) };
    let rest = end::wind_up(&task, || (), || ());
    end::end(&task, rest);
    with(|thin| {
        if let Some(known) = thin.running() {
            known.ended = true;
        }
    });
    current::set_running(std::ptr::null());
}

/// Notes what the running thread waits for, as long as it lives.
#[derive(Debug)]
pub(crate) struct Waits;

impl Waits {
    pub(crate) fn begin(wait: Wait) -> Self {
        with(|thin| {
            if let Some(known) = thin.running() {
                known.waits = Some(wait);
            }
        });
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        with(|thin| {
            if let Some(known) = thin.running() {
                known.waits = None;
            }
        });
    }
}

/// For the panic hook: the running thread panics. False: it is none of the program's. Takes no step of
/// loom's, as a hook must not switch.
pub fn panicked(text: &str) -> bool {
    let noted = with(|thin| {
        thin.running().map(|known| {
            known.panic = Some(text.to_string());
            known.unwinds = true;
        })
    });
    noted.flatten().is_some()
}

/// True if the running thread unwinds. `panicking`: somebody does on this OS thread, on which all threads
/// of a model run.
pub(crate) fn unwinds(panicking: bool) -> bool {
    let unwinds = with(|thin| {
        if !panicking {
            for known in &mut thin.threads {
                known.unwinds = false;
            }
        }
        thin.running().is_none_or(|known| known.unwinds)
    });
    panicking && unwinds.unwrap_or(true)
}

/// An exception is about to unwind in the running thread.
pub(crate) fn exception_unwinds() {
    with(|thin| {
        if let Some(known) = thin.running() {
            known.unwinds = true;
        }
    });
}

/// A thread's result is dropped that nobody has looked at.
pub(crate) fn dropped(header: &Header, payload: &(dyn Any + Send)) {
    if payload.is::<Exception>() {
        return;
    }
    let header = std::ptr::from_ref(header) as usize;
    with(|thin| {
        let mut threads = thin.threads.iter().rev();
        if let Some(known) = threads.find(|known| known.header == header) {
            let text = known.panic.as_deref().unwrap_or("a panic");
            thin.lost = Some(format!(
                "{} panicked, and nobody joined it: {text}",
                known.name
            ));
        }
    });
}

/// Gives a value a name in reports.
pub fn name<T: ?Sized>(value: &T, name: String) {
    let from = std::ptr::from_ref(value).cast::<u8>() as usize;
    let to = from + size_of_val(value);
    with(|thin| thin.names.push(Named { from, to, name }));
}

/// The panics of this permutation that the program may have passed on, each with its thread.
pub fn panics() -> Vec<String> {
    with(|thin| {
        thin.threads
            .iter()
            .filter_map(|known| Some(format!("{}: {}", known.name, known.panic.as_ref()?)))
            .collect()
    })
    .unwrap_or_default()
}

/// A line for each thread that has not ended: what it waits for.
pub fn report() -> String {
    with(|thin| {
        let mut text = String::new();
        let mut unnamed = Vec::new();
        for known in thin.threads.iter().filter(|known| !known.ended) {
            let what = match known.waits {
                None => "has not come back".to_string(),
                Some(Wait::Unpark) => "waits for `unpark`".to_string(),
                Some(Wait::Time) => "sleeps for ever".to_string(),
                Some(Wait::Selection) => "waits for a channel or in a select".to_string(),
                Some(Wait::Queue(at, kind)) => {
                    format!("waits for {}", describe(thin, &mut unnamed, at, kind))
                }
            };
            // Writing into a string does not fail.
            let _ = writeln!(text, "  {} {what}", known.name);
        }
        text
    })
    .unwrap_or_default()
}

fn describe(thin: &Thin, unnamed: &mut Vec<usize>, at: usize, kind: &str) -> String {
    // The last one: memory that was freed may have been named before.
    let named = thin
        .names
        .iter()
        .rev()
        .find(|n| (n.from..n.to).contains(&at));
    if let Some(named) = named {
        return format!("{} ({kind})", named.name);
    }
    let thread = |known: &&Known| (known.header..known.header + size_of::<Header>()).contains(&at);
    if let Some(known) = thin.threads.iter().rev().find(thread) {
        return format!("the end of {}", known.name);
    }
    let number = unnamed.iter().position(|&known| known == at);
    let number = number.unwrap_or_else(|| {
        unnamed.push(at);
        unnamed.len() - 1
    });
    format!("{kind} (number {})", number + 1)
}
