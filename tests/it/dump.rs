//! `dump` tells what every green thread does, for how long it has waited, and where.

use std::time::Duration;

use crate::support::{
    Flag, HOUR, LIMIT, MODES, MS, each_mode_on, runtime, wait_until, with_deadline,
};

#[test]
fn a_dump_tells_what_each_green_thread_does() {
    each_mode_on(1, |rt| {
        const CROWD: usize = 2000;
        let (inside, stop) = (Flag::default(), Flag::default());
        let crowd: Vec<_> = (0..CROWD).map(|_| rt.spawn(weald::park)).collect();
        let named = |name: &str| weald::Builder::new().name(name.to_string());
        let (sleeper, blocked) = rt.run(|| {
            let sleeper = named("sleeper").spawn(|| weald::sleep(HOUR)).unwrap();
            let (tells, until) = (inside.clone(), stop.clone());
            let blocked = named("blocked").spawn(move || {
                weald::park_timeout(MS);
                weald::blocking(|| {
                    tells.set();
                    until.wait();
                });
            });
            (sleeper, blocked.unwrap())
        });
        // A thread that starts now starts on another OS thread, so that it can go on in `Pinned` too.
        inside.wait();
        rt.run(|| {
            let doing = |name: &str| {
                let dump = weald::dump();
                let mut threads = dump.threads.iter();
                threads
                    .find(|t| t.name.as_deref() == Some(name))
                    .map(|t| t.doing)
            };
            wait_until(|| doing("sleeper") == Some(weald::Doing::Waits));
            wait_until(|| doing("blocked") == Some(weald::Doing::Blocks));
            let parks = |dump: &weald::Dump| {
                let threads = dump.threads.iter();
                threads.filter(|t| t.doing == weald::Doing::Parks).count()
            };
            wait_until(|| parks(&weald::dump()) == CROWD);
            let text = weald::dump().to_string();
            assert!(text.contains("1 waits for a time, "), "{text}");
            assert!(text.contains(" sleeper\n"), "{text}");
        });
        stop.set();
        sleeper.thread().kill();
        assert!(sleeper.join().is_err());
        blocked.join().unwrap();
        for thread in crowd {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_dump_shows_those_that_run_and_have_never_waited() {
    each_mode_on(2, |rt| {
        let (stop, calls) = (Flag::default(), Flag::default());
        let hog = |name: &str, body: fn(&Flag, &Flag)| {
            let (stop, calls) = (stop.clone(), calls.clone());
            let builder = weald::Builder::new().name(name.to_string());
            rt.run(|| builder.spawn(move || body(&stop, &calls)).unwrap())
        };
        let hogs = [
            hog("computes", |stop, _| stop.spin()),
            hog("blocks", |stop, calls| {
                weald::blocking(|| {
                    calls.set();
                    stop.spin();
                });
            }),
        ];
        calls.wait();
        let doing = |name: &str| {
            let dump = rt.run(weald::dump);
            let mut threads = dump.threads.iter();
            let found = threads.find(|t| t.name.as_deref() == Some(name));
            found.map(|t| t.doing)
        };
        for name in ["computes", "blocks"] {
            wait_until(|| doing(name) == Some(weald::Doing::Runs));
        }
        stop.set();
        for hog in hogs {
            hog.join().unwrap();
        }
        assert_eq!(doing("computes"), None);
    });
}

#[inline(never)]
fn outermost(go: &Flag) -> u32 {
    innermost(go) + 1
}

#[inline(never)]
fn innermost(go: &Flag) -> u32 {
    while !go.is_set() {
        weald::park_timeout(HOUR);
    }
    1
}

#[test]
fn a_trace_leads_from_the_blocking_call_to_the_closure() {
    each_mode_on(2, |rt| {
        let go = Flag::default();
        let inside = go.clone();
        let thread = rt.spawn(move || outermost(&inside));
        let trace = || {
            let dump = rt.run(weald::dump);
            let waits = dump.threads.iter().find(|thread| thread.waited.is_some());
            waits.map(|thread| thread.trace.clone())
        };
        wait_until(|| trace().is_some_and(|trace| !trace.is_empty()));
        let trace = trace().unwrap();
        let text = trace.to_string();
        let at = |name: &str| {
            text.find(name)
                .unwrap_or_else(|| panic!("no {name} in\n{text}"))
        };
        assert!(at("park_timeout") < at("innermost"), "{text}");
        assert!(at("innermost") < at("outermost"), "{text}");
        assert!(!text.contains("catch_unwind"), "{text}");
        assert!(trace.addresses().len() > 3);
        go.set();
        thread.thread().unpark();
        assert_eq!(thread.join().unwrap(), 2);
    });
}

#[test]
fn a_dump_tells_for_how_long_each_one_has_waited() {
    each_mode_on(1, |rt| {
        let sleeper = rt.spawn(|| weald::sleep(HOUR));
        let waited = || {
            let dump = rt.run(weald::dump);
            dump.threads.iter().find_map(|thread| thread.waited)
        };
        wait_until(|| waited().is_some_and(|waited| waited >= 20 * MS));
        assert!(waited().unwrap() < Duration::from_secs(3000));
        sleeper.thread().kill();
        assert!(sleeper.join().is_err());
    });
}

#[test]
fn traces_are_taken_while_their_threads_run_and_end() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            let done = Flag::default();
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let done = done.clone();
                    weald::spawn(move || {
                        while !done.is_set() {
                            weald::spawn(|| {
                                outermost(&{
                                    let go = Flag::default();
                                    go.set();
                                    go
                                })
                            })
                            .join()
                            .unwrap();
                            weald::park_timeout(MS);
                        }
                    })
                })
                .collect();
            let mut whole = 0;
            while whole < 500 {
                let dump = weald::dump();
                let traces = dump
                    .threads
                    .iter()
                    .filter(|thread| !thread.trace.is_empty());
                whole += traces.count();
                weald::yield_now();
            }
            done.set();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    });
}

#[test]
fn two_dumps_tell_what_came_and_what_stayed() {
    each_mode_on(2, |rt| {
        let park = |count: usize| -> Vec<_> { (0..count).map(|_| rt.spawn(weald::park)).collect() };
        let parked = |count: usize| {
            loop {
                let dump = rt.dump();
                let parks = dump
                    .threads
                    .iter()
                    .filter(|it| it.doing == weald::Doing::Parks);
                if dump.threads.len() == count && parks.count() == count {
                    return dump;
                }
                weald::yield_now();
            }
        };
        let (old, mut gone) = (park(10), park(3));
        let earlier = parked(13);
        for thread in &gone {
            thread.thread().unpark();
        }
        gone.drain(..).for_each(|thread| thread.join().unwrap());
        let new = park(5);
        let changes = parked(15).since(&earlier);
        let ids = |dump: &weald::Dump| {
            let mut ids: Vec<_> = dump.threads.iter().map(|t| format!("{:?}", t.id)).collect();
            ids.sort_unstable();
            ids
        };
        let of = |threads: &[weald::JoinHandle<()>]| {
            let ids = threads.iter().map(|t| format!("{:?}", t.thread().id()));
            let mut ids: Vec<_> = ids.collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&changes.came), of(&new));
        assert_eq!(ids(&changes.stayed), of(&old));
        assert_eq!((changes.ended, changes.moved), (3, 0));
        let text = changes.to_string();
        assert!(
            text.contains("5 green threads came, 10 stayed where they were"),
            "{text}"
        );
        assert!(text.contains("CAME:\n5 park"), "{text}");
        assert!(text.contains("STAYED:\n10 park"), "{text}");
        for thread in old.into_iter().chain(new) {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

/// Leaves a number of different traces.
#[inline(never)]
fn deep(depth: usize) {
    if depth == 0 {
        weald::park();
    } else {
        deep(depth - 1);
        std::hint::black_box(depth);
    }
}

#[test]
fn the_text_of_a_dump_is_short_however_many_threads_and_places_there_are() {
    with_deadline(LIMIT, || {
        const COUNT: usize = 600;
        let rt = runtime(2, MODES[0]);
        let threads: Vec<_> = (0..COUNT)
            .map(|index| rt.spawn(move || deep(index % 50)))
            .collect();
        wait_until(|| rt.dump().metrics.parked == COUNT);
        let dump = rt.dump();
        let text = dump.to_string();
        assert!(text.lines().count() < 200, "{text}");
        let all = format!("{dump:#}");
        for thread in &dump.threads {
            let number = format!("{:?}", thread.id);
            let number = number
                .trim_start_matches("GreenThreadId(")
                .trim_end_matches(')');
            assert!(all.contains(&format!("#{number}")), "{all}");
        }
        for thread in threads {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn who_blocks_an_os_thread_says_so() {
    each_mode_on(2, |rt| {
        let (reader, writer) = std::io::pipe().unwrap();
        let builder = weald::Builder::new().name("blocks".to_string());
        let blocked = rt.run(|| {
            builder.spawn(move || {
                let mut reader = reader;
                std::io::Read::read(&mut reader, &mut [0]).unwrap()
            })
        });
        let blocked = blocked.unwrap();
        wait_until(|| {
            let dump = rt.dump();
            let mut threads = dump.threads.iter();
            threads.any(|t| t.name.as_deref() == Some("blocks") && t.doing == weald::Doing::Blocks)
        });
        drop(writer);
        assert_eq!(blocked.join().unwrap(), 0);
    });
}
