//! Tests what moves with a stack from one OS thread to another: everything that a thread may keep in its
//! thread-locals or take out of them.
//!
//! The compiler keeps the address of a thread-local over a switch only when it optimises, so this test matters most
//! in release.

#![allow(
    unsafe_code,
    reason = "errno, and the mode that the test shows to be dangerous"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "../../it/support.rs"]
mod support;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use support::{LIMIT, in_child, own_runtime, with_deadline};
use weald::Runtime;
use weald::sync::channel::unbounded;

/// How many green threads there are. All of them share the OS threads of three workers.
const CROWD: u64 = 64;

/// How many messages are under way. A thread that gets a message sends it on, so the others wait.
const MESSAGES: u64 = 16;

/// How many migrations there must be. In debug builds there are fewer.
const MIGRATIONS: u64 = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static SHARED: Rc<Cell<u64>> = Rc::new(Cell::new(0));
    static RANDOM: RefCell<Random> = const { RefCell::new(Random(1)) };
}

/// A random generator: Marsaglia's xorshift.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The differences from a thread that never migrates.
#[derive(Default)]
struct Found {
    errno: AtomicU64,
    id: AtomicU64,
    count: AtomicU64,
    shared: AtomicU64,
    random: AtomicU64,
    migrations: AtomicU64,
}

impl Found {
    fn anomalies(&self) -> u64 {
        [
            &self.errno,
            &self.id,
            &self.count,
            &self.shared,
            &self.random,
        ]
        .iter()
        .map(|count| count.load(Relaxed))
        .sum()
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [errno, id, count] = [&self.errno, &self.id, &self.count].map(|n| n.load(Relaxed));
        let [shared, random, migrations] =
            [&self.shared, &self.random, &self.migrations].map(|n| n.load(Relaxed));
        write!(
            f,
            "{migrations} migrations; wrong: errno {errno}, id {id}, count {count}, Rc {shared}, random {random}"
        )
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

#[inline(never)]
fn set_errno(value: i32) {
    // SAFETY: the pointer is the running thread's own, and is used only in this call.
    unsafe { *libc::__errno_location() = value };
}

/// Returns the kernel's number of the OS thread.
fn os_thread() -> i32 {
    // SAFETY: the call has no preconditions.
    unsafe { libc::gettid() }
}

fn note(anomaly: &AtomicU64, holds: bool) {
    if !holds {
        anomaly.fetch_add(1, Relaxed);
    }
}

/// Sends messages on until there were enough migrations. Checks the thread-locals each time.
fn wander(number: u64, found: &Found, mut step: impl FnMut() -> bool) {
    let id = thread::current().id();
    let shared = SHARED.with(Rc::clone);
    let mut random = Random(number + 1);
    RANDOM.set(random.clone());
    let mut steps = 0;
    let mut here = os_thread();
    let mine = i32::try_from(number).unwrap() + 1000;
    loop {
        set_errno(mine);
        let more = step();
        // The calls may set it, but not to a value of another thread.
        let now = errno();
        note(&found.errno, now == mine || now < 1000);
        let now = os_thread();
        if now != here {
            found.migrations.fetch_add(1, Relaxed);
            here = now;
        }
        note(&found.id, thread::current().id() == id);
        steps += 1;
        COUNT.set(COUNT.get() + 1);
        note(&found.count, COUNT.get() == steps);
        let another = SHARED.with(Rc::clone);
        another.set(another.get() + 1);
        note(
            &found.shared,
            shared.get() == steps && Rc::strong_count(&shared) == 3,
        );
        let drawn = RANDOM.with_borrow_mut(Random::next);
        note(&found.random, drawn == random.next());
        let sizes = (0..4).map(|_| usize::try_from(random.next() % 2000).unwrap());
        let blocks: Vec<Vec<u8>> = sizes.map(|size| vec![1; size]).collect();
        assert!(blocks.iter().flatten().all(|&byte| byte == 1));
        for _ in 0..4 {
            RANDOM.with_borrow_mut(Random::next);
        }
        if !more {
            return;
        }
    }
}

fn stress(rt: &Runtime, migrations: u64) -> Arc<Found> {
    let found = Arc::new(Found::default());
    let (send, receive) = unbounded();
    for _ in 0..MESSAGES {
        send.send(true).unwrap();
    }
    let threads: Vec<_> = (0..CROWD)
        .map(|number| {
            let (found, send, receive) = (Arc::clone(&found), send.clone(), receive.clone());
            rt.spawn(move || {
                wander(number, &found, || {
                    let more =
                        receive.recv().unwrap() && found.migrations.load(Relaxed) < migrations;
                    if more && number.is_multiple_of(4) {
                        weald::yield_now();
                    }
                    send.send(more).unwrap();
                    more
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    found
}

#[test]
fn everything_of_a_threads_own_goes_with_a_green_thread_that_migrates() {
    with_deadline(LIMIT, || {
        let Some(rt) = own_runtime(3) else { return };
        let found = stress(&rt, MIGRATIONS);
        println!("{found:?}");
        assert!(found.migrations.load(Relaxed) >= MIGRATIONS, "{found:?}");
        assert_eq!(found.anomalies(), 0, "{found:?}");
    });
}

/// Shared thread-locals show the differences, so the test above can fail.
#[test]
fn with_shared_thread_locals_the_same_goes_wrong() {
    let child = in_child("with_shared_thread_locals_the_same_goes_wrong", &[], || {
        // SAFETY: there is no guarantee, and the test shows what follows. The process is the test's own.
        let rt = unsafe { Runtime::builder().workers(3).share_thread_locals() };
        let found = stress(&rt.build().unwrap(), 2000);
        println!("{found:?}");
        println!("anomalies: {}", found.anomalies());
    });
    // The process may die of the damage to its heap.
    let survived = child.stdout.contains("anomalies: ");
    assert!(!child.stdout.contains("anomalies: 0\n"), "{}", child.stdout);
    assert!(survived || !child.success, "{}", child.stderr);
}
