//! The memory of the flight recorder: a *book* of pages. A *pen* fills its page, and swaps it for another one.
//!
//! | page  | who writes | who reads                                | leaves by                             |
//! |-------|------------|------------------------------------------|---------------------------------------|
//! | BLANK | nobody     | nobody                                   | `swap` -> HELD                        |
//! | HELD  | its pen    | readers, the published events            | its pen's `swap` -> FULL              |
//! | FULL  | nobody     | readers                                  | `swap`, the oldest one first -> HELD  |
//!
//! Invariant 1: only the pen that holds a page writes there, and only behind the *published* events; a number on the page
//! says how many these are. So a published event does not change until the page is written anew. If a writer is
//! interrupted in the middle of an event, that event is not published, and no reader looks at it.
//! Invariant 2: a page is written anew only if the book alone refers to it, and no pen and no reader does. If a reader
//! looks at the oldest page, the next oldest is taken. If there is none, the events are lost, and are counted.
//! Invariant 3: the book is behind a lock. A pen takes the lock once for each page, and so does a reader. Each holds it
//! for some steps only: a reader copies a page after it has released the lock.
//!
//! Orderings: the store of the number releases the events, and a reader's load of the number acquires them. Dropping a
//! reference releases what was read, and `Arc::get_mut` acquires that before the page is written anew.
//!
//! Rejected: a ring in which each event has a number that a reader compares before and after (a seqlock). Its events
//! must be atomics, word by word, and each event costs two more stores. And each OS thread would have such a ring, but
//! there may be thousands of OS threads that write little.
//!
//! Checked by `loom-tests/tests/recorder.rs`.
#![allow(
    unsafe_code,
    reason = "the events of a page are shared; the number of published ones says whose each event is"
)]

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::sync::Arc;

/// One event, as it lies in memory. `event.rs` says what the words mean.
pub(crate) type Words = [u64; 3];

#[derive(Debug)]
pub(crate) struct Page {
    /// How many events are published: they are whole and may be read.
    published: AtomicUsize,
    events: Box<[UnsafeCell<MaybeUninit<Words>>]>,
}

// SAFETY: an event is its pen's until it is published. Afterwards it is only read, until nobody else refers to the page
// (invariants 1 and 2).
unsafe impl Sync for Page {}
// SAFETY: nothing in it belongs to an OS thread.
unsafe impl Send for Page {}

impl Page {
    fn new(events: usize) -> Self {
        let blank = |_| UnsafeCell::new(MaybeUninit::uninit());
        Self {
            published: AtomicUsize::new(0),
            events: (0..events).map(blank).collect(),
        }
    }

    /// Copies the published events.
    pub(crate) fn read(&self) -> Vec<Words> {
        let published = self
            .published
            .load(relaxed_if!("recorder_reads_relaxed", Ordering::Acquire));
        let event = |cell: &UnsafeCell<MaybeUninit<Words>>| {
            // SAFETY: it is published, so it was written, and nobody writes there (invariant 1).
            cell.with(|words| unsafe { (*words).assume_init() })
        };
        self.events[..published].iter().map(event).collect()
    }
}

/// A page that a pen holds.
#[derive(Debug)]
pub(crate) struct Held {
    number: usize,
    page: Arc<Page>,
}

/// All pages, each with a *head* that says who has written it.
#[derive(Debug)]
pub(crate) struct Book<W> {
    pages: Vec<Arc<Page>>,
    heads: Vec<Option<W>>,
    /// Pages from here on are BLANK.
    blank: usize,
    /// The FULL pages, the oldest first.
    full: VecDeque<usize>,
    /// How often there was no page for a pen.
    refused: u64,
}

impl<W: Clone> Book<W> {
    /// Makes a book of blank pages. Each has room for so many events.
    pub(crate) fn new(pages: usize, events: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| Arc::new(Page::new(events))).collect(),
            heads: vec![None; pages],
            blank: 0,
            full: VecDeque::with_capacity(pages),
            refused: 0,
        }
    }

    /// Takes a full page back from a pen, and gives it another one, with this head. `None`: pens and readers have all
    /// pages.
    pub(crate) fn swap(&mut self, full: Option<Held>, head: W) -> Option<Held> {
        if let Some(Held { number, page }) = full {
            drop(page);
            self.full.push_back(number);
        }
        let number = self.next()?;
        self.heads[number] = Some(head);
        Some(Held {
            number,
            page: Arc::clone(&self.pages[number]),
        })
    }

    fn next(&mut self) -> Option<usize> {
        if self.blank < self.pages.len() {
            self.blank += 1;
            return Some(self.blank - 1);
        }
        let pages = &mut self.pages;
        let is_free = |number: &usize| {
            fault!("recorder_reuses_a_page_that_is_read")
                || Arc::get_mut(&mut pages[*number]).is_some()
        };
        let Some(place) = self.full.iter().position(is_free) else {
            self.refused += 1;
            return None;
        };
        let number = self.full.remove(place).expect("just found");
        // Nobody else refers to the page (invariant 2).
        self.pages[number].published.store(0, Ordering::Relaxed);
        Some(number)
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// A page to read, and its head. `None`: it is blank. The caller should drop it soon.
    pub(crate) fn page(&self, number: usize) -> Option<(Arc<Page>, W)> {
        let head = self.heads[number].clone()?;
        Some((Arc::clone(&self.pages[number]), head))
    }

    /// How often there was no page for a pen.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

/// What one writer has. It holds a page of the book of one *edition*. Each recording is another edition.
#[derive(Debug)]
pub(crate) struct Pen {
    edition: u64,
    held: Option<Held>,
    next: usize,
    /// If there was no page: how many events are still lost before the pen asks for a page again.
    pause: usize,
}

/// Each time that there is no page for a pen, so many events are lost before it asks again, because to ask costs more than
/// an event.
pub(crate) const PAUSE: usize = 64;

impl Pen {
    pub(crate) const fn new() -> Self {
        Self {
            edition: 0,
            held: None,
            next: 0,
            pause: 0,
        }
    }

    /// Writes events one behind the other on one page. False: there is no room. Then call `next_page` and try again.
    #[inline(always)]
    pub(crate) fn put(&mut self, edition: u64, events: &[Words]) -> bool {
        let Some(Held { page, .. }) = &self.held else {
            return false;
        };
        let end = self.next + events.len();
        if self.edition != edition || end > page.events.len() {
            return false;
        }
        if fault!("recorder_tells_before_it_writes") {
            page.published.store(end, Ordering::Release);
        }
        for (cell, words) in page.events[self.next..end].iter().zip(events) {
            // SAFETY: the pen holds the page, and these events are not published (invariant 1).
            cell.with_mut(|event| unsafe { (*event).write(*words) });
        }
        self.next = end;
        // Pairs with the load in `read`.
        page.published.store(end, Ordering::Release);
        true
    }

    /// True: there was no page for the pen a moment ago, and this event is lost without asking again.
    #[inline]
    pub(crate) fn pauses(&mut self, edition: u64) -> bool {
        if self.pause == 0 || self.edition != edition {
            return false;
        }
        self.pause -= 1;
        true
    }

    /// Gives the page back and takes another one. False: there is none.
    #[cold]
    pub(crate) fn next_page<W: Clone>(
        &mut self,
        edition: u64,
        book: &mut Book<W>,
        head: W,
    ) -> bool {
        let mut full = self.held.take();
        if self.edition != edition {
            // The page belongs to a book that is closed.
            full = None;
        }
        self.edition = edition;
        self.next = 0;
        self.held = book.swap(full, head);
        self.pause = if self.held.is_some() { 0 } else { PAUSE - 1 };
        self.held.is_some()
    }
}
