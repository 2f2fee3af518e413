//! Models of `scheduler/src/parts/recorder/book.rs`: pens that write while somebody reads.
//!
//! Invariant 1: a reader sees whole events only, those of a page in their order and without a gap.
//! Invariant 2: a page that is read is not written anew meanwhile; loom reports a read and a write at once.
//! Invariant 3: no page is in two hands.
#![cfg(loom)]
#![allow(unsafe_code, reason = "what pages have is shared")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/recorder/book.rs"]
mod book;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod shim;

use weald_loom_tests::sync::{Arc, Mutex};
use weald_loom_tests::{Model, check, thread, witness};

use self::book::{Book, Pen, Words};

const EDITION: u64 = 1;

/// An event of a writer. Its parts show that they belong together.
fn event(writer: u64, number: u64) -> Words {
    [number, writer * 10 + number, writer]
}

/// As `recorder::write`.
fn write(book: &Mutex<Book<u64>>, pen: &mut Pen, writer: u64, number: u64) -> bool {
    let event = [event(writer, number)];
    if pen.put(EDITION, &event) {
        return true;
    }
    !pen.pauses(EDITION)
        && pen.next_page(EDITION, &mut book.lock().unwrap(), writer)
        && pen.put(EDITION, &event)
}

/// As `recorder::read`. Checks what each page tells, and returns how many events that were.
fn read(book: &Mutex<Book<u64>>) -> usize {
    let count = book.lock().unwrap().len();
    let mut seen = 0;
    for number in 0..count {
        let page = book.lock().unwrap().page(number);
        let Some((page, writer)) = page else { continue };
        let events = page.read();
        for (index, words) in events.iter().enumerate() {
            assert_eq!(*words, event(writer, words[0]), "it is whole");
            assert_eq!(words[0], events[0][0] + index as u64, "one after the other");
        }
        seen += events.len();
    }
    seen
}

#[test]
fn a_reader_sees_whole_events() {
    let witnesses = &["saw none", "saw some", "saw all"];
    check(
        Model::new("a_reader_sees_whole_events", 20, witnesses),
        || {
            let book = Arc::new(Mutex::new(Book::new(1, 2)));
            let writer = thread::spawn({
                let book = Arc::clone(&book);
                move || {
                    let mut pen = Pen::new();
                    assert!(write(&book, &mut pen, 1, 0));
                    assert!(write(&book, &mut pen, 1, 1));
                }
            });
            let seen = read(&book);
            witness!("saw none", seen == 0);
            witness!("saw some", seen == 1);
            witness!("saw all", seen == 2);
            writer.join().unwrap();
            assert_eq!(read(&book), 2);
        },
    );
}

#[test]
fn a_page_that_is_read_is_not_written_anew() {
    let witnesses = &["its page was read", "it wrote anew"];
    check(
        Model::new("a_page_that_is_read_is_not_written_anew", 20, witnesses),
        || {
            let book = Arc::new(Mutex::new(Book::new(1, 1)));
            let reader = thread::spawn({
                let book = Arc::clone(&book);
                move || read(&book)
            });
            let mut pen = Pen::new();
            assert!(write(&book, &mut pen, 1, 0));
            let wrote = write(&book, &mut pen, 1, 1);
            assert!(reader.join().unwrap() <= 1);
            witness!("its page was read", !wrote);
            witness!("it wrote anew", wrote);
            assert_eq!(read(&book), 1);
        },
    );
}

#[test]
fn a_page_is_in_one_hand() {
    let witnesses = &["mine", "the other's"];
    check(Model::new("a_page_is_in_one_hand", 4, witnesses), || {
        let book = Arc::new(Mutex::new(Book::new(1, 2)));
        let writer = thread::spawn({
            let book = Arc::clone(&book);
            move || {
                let mut pen = Pen::new();
                write(&book, &mut pen, 1, 0)
            }
        });
        let mut pen = Pen::new();
        let mine = write(&book, &mut pen, 2, 0);
        let others = writer.join().unwrap();
        witness!("mine", mine);
        witness!("the other's", others);
        assert_ne!(mine, others);
        assert_eq!(read(&book), 1);
        assert_eq!(book.lock().unwrap().refused(), 1);
    });
}
