//! The outputs in `docs/hangs.md` are those of programs: each is made here, and compared line by line.
//!
//! Numbers, addresses and times differ, and the calls of each thread: a reader's program has others.

use std::sync::Arc;

use weald::sync::channel::unbounded;
use weald::sync::{Barrier, Mutex};

use super::{Steps, lock, stuck};

const CHAPTER: &str = include_str!("../../../docs/hangs.md");

/// The line with each number as `N`, without units of time; `None`: it tells a call.
fn pattern(line: &str) -> Option<String> {
    if line.starts_with("    ") {
        return None;
    }
    let mut pattern = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_digit() {
            let hex = rest.strip_prefix("0x");
            let is_part = |c: char| match hex {
                Some(_) => c.is_ascii_hexdigit() || c == 'x',
                None => c.is_ascii_digit() || c == '.',
            };
            rest = rest.trim_start_matches(is_part);
            for unit in ["ms", "µs", "ns", "s"] {
                let after = rest.strip_prefix(unit);
                if let Some(after) = after.filter(|after| !after.starts_with(char::is_alphabetic)) {
                    rest = after;
                    break;
                }
            }
            pattern.push('N');
        } else {
            pattern.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    // All may have waited for the same time.
    Some(pattern.replace("N to N", "N"))
}

/// Each line of the output is in the chapter.
fn check_shown(output: &str) {
    let shown: Vec<String> = CHAPTER.lines().filter_map(pattern).collect();
    for line in output.lines().filter_map(pattern) {
        assert!(
            shown.contains(&line),
            "not in docs/hangs.md: {line}\n{output}"
        );
    }
}

#[test]
fn the_chapter_shows_a_deadlock_as_it_is() {
    stuck(|crew| {
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let both = Arc::new(Barrier::new(2));
        for (name, first, second) in [("lease", 0, 1), ("table", 1, 0)] {
            let (locks, both) = (locks.clone(), both.clone());
            crew.start(name, move || {
                let _first = lock(&locks[first]);
                both.wait();
                drop(lock(&locks[second]));
            });
        }
        let text = crew.deadlock(true, &["lease", "table"]).to_string();
        // The circle may begin with either.
        let swapped = text
            .replace("lease", "?")
            .replace("table", "lease")
            .replace('?', "table");
        let is_as_shown = text.find("lease") < text.find("table");
        check_shown(if is_as_shown { &text } else { &swapped });
    });
}

#[test]
fn the_chapter_shows_groups_as_they_are() {
    stuck(|crew| {
        let remote = Arc::new(Mutex::new(()));
        let (inner, steps) = (remote.clone(), Steps::default());
        let told = steps.clone();
        crew.start("owner", move || {
            let _remote = lock(&inner);
            told.done(0);
            weald::park();
        });
        for name in ["first", "second"] {
            let (inner, steps) = (remote.clone(), steps.clone());
            crew.start(name, move || {
                steps.wait(0);
                drop(lock(&inner));
            });
            crew.waits_for_lock_of(name, weald::Awaited::Mutex, "owner");
        }
        let (sender, receiver) = unbounded::<u32>();
        for _ in 0..200 {
            let receiver = receiver.clone();
            crew.start("worker", move || {
                let _ = receiver.recv();
            });
        }
        let dump = crew.until("203 that wait", |dump| {
            let text = dump.to_string();
            text.contains("200 wait for a message") && text.contains("2 wait for a mutex")
        });
        check_shown(&dump.to_string());
        drop(sender);
    });
}

#[test]
fn the_chapter_shows_changes_as_they_are() {
    stuck(|crew| {
        // By what the dump says of each: the counters are read later.
        let parks = |dump: &weald::Dump| {
            dump.threads
                .iter()
                .filter(|it| it.doing == weald::Doing::Parks)
                .count()
        };
        let parked = |count: usize| {
            let all_park = |dump: &weald::Dump| dump.threads.len() == count && parks(dump) == count;
            crew.until("parked", |dump| {
                all_park(dump) && dump.metrics.parked == count
            })
        };
        let start = |count: usize| {
            (0..count)
                .map(|_| crew.rt.spawn(weald::park))
                .collect::<Vec<_>>()
        };
        let (old, gone) = (start(10), start(3));
        let earlier = parked(13);
        for thread in gone {
            thread.thread().unpark();
            thread.join().unwrap();
        }
        let new = start(5);
        let changes = parked(15).since(&earlier);
        check_shown(&changes.to_string());
        crew.threads.borrow_mut().extend(old.into_iter().chain(new));
    });
}
