//! What has changed between two dumps: which green threads came, and which stayed where they were.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::dump::{Deadlock, Dump, DumpedThread};
use super::text;

/// What has changed between two dumps of a runtime; from [`Dump::since`].
///
/// Its `Display` tells the threads by groups, as that of [`Dump`] does.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Changes {
    /// Between the two.
    pub elapsed: Duration,
    /// The later dump with those only that were not in the earlier one.
    pub came: Dump,
    /// The later dump with those only that are in the same wait as before. What leaks is among them, and what came before.
    pub stayed: Dump,
    /// How many are in both, and run or wait for something else than before.
    pub moved: usize,
    /// How many were in the earlier one only.
    pub ended: usize,
}

impl Dump {
    /// What has changed since an earlier dump of the same runtime.
    ///
    /// Threads that leak stay where they are, and there are more of them each time: two dumps some seconds apart tell them from
    /// those that come and go.
    ///
    /// # Examples
    /// ```
    /// use weald::{Runtime, dump, park, spawn, yield_now};
    ///
    /// let rt = Runtime::builder().workers(1).build()?;
    /// rt.run(|| {
    ///     let old = spawn(park);
    ///     while dump().metrics.parked < 1 {
    ///         yield_now();
    ///     }
    ///     let earlier = dump();
    ///     let new = spawn(park);
    ///     while dump().metrics.parked < 2 {
    ///         yield_now();
    ///     }
    ///     let changes = dump().since(&earlier);
    ///     let is_there = |dump: &weald::Dump, id| dump.threads.iter().any(|t| t.id == id);
    ///     assert!(is_there(&changes.came, new.thread().id()));
    ///     assert!(is_there(&changes.stayed, old.thread().id()));
    ///     old.thread().unpark();
    ///     new.thread().unpark();
    ///     old.join().unwrap();
    ///     new.join().unwrap();
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Changes {
        let before: HashMap<_, _> = earlier
            .threads
            .iter()
            .map(|thread| (thread.id, thread.epoch))
            .collect();
        let (mut came, mut stayed, mut moved) = (Vec::new(), Vec::new(), 0);
        for thread in &self.threads {
            match before.get(&thread.id) {
                None => came.push(thread.clone()),
                Some(epoch) if epoch.is_some() && *epoch == thread.epoch => {
                    stayed.push(thread.clone());
                }
                Some(_) => moved += 1,
            }
        }
        let elapsed = match (self.taken, earlier.taken) {
            (Some(later), Some(earlier)) => later.duration_since(earlier).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        Changes {
            elapsed,
            ended: before.len() - stayed.len() - moved,
            moved,
            came: self.with_only(came),
            stayed: self.with_only(stayed),
        }
    }

    /// This dump with fewer threads.
    fn with_only(&self, threads: Vec<DumpedThread>) -> Self {
        let known: HashSet<_> = threads.iter().map(|thread| thread.id).collect();
        let is_whole = |deadlock: &&Deadlock| deadlock.threads.iter().all(|id| known.contains(id));
        Self {
            runtime: self.runtime.clone(),
            taken: self.taken,
            uptime: self.uptime,
            metrics: self.metrics.clone(),
            deadlocks: self.deadlocks.iter().filter(is_whole).cloned().collect(),
            threads,
            stalled: None,
        }
    }
}

/// Lines for each of the two parts.
const LINES: usize = 90;

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: in {:.1?} {} green threads came, {} stayed where they were, {} went on, {} ended",
            self.came.runtime,
            self.elapsed,
            self.came.threads.len(),
            self.stayed.threads.len(),
            self.moved,
            self.ended
        )?;
        for (what, dump) in [("CAME", &self.came), ("STAYED", &self.stayed)] {
            if !dump.threads.is_empty() {
                writeln!(f, "{what}:")?;
                text::write_threads(f, dump, LINES)?;
            }
        }
        Ok(())
    }
}
