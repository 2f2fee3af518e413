//! A worker: takes jobs, runs them in green threads, and tells Redis that it is alive.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamPendingCountReply,
    StreamReadOptions, StreamReadReply,
};
use redis::{Commands as _, Connection, RedisResult};
use weald::sync::{Event, Semaphore};
use weald::{Exception, GreenThread};

use crate::job::Job;
use crate::store::{BEGUN, GROUP, Pauses, RESULTS, STREAM, Store, prepare};

/// A job is given up when it was begun so often.
pub const TRIES: u64 = 10;

/// The time between two heartbeats, and between two looks for entries of dead workers.
const BEAT: Duration = Duration::from_secs(1);

/// How long a read waits for a new entry.
const PATIENCE_MS: usize = 500;

/// How long a worker tries to leave the result of a job while Redis is away. Then another worker does the job again.
const RESULT_LIMIT: Duration = Duration::from_secs(60);

/// Tells Redis that the worker ARGV[2] of the group ARGV[1] still has the entries that follow, and returns those that
/// it really has. It is a script, so no other worker can claim an entry between the look and the claim.
const BEAT_SCRIPT: &str = "
local kept = {}
for i = 3, #ARGV do
  local own = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #own > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    kept[#kept + 1] = ARGV[i]
  end
end
return kept";

pub struct Worker {
    store: Store,
    /// One permit for each job that may run.
    seats: Semaphore,
    /// An entry that was idle for so long has lost its worker.
    dead: Duration,
    /// The jobs that run here, by the id of their entry. `None`: the green thread has not begun, or leaves its result.
    running: Mutex<HashMap<String, Option<GreenThread>>>,
    /// No more jobs are taken.
    ends: Event,
    /// All jobs have ended, so the heart can stop.
    stopped: Event,
}

impl Worker {
    /// The store's name is the worker's. Each worker needs another one.
    pub fn new(store: Store, seats: usize, dead: Duration) -> Self {
        Self {
            store,
            seats: Semaphore::new(seats),
            dead,
            running: Mutex::default(),
            ends: Event::new(),
            stopped: Event::new(),
        }
    }

    fn name(&self) -> &str {
        self.store.name()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Option<GreenThread>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `work` take no more jobs. It returns when those that run have ended.
    pub fn end(&self) {
        self.ends.set();
    }

    /// Takes jobs and runs them until `end` was called. While Redis is away it waits for Redis.
    pub fn work(&self) {
        weald::scope(|scope| {
            scope.spawn(|| self.beat());
            weald::scope(|jobs| {
                let mut entries = Entries::default();
                let mut pauses = Pauses::default();
                while !self.ends.is_set() {
                    let mut seats = vec![self.seats.acquire()];
                    // The wait for a seat may have been long.
                    if self.ends.is_set() {
                        break;
                    }
                    seats.extend(std::iter::from_fn(|| self.seats.try_acquire()));
                    let taken = self
                        .store
                        .ask(|redis| entries.take(self, redis, seats.len()));
                    let taken = taken.unwrap_or_else(|error| {
                        self.store.tell(&error);
                        pauses.wait();
                        Vec::new()
                    });
                    for (entry, seat) in taken.into_iter().zip(seats) {
                        if self.running().contains_key(&entry.id) {
                            // The heart was late, and this worker has claimed an entry of its own.
                            continue;
                        }
                        self.running().insert(entry.id.clone(), None);
                        jobs.spawn(move || {
                            // The heart may kill it, wherever it waits.
                            let _ = catch_unwind(AssertUnwindSafe(|| self.run(&entry)));
                            self.running().remove(&entry.id);
                            drop(seat);
                        });
                    }
                }
            });
            self.stopped.set();
        });
        if let Err(error) = self.store.ask(|redis| self.leave(redis)) {
            eprintln!("{}: {error}", self.name());
        }
    }

    /// Runs a job and leaves its result. If this fails, the entry is not acknowledged, and another worker gets it.
    fn run(&self, entry: &StreamId) {
        self.running()
            .insert(entry.id.clone(), Some(weald::current()));
        let count = self.store.insist(RESULT_LIMIT, |redis| {
            redis.hincr::<_, _, _, u64>(BEGUN, &entry.id, 1)
        });
        let result = match (count, Job::parse(entry)) {
            (Err(error), _) => return eprintln!("{}: {}: {error}", self.name(), entry.id),
            (Ok(count), _) if count > TRIES => format!("given up after {TRIES} tries"),
            // A worker that left it would get it again and again.
            (Ok(_), Err(why)) => format!("refused: {why}"),
            (Ok(_), Ok(job)) => match catch_unwind(AssertUnwindSafe(|| job.run())) {
                Ok(result) => result,
                // The heart has killed it: another worker has it.
                Err(payload) if payload.is::<Exception>() => return,
                Err(_) => "failed: it panicked".to_owned(),
            },
        };
        // From here on the heart cannot kill it: the entry may be acknowledged before this thread hears of it.
        self.running().insert(entry.id.clone(), None);
        let left = self.store.insist(RESULT_LIMIT, |redis| {
            redis::pipe()
                .atomic()
                .hset_nx(RESULTS, &entry.id, &result)
                .ignore()
                .xack(STREAM, GROUP, &[&entry.id])
                .ignore()
                .query::<()>(redis)
        });
        if let Err(error) = left {
            eprintln!("{}: {}: {error}", self.name(), entry.id);
        }
    }

    /// Tells Redis once a second which jobs run here, and kills those that have gone to other workers.
    fn beat(&self) {
        while !self.stopped.wait_timeout(BEAT) {
            let ids: Vec<_> = self.running().keys().cloned().collect();
            if ids.is_empty() {
                continue;
            }
            let kept = self.store.ask(|redis| {
                redis::cmd("EVAL")
                    .arg(BEAT_SCRIPT)
                    .arg(1)
                    .arg(STREAM)
                    .arg(GROUP)
                    .arg(self.name())
                    .arg(&ids)
                    .query::<Vec<String>>(redis)
            });
            let kept = match kept {
                Ok(kept) => kept,
                Err(error) => {
                    self.store.tell(&error);
                    continue;
                }
            };
            for id in ids.iter().filter(|id| !kept.contains(id)) {
                if let Some(Some(thread)) = self.running().get(id) {
                    thread.kill();
                }
            }
        }
    }

    /// Removes the worker from the group. If entries are left to it, it stays: they would be lost with it.
    fn leave(&self, redis: &mut Connection) -> RedisResult<()> {
        let left: StreamPendingCountReply =
            redis.xpending_consumer_count(STREAM, GROUP, "-", "+", 1, self.name())?;
        if left.ids.is_empty() {
            let _: usize = redis.xgroup_delconsumer(STREAM, GROUP, self.name())?;
        }
        Ok(())
    }
}

/// Where a worker looks for entries.
#[derive(Default)]
struct Entries {
    /// When it last looked for entries of dead workers, and where the next look begins.
    looked: Option<Instant>,
    cursor: Option<String>,
    is_prepared: bool,
}

impl Entries {
    /// Takes at most that many entries which no living worker has: first those of dead workers.
    fn take(
        &mut self,
        worker: &Worker,
        redis: &mut Connection,
        most: usize,
    ) -> RedisResult<Vec<StreamId>> {
        // After an error the group may be missing: Redis was perhaps restarted and has forgotten it.
        if !std::mem::replace(&mut self.is_prepared, false) {
            prepare(redis)?;
        }
        let mut taken = Vec::new();
        if self.looked.is_none_or(|looked| looked.elapsed() >= BEAT) {
            taken = self.claim(worker, redis, most)?;
        }
        if taken.is_empty() {
            let options = StreamReadOptions::default()
                .group(GROUP, worker.name())
                .count(most)
                .block(PATIENCE_MS);
            let read: Option<StreamReadReply> = redis.xread_options(&[STREAM], &[">"], &options)?;
            let keys = read.map_or_else(Vec::new, |read| read.keys);
            taken = keys.into_iter().flat_map(|key| key.ids).collect();
        }
        self.is_prepared = true;
        Ok(taken)
    }

    fn claim(
        &mut self,
        worker: &Worker,
        redis: &mut Connection,
        most: usize,
    ) -> RedisResult<Vec<StreamId>> {
        let options = StreamAutoClaimOptions::default().count(most);
        let dead = u64::try_from(worker.dead.as_millis()).unwrap_or(u64::MAX);
        let start = self.cursor.take().unwrap_or_else(|| "0-0".to_owned());
        let name = worker.name();
        let claimed: StreamAutoClaimReply =
            redis.xautoclaim_options(STREAM, GROUP, name, dead, start, options)?;
        if claimed.next_stream_id == "0-0" {
            // That was the end of the list.
            self.looked = Some(Instant::now());
        } else {
            self.cursor = Some(claimed.next_stream_id);
        }
        Ok(claimed.claimed)
    }
}
