//! The flight recorder. It keeps in memory what the runtimes of the process have done last, for a trace on demand.
//!
//! `engine/record.rs` says what is noted where. `book.rs` has the memory, `event.rs` the events, `ticks.rs` their time.
//!
//! While it is off, each place that could note something loads [`ON`] and goes on. The word lies on a cache line of its
//! own that is seldom written, so it is in the cache of each CPU.

pub(crate) mod book;
pub(crate) mod event;
pub(crate) mod ticks;

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::shim::sync::{Arc, Mutex};

use self::book::{Book, Pen, Words};
use self::ticks::Moment;

/// How many events a page has. An event has 24 bytes, so a page has 12 KiB, and a pen takes the lock at most each 5 us.
pub(crate) const PAGE: usize = 512;

/// The number of the edition that is written; 0: the recorder is off.
static ON: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));

static BOOK: Mutex<Option<Edition>> = Mutex::new(None);

/// One recording.
#[derive(Debug)]
struct Edition {
    number: u64,
    book: Book<Head>,
    since: Moment,
}

/// The head of a page: who has written it.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The runtime to which the carrier belongs. `None`: the writer is some other OS thread.
    pub(crate) runtime: Option<Arc<Label>>,
    /// The carrier's number in the runtime.
    pub(crate) carrier: usize,
}

/// What a trace says about a runtime.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) number: u32,
    pub(crate) name: String,
}

impl Label {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            name: name.to_string(),
        }
    }
}

/// What was read: for each page its writer and its events, the time when the recording began, and the time now.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) pages: Vec<(Head, Vec<Words>)>,
    pub(crate) since: Moment,
    pub(crate) now: Moment,
    pub(crate) lost: u64,
}

/// The edition that is written; 0: the recorder is off.
#[inline(always)]
pub(crate) fn edition() -> u64 {
    ON.load(Ordering::Relaxed)
}

/// Begins an edition with so many pages. False: an edition is being written already.
pub(crate) fn start(pages: usize) -> bool {
    static EDITIONS: AtomicU64 = AtomicU64::new(0);
    let mut current = BOOK.lock();
    if current.is_some() {
        return false;
    }
    ticks::prepare();
    let number = EDITIONS.fetch_add(1, Ordering::Relaxed) + 1;
    *current = Some(Edition {
        number,
        book: Book::new(pages, PAGE),
        since: Moment::now(),
    });
    ON.store(number, Ordering::Relaxed);
    true
}

/// Ends the edition, and reads what was written. `None`: no edition was being written.
pub(crate) fn stop() -> Option<Copy> {
    let closed = {
        let mut current = BOOK.lock();
        ON.store(0, Ordering::Relaxed);
        current.take()?
    };
    // Pens that have not noticed the end may still write on their pages.
    let pages = (0..closed.book.len()).filter_map(|page| closed.book.page(page));
    Some(Copy {
        pages: pages.map(|(page, head)| (head, page.read())).collect(),
        since: closed.since,
        now: Moment::now(),
        lost: lost(&closed.book),
    })
}

/// Reads what was written until now. `None`: the recorder is off.
pub(crate) fn read() -> Option<Copy> {
    let (count, number, since) = {
        let current = BOOK.lock();
        let edition = current.as_ref()?;
        (edition.book.len(), edition.number, edition.since)
    };
    let mut copy = Copy {
        pages: Vec::new(),
        since,
        now: since,
        lost: 0,
    };
    for page in 0..count {
        let found = {
            let current = BOOK.lock();
            let Some(edition) = current.as_ref().filter(|edition| edition.number == number) else {
                break;
            };
            copy.lost = lost(&edition.book);
            edition.book.page(page)
        };
        // A page is copied without the lock, and one at a time, so pens go on with the other pages.
        if let Some((page, head)) = found {
            copy.pages.push((head, page.read()));
        }
    }
    copy.now = Moment::now();
    Some(copy)
}

fn lost(book: &Book<Head>) -> u64 {
    book.refused() * book::PAUSE as u64
}

/// Writes events with a pen, one behind the other. If there is no page for them, they are lost.
#[inline(always)]
pub(crate) fn write(pen: &mut Pen, edition: u64, events: &[Words], head: impl FnOnce() -> Head) {
    if !pen.put(edition, events) && !pen.pauses(edition) && next_page(pen, edition, head) {
        pen.put(edition, events);
    }
}

#[cold]
#[inline(never)]
fn next_page(pen: &mut Pen, edition: u64, head: impl FnOnce() -> Head) -> bool {
    let head = head();
    let mut current = BOOK.lock();
    match current.as_mut() {
        Some(current) if current.number == edition => {
            pen.next_page(edition, &mut current.book, head)
        }
        _ => false,
    }
}
