//! Finds out whether green threads can have thread-locals of their own in this process, and then tries it, once.
//!
//! Two green threads without a scheduler, that is two coroutines, run in turns on blocks of their
//! own and do what threads do. They must find what OS threads would find.
#![allow(unsafe_code, reason = "runs on the blocks that it tests")]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;

use super::block::Block;
use super::cache::Cache;
use super::heap::LentWords;
use super::host::host_pointer;
use super::memory::Found;
use super::own::Support;
use super::visit::Blocked;
use super::{layout, machine, setxid};
use crate::parts::coroutine::{Control, Coroutine, Resumed, Suspender};
use crate::parts::shadow_stack;
use crate::parts::stack;
use crate::shim::here::Host;

/// Bytes for a coroutine of the test.
const STACK: usize = stack::DEFAULT_STACK;

/// The support in this process, or why there is none.
pub(crate) fn support() -> Result<&'static Support, &'static str> {
    static SUPPORT: OnceLock<Found<Support>> = OnceLock::new();
    let found = SUPPORT.get_or_init(|| {
        if let Some(refusal) = machine::refusal() {
            return Err(refusal);
        }
        if shadow_stack::is_on() {
            return Err(shadow_stack::REFUSAL);
        }
        if layout::is_os_thread()? {
            return find();
        }
        // The first runtime of this copy of the crate is started by a green thread of another copy. Its
        // block is not what a thread of the C library's has.
        let probe = std::thread::Builder::new().name(String::from("weald-probe"));
        let found = probe.spawn(find).map_err(|_| "no OS thread to look at")?;
        found
            .join()
            .map_err(|_| "the thread that looks has panicked")?
    });
    found.as_ref().map_err(|&reason| reason)
}

/// Finds out how it works, on an OS thread's own block, and tries it.
fn find() -> Found<Support> {
    // No handler may run on a block that is not its thread's.
    let blocked = Blocked::new();
    let own = Support::find()?;
    test(&own)?;
    drop(blocked);
    setxid::install()?;
    Ok(own)
}

/// Destructors that have run.
static DROPPED: AtomicUsize = AtomicUsize::new(0);
/// Destructors of pthread values that have run.
static KEYS_DROPPED: AtomicUsize = AtomicUsize::new(0);

struct Bell;

impl Drop for Bell {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(7) };
    static TEXT: RefCell<Vec<u64>> = RefCell::new(Vec::with_capacity(1));
    static BELL: Bell = const { Bell };
}

unsafe extern "C" fn drop_value(_value: *mut c_void) {
    KEYS_DROPPED.fetch_add(1, Ordering::Relaxed);
}

#[inline(never)]
fn set_errno(value: i32) {
    // SAFETY: the running thread's own.
    unsafe { *libc::__errno_location() = value };
}

#[inline(never)]
fn errno() -> i32 {
    // SAFETY: the running thread's own.
    unsafe { *libc::__errno_location() }
}

/// What a thread of the test has found.
#[derive(Default)]
struct Report {
    id: Option<ThreadId>,
    surprise: Option<&'static str>,
}

fn expect(report: &mut Report, holds: bool, surprise: &'static str) {
    if !holds && report.surprise.is_none() {
        report.surprise = Some(surprise);
    }
}

/// Runs the green thread on its block until it leaves its stack.
///
/// # Safety
/// The coroutine is the one whose thread has the block; `host` is the running OS thread's
/// pointer, `carrier` drives it, and `lent` is what it lends.
#[inline(always)]
unsafe fn resume<N>(
    own: &Support,
    coroutine: &mut Coroutine<(), N>,
    block: &Block,
    carrier: *const Host,
    lent: &LentWords,
    host: usize,
) -> Resumed<N> {
    // SAFETY: by contract; no thread-local is touched in between, and the pointer is the OS
    // thread's again after it. `resume` does not unwind: no panic leaves a coroutine.
    unsafe {
        own.arrive(block, carrier, lent);
        let resumed = coroutine.resume(());
        own.depart(host);
        resumed
    }
}

/// What a thread does.
fn body(report: &mut Report, key: libc::pthread_key_t, number: u64, suspend: &dyn Fn()) {
    let value = ptr::without_provenance::<c_void>(1);
    expect(report, errno() == 0, "errno is not 0 in a new thread");
    let first = NUMBER.with(|cell| cell.replace(number));
    expect(
        report,
        first == 7,
        "a thread-local is not new in a new thread",
    );
    TEXT.with(|text| expect(report, text.borrow().is_empty(), "a lazy one is not new"));
    BELL.with(|_| ());
    // SAFETY: the key was made for this.
    let unset = unsafe { libc::pthread_getspecific(key) };
    expect(
        report,
        unset.is_null(),
        "a pthread value is not new in a new thread",
    );
    // SAFETY: as above.
    let set = unsafe { libc::pthread_setspecific(key, value) };
    expect(report, set == 0, "a pthread value cannot be set");
    report.id = Some(std::thread::current().id());
    for round in 0..3 {
        for size in [1, 16, 200, 5000, 300_000] {
            let block = vec![u8::try_from(round).unwrap_or(0); size];
            expect(
                report,
                block[size - 1] == block[0],
                "memory is not what was written",
            );
        }
        TEXT.with(|text| text.borrow_mut().push(number));
        // Between these two nothing else is called: any call of the system or of an allocator
        // may write to errno.
        let own_errno = 40 + i32::try_from(number).unwrap_or(0);
        set_errno(own_errno);
        suspend();
        let errno = errno();
        expect(report, errno == own_errno, "errno is shared");
        expect(report, NUMBER.get() == number, "a thread-local is shared");
        // An unwinding would end a process that is built to abort.
        if cfg!(panic = "unwind") {
            unwind(report, number);
        }
        TEXT.with(|text| {
            let whole = text.borrow().iter().all(|it| *it == number);
            expect(report, whole, "a lazy thread-local is shared");
        });
        expect(
            report,
            Some(std::thread::current().id()) == report.id,
            "a thread changes its id",
        );
    }
    // SAFETY: as above.
    let kept = unsafe { libc::pthread_getspecific(key) };
    expect(
        report,
        kept.cast_const() == value,
        "a pthread value is shared",
    );
}

/// Unwinds, and catches the unwinding.
fn unwind(report: &mut Report, number: u64) {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        // Not by a panic, whose hook would write a message.
        resume_unwind(Box::new(number));
    }));
    let payload = caught
        .err()
        .and_then(|payload| payload.downcast::<u64>().ok());
    expect(
        report,
        payload.is_some_and(|it| *it == number),
        "unwinding does not work",
    );
    expect(report, !std::thread::panicking(), "a caught panic goes on");
}

fn test(own: &Support) -> Found<()> {
    let mut key = 0;
    // SAFETY: the place is valid.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(drop_value)) } != 0 {
        return Err("no pthread key for the test");
    }
    let tested = test_with(own, key);
    // SAFETY: the key is ours; no thread of the test has a value for it any more.
    unsafe { libc::pthread_key_delete(key) };
    tested
}

fn test_with(own: &Support, key: libc::pthread_key_t) -> Found<()> {
    let (mut blocks, mut stacks) = (Cache::default(), stack::Cache::new());
    let (host, lent) = (host_pointer(), LentWords::default());
    own.note_lent_words(&lent);
    let before = (NUMBER.get(), std::thread::current().id());
    // The second round runs on the blocks of the first.
    for round in 1..=2 {
        let mut ids = vec![before.1];
        let mut running = Vec::new();
        for number in 0..2 {
            let block = blocks.get(own).ok_or("no memory for a block")?;
            let stack = stacks.get(STACK).map_err(|_| "no stack for the test")?;
            let report = Box::into_raw(Box::new(Report::default()));
            let body = move |suspender: &Suspender<(), ()>, ()| {
                // SAFETY: the report is freed after the end of this.
                let report = unsafe { &mut *report };
                own.begin();
                let suspend = || suspender.suspend(());
                body(report, key, 100 * round + number, &suspend);
                own.finish();
            };
            // SAFETY: it is run to its end below, on this OS thread.
            let coroutine = unsafe { Coroutine::new(stack, Control::current(), body) };
            own.start(&block, ptr::null());
            running.push((coroutine, block, report));
        }
        for turn in 0..4 {
            for (coroutine, block, _) in &mut running {
                set_errno(33);
                // SAFETY: coroutine and block belong together, and this is the OS thread.
                let resumed = unsafe { resume(own, coroutine, block, ptr::null(), &lent, host) };
                if errno() != 33 {
                    return Err("the OS thread's errno has changed");
                }
                let expected = if turn == 3 {
                    Resumed::Finished
                } else {
                    Resumed::Suspended(())
                };
                if resumed != expected || host_pointer() != host {
                    return Err("a thread of the test does not run as it should");
                }
            }
        }
        for (coroutine, block, report) in running {
            stacks.put(coroutine.into_stack());
            blocks.put(block);
            // SAFETY: made above, and the thread that wrote it has ended.
            let report = unsafe { Box::from_raw(report) };
            if let Some(surprise) = report.surprise {
                return Err(surprise);
            }
            let id = report.id.ok_or("a thread of the test has no id")?;
            if ids.contains(&id) {
                return Err("two threads have the same id");
            }
            ids.push(id);
        }
        let ended = 2 * usize::try_from(round).unwrap_or(0);
        if DROPPED.load(Ordering::Relaxed) != ended {
            return Err("the destructors of thread-locals do not run");
        }
        if KEYS_DROPPED.load(Ordering::Relaxed) != ended {
            return Err("the destructors of pthread values do not run");
        }
    }
    if before.0 != NUMBER.get() || std::thread::current().id() != before.1 {
        return Err("the OS thread's own thread-locals have changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    /// For systems on which the C library is glibc and the instructions are allowed.
    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn own_thread_locals_work_on_this_machine() {
        let found = super::support();
        if super::machine::refusal().is_none() {
            assert_eq!(found.err(), None);
        }
    }
}
