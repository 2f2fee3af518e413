//! What `dump` and `on_deadlock` see of a runtime: its threads, what they wait for, and which threads can end the waits.
//!
//! No thread is stopped. The system reads the locks, as it reads stacks (`trace/mod.rs`, invariant 2). A lock is alive
//! while its waiter is parked in the same wait, and what was read counts only if the waiter still is afterwards.
//!
//! When is a circle certain? Each thread of it was parked, without a limit, when the marks in the locks were read,
//! and before and after that in the same wait. A thread's mark is in a lock only while it has the lock (`awaited.rs`).
//! So at that moment each thread had what the one before it waits for, and none can go on before the others do. Only a
//! kill by another thread can still end such a wait.

use std::collections::{HashMap, HashSet};

use super::circles;
use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::green::awaited::{Awaited, Mark, On};
use crate::green::green_thread::{Header, Task};
use crate::green::trace::Tracer;
use crate::parts::state::WaitKind;
use crate::shim::atomic::Ordering;

/// Parts of the state of an `RwLock`, as its own file has them (`sync/src/raw_rwlock.rs`).
const WRITER: u64 = 1;
const READERS: u64 = 0xffff_fffe;

/// What was read of an object that is waited for.
#[derive(Clone, Copy)]
struct Contents {
    mark: Mark,
    is_read: bool,
    count: usize,
}

/// A thread.
pub(super) struct Seen {
    pub(super) task: Task,
    pub(super) wait: Option<Wait>,
    /// The system's number of the OS thread that it runs on; zero if that is its own.
    pub(super) runs_on: Option<usize>,
}

/// The wait that a thread is parked in.
pub(super) struct Wait {
    pub(super) epoch: u32,
    pub(super) kind: WaitKind,
    pub(super) on: On,
    /// Who has what it waits for.
    pub(super) holder: Holder,
    /// What it waits for is an `RwLock` that has no writer; so `holder` reads.
    pub(super) is_read: bool,
    /// How many read a lock that it waits for; how many senders or receivers of a channel, or members of a group, may end the wait.
    pub(super) count: usize,
}

/// Who has a lock, or is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nothing is known of one.
    Unknown,
    /// This one of the snapshot.
    Thread(usize),
    /// A green thread that is not there: it has ended, or is one of another runtime.
    Gone,
}

pub(super) struct Snapshot {
    pub(super) threads: Vec<Seen>,
}

impl Snapshot {
    pub(super) fn take(inner: &Inner, tracer: &Tracer) -> Self {
        let mut snapshot = Self {
            threads: threads(inner),
        };
        let marks = snapshot.find_holders(tracer);
        snapshot.forget_those_who_came(inner, &marks);
        snapshot
    }

    /// The thread is still parked in the wait that was seen.
    pub(super) fn still_waits(&self, thread: usize) -> bool {
        let seen = &self.threads[thread];
        let epoch = seen.wait.as_ref().map(|wait| wait.epoch);
        epoch.is_some() && seen.task.state.parked_epoch() == epoch
    }

    /// Returns the marks of holders that are not in the snapshot, each with a thread that waits for it.
    fn find_holders(&mut self, tracer: &Tracer) -> Vec<(usize, Mark)> {
        let what = |seen: &Seen| {
            seen.wait
                .as_ref()
                .map_or(Awaited::Other, |wait| wait.on.what())
        };
        let any = |kinds: &[Awaited]| {
            let mut threads = self.threads.iter();
            threads.any(|seen| kinds.contains(&what(seen)))
        };
        let mut marks: HashMap<Mark, Holder> = HashMap::new();
        if any(&[
            Awaited::Mutex,
            Awaited::Once,
            Awaited::ReadLock,
            Awaited::WriteLock,
        ]) {
            for (index, seen) in self.threads.iter().enumerate() {
                // Two with the same mark: nothing is known.
                let thread = |_: &mut Holder| Holder::Unknown;
                marks
                    .entry(seen.task.mark())
                    .and_modify(|known| *known = thread(known))
                    .or_insert(Holder::Thread(index));
            }
        }
        let mut headers: HashMap<usize, usize> = HashMap::new();
        if any(&[Awaited::Join]) {
            let addresses = self.threads.iter().map(|seen| address_of(&seen.task));
            headers.extend(addresses.zip(0..));
        }
        let mut known: HashMap<(usize, Layout), Contents> = HashMap::new();
        let mut gone = Vec::new();
        for index in 0..self.threads.len() {
            let Some(wait) = &self.threads[index].wait else {
                continue;
            };
            let (on, epoch) = (wait.on, wait.epoch);
            if on.what() == Awaited::Join {
                let target = headers.get(&on.address()).copied();
                if let (Some(wait), Some(target)) = (&mut self.threads[index].wait, target) {
                    wait.holder = Holder::Thread(target);
                }
                continue;
            }
            let Some(layout) = Layout::of(on.what()) else {
                continue;
            };
            let key = (on.address(), layout);
            let state = &self.threads[index].task.state;
            let found = known.get(&key).copied().or_else(|| {
                let found = layout.read(tracer, on)?;
                (state.parked_epoch() == Some(epoch)).then_some(found)
            });
            let (Some(found), Some(wait)) = (found, &mut self.threads[index].wait) else {
                continue;
            };
            known.insert(key, found);
            wait.is_read = found.is_read;
            wait.count = found.count;
            if found.mark != Mark::NONE {
                wait.holder = marks.get(&found.mark).copied().unwrap_or(Holder::Gone);
                if wait.holder == Holder::Gone {
                    gone.push((index, found.mark));
                }
            }
        }
        gone
    }

    /// A thread that began after the snapshot may have taken a lock before its mark was read. It is there now.
    fn forget_those_who_came(&mut self, inner: &Inner, gone: &[(usize, Mark)]) {
        if gone.is_empty() {
            return;
        }
        let there: HashSet<Mark> = all(inner).iter().map(|task| task.mark()).collect();
        for (index, mark) in gone {
            if there.contains(mark)
                && let Some(wait) = &mut self.threads[*index].wait
            {
                wait.holder = Holder::Unknown;
            }
        }
    }

    /// Circles of threads that wait for each other for certain.
    pub(super) fn certain_circles(&self) -> Vec<Vec<usize>> {
        let waits_for: Vec<Option<usize>> = self
            .threads
            .iter()
            .map(|seen| match seen.wait.as_ref()? {
                wait if wait.on.is_limited() => None,
                // It waits for a writer that waits for the one who reads; but others can let it in.
                wait if wait.is_read && wait.on.what() == Awaited::ReadLock => None,
                Wait {
                    holder: Holder::Thread(holder),
                    ..
                } => Some(*holder),
                _ => None,
            })
            .collect();
        let mut circles = circles::of_one_each(&waits_for);
        circles.retain(|circle| circle.iter().all(|&thread| self.still_waits(thread)));
        circles
    }
}

/// What lies in an object that is waited for: see `awaited.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Layout {
    Lock,
    RwLock,
    Counted,
}

impl Layout {
    fn of(what: Awaited) -> Option<Self> {
        match what {
            Awaited::Mutex | Awaited::Once => Some(Self::Lock),
            Awaited::ReadLock | Awaited::WriteLock => Some(Self::RwLock),
            Awaited::Message | Awaited::Room | Awaited::WaitGroup => Some(Self::Counted),
            _ => None,
        }
    }

    fn read(self, tracer: &Tracer, on: On) -> Option<Contents> {
        let mut bytes = [0; 16];
        let (at, length) = match self {
            Self::Lock => (on.address(), 8),
            Self::RwLock => (on.address(), 12),
            Self::Counted => (on.count_at(), size_of::<usize>()),
        };
        if on.address() == 0 || !tracer.read(at, &mut bytes[..length]) {
            return None;
        }
        let mut read = Contents {
            mark: Mark::NONE,
            is_read: false,
            count: 0,
        };
        match self {
            Self::Lock | Self::RwLock => {
                let mark = bytes[length - 4..].first_chunk()?;
                read.mark = Mark::from_word(u32::from_ne_bytes(*mark));
            }
            Self::Counted => read.count = usize::from_ne_bytes(*bytes.first_chunk()?),
        }
        if self == Self::RwLock {
            let word = u64::from_ne_bytes(*bytes.first_chunk()?);
            read.is_read = word & WRITER == 0;
            read.count = usize::try_from((word & READERS) >> 1).ok()?;
        }
        Some(read)
    }
}

pub(super) fn address_of(task: &Task) -> usize {
    let header: *const Header = &raw const **task;
    header.addr()
}

/// All that have started. Those that run come first: a thread that leaves its stack for the first time after that look is
/// in the registry by the next.
fn all(inner: &Inner) -> Vec<Task> {
    let running: Vec<Task> = (inner.carriers.iter())
        .filter_map(Carrier::running_thread)
        .collect();
    let mut tasks = inner.registry.all();
    let known: HashSet<*const Header> = tasks.iter().map(|task| &raw const **task).collect();
    tasks.extend((running.into_iter()).filter(|task| !known.contains(&(&raw const **task))));
    tasks
}

/// All that have started and have not ended.
fn threads(inner: &Inner) -> Vec<Seen> {
    let running: HashMap<*const Header, usize> = inner
        .carriers
        .iter()
        .filter(|carrier| carrier.door.is_outside())
        .map(|carrier| {
            let header = carrier.running.load(Ordering::Relaxed).cast_const();
            (header, carrier.os_thread.load(Ordering::Relaxed))
        })
        .collect();
    let seen = all(inner).into_iter().filter_map(|task| {
        if task.state.is_done() {
            return None;
        }
        let parked = task.state.parked();
        let mut on = task.left_at.on();
        if task.is_under_limit() {
            on = on.limited();
        }
        let wait = parked.map(|(epoch, kind)| Wait {
            epoch,
            kind,
            // If the thread waits for something else by now, nothing is known of that.
            on: if task.state.parked_epoch() == Some(epoch) {
                on
            } else {
                On::just(Awaited::Other)
            },
            holder: Holder::Unknown,
            is_read: false,
            count: 0,
        });
        let runs_on = if task.runs_on_carriers() {
            running.get(&(&raw const *task)).copied()
        } else {
            Some(0)
        };
        Some(Seen {
            task,
            runs_on: runs_on.filter(|_| wait.is_none()),
            wait,
        })
    });
    seen.collect()
}
