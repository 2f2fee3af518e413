//! Jobs in a stream of Redis, done by any number of processes on any number of machines.
//!
//! | key in Redis | holds |
//! |---|---|
//! | `jobs` | the stream; its consumer group `workers` knows which worker has taken which entry |
//! | `results` | a hash: for each finished job its result, by the id of its entry |
//! | `begun` | a hash: for each job how often a worker has begun it |
//!
//! 1. A worker takes entries that nobody has, at most as many as it has free seats. Each job is a green thread.
//! 2. While a job runs, its worker tells Redis once a second that it still has the job: the heart beats. This sets the
//!    entry's idle time to zero.
//! 3. The result is written and the entry acknowledged in one transaction. So a job whose worker is killed has both,
//!    or neither.
//! 4. If an entry was idle for too long, its worker is dead, and another worker claims the entry. So no job is lost.
//!    Only the jobs that a dead worker had not finished are done again.
//! 5. If a worker was only frozen, it learns at its next heartbeat which of its jobs have gone to others, and kills
//!    their green threads. Both may have done a part of the job by then, so the effect of a job must bear to happen
//!    twice. This is so with every queue that loses nothing. The result is written once.
//! 6. A job that was begun [`TRIES`] times is given up: perhaps it kills its workers.
//!
//! | file | holds |
//! |---|---|
//! | `main.rs` | the commands `add`, `work` and `watch` |
//! | `worker.rs` | takes jobs, runs them, beats the heart |
//! | `watch.rs` | the progress bar |
//! | `job.rs` | what a job is |
//! | `store.rs` | the connections to Redis, and the keys |

pub mod job;
pub mod store;
pub mod watch;
pub mod worker;

pub use crate::job::Job;
pub use crate::store::Store;
pub use crate::watch::watch;
pub use crate::worker::{TRIES, Worker};
