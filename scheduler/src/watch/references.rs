//! Finds the threads that may end a wait at a channel or a `WaitGroup`: those whose stacks refer to it, if there are as
//! many as it has ends.
//!
//! A handle in a local variable is on its thread's stack while the thread waits. A handle in a box, in a `static` or on an
//! OS thread is on no stack that is looked at. Then fewer threads refer to the object than it has handles, and nothing is
//! concluded. But a word on a stack may be left over from before. So the conclusions are likely, not certain, and
//! `on_deadlock` never reports them.

use std::collections::HashMap;

use super::circles;
use super::snapshot::{Holder, Seen, Snapshot, Wait};
use crate::green::awaited::Awaited;

/// With more objects or threads than this, stacks are not searched: it would take too long.
const OBJECTS: usize = 512;
const THREADS: usize = 20_000;

/// With more threads than this that refer to an object nothing is concluded of a wait for it: the waits of a crowd for a crowd
/// would take the product of both in memory.
const ENDERS: usize = 64;

/// With more threads than this that refer to an object, waiters among them, they are not looked at one by one.
const REFERRING: usize = 1024;

/// An `Arc` leads to its counts, which lie so far before the object.
const BEFORE: usize = 2 * size_of::<usize>();

/// Things that threads wait for, and the threads that refer to them.
pub(super) struct References {
    /// Sorted.
    objects: Vec<usize>,
    /// Threads by what their stacks refer to.
    of: HashMap<usize, Vec<usize>>,
}

impl References {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let waits = snapshot
            .threads
            .iter()
            .filter_map(|seen| seen.wait.as_ref());
        let mut objects: Vec<usize> = waits
            .filter(|wait| handles(wait).is_some())
            .map(|wait| wait.on.address())
            .collect();
        objects.sort_unstable();
        objects.dedup();
        if objects.len() > OBJECTS || snapshot.threads.len() > THREADS {
            objects.clear();
        }
        Self {
            objects,
            of: HashMap::new(),
        }
    }

    /// Notes what the stack of a thread refers to.
    pub(super) fn note(&mut self, thread: usize, words: impl Iterator<Item = usize>) {
        let (Some(&first), Some(&last)) = (self.objects.first(), self.objects.last()) else {
            return;
        };
        let range = first.saturating_sub(BEFORE)..=last;
        for word in words.filter(|word| range.contains(word)) {
            let from = self.objects.partition_point(|&object| object < word);
            let object = self.objects[from];
            if object - word <= BEFORE {
                let threads = self.of.entry(object).or_default();
                if threads.last() != Some(&thread) {
                    threads.push(thread);
                }
            }
        }
    }

    /// Circles of threads that wait for each other, as far as stacks tell.
    pub(super) fn likely_circles(&self, snapshot: &Snapshot) -> Vec<Vec<usize>> {
        let mut writers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, seen) in snapshot.threads.iter().enumerate() {
            if let Some(wait) = &seen.wait
                && wait.on.what() == Awaited::WriteLock
            {
                writers.entry(wait.on.address()).or_default().push(index);
            }
        }
        let enders: Vec<Vec<usize>> = snapshot
            .threads
            .iter()
            .enumerate()
            .map(|(index, seen)| match &seen.wait {
                Some(wait) if !wait.on.is_limited() => {
                    self.enders(snapshot, (index, seen), wait, &writers)
                }
                _ => Vec::new(),
            })
            .collect();
        let mut circles = circles::of_all_stuck(&enders);
        circles.retain(|circle| circle.iter().all(|&thread| snapshot.still_waits(thread)));
        circles
    }

    /// Who alone may end the wait; nobody, if others may.
    fn enders(
        &self,
        snapshot: &Snapshot,
        (index, seen): (usize, &Seen),
        wait: &Wait,
        writers: &HashMap<usize, Vec<usize>>,
    ) -> Vec<usize> {
        let address = wait.on.address();
        if wait.on.what() == Awaited::ReadLock && wait.is_read {
            // It waits behind a writer.
            // All writers wait for the same, so a few stand for them.
            let writers = writers.get(&address).into_iter().flatten();
            return writers.take(ENDERS).copied().collect();
        }
        if let Holder::Thread(holder) = wait.holder {
            return vec![holder];
        }
        let (Some(handles), Some(referring)) = (handles(wait), self.of.get(&address)) else {
            return Vec::new();
        };
        if referring.len() > REFERRING {
            return Vec::new();
        }
        let waits_alike = |other: usize| {
            let wait_of = |seen: &Seen| {
                let wait = seen.wait.as_ref()?;
                Some((wait.on.what(), wait.on.address()))
            };
            wait_of(&snapshot.threads[other]) == wait_of(seen)
        };
        let others = referring.iter().copied();
        let others: Vec<usize> = others
            .filter(|&other| other != index && !waits_alike(other))
            .collect();
        if (handles..=ENDERS).contains(&others.len()) {
            others
        } else {
            Vec::new()
        }
    }
}

/// How many handles can end the wait.
fn handles(wait: &Wait) -> Option<usize> {
    let has_handles = matches!(
        wait.on.what(),
        Awaited::Message | Awaited::WaitGroup | Awaited::Room
    );
    Some(wait.count).filter(|&count| has_handles && count > 0)
}
