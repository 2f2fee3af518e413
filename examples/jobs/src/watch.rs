//! The progress of all jobs together.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use redis::streams::{StreamInfoConsumersReply, StreamPendingReply};
use redis::{Commands as _, Connection, RedisResult};

use crate::store::{GROUP, Pauses, RESULTS, STREAM, Store, prepare};

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A worker that has not asked Redis for so long counts as gone. A living one asks once a second at least.
const GONE_MS: usize = 5_000;

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Jobs in the stream.
    pub all: u64,
    /// Jobs that have a result.
    pub done: u64,
    /// Jobs that a worker has taken and not finished.
    pub taken: usize,
    /// Workers that are alive.
    pub workers: usize,
}

impl Progress {
    pub fn read(redis: &mut Connection) -> RedisResult<Self> {
        prepare(redis)?;
        let taken: StreamPendingReply = redis.xpending(STREAM, GROUP)?;
        let workers: StreamInfoConsumersReply = redis.xinfo_consumers(STREAM, GROUP)?;
        let alive = workers.consumers.iter().filter(|one| one.idle < GONE_MS);
        Ok(Self {
            all: redis.xlen(STREAM)?,
            done: redis.hlen(RESULTS)?,
            taken: taken.count(),
            workers: alive.count(),
        })
    }

    fn is_complete(&self) -> bool {
        self.done >= self.all
    }
}

/// Shows a progress bar on standard error until all jobs have a result. Where there is no terminal, it writes a line
/// for each percent. While Redis is away it waits for Redis.
pub fn watch(store: &Store) {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}");
    bar.set_style(style.expect("the template is right"));
    let is_terminal = stderr().is_terminal();
    let mut pauses = Pauses::default();
    let mut told = None;
    loop {
        let progress = match store.ask(Progress::read) {
            Ok(progress) => progress,
            Err(error) => {
                bar.suspend(|| store.tell(&error));
                pauses.wait();
                continue;
            }
        };
        let Progress {
            all,
            done,
            taken,
            workers,
        } = progress;
        bar.set_length(all);
        bar.set_position(done);
        bar.set_message(format!("{taken} taken by {workers} workers"));
        let percent = (done * 100).checked_div(all);
        if !is_terminal && percent != told {
            eprintln!("{done} of {all} done, {taken} taken by {workers} workers");
            told = percent;
        }
        if progress.is_complete() {
            bar.finish();
            return;
        }
        weald::sleep(LOOK);
    }
}
