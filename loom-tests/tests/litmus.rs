//! Litmus programs: what the loom in use can see, and what it cannot.
//!
//! Each lists all outcomes that its few lines have, and fails if one is missing or another
//! appears. So the tool is checked before we rely on it: the published loom 0.7.3
//! fails the programs named `load_then_...` (see `loom-tests/README.md`). Where loom shows outcomes
//! that the language forbids, or hides outcomes that it allows, the list has loom's outcomes, and a
//! comment says so.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread;
use weald_loom_tests::{EXHAUSTIVE, Model, check_outcomes};

type Cells = (AtomicUsize, AtomicUsize);

fn litmus(name: &'static str) -> Model {
    Model::new(name, 2, &[]).bounded(EXHAUSTIVE)
}

/// At the bound of the run: the full search of four threads takes half a minute and shows no more.
fn four_threads(name: &'static str) -> Model {
    Model::new(name, 1000, &[])
}

/// Runs `left` beside `right` over two cells that are zero at first.
fn pair<L: 'static, R>(
    left: impl FnOnce(&Cells) -> L + 'static,
    right: impl FnOnce(&Cells) -> R,
) -> (L, R) {
    let cells = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let thread = thread::spawn({
        let cells = Arc::clone(&cells);
        move || left(&cells)
    });
    let right = right(&cells);
    (
        thread.join().expect("a litmus program does not panic"),
        right,
    )
}

fn store_then_load(
    ordering_store: Ordering,
    ordering_load: Ordering,
    fenced: bool,
) -> (usize, usize) {
    let side = move |mine: &AtomicUsize, other: &AtomicUsize| {
        mine.store(1, ordering_store);
        if fenced {
            fence(SeqCst);
        }
        other.load(ordering_load)
    };
    pair(move |(x, y)| side(x, y), move |(x, y)| side(y, x))
}

#[test]
fn store_buffering_relaxed() {
    check_outcomes(
        litmus("store_buffering_relaxed"),
        &[(0, 0), (0, 1), (1, 0), (1, 1)],
        || store_then_load(Relaxed, Relaxed, false),
    );
}

/// The pattern of every "I post, you sleep" handshake in weald: not both may miss the other.
#[test]
fn store_buffering_with_fences() {
    check_outcomes(
        litmus("store_buffering_with_fences"),
        &[(0, 1), (1, 0), (1, 1)],
        || store_then_load(Relaxed, Relaxed, true),
    );
}

/// A false alarm of loom: it takes `SeqCst` accesses for acquire and release ones, so it shows
/// (0, 0), which the language forbids. Hence the rule: fences or read-modify-writes only.
#[test]
fn store_buffering_with_seq_cst_accesses() {
    check_outcomes(
        litmus("store_buffering_with_seq_cst_accesses"),
        &[(0, 0), (0, 1), (1, 0), (1, 1)],
        || store_then_load(SeqCst, SeqCst, false),
    );
}

/// A read-modify-write reads the newest value, so it is the strong load that a handshake needs.
#[test]
fn store_buffering_with_read_modify_writes() {
    check_outcomes(
        litmus("store_buffering_with_read_modify_writes"),
        &[(0, 1), (1, 0), (1, 1)],
        || {
            let side = |mine: &AtomicUsize, other: &AtomicUsize| {
                mine.swap(1, SeqCst);
                other.fetch_add(0, SeqCst)
            };
            pair(move |(x, y)| side(x, y), move |(x, y)| side(y, x))
        },
    );
}

/// An exchange that fails is a load: it need not read the newest value, and is no side of a
/// handshake. Each side posts by a store and looks by an exchange that cannot succeed.
#[test]
fn store_buffering_with_failing_exchanges() {
    check_outcomes(
        litmus("store_buffering_with_failing_exchanges"),
        &[(0, 0), (0, 1), (1, 0), (1, 1)],
        || failing_exchanges(AcqRel, Acquire, false),
    );
}

/// A fence on both sides is what makes the failing exchange see the other's post.
#[test]
fn store_buffering_with_fences_and_failing_exchanges() {
    check_outcomes(
        litmus("store_buffering_with_fences_and_failing_exchanges"),
        &[(0, 1), (1, 0), (1, 1)],
        || failing_exchanges(Relaxed, Relaxed, true),
    );
}

/// `store_then_load`, where the load is an exchange of 2 for 3: the cell never holds 2.
fn failing_exchanges(success: Ordering, failure: Ordering, fenced: bool) -> (usize, usize) {
    let side = move |mine: &AtomicUsize, other: &AtomicUsize| {
        mine.store(1, Release);
        if fenced {
            fence(SeqCst);
        }
        other
            .compare_exchange(2, 3, success, failure)
            .expect_err("nobody stores 2")
    };
    pair(move |(x, y)| side(x, y), move |(x, y)| side(y, x))
}

/// Message passing, where the receiver looks by an exchange of 2 for 3: the flag never holds 2.
fn message_by_failing_exchange(failure: Ordering) -> (usize, usize) {
    pair(
        |(data, flag)| {
            data.store(1, Relaxed);
            flag.store(1, Release);
        },
        move |(data, flag)| {
            let flag = flag
                .compare_exchange(2, 3, AcqRel, failure)
                .expect_err("nobody stores 2");
            (flag, data.load(Relaxed))
        },
    )
    .1
}

#[test]
fn failing_exchange_acquire() {
    check_outcomes(
        litmus("failing_exchange_acquire"),
        &[(0, 0), (0, 1), (1, 1)],
        || message_by_failing_exchange(Acquire),
    );
}

/// The success ordering does not count where the exchange fails.
#[test]
fn failing_exchange_relaxed() {
    check_outcomes(
        litmus("failing_exchange_relaxed"),
        &[(0, 0), (0, 1), (1, 0), (1, 1)],
        || message_by_failing_exchange(Relaxed),
    );
}

/// An exchange that fails never reads what it would have accepted, nor something older than what
/// its thread has seen; one that succeeds reads the newest value.
#[test]
fn exchange_twice_against_two_stores() {
    check_outcomes(
        litmus("exchange_twice_against_two_stores"),
        &[
            (Ok(0), Err(5)),
            (Ok(0), Err(1)),
            (Ok(0), Err(2)),
            (Err(1), Err(1)),
            (Err(1), Err(2)),
            (Err(2), Err(2)),
        ],
        || {
            pair(
                |(x, _)| {
                    x.store(1, Relaxed);
                    x.store(2, Relaxed);
                },
                |(x, _)| {
                    let exchange = || x.compare_exchange(0, 5, Relaxed, Relaxed);
                    (exchange(), exchange())
                },
            )
            .1
        },
    );
}

fn message(publish: Ordering, receive: Ordering) -> (usize, usize) {
    pair(
        move |(data, flag)| {
            data.store(1, Relaxed);
            flag.store(1, publish);
        },
        move |(data, flag)| (flag.load(receive), data.load(Relaxed)),
    )
    .1
}

#[test]
fn message_passing_relaxed() {
    check_outcomes(
        litmus("message_passing_relaxed"),
        &[(0, 0), (0, 1), (1, 0), (1, 1)],
        || message(Relaxed, Relaxed),
    );
}

#[test]
fn message_passing_release_acquire() {
    check_outcomes(
        litmus("message_passing_release_acquire"),
        &[(0, 0), (0, 1), (1, 1)],
        || message(Release, Acquire),
    );
}

#[test]
fn message_passing_by_fences() {
    check_outcomes(
        litmus("message_passing_by_fences"),
        &[(0, 0), (0, 1), (1, 1)],
        || {
            pair(
                |(data, flag)| {
                    data.store(1, Relaxed);
                    fence(Release);
                    flag.store(1, Relaxed);
                },
                |(data, flag)| {
                    let flag = flag.load(Relaxed);
                    fence(Acquire);
                    (flag, data.load(Relaxed))
                },
            )
            .1
        },
    );
}

/// The hole of the published loom, in its smallest form: it never runs the exchange first.
#[test]
fn load_then_exchange_against_load() {
    check_outcomes(litmus("load_then_exchange_against_load"), &[0, 1], || {
        pair(
            |(x, _)| {
                let seen = x.load(Relaxed);
                let _ = x.compare_exchange(seen, 1, AcqRel, Relaxed);
            },
            |(x, _)| x.load(Relaxed),
        )
        .1
    });
}

#[test]
fn load_then_store_against_load() {
    check_outcomes(litmus("load_then_store_against_load"), &[0, 1], || {
        pair(
            |(x, _)| {
                x.load(Relaxed);
                x.store(1, Relaxed);
            },
            |(x, _)| x.load(Relaxed),
        )
        .1
    });
}

/// The hole in the shape that a scheduler has it: two claim a state word and one
/// wins; the loser learns it early, by its load, or late, by its exchange.
#[test]
fn load_then_exchange_twice() {
    check_outcomes(
        litmus("load_then_exchange_twice"),
        &[
            ("won", "early"),
            ("won", "late"),
            ("early", "won"),
            ("late", "won"),
        ],
        || {
            let claim = |x: &AtomicUsize, me: usize| {
                if x.load(Relaxed) != 0 {
                    "early"
                } else if x.compare_exchange(0, me, AcqRel, Relaxed).is_err() {
                    "late"
                } else {
                    "won"
                }
            };
            pair(move |(x, _)| claim(x, 1), move |(x, _)| claim(x, 2))
        },
    );
}

/// Nobody may be counted twice, at no ordering: each read-modify-write reads the newest value.
#[test]
fn read_modify_writes_read_the_newest() {
    check_outcomes(
        litmus("read_modify_writes_read_the_newest"),
        &[(0, 1), (1, 0)],
        || {
            pair(
                |(x, _)| x.fetch_add(1, Relaxed),
                |(x, _)| x.fetch_add(1, Relaxed),
            )
        },
    );
}

/// A blind spot of loom: it runs no load after a store that follows it in the program, so it
/// never shows (1, 1), which the language allows and some machines do.
#[test]
fn load_buffering_is_not_seen() {
    check_outcomes(
        litmus("load_buffering_is_not_seen"),
        &[(0, 0), (0, 1), (1, 0)],
        || {
            let side = |from: &AtomicUsize, to: &AtomicUsize| {
                let seen = from.load(Relaxed);
                to.store(1, Relaxed);
                seen
            };
            pair(move |(x, y)| side(x, y), move |(x, y)| side(y, x))
        },
    );
}

/// Two write, two read both in opposite order. Returns what the readers saw first and second.
fn independent_writes(fenced: bool) -> ((usize, usize), (usize, usize)) {
    let cells: Arc<Cells> = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let read = move |first: &AtomicUsize, second: &AtomicUsize| {
        let first = first.load(Acquire);
        if fenced {
            fence(SeqCst);
        }
        (first, second.load(Acquire))
    };
    let write_x = thread::spawn({
        let cells = Arc::clone(&cells);
        move || cells.0.store(1, Release)
    });
    let write_y = thread::spawn({
        let cells = Arc::clone(&cells);
        move || cells.1.store(1, Release)
    });
    let reader = thread::spawn({
        let cells = Arc::clone(&cells);
        move || read(&cells.0, &cells.1)
    });
    let mine = read(&cells.1, &cells.0);
    let its = reader.join().expect("a litmus program does not panic");
    for thread in [write_x, write_y] {
        thread.join().expect("a litmus program does not panic");
    }
    (its, mine)
}

const READINGS: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

#[test]
fn independent_reads_of_independent_writes() {
    let all: Vec<_> = READINGS
        .iter()
        .flat_map(|&its| READINGS.map(|mine| (its, mine)))
        .collect();
    check_outcomes(
        four_threads("independent_reads_of_independent_writes"),
        &all,
        || independent_writes(false),
    );
}

/// With fences the readers agree on which write was first.
#[test]
fn independent_reads_with_fences_agree() {
    let agreed: Vec<_> = READINGS
        .iter()
        .flat_map(|&its| READINGS.map(|mine| (its, mine)))
        .filter(|outcome| *outcome != ((1, 0), (1, 0)))
        .collect();
    check_outcomes(
        four_threads("independent_reads_with_fences_agree"),
        &agreed,
        || independent_writes(true),
    );
}
