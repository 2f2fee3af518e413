//! The green threads of a dump by groups: those that do the same in the same place.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::dump::{Doing, Dump, DumpedThread};
use crate::green::awaited::Awaited;
use crate::green::trace::Trace;

/// Green threads of a [`Dump`] that do the same in the same place; from [`Dump::groups`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpedGroup<'a> {
    /// What they do.
    pub doing: Doing,
    /// What kind of thing they wait for, if they wait.
    pub what: Option<Awaited>,
    /// The calls that they are in.
    pub trace: &'a Trace,
    /// At least one; the one that has waited longest comes first.
    pub threads: Vec<&'a DumpedThread>,
}

impl DumpedGroup<'_> {
    /// Returns for how long the first of them has waited.
    pub fn longest(&self) -> Option<Duration> {
        self.threads.first().and_then(|thread| thread.waited)
    }

    /// Returns for how long the last of them has waited.
    pub fn shortest(&self) -> Option<Duration> {
        self.threads.last().and_then(|thread| thread.waited)
    }

    /// Locks come first: a thread that waits long for a lock waits because of another thread's fault.
    fn rank(&self) -> u8 {
        let is_lock = matches!(
            self.what,
            Some(
                Awaited::Mutex
                    | Awaited::ReadLock
                    | Awaited::WriteLock
                    | Awaited::Semaphore
                    | Awaited::Once
                    | Awaited::Futex
            )
        );
        u8::from(!(is_lock || self.doing == Doing::Blocks))
    }
}

impl Dump {
    /// Returns the threads by groups: those that do the same, wait for the same kind of thing, and came there by the same
    /// calls. Groups that wait for locks come first, then the largest.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// let parked: Vec<_> = (0..3).map(|_| rt.spawn(weald::park)).collect();
    /// while rt.metrics().parked < 3 {
    ///     std::thread::yield_now();
    /// }
    /// let dump = rt.dump();
    /// assert_eq!(dump.groups()[0].threads.len(), 3);
    /// # for thread in parked {
    /// #     thread.thread().unpark();
    /// #     thread.join().unwrap();
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn groups(&self) -> Vec<DumpedGroup<'_>> {
        of(self.threads.iter())
    }
}

/// The groups of some threads, in the order in which they are to be read.
pub(super) fn of<'a>(threads: impl Iterator<Item = &'a DumpedThread>) -> Vec<DumpedGroup<'a>> {
    let mut groups: Vec<DumpedGroup<'a>> = Vec::new();
    let mut index_of: HashMap<(Doing, Option<Awaited>, &Trace), usize> = HashMap::new();
    for thread in threads {
        let what = thread.waits_for.as_ref().map(|waits| waits.what);
        let index = *index_of
            .entry((thread.doing, what, &thread.trace))
            .or_insert_with(|| {
                groups.push(DumpedGroup {
                    doing: thread.doing,
                    what,
                    trace: &thread.trace,
                    threads: Vec::new(),
                });
                groups.len() - 1
            });
        groups[index].threads.push(thread);
    }
    for group in &mut groups {
        let by = |thread: &&DumpedThread| (Reverse(thread.waited), thread.id.as_u64());
        group.threads.sort_by_key(by);
    }
    groups.sort_by_key(|group| {
        let first = group.threads[0].id.as_u64();
        (group.rank(), Reverse(group.threads.len()), first)
    });
    groups
}
