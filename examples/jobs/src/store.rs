//! The connections to Redis, and its keys.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Client, Commands as _, Connection, RedisError, RedisResult};

use crate::job::Job;

pub const STREAM: &str = "jobs";
pub const GROUP: &str = "workers";
pub const RESULTS: &str = "results";
pub const BEGUN: &str = "begun";

/// If Redis does not answer for this long, the connection is given up. It is longer than a worker waits for new jobs.
const SILENCE: Duration = Duration::from_secs(10);

/// The pauses between tries while Redis is away: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// The same error is told again after this time.
const QUIET: Duration = Duration::from_secs(10);

/// Connections to one Redis. Each question has a connection for itself while it waits for its answer.
///
/// The client's sockets are std's: `weald_patch` makes them suspend the green thread that asks.
pub struct Store {
    client: Client,
    /// Redis shows it in the list of its clients.
    name: String,
    idle: Mutex<Vec<Connection>>,
    /// The last error that was told, and when.
    told: Mutex<Option<(Instant, String)>>,
}

impl Store {
    /// Makes no connection yet.
    ///
    /// # Errors
    /// The address is none of Redis.
    pub fn new(url: &str, name: &str) -> RedisResult<Self> {
        Ok(Self {
            client: Client::open(url)?,
            name: name.to_owned(),
            idle: Mutex::default(),
            told: Mutex::default(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(SILENCE)?;
        connection.set_read_timeout(Some(SILENCE))?;
        connection.set_write_timeout(Some(SILENCE))?;
        let mut named = redis::cmd("CLIENT");
        named.arg("SETNAME").arg(&self.name);
        named.query::<()>(&mut connection)?;
        Ok(connection)
    }

    /// Asks once.
    ///
    /// # Errors
    /// Those of the client.
    pub fn ask<T>(
        &self,
        question: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = question(&mut connection);
        match &answer {
            Ok(_) => self.idle().push(connection),
            // If Redis was restarted, the others are broken, too.
            Err(error) if error.is_io_error() => self.idle().clear(),
            // This one may still get an answer that belongs to the failed question.
            Err(_) => {}
        }
        answer
    }

    /// Asks again and again, for as long as `limit`, until Redis answers without an error.
    ///
    /// # Errors
    /// That of the last try.
    pub fn insist<T>(
        &self,
        limit: Duration,
        question: impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let begun = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            match self.ask(&question) {
                Err(error) if begun.elapsed() < limit => {
                    self.tell(&error);
                    pauses.wait();
                }
                answer => return answer,
            }
        }
    }

    /// Writes an error to standard error, the same one once in ten seconds at most: all jobs meet it.
    pub fn tell(&self, error: &RedisError) {
        let text = error.to_string();
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(at, last): &(Instant, String)| *last == text && now < *at + QUIET;
        if !told.as_ref().is_some_and(is_old) {
            eprintln!("{}: {text}", self.name);
            *told = Some((now, text));
        }
    }
}

/// The pauses between tries. Each is twice as long as the one before.
#[derive(Default)]
pub struct Pauses {
    next: Option<Duration>,
}

impl Pauses {
    /// Waits.
    pub fn wait(&mut self) {
        let pause = self.next.unwrap_or(PAUSES[0]);
        weald::sleep(pause);
        self.next = Some((pause * 2).min(PAUSES[1]));
    }
}

/// Makes the stream and its group if they are missing.
///
/// # Errors
/// Those of Redis.
pub fn prepare(connection: &mut Connection) -> RedisResult<()> {
    match connection.xgroup_create_mkstream(STREAM, GROUP, "0") {
        // The group exists.
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        other => other,
    }
}

/// Puts a job at the end of the stream, and returns the id of its entry.
///
/// # Errors
/// Those of Redis.
pub fn add(connection: &mut Connection, job: &Job) -> RedisResult<String> {
    let id: Option<String> = connection.xadd(STREAM, "*", &job.fields())?;
    Ok(id.unwrap_or_default())
}
