//! What the flight recorder notes of the scheduler. `parts/recorder/` has its memory.
//!
//! Each carrier has a pen of its own, which only its OS thread uses. Other OS threads (the monitor, those of
//! `Builder::own_thread`, the program's) share some pens behind locks.
//!
//! | event               | noted by                                                     |
//! |---------------------|--------------------------------------------------------------|
//! | `Spawn`             | the maker, before the thread is queued                       |
//! | `Run`               | the carrier, before it goes to the thread's stack             |
//! | `Yield`, `Park`     | the carrier, off the stack, before it publishes the thread   |
//! | `Wake`              | the waker, before it queues the thread                       |
//! | `End`               | the carrier, before the joiners wake                         |
//! | `HandOver`, `Hog`   | whoever takes the seat; the monitor                          |
//!
//! So in the order of time the events of one thread alternate: it runs, it leaves its stack, it is woken. The counters
//! of cores may differ by some nanoseconds, and readers must not rely on the order of events of two OS threads.
//!
//! Callers ask [`is_on`] first. All else here is cold.
#![allow(
    unsafe_code,
    reason = "the pen of the OS thread's own carrier; the address of a place in the program"
)]

use std::panic::Location;
use std::sync::{Mutex, PoisonError};

use crate::engine::carrier::{self, Carrier};
use crate::engine::inner::Inner;
use crate::green::current;
use crate::green::green_thread::{Header, Note};
use crate::green::id::GreenThreadId;
use crate::parts::recorder::book::{Pen, Words};
use crate::parts::recorder::event::{self, PIECES};
use crate::parts::recorder::{self, Head, ticks};

pub(crate) use crate::parts::recorder::event::Kind;

/// The argument of a wake-up that came before the thread had parked. Its waker is not known. The reasons of others are
/// those of `Why`.
pub(crate) const EARLY_WAKE: u64 = (u16::MAX as u64) << 48;

/// Pens of OS threads that are no carriers.
static OTHERS: [Mutex<Pen>; 8] = [const { Mutex::new(Pen::new()) }; 8];

/// The recorder is on.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    recorder::edition() != 0
}

/// Notes an event of a thread, by its number, or of none (0).
#[cold]
#[inline(never)]
pub(crate) fn note(kind: Kind, thread: u64, argument: u64) {
    // SAFETY: a carrier outlives what runs on its OS thread.
    write(
        unsafe { carrier::here().as_ref() },
        kind,
        thread,
        argument,
        "",
    );
}

/// As `note`, with a text.
#[cold]
#[inline(never)]
pub(crate) fn note_text(kind: Kind, thread: u64, argument: u64, text: &str) {
    // SAFETY: as in `note`.
    write(
        unsafe { carrier::here().as_ref() },
        kind,
        thread,
        argument,
        text,
    );
}

/// The number of the green thread that runs here; 0: none does.
pub(crate) fn running() -> u64 {
    // SAFETY: what runs here is alive.
    current::green().map_or(0, |header| unsafe { (*header).id.get() })
}

/// A thread was made, and has not been queued.
#[cold]
#[inline(never)]
pub(crate) fn spawned(header: &Header) {
    let name = header.name().unwrap_or("");
    note_text(Kind::Spawn, header.id.get(), running(), name);
}

/// Where a thread was spawned.
#[cold]
#[inline(never)]
pub(crate) fn spawned_at(thread: GreenThreadId, site: &'static Location<'static>) {
    let address = std::ptr::from_ref(site).expose_provenance();
    note(Kind::Site, thread.get(), address as u64);
}

/// The place in the program that `spawned_at` has noted.
///
/// # Safety
/// `address` is the argument of an event `Site` of this process.
pub(crate) unsafe fn site(address: u64) -> Option<&'static Location<'static>> {
    let address = usize::try_from(address).ok()?;
    // SAFETY: by contract it is that of a value that lives for ever, or null.
    unsafe { std::ptr::with_exposed_provenance::<Location<'static>>(address).as_ref() }
}

/// The wait of a thread has ended, which is the caller's to queue or to notify.
#[cold]
#[inline(never)]
pub(crate) fn woken(header: &Header) {
    if header.is_green() {
        let waker = event::waker(running(), header.state.why().0);
        note(Kind::Wake, header.id.get(), waker);
    }
}

/// A green thread blocks its OS thread to wait, or goes on.
#[cold]
#[inline(never)]
pub(crate) fn in_place(kind: Kind, header: &Header) {
    if header.is_green() {
        note(kind, header.id.get(), header.left_at.on().word());
    }
}

/// A carrier has given its worker away, or the worker was taken from it. This needs no look at [`is_on`] before it.
#[cold]
#[inline(never)]
pub(crate) fn handed_over(inner: &Inner, worker: usize, carrier: usize) {
    if !is_on() {
        return;
    }
    let head = event::word(Kind::HandOver, Some(worker), 0);
    let event = [
        ticks::after_all(),
        head,
        event::carrier(inner.label.number, carrier),
    ];
    // SAFETY: as in `note`.
    put(unsafe { carrier::here().as_ref() }, &[event]);
}

impl Carrier {
    /// Notes an event of a thread.
    #[cold]
    #[inline(never)]
    pub(crate) fn note(&self, kind: Kind, header: &Header, argument: u64) {
        write(Some(self), kind, header.id.get(), argument, "");
    }

    /// A thread has left its stack, and has not been published.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_left(&self, header: &Header, note: Note) {
        match note {
            Note::Park { .. } => self.note(Kind::Park, header, header.left_at.on().word()),
            Note::Yield | Note::Requeue => self.note(Kind::Yield, header, 0),
        }
    }

    /// A thread has ended.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_end(&self, header: &Header) {
        let name = header.name().unwrap_or("");
        write(Some(self), Kind::End, header.id.get(), 0, name);
    }

    /// Who has written the pages of this carrier.
    fn head(&self) -> Head {
        let inner = self.inner();
        Head {
            // SAFETY: the carrier's OS thread keeps the runtime.
            runtime: unsafe { inner.as_ref() }.map(|inner| inner.label.clone()),
            carrier: self.index,
        }
    }
}

#[inline(always)]
fn write(carrier: Option<&Carrier>, kind: Kind, thread: u64, argument: u64, text: &str) {
    // What the carrier knows of its seat. If the seat was seized, `HandOver` says that.
    let worker = carrier.and_then(Carrier::seat).map(|worker| worker.index);
    // A thread leaves its stack by its own step.
    let ticks = match kind {
        Kind::Yield | Kind::Park | Kind::End => ticks::now(),
        _ => ticks::after_all(),
    };
    let event = [ticks, event::word(kind, worker, thread), argument];
    if text.is_empty() {
        put(carrier, &[event]);
    } else {
        let mut events = [[0; 3]; PIECES + 1];
        let count = event::with_text(&mut events, event, text);
        put(carrier, &events[..count]);
    }
}

#[inline(always)]
fn put(carrier: Option<&Carrier>, events: &[Words]) {
    let edition = recorder::edition();
    if edition == 0 {
        return;
    }
    let Some(carrier) = carrier else {
        put_outside(edition, events);
        return;
    };
    carrier.pen.with_mut(|pen| {
        // SAFETY: the pen belongs to the carrier's OS thread, which this is, and `write` calls nothing that notes.
        let pen = unsafe { &mut *pen };
        recorder::write(pen, edition, events, || carrier.head());
    });
}

/// On an OS thread that is no carrier. Threads are told apart by where their stacks lie: they mostly get different
/// pens, without a thread-local.
#[inline(never)]
fn put_outside(edition: u64, events: &[Words]) {
    let here = 0_u8;
    let stack = std::ptr::from_ref(&here).addr() >> 16;
    let pen = &OTHERS[(stack ^ (stack >> 5)) % OTHERS.len()];
    // The lock may be contended, and the caller may be a green thread with an OS thread for itself.
    let _bypass = crate::shim::bypass::Bypass::enter();
    let mut pen = pen.lock().unwrap_or_else(PoisonError::into_inner);
    let head = || Head {
        runtime: None,
        carrier: 0,
    };
    recorder::write(&mut pen, edition, events, head);
}
