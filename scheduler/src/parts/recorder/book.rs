//! The memory of the flight recorder: a *book* of pages. A *pen* fills its page, and swaps it for another one.
//!
//! | page  | who writes | who reads                                | leaves by                             |
//! |-------|------------|------------------------------------------|---------------------------------------|
//! | BLANK | nobody     | nobody                                   | `swap` -> HELD                        |
//! | HELD  | its pen    | readers, the events that are told        | its pen's `swap` -> FULL              |
//! | FULL  | nobody     | readers                                  | `swap`, the oldest one first -> HELD  |
//!
//! Invariant 1: only the pen that holds a page writes there, and only behind the events that are told. So an event that
//! is told does not change until the page is written anew. A writer that is interrupted in the middle of an event has
//! not told it, and no reader looks at it.
//! Invariant 2: a page is written anew only if nobody but the book refers to it: no pen, and no reader. If a reader looks
//! at the oldest page, the next oldest is taken. If there is none, the events are lost, and are counted.
//! Invariant 3: the book is behind a lock. A pen takes the lock once a page, a reader once for each page that it reads,
//! and for some steps only: a reader copies a page when it has let go of the lock.
//!
//! Orderings: telling releases the events, a reader's look at how many are told acquires them. Dropping a reference
//! releases what was read, `Arc::get_mut` acquires that before the page is written anew.
//!
//! Rejected: a ring whose events have a number each, which a reader compares before and after (a seqlock). Its events
//! must be atomics, word by word, and each event costs two more stores. And it has its memory per OS thread, of which
//! there may be thousands that write little.
//!
//! Checked by `loom-tests/tests/recorder.rs`.
#![allow(
    unsafe_code,
    reason = "what a page has is shared; how much is told says whose each event is"
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
    /// How many events are told: whole, and to be read.
    told: AtomicUsize,
    events: Box<[UnsafeCell<MaybeUninit<Words>>]>,
}

// SAFETY: an event is its pen's until it is told, and then only read until nobody else refers to the page (invariants
// 1 and 2).
unsafe impl Sync for Page {}
// SAFETY: nothing in it belongs to an OS thread.
unsafe impl Send for Page {}

impl Page {
    fn new(events: usize) -> Self {
        let blank = |_| UnsafeCell::new(MaybeUninit::uninit());
        Self {
            told: AtomicUsize::new(0),
            events: (0..events).map(blank).collect(),
        }
    }

    /// The events that are told.
    pub(crate) fn read(&self) -> Vec<Words> {
        let told = self
            .told
            .load(relaxed_if!("recorder_reads_relaxed", Ordering::Acquire));
        let event = |cell: &UnsafeCell<MaybeUninit<Words>>| {
            // SAFETY: it is told, so it is written, and nobody writes there (invariant 1).
            cell.with(|words| unsafe { (*words).assume_init() })
        };
        self.events[..told].iter().map(event).collect()
    }
}

/// A page in the hand of a pen.
#[derive(Debug)]
pub(crate) struct Held {
    number: usize,
    page: Arc<Page>,
}

/// All pages, and what is written on the head of each: who has written it.
#[derive(Debug)]
pub(crate) struct Book<W> {
    pages: Vec<Arc<Page>>,
    heads: Vec<Option<W>>,
    /// Pages from here on are BLANK.
    blank: usize,
    /// Those that are FULL, the oldest first.
    full: VecDeque<usize>,
    /// Times that there was no page for a pen.
    refused: u64,
}

impl<W: Clone> Book<W> {
    /// A book of blank pages, with room for so many events each.
    pub(crate) fn new(pages: usize, events: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| Arc::new(Page::new(events))).collect(),
            heads: vec![None; pages],
            blank: 0,
            full: VecDeque::with_capacity(pages),
            refused: 0,
        }
    }

    /// Takes a full page back, and gives another one to the pen whose `head` this is. `None`: each is in some other
    /// hand.
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
        // Nobody else looks (invariant 2).
        self.pages[number].told.store(0, Ordering::Relaxed);
        Some(number)
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// A page to read, and who has written it; `None` if it is blank. To be dropped soon.
    pub(crate) fn page(&self, number: usize) -> Option<(Arc<Page>, W)> {
        let head = self.heads[number].clone()?;
        Some((Arc::clone(&self.pages[number]), head))
    }

    /// Times that there was no page for a pen.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

/// What one writer holds. It has a page of the book of one *edition*; each recording has another.
#[derive(Debug)]
pub(crate) struct Pen {
    edition: u64,
    held: Option<Held>,
    next: usize,
    /// Events still to be lost before it asks for a page again, where there was none.
    pause: usize,
}

/// So many events are lost for each time that there was no page for a pen: to ask again costs more than an event.
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

    /// Writes events one behind the other on one page. False: there is no room; `turn` and try again.
    #[inline]
    pub(crate) fn put(&mut self, edition: u64, events: &[Words]) -> bool {
        let Some(Held { page, .. }) = &self.held else {
            return false;
        };
        let end = self.next + events.len();
        if self.edition != edition || end > page.events.len() {
            return false;
        }
        if fault!("recorder_tells_before_it_writes") {
            page.told.store(end, Ordering::Release);
        }
        for (cell, words) in page.events[self.next..end].iter().zip(events) {
            // SAFETY: the pen holds the page, and these are not told (invariant 1).
            cell.with_mut(|event| unsafe { (*event).write(*words) });
        }
        self.next = end;
        // Pairs with the load of readers.
        page.told.store(end, Ordering::Release);
        true
    }

    /// The pen has found no page a moment ago, and should lose this event without asking.
    #[inline]
    pub(crate) fn pauses(&mut self, edition: u64) -> bool {
        if self.pause == 0 || self.edition != edition {
            return false;
        }
        self.pause -= 1;
        true
    }

    /// Takes another page. False: there is none.
    #[cold]
    pub(crate) fn turn<W: Clone>(&mut self, edition: u64, book: &mut Book<W>, head: W) -> bool {
        let mut full = self.held.take();
        if self.edition != edition {
            // It is of a book that is closed.
            full = None;
        }
        self.edition = edition;
        self.next = 0;
        self.held = book.swap(full, head);
        self.pause = if self.held.is_some() { 0 } else { PAUSE - 1 };
        self.held.is_some()
    }
}
