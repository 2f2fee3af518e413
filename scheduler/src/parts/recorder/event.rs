//! An event in three words:
//!
//! ```text
//!          63     59 58        48 47                                  0
//!          +--------------------------------------------------------+
//! word 0   | ticks (ticks.rs)                                       |
//!          +--------+------------+----------------------------------+
//! word 1   | kind   | worker + 1 | number of the thread             |
//!          +--------+------------+----------------------------------+
//! word 2   | more, depending on the kind                            |
//!          +--------------------------------------------------------+
//! ```
//!
//! The text of an event follows it on the same page, in pieces of 16 bytes. Words 0 and 2 of a piece have the bytes, and
//! word 1 has the kind `Text` and the number of bytes.

use super::book::Words;

/// What an event says. The comments also say what word 2 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A piece of a text.
    Text,
    /// A thread was made. Word 2: the number of its maker, or 0. Its name may follow.
    Spawn,
    /// Where the thread was spawned. Word 2: the address of a `Location` of the program.
    Site,
    /// The thread begins to run, or goes on.
    Run,
    /// The thread gives way.
    Yield,
    /// The thread leaves its stack, or blocks its OS thread, to wait. Word 2: an `On`.
    Park,
    /// The thread's wait has ended. Word 2: the number of its waker, or 0, with the reason above it ([`waker`]).
    Wake,
    /// The thread has ended. Its name may follow.
    End,
    /// A thread of another worker was taken. Word 2: the number of that worker.
    Steal,
    /// The worker has looked at its poller. Word 2: the number of events.
    Poll,
    /// The worker goes to sleep.
    Sleep,
    /// The worker has woken up.
    Awake,
    /// The worker was taken from a carrier. Word 2: runtime and carrier ([`carrier`]).
    HandOver,
    /// A thread does not come back. Word 2: for how many microseconds.
    Hog,
    /// An exception is raised in the thread.
    Exception,
    /// The thread has ended by a panic.
    Panic,
    /// A mark of the user's. Its label follows.
    Mark,
    /// A span of the user's begins. Its label follows.
    Begin,
    /// The span that has begun last in this thread ends.
    Finish,
}

const ALL: [Kind; 19] = [
    Kind::Text,
    Kind::Spawn,
    Kind::Site,
    Kind::Run,
    Kind::Yield,
    Kind::Park,
    Kind::Wake,
    Kind::End,
    Kind::Steal,
    Kind::Poll,
    Kind::Sleep,
    Kind::Awake,
    Kind::HandOver,
    Kind::Hog,
    Kind::Exception,
    Kind::Panic,
    Kind::Mark,
    Kind::Begin,
    Kind::Finish,
];

const KIND_SHIFT: u32 = 59;
const PLACE_SHIFT: u32 = 48;
const PLACE: u64 = 0x7ff;
const THREAD: u64 = (1 << PLACE_SHIFT) - 1;

/// How many pieces a text may have.
pub(crate) const PIECES: usize = 7;

/// How many bytes a piece has.
const PIECE: usize = 16;

/// How many bytes of a text are kept.
pub(crate) const LONGEST_TEXT: usize = PIECES * PIECE;

/// What word 1 has.
#[inline]
pub(crate) fn word(kind: Kind, worker: Option<usize>, thread: u64) -> u64 {
    let place = worker.map_or(0, |worker| worker as u64 + 1) & PLACE;
    (kind as u64) << KIND_SHIFT | place << PLACE_SHIFT | thread & THREAD
}

/// The parts of word 1.
pub(crate) fn parts(word: u64) -> Option<(Kind, Option<usize>, u64)> {
    let kind = ALL.get(usize::try_from(word >> KIND_SHIFT).ok()?)?;
    let place = usize::try_from(word >> PLACE_SHIFT & PLACE).ok()?;
    Some((*kind, place.checked_sub(1), word & THREAD))
}

/// A waker's number and the reason of a wake-up in one word.
#[inline]
pub(crate) fn waker(thread: u64, why: u16) -> u64 {
    u64::from(why) << PLACE_SHIFT | thread & THREAD
}

/// The parts of that.
pub(crate) fn waker_parts(word: u64) -> (u64, u16) {
    (word & THREAD, (word >> PLACE_SHIFT) as u16)
}

/// A runtime's number and a carrier's in one word.
pub(crate) fn carrier(runtime: u32, carrier: usize) -> u64 {
    u64::from(runtime) << 32 | (carrier as u64 & 0xffff_ffff)
}

/// The parts of that.
pub(crate) fn carrier_parts(word: u64) -> (u32, usize) {
    ((word >> 32) as u32, (word & 0xffff_ffff) as usize)
}

/// As much of a text as is kept: a prefix that is whole characters.
pub(crate) fn kept(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Puts a text behind an event. Returns how many events that are.
#[inline]
pub(crate) fn with_text(events: &mut [Words; PIECES + 1], first: Words, text: &str) -> usize {
    events[0] = first;
    let mut count = 1;
    for piece in kept(text).as_bytes().chunks(PIECE) {
        let mut bytes = [0; PIECE];
        bytes[..piece.len()].copy_from_slice(piece);
        let [mut low, mut high] = [[0; 8]; 2];
        low.copy_from_slice(&bytes[..8]);
        high.copy_from_slice(&bytes[8..]);
        let head = word(Kind::Text, None, piece.len() as u64);
        events[count] = [u64::from_le_bytes(low), head, u64::from_le_bytes(high)];
        count += 1;
    }
    count
}

/// The text that begins with these events, and how many they are.
pub(crate) fn text(events: &[Words]) -> (String, usize) {
    let (mut bytes, mut count) = (Vec::new(), 0);
    for &[low, head, high] in events {
        let Some((Kind::Text, _, length)) = parts(head) else {
            break;
        };
        let piece = [low.to_le_bytes(), high.to_le_bytes()].concat();
        let length = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
        bytes.extend_from_slice(&piece[..length]);
        count += 1;
    }
    (String::from_utf8_lossy(&bytes).into_owned(), count)
}

#[cfg(test)]
mod tests {
    use super::{ALL, Kind, LONGEST_TEXT, PIECES, kept, parts, text, with_text, word};

    #[test]
    fn the_parts_of_an_event_come_back() {
        for kind in ALL {
            for worker in [None, Some(0), Some(1023)] {
                for thread in [0, 1, (1 << 48) - 1] {
                    assert_eq!(
                        parts(word(kind, worker, thread)),
                        Some((kind, worker, thread))
                    );
                }
            }
        }
        assert_eq!(parts(u64::MAX), None);
    }

    #[test]
    fn a_text_comes_back_as_far_as_it_is_kept() {
        let long = "ä".repeat(LONGEST_TEXT);
        let cut = format!("a{}", "ä".repeat(LONGEST_TEXT));
        for label in [
            "",
            "a",
            "exactly 16 bytes",
            "one byte more ...",
            &long,
            &cut,
        ] {
            let mut events = [[0; 3]; PIECES + 1];
            let first = [1, word(Kind::Mark, None, 0), 0];
            let count = with_text(&mut events, first, label);
            assert_eq!(events[0], first);
            let (read, pieces) = text(&events[1..count]);
            assert_eq!((read.as_str(), pieces), (kept(label), count - 1));
            assert!(label.starts_with(&read) && label.len() - read.len() < label.len().max(1));
        }
    }
}
