//! Blocking bugs that large Go programs had (the kernels of GoKer, in Go's tree, describe them), told anew in our own words. Each
//! leaves green threads that wait for ever, and `dump` names them: the right threads, and the right lock or channel.
//!
//! A kernel that goes wrong only sometimes is told in the order in which it does: threads wait for each other's steps.

mod channels;
mod circles;
mod locks;
mod signals;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald::sync::{Event, Mutex, MutexGuard, PoisonError};
use weald::{Awaited, Builder, Dump, GreenThread, JoinHandle, Runtime, WaitsFor};

use crate::support::{MS, each_mode_on};

/// The threads of a kernel. They are killed when it has been looked at.
struct Crew<'a> {
    rt: &'a Runtime,
    threads: RefCell<Vec<JoinHandle<()>>>,
}

/// Runs a kernel in each mode.
fn stuck(kernel: impl Fn(&Crew<'_>) + Sync) {
    each_mode_on(2, |rt| {
        let crew = Crew {
            rt,
            threads: RefCell::default(),
        };
        kernel(&crew);
        let threads = crew.threads.take();
        for thread in &threads {
            thread.thread().kill();
        }
        for thread in threads {
            // Killed, or it had ended before.
            let _ = thread.join();
        }
    });
}

impl Crew<'_> {
    fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) -> GreenThread {
        let handle = self.hand(name, body);
        let thread = handle.thread().clone();
        self.threads.borrow_mut().push(handle);
        thread
    }

    /// As `start`, for who wants the handle.
    fn hand<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let builder = Builder::new().name(name.to_owned());
        self.rt.run(|| builder.spawn(body)).unwrap()
    }

    /// Waits until the dump is as it must be.
    fn until(&self, what: &str, is_so: impl Fn(&Dump) -> bool) -> Dump {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let dump = self.rt.dump();
            if is_so(&dump) {
                return dump;
            }
            assert!(Instant::now() < end, "not {what}:\n{dump:#}");
            std::thread::sleep(MS);
        }
    }

    /// Waits until these threads, and no others, are told to wait for each other for ever.
    fn deadlock(&self, is_certain: bool, names: &[&str]) -> Dump {
        let mut names = names.to_vec();
        names.sort_unstable();
        let dump = self.until(&format!("a deadlock of {names:?}"), |dump| {
            dump.deadlocks.iter().any(|deadlock| {
                let members = deadlock.threads.iter().map(|&id| {
                    let mut threads = dump.threads.iter();
                    threads
                        .find(|thread| thread.id == id)
                        .and_then(|thread| thread.name.as_deref())
                        .unwrap_or("?")
                });
                let mut members: Vec<&str> = members.collect();
                members.sort_unstable();
                members == names && deadlock.is_certain == is_certain
            })
        });
        let text = dump.to_string();
        let heading = if is_certain {
            "DEADLOCK: "
        } else {
            "LIKELY DEADLOCK"
        };
        assert!(text.contains(heading), "{text}");
        for name in names {
            assert!(text.contains(&format!(" {name} waits for ")), "{text}");
        }
        dump
    }

    /// Waits until that thread waits for something of that kind, as `is_so` says.
    fn waits(
        &self,
        name: &str,
        what: Awaited,
        is_so: impl Fn(&Dump, &WaitsFor) -> bool,
    ) -> WaitsFor {
        let dump = self.until(&format!("{name} waiting for {what}"), |dump| {
            waits_for(dump, name).is_some_and(|waits| waits.what == what && is_so(dump, waits))
        });
        waits_for(&dump, name).unwrap().clone()
    }

    /// As `waits`, for a lock that somebody has.
    fn waits_for_lock_of(&self, name: &str, what: Awaited, holder: &str) -> WaitsFor {
        self.waits(name, what, |dump, waits| {
            waits.holder.is_some() && waits.holder == id_of(dump, holder)
        })
    }
}

fn waits_for<'a>(dump: &'a Dump, name: &str) -> Option<&'a WaitsFor> {
    let mut threads = dump.threads.iter();
    threads
        .find(|thread| thread.name.as_deref() == Some(name))
        .and_then(|thread| thread.waits_for.as_ref())
}

fn id_of(dump: &Dump, name: &str) -> Option<weald::GreenThreadId> {
    let mut threads = dump.threads.iter();
    threads
        .find(|thread| thread.name.as_deref() == Some(name))
        .map(|thread| thread.id)
}

/// The address is within that lock.
fn is_in<T>(waits: &WaitsFor, object: &T) -> bool {
    let start = std::ptr::from_ref(object).addr();
    (start..start + size_of::<T>()).contains(&waits.address)
}

/// Takes a lock, whoever unwound with it before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps that threads wait for.
#[derive(Clone, Default)]
struct Steps(Arc<[Event; 3]>);

impl Steps {
    fn done(&self, step: usize) {
        self.0[step].set();
    }

    fn wait(&self, step: usize) {
        self.0[step].wait();
    }
}
