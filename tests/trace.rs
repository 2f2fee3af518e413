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

/// So long that a thread which is to sleep so long does sleep, on a busy machine, too.
const LONG: Duration = Duration::from_millis(100);

/// A thread has left its stack to wait.
fn waits(thread: GreenThreadId) -> bool {
    let dump = weald::dump();
    let mut threads = dump.threads.iter();
    threads
        .any(|it| it.id == thread && matches!(it.doing, weald::Doing::Waits | weald::Doing::Parks))
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
            // On a busy machine it may run without a worker.
            assert!(event.os_thread.is_some());
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
                let id = receiver.thread().id();
                support::wait_until(|| waits(id));
                let sender = weald::spawn(move || send.send(1));
                let sleeper = weald::spawn(|| weald::sleep(LONG));
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
            support::wait_until(|| trace::snapshot().events().len() > 500);
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
                .spawn(|| weald::sleep(LONG))
                .unwrap();
            let fails = weald::spawn(|| panic!("on purpose"));
            let killed = weald::spawn(weald::park);
            support::wait_until(|| waits(killed.thread().id()));
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

#[test]
fn a_variable_has_traces_written_at_sigquit_and_at_the_first_panic() {
    let file = std::env::temp_dir().join(format!("weald-trace-{}", std::process::id()));
    let name = "a_variable_has_traces_written_at_sigquit_and_at_the_first_panic";
    let written = || {
        support::wait_until(|| file.exists());
        perfetto::check(&std::fs::read(&file).unwrap());
        std::fs::remove_file(&file).unwrap();
    };
    let child = support::in_child(name, &[("WEALD_TRACE", file.to_str().unwrap())], || {
        let file = std::env::var_os("WEALD_TRACE").unwrap();
        let file = std::path::Path::new(&file);
        let rt = Runtime::builder().workers(1).build().unwrap();
        rt.run(|| {
            assert!(trace::is_on());
            assert!(
                weald::spawn(|| panic!("on purpose"))
                    .join()
                    .map(|(): ()| ())
                    .is_err()
            );
            assert!(file.exists(), "it is there when the panic has been told");
            std::fs::remove_file(file).unwrap();
            assert!(
                weald::spawn(|| panic!("once more"))
                    .join()
                    .map(|(): ()| ())
                    .is_err()
            );
            assert!(!file.exists());
            // SAFETY: the signal has a handler.
            assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGQUIT) }, 0);
            support::wait_until(|| file.exists());
        });
    });
    assert!(child.success, "{}", child.stderr);
    assert!(child.stderr.contains("a trace with "), "{}", child.stderr);
    written();
}

#[test]
fn a_worker_counts_what_it_does_and_how_long_threads_waited_for_it() {
    each_mode_on(1, |rt| {
        let before = rt.worker_metrics().remove(0);
        rt.run(|| {
            let threads: Vec<_> = (0..500)
                .map(|_| {
                    weald::spawn(|| {
                        weald::park();
                        weald::yield_now();
                    })
                })
                .collect();
            weald::yield_now();
            for thread in threads {
                thread.thread().unpark();
                thread.join().unwrap();
            }
        });
        let after = rt.worker_metrics().remove(0);
        assert_eq!(after.index, 0);
        // On a busy machine some may be counted elsewhere, because the spawner has lost its worker.
        assert!(after.spawned - before.spawned >= 250, "{after:?}");
        assert!(after.dispatches - before.dispatches >= 500, "{after:?}");
        assert!(after.busy > before.busy && after.busy > Duration::ZERO);
        for (latency, earlier) in [
            (&after.wake_latency, &before.wake_latency),
            (&after.start_latency, &before.start_latency),
        ] {
            // One of 64.
            let since = latency.since(earlier);
            assert!((1..=64).contains(&since.count()), "{since:?}");
            assert!(since.sum() > Duration::ZERO);
            let [half, all] = [0.5, 1.0].map(|part| since.quantile(part).unwrap());
            assert!(half <= all);
            let counts = since.buckets().map(|(_, count)| count);
            assert_eq!(counts.sum::<u64>(), since.count());
        }
    });
}

#[test]
fn a_worker_that_sleeps_is_not_busy() {
    let rt = Runtime::builder().workers(1).build().unwrap();
    rt.run(|| ());
    let busy = || rt.worker_metrics()[0].busy;
    // It sleeps when it has found nothing to do. From then on it is not busy any more.
    support::wait_until(|| {
        let before = busy();
        std::thread::sleep(5 * MS);
        busy() == before
    });
}

#[test]
fn latencies_are_merged_and_compared() {
    let none = weald::Latencies::default();
    assert_eq!((none.count(), none.quantile(0.5)), (0, None));
    assert_eq!(none.buckets().count(), 0);
    let rt = Runtime::builder().workers(1).build().unwrap();
    rt.run(|| (0..200).for_each(|_| weald::spawn(|| ()).join().unwrap()));
    let some = rt.worker_metrics().remove(0).start_latency;
    let mut both = none.clone();
    both.merge(&some);
    assert_eq!(both, some);
    both.merge(&some);
    assert_eq!(both.count(), 2 * some.count());
    assert_eq!(both.since(&some), some);
    let bounds: Vec<_> = some.buckets().map(|(bound, _)| bound).collect();
    assert!(bounds.is_sorted());
    assert_eq!(bounds.last(), Some(&Duration::MAX));
}
