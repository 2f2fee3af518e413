//! Blocking bugs of large Go programs, written anew. The kernels of GoKer, in Go's tree, describe the bugs. Each bug
//! leaves green threads that wait for ever. `dump` must name the right threads, and the right lock or channel.
//!
//! Some kernels go wrong only in one order of steps. Their threads wait for each other's steps, so that this order
//! happens.

mod channels;
mod chapter;
mod circles;
mod locks;
mod signals;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald::sync::{Event, Mutex, MutexGuard, PoisonError};
use weald::{Awaited, Builder, Dump, GreenThread, JoinHandle, Runtime, WaitsFor};

use crate::support::{MS, each_mode_on};

/// The threads of a kernel. They are killed after the test has looked at the dump.
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
            // The thread was killed, or had ended before.
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

    /// Does what `start` does, and returns the handle.
    fn hand<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let builder = Builder::new().name(name.to_owned());
        self.rt.run(|| builder.spawn(body)).unwrap()
    }

    /// Waits until the dump is as `is_so` asks.
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

    /// Waits until the dump shows a deadlock of exactly these threads.
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

    /// Waits until the dump shows that the thread waits for something of that kind, and `is_so` returns true.
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

    /// Does what `waits` does, for a lock that has a holder.
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

/// Tells if the address is within the lock.
fn is_in<T>(waits: &WaitsFor, object: &T) -> bool {
    let start = std::ptr::from_ref(object).addr();
    (start..start + size_of::<T>()).contains(&waits.address)
}

/// Takes a lock, even if it is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps of a kernel. Threads wait for them.
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
