//! Locks that no thread releases.

use std::sync::Arc;

use weald::Awaited;
use weald::sync::{LazyLock, Mutex, Once, OnceLock, PoisonError, RwLock};

use super::{Steps, is_in, lock, stuck};

/// As cockroach#584, etcd#10492, grpc#795 and moby#36114: a function takes the lock and calls a function that takes
/// the lock too.
#[test]
fn a_lock_that_its_owner_takes_again() {
    stuck(|crew| {
        let table = Arc::new(Mutex::new(0));
        let inner = table.clone();
        crew.start("gossip", move || {
            let _table = lock(&inner);
            *lock(&inner) += 1;
        });
        crew.deadlock(true, &["gossip"]);
        let waits = crew.waits_for_lock_of("gossip", Awaited::Mutex, "gossip");
        assert!(is_in(&waits, &*table));
    });
}

/// As cockroach#9935: an error path takes the lock once more to report the error.
#[test]
fn a_lock_that_a_callback_takes_again() {
    stuck(|crew| {
        let log = Arc::new(Mutex::new(Vec::new()));
        crew.start("writer", move || {
            let report = |line: &str| lock(&log).push(line.to_owned());
            let each = |f: &dyn Fn(&str)| {
                let _log = lock(&log);
                f("it failed");
            };
            each(&report);
        });
        crew.deadlock(true, &["writer"]);
    });
}

/// As etcd#5509, moby#7559 and moby#17176: on one path the function keeps the lock, and its thread ends.
#[test]
fn a_lock_that_was_not_let_go_at_a_return() {
    stuck(|crew| {
        let devices = Arc::new(Mutex::new(()));
        let inner = devices.clone();
        let removal = crew.hand("removal", move || std::mem::forget(lock(&inner)));
        removal.join().unwrap();
        let inner = devices.clone();
        crew.start("next", move || drop(lock(&inner)));
        let waits = crew.waits("next", Awaited::Mutex, |_, waits| waits.holder_is_gone);
        assert!(is_in(&waits, &*devices));
        assert!(crew.rt.dump().to_string().contains("which has ended"));
    });
}

/// As hugo#3251 and kubernetes#30872: the thread that has the lock waits for something else.
#[test]
fn a_lock_whose_owner_sleeps() {
    stuck(|crew| {
        let remote = Arc::new(Mutex::new(()));
        let (inner, steps) = (remote.clone(), Steps::default());
        let told = steps.clone();
        crew.start("owner", move || {
            let _remote = lock(&inner);
            told.done(0);
            weald::park();
        });
        let inner = remote.clone();
        for name in ["first", "second"] {
            let (inner, steps) = (inner.clone(), steps.clone());
            crew.start(name, move || {
                steps.wait(0);
                drop(lock(&inner));
            });
        }
        for name in ["first", "second"] {
            let waits = crew.waits_for_lock_of(name, Awaited::Mutex, "owner");
            assert!(is_in(&waits, &*remote));
        }
        let dump = crew.rt.dump();
        let text = dump.to_string();
        assert!(dump.deadlocks.is_empty(), "{text}");
        // Both are one group.
        assert!(text.contains("2 wait for a mutex ("), "{text}");
        assert!(text.contains("owner has"), "{text}");
    });
}

/// As cockroach#3710, kubernetes#58107 and kubernetes#62464: a reader reads once more, and in between a writer has
/// come.
#[test]
fn a_reader_that_reads_again_behind_a_writer() {
    stuck(|crew| {
        let state = Arc::new(RwLock::new(0));
        let steps = Steps::default();
        let (inner, told) = (state.clone(), steps.clone());
        crew.start("reader", move || {
            let first = inner.read().unwrap();
            told.done(0);
            told.wait(1);
            assert_eq!(*first, *inner.read().unwrap());
        });
        let inner = state.clone();
        let then = steps.clone();
        crew.start("writer", move || {
            then.wait(0);
            *inner.write().unwrap_or_else(PoisonError::into_inner) += 1;
        });
        let waits = crew.waits_for_lock_of("writer", Awaited::WriteLock, "reader");
        assert!(is_in(&waits, &*state));
        steps.done(1);
        crew.deadlock(false, &["reader", "writer"]);
    });
}

/// As etcd#6708: a reader wants to write, and waits for itself.
#[test]
fn a_reader_that_wants_to_write() {
    stuck(|crew| {
        let members = Arc::new(RwLock::new(0));
        crew.start("upgrade", move || {
            let seen = members.read().unwrap();
            *members.write().unwrap() = *seen + 1;
        });
        crew.deadlock(true, &["upgrade"]);
    });
}

/// Two readers want to write: each waits for the other one to stop reading.
#[test]
fn two_readers_that_want_to_write() {
    stuck(|crew| {
        let members = Arc::new(RwLock::new(0));
        let steps = Steps::default();
        for (name, mine, other) in [("one", 0, 1), ("two", 1, 0)] {
            let (members, steps) = (members.clone(), steps.clone());
            crew.start(name, move || {
                let seen = members.read().unwrap();
                steps.done(mine);
                steps.wait(other);
                *members.write().unwrap() = *seen + 1;
            });
        }
        for name in ["one", "two"] {
            crew.waits(name, Awaited::WriteLock, |_, waits| {
                waits.readers == 2 && is_in(waits, &*members)
            });
        }
    });
}

/// As cockroach#16167: a writer calls a function that reads.
#[test]
fn a_writer_that_reads() {
    stuck(|crew| {
        let settings = Arc::new(RwLock::new(0));
        crew.start("executor", move || {
            let _settings = settings.write().unwrap();
            drop(settings.read().unwrap());
        });
        crew.deadlock(true, &["executor"]);
        crew.waits_for_lock_of("executor", Awaited::ReadLock, "executor");
    });
}

/// As cockroach#6181: a writer keeps the lock, and many readers wait for it.
#[test]
fn many_readers_behind_a_writer_that_never_ends() {
    stuck(|crew| {
        let cache = Arc::new(RwLock::new(0));
        let (inner, steps) = (cache.clone(), Steps::default());
        let told = steps.clone();
        crew.start("writer", move || {
            let _cache = inner.write().unwrap();
            told.done(0);
            weald::sleep(std::time::Duration::MAX);
        });
        for _ in 0..20 {
            let (inner, steps) = (cache.clone(), steps.clone());
            crew.start("reader", move || {
                steps.wait(0);
                drop(inner.read());
            });
        }
        let dump = crew.until("20 readers that wait", |dump| {
            let text = dump.to_string();
            text.contains("20 wait for a read lock (") && text.contains("writer has")
        });
        assert!(dump.deadlocks.is_empty(), "{dump}");
    });
}

/// A `Once` whose function calls it again, as with Go's `sync.Once`.
#[test]
fn a_once_whose_closure_asks_for_it() {
    stuck(|crew| {
        let once = Arc::new(Once::new());
        crew.start("init", move || once.call_once(|| once.call_once(|| ())));
        crew.deadlock(true, &["init"]);
        crew.waits_for_lock_of("init", Awaited::Once, "init");
    });
}

/// Two threads make two lazy values, and each value needs the other one.
#[test]
fn two_values_that_need_each_other() {
    stuck(|crew| {
        let cells = Arc::new([OnceLock::new(), OnceLock::new()]);
        let steps = Steps::default();
        for (name, mine, other) in [("left", 0, 1), ("right", 1, 0)] {
            let (cells, steps) = (cells.clone(), steps.clone());
            crew.start(name, move || {
                cells[mine].get_or_init(|| {
                    steps.done(mine);
                    steps.wait(other);
                    cells[other].get_or_init(|| 0) + 1
                });
            });
        }
        crew.deadlock(true, &["left", "right"]);
    });
}

/// A thread holds a lock while it makes a lazy value, and the closure of the value needs the lock.
#[test]
fn a_lazy_value_that_needs_a_lock_of_who_waits_for_it() {
    stuck(|crew| {
        let registry = Arc::new(Mutex::new(0));
        let steps = Steps::default();
        let (inner, told) = (registry.clone(), steps.clone());
        let value = Arc::new(LazyLock::new(move || {
            told.done(0);
            told.wait(1);
            *lock(&inner)
        }));
        let lazy = value.clone();
        crew.start("maker", move || assert_eq!(**lazy, 0));
        crew.start("user", move || {
            steps.wait(0);
            let _registry = lock(&registry);
            steps.done(1);
            assert_eq!(**value, 0);
        });
        crew.deadlock(true, &["maker", "user"]);
    });
}
