//! The flight recorder: what it records in each mode, and what a trace of it looks like. A process of its own, because
//! the recorder is the process's and would record what other tests do.

#![allow(
    unsafe_code,
    reason = "share_thread_locals is unsafe to say, in `support`"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(clippy::similar_names, reason = "`trace` and `track` read well")]

#[path = "trace/perfetto.rs"]
mod perfetto;
#[path = "it/support.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weald::sync::channel;
use weald::trace::{self, Cause, Event, Options, Recording, What};
use weald::{Awaited, Builder, GreenThreadId, Runtime};

use self::support::{MS, each_mode, each_mode_on};

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Switches the recorder on, runs `body`, and returns what was recorded.
fn record<T>(body: impl FnOnce() -> T) -> (Recording, T) {
    trace::start(Options::new()).unwrap();
    let value = body();
    (trace::stop(), value)
}

/// What is recorded of one thread.
fn of(recording: &Recording, thread: GreenThreadId) -> Vec<&Event> {
    let events = recording.events().iter();
    events
        .filter(|event| event.thread == Some(thread))
        .collect()
}

/// What a thread has done, in short. Of wake-ups only those that count are there: a thread that is woken before it has
/// left its stack may or may not be told so.
fn story(recording: &Recording, thread: GreenThreadId) -> Vec<&'static str> {
    let short = |event: &&Event| match event.what {
        What::Spawn { .. } => Some("spawn"),
        What::Run => Some("run"),
        What::Yield => Some("yield"),
        What::Park { .. } => Some("park"),
        What::Wake { .. } => Some("wake"),
        What::End => Some("end"),
        What::Mark { .. } => Some("mark"),
        What::Begin { .. } => Some("begin"),
        What::Finish => Some("finish"),
        _ => None,
    };
    of(recording, thread).iter().filter_map(short).collect()
}

#[test]
fn the_life_of_a_thread_is_told_in_its_order() {
    let _alone = alone();
    each_mode(|rt| {
        let (recording, (main, child)) = record(|| {
            rt.run(|| {
                let child = weald::spawn(|| {
                    weald::park();
                    weald::yield_now();
                    trace::mark("done");
                });
                let id = child.thread().id();
                weald::yield_now();
                child.thread().unpark();
                child.join().unwrap();
                (weald::current().id(), id)
            })
        });
        assert_eq!(recording.lost(), 0);
        let told = story(&recording, child);
        // The token may be there before `park`, which then returns at once.
        let parked = told.contains(&"park");
        let mut expected = vec![
            "spawn", "run", "park", "wake", "run", "yield", "run", "mark", "end",
        ];
        if !parked {
            expected = vec!["spawn", "run", "yield", "run", "mark", "end"];
        }
        assert_eq!(told, expected);
        let spawn = &of(&recording, child)[0].what;
        let What::Spawn { by, site, .. } = spawn else {
            panic!("{spawn:?}")
        };
        assert_eq!(*by, Some(main));
        assert!(site.unwrap().file().ends_with("tests/trace.rs"));
        for event in of(&recording, child)
            .iter()
            .filter(|event| event.what == What::Run)
        {
            assert!(event.worker.is_some() && event.os_thread.is_some());
        }
    });
}

#[test]
fn a_wait_tells_for_what_and_a_wake_up_by_whom() {
    let _alone = alone();
    each_mode_on(1, |rt| {
        let (recording, [receiver, sender, sleeper]) = record(|| {
            rt.run(|| {
                let (send, receive) = channel::unbounded();
                let receiver = weald::spawn(move || receive.recv());
                weald::yield_now();
                let sender = weald::spawn(move || send.send(1));
                let sleeper = weald::spawn(|| weald::sleep(MS));
                let ids = [
                    &receiver.thread().id(),
                    &sender.thread().id(),
                    &sleeper.thread().id(),
                ];
                let ids = ids.map(|id| *id);
                receiver.join().unwrap().unwrap();
                sender.join().unwrap().unwrap();
                sleeper.join().unwrap();
                ids
            })
        });
        let wait = |thread: GreenThreadId| {
            let events = of(&recording, thread);
            let mut events = events.iter().map(|event| &event.what);
            let parked = events.find_map(|what| match what {
                What::Park { what, .. } => Some(*what),
                _ => None,
            });
            let woken = events.find_map(|what| match what {
                What::Wake { by, cause, .. } => Some((*by, *cause)),
                _ => None,
            });
            (parked.unwrap(), woken.unwrap())
        };
        assert_eq!(
            wait(receiver),
            (Awaited::Message, (Some(sender), Cause::Thread))
        );
        assert_eq!(wait(sleeper), (Awaited::Time, (None, Cause::Timer)));
    });
}

#[test]
fn names_marks_and_spans_are_there_and_long_ones_are_cut() {
    let _alone = alone();
    let long = "ä".repeat(100);
    each_mode_on(1, |rt| {
        let (recording, id) = record(|| {
            trace::mark("outside");
            rt.run(|| {
                let named = Builder::new().name(String::from("a thread with quite a long name"));
                let thread = named.spawn({
                    let long = long.clone();
                    move || {
                        let _outer = trace::span("outer");
                        weald::yield_now();
                        {
                            let _inner = trace::span("inner");
                            trace::mark(&long);
                            trace::mark("");
                        }
                    }
                });
                let thread = thread.unwrap();
                let id = thread.thread().id();
                thread.join().unwrap();
                id
            })
        });
        assert_eq!(recording.name(id), Some("a thread with quite a long name"));
        let label = |event: &Event| match &event.what {
            What::Mark { label, .. } | What::Begin { label, .. } => Some(label.to_string()),
            What::Finish => Some(String::from("-")),
            _ => None,
        };
        let told: Vec<_> = of(&recording, id).into_iter().filter_map(label).collect();
        assert_eq!(told, ["outer", "inner", &"ä".repeat(56), "", "-", "-"]);
        let outside = recording
            .events()
            .iter()
            .find(|event| event.thread.is_none() && label(event).is_some());
        assert_eq!(label(outside.unwrap()).unwrap(), "outside");
    });
}

#[test]
fn the_recorder_is_switched_while_threads_run() {
    let _alone = alone();
    each_mode_on(2, |rt| {
        let stop = support::Flag::default();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let stop = stop.clone();
                rt.spawn(move || {
                    while !stop.is_set() {
                        trace::mark("turn");
                        weald::yield_now();
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            // Little memory, so that pages are written anew while they are read.
            trace::start(Options::new().memory(64 << 10)).unwrap();
            let again = trace::start(Options::new()).unwrap_err();
            assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
            support::wait_until(|| trace::snapshot().events().len() > 1000);
            for _ in 0..5 {
                check_marks(&trace::snapshot());
            }
            check_marks(&trace::stop());
            assert!(trace::stop().is_empty() && trace::snapshot().is_empty());
        }
        stop.set();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Each event is whole: a mark has its label.
fn check_marks(recording: &Recording) {
    for event in recording.events() {
        if let What::Mark { label, .. } = &event.what {
            assert_eq!(&**label, "turn");
        }
    }
}

#[test]
fn memory_out_of_its_range_is_refused() {
    for memory in [0, (64 << 10) - 1, (4 << 30) + 1] {
        let error = trace::start(Options::new().memory(memory)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&memory.to_string()), "{error}");
    }
}

#[test]
fn a_hog_and_the_hand_over_are_told() {
    let _alone = alone();
    let rt = Runtime::builder().workers(1).build().unwrap();
    let (recording, hog) = record(|| {
        rt.run(|| {
            let stop = support::Flag::default();
            let hog = weald::spawn({
                let stop = stop.clone();
                move || stop.spin()
            });
            let id = hog.thread().id();
            // It runs now; another one can only run when it has lost the worker.
            weald::yield_now();
            let told = |what: fn(&What) -> bool| {
                trace::snapshot()
                    .events()
                    .iter()
                    .any(|event| what(&event.what))
            };
            while !told(|what| matches!(what, What::Hog { .. })) {
                weald::sleep(MS);
            }
            stop.set();
            hog.join().unwrap();
            id
        })
    });
    let hogs = of(&recording, hog);
    let lasts = hogs.iter().find_map(|event| match event.what {
        What::Hog { lasts, .. } => Some(lasts),
        _ => None,
    });
    assert!(lasts.unwrap() >= Duration::from_millis(10));
    let handed_over = |event: &&Event| event.what == What::HandOver && event.worker == Some(0);
    assert!(recording.events().iter().any(|event| handed_over(&event)));
}

#[test]
fn a_thread_with_an_os_thread_for_itself_and_one_that_fails_are_told() {
    let _alone = alone();
    let rt = Runtime::builder().workers(1).build().unwrap();
    let (recording, [own, fails, killed]) = record(|| {
        rt.run(|| {
            let own = Builder::new()
                .own_thread(true)
                .spawn(|| weald::sleep(MS))
                .unwrap();
            let fails = weald::spawn(|| panic!("on purpose"));
            let killed = weald::spawn(weald::park);
            weald::yield_now();
            killed.thread().kill();
            let ids = [own.thread().id(), fails.thread().id(), killed.thread().id()];
            own.join().unwrap();
            let fails: Result<(), _> = fails.join();
            assert!(fails.is_err() && killed.join().is_err());
            ids
        })
    });
    let told = story(&recording, own);
    assert_eq!(told.first(), Some(&"spawn"));
    assert_eq!(told.last(), Some(&"end"));
    assert!(told.contains(&"park"), "{told:?}");
    let has = |thread, what: &What| {
        of(&recording, thread)
            .iter()
            .any(|event| event.what == *what)
    };
    assert!(has(fails, &What::Panic) && !has(fails, &What::Exception));
    assert!(has(killed, &What::Exception) && !has(killed, &What::Panic));
}
