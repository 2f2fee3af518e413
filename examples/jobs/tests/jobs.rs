//! Workers in processes of their own, a real Redis, and accidents. Skipped if redis-server is not installed.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use redis::streams::StreamPendingCountReply;
use redis::{Commands as _, Connection};
use weald_jobs::store::{BEGUN, GROUP, RESULTS, STREAM, add, prepare};
use weald_jobs::watch::Progress;
use weald_jobs::{Job, TRIES};

/// Nothing here takes so long unless it hangs.
const HANG: Duration = Duration::from_secs(120);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANG, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// A Redis with an empty folder of its own, which writes each change to the disk at once.
struct Redis {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Redis {
    /// Chooses a port, and starts nothing. `None`: Redis is not installed.
    fn prepare(name: &str) -> Option<Self> {
        if Command::new("redis-server")
            .arg("--version")
            .output()
            .is_err()
        {
            eprintln!("\n!! SKIPPED: redis-server is not installed");
            return None;
        }
        let folder = format!("weald-jobs-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        Some(Self {
            folder,
            port,
            process: None,
        })
    }

    fn started(name: &str) -> Option<Self> {
        let mut redis = Self::prepare(name)?;
        redis.start();
        Some(redis)
    }

    fn start(&mut self) {
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .arg("--dir")
            .arg(&self.folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        wait_until("Redis does not start", || {
            let mut connection = match self.client().get_connection() {
                Ok(connection) => connection,
                Err(_) => return false,
            };
            connection.ping::<String>().is_ok()
        });
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }

    fn connect(&self) -> Connection {
        let mut connection = self.client().get_connection().unwrap();
        prepare(&mut connection).unwrap();
        connection
    }

    fn worker(&self, name: &str, dead_s: u64) -> Worker {
        let process = self.command(name, dead_s).arg("work").spawn().unwrap();
        Worker {
            name: name.to_owned(),
            process,
        }
    }

    fn command(&self, name: &str, dead_s: u64) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobs"));
        command
            .env("REDIS_URL", self.url())
            .env("WORKER_NAME", name)
            .env("SEATS", "10")
            .env("DEAD_SECONDS", dead_s.to_string());
        command
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A worker in a process of its own.
struct Worker {
    name: String,
    process: Child,
}

impl Worker {
    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it. Returns the jobs that it leaves unfinished.
    fn kill(mut self, redis: &mut Connection) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // Redis may still have questions from it.
        let name = format!("name={} ", self.name);
        wait_until("Redis keeps the connections of the dead", || {
            let list: String = redis::cmd("CLIENT").arg("LIST").query(redis).unwrap();
            !list.contains(&name)
        });
        pending(redis, &self.name)
    }

    /// Asks it to end, and waits for that.
    fn end(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.process.wait().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The entries that a worker has not acknowledged.
fn pending(redis: &mut Connection, name: &str) -> Vec<String> {
    let reply: StreamPendingCountReply = redis
        .xpending_consumer_count(STREAM, GROUP, "-", "+", 1000, name)
        .unwrap();
    reply.ids.into_iter().map(|one| one.id).collect()
}

fn done(redis: &mut Connection) -> u64 {
    redis.hlen(RESULTS).unwrap()
}

/// Adds jobs of both kinds, and returns the ids of their entries.
fn add_jobs(redis: &mut Connection, count: u64) -> Vec<String> {
    let job = |n| match n % 2 {
        0 => Job::Wait {
            milliseconds: 20 + n * 37 % 200,
        },
        _ => Job::Primes {
            most: 5_000 + n * 131 % 20_000,
        },
    };
    (0..count).map(|n| add(redis, &job(n)).unwrap()).collect()
}

/// Waits until all jobs have a result and no entry is left, and returns how often each job was begun.
fn check_complete(redis: &mut Connection, ids: &[String]) -> HashMap<String, u64> {
    wait_until("the jobs do not end", || {
        let progress = Progress::read(redis).unwrap();
        progress.done >= ids.len() as u64 && progress.taken == 0
    });
    let results: HashMap<String, String> = redis.hgetall(RESULTS).unwrap();
    assert_eq!(results.len(), ids.len());
    for id in ids {
        let result = &results[id];
        assert!(
            result.starts_with("waited") || result.ends_with("primes"),
            "{id}: {result}"
        );
    }
    redis.hgetall(BEGUN).unwrap()
}

#[test]
fn workers_that_are_killed_at_random_lose_nothing() {
    let Some(redis) = Redis::started("killed") else {
        return;
    };
    let mut connection = redis.connect();
    let ids = add_jobs(&mut connection, 400);
    let mut names = (0..).map(|n| format!("worker-{n}"));
    let mut workers: Vec<_> = names
        .by_ref()
        .take(3)
        .map(|name| redis.worker(&name, 5))
        .collect();
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let mut seed = since_1970.as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = move |bound: u64| {
        // Xorshift.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % bound
    };
    let mut unfinished = 0;
    // Fewer than `TRIES`, so that no job is given up.
    for _ in 1..TRIES {
        let before = done(&mut connection);
        let more = 5 + random(25);
        wait_until("no job ends", || {
            done(&mut connection) >= (before + more).min(400)
        });
        let victim = random(3) as usize;
        let victim = workers.swap_remove(victim);
        let left = victim.kill(&mut connection);
        unfinished += left.len() as u64;
        workers.push(redis.worker(&names.next().unwrap(), 5));
    }
    let begun = check_complete(&mut connection, &ids);
    assert!(unfinished > 0, "all were killed in vain");
    let again: u64 = ids.iter().map(|id| begun[id] - 1).sum();
    assert!(
        again <= unfinished,
        "{again} of {unfinished} jobs were begun again"
    );
    for worker in workers {
        assert!(worker.end().success());
    }
}

#[test]
fn a_worker_that_is_asked_to_end_finishes_its_jobs() {
    let Some(redis) = Redis::started("asked") else {
        return;
    };
    let mut connection = redis.connect();
    let ids = add_jobs(&mut connection, 100);
    let first = redis.worker("first", 60);
    wait_until("it takes no jobs", || done(&mut connection) >= 5);
    assert!(first.end().success());
    assert_eq!(pending(&mut connection, "first"), [""; 0]);
    assert_eq!(
        Progress::read(&mut connection).unwrap().workers,
        0,
        "it has left the group"
    );
    let _second = redis.worker("second", 60);
    let begun = check_complete(&mut connection, &ids);
    assert!(begun.values().all(|count| *count == 1), "{begun:?}");
}

#[test]
fn a_worker_survives_a_redis_that_is_killed_and_started_again() {
    let Some(mut redis) = Redis::prepare("restarted") else {
        return;
    };
    // There is no Redis yet.
    let workers = ["one", "two"].map(|name| redis.worker(name, 5));
    sleep(Duration::from_millis(300));
    redis.start();
    let mut connection = redis.connect();
    let ids = add_jobs(&mut connection, 300);
    for part in [50, 150] {
        wait_until("no job ends", || done(&mut connection) >= part);
        redis.kill();
        sleep(Duration::from_millis(500));
        redis.start();
        connection = redis.connect();
    }
    // How often they were begun is not counted here: a worker cannot know if a question before the accident was heard.
    check_complete(&mut connection, &ids);
    for worker in workers {
        assert!(worker.end().success());
    }
}

#[test]
fn a_job_of_a_frozen_worker_goes_to_another_one() {
    let Some(redis) = Redis::started("frozen") else {
        return;
    };
    let mut connection = redis.connect();
    let frozen = redis.worker("frozen", 2);
    let long = add(
        &mut connection,
        &Job::Wait {
            milliseconds: 4_000,
        },
    )
    .unwrap();
    let count = |redis: &mut Connection| redis.hget::<_, _, Option<u64>>(BEGUN, &long).unwrap();
    wait_until("the job does not begin", || {
        count(&mut connection) == Some(1)
    });
    frozen.signal("-STOP");
    let other = redis.worker("other", 2);
    wait_until("nobody takes it over", || count(&mut connection) >= Some(2));
    frozen.signal("-CONT");
    check_complete(&mut connection, std::slice::from_ref(&long));
    for worker in [frozen, other] {
        assert!(worker.end().success());
    }
    assert_eq!(done(&mut connection), 1);
}

#[test]
fn what_is_no_job_is_refused_and_holds_nobody_up() {
    let Some(redis) = Redis::started("refused") else {
        return;
    };
    let mut connection = redis.connect();
    let entries: [&[(&str, &[u8])]; 6] = [
        &[("kind", b"swim"), ("number", b"1")],
        &[("kind", b"wait"), ("number", b"soon")],
        &[("kind", b"wait"), ("number", b"99999999999999999999999999")],
        &[("kind", b"\xff\xfe\x00"), ("number", b"1")],
        &[("number", b"1")],
        &[("", b"")],
    ];
    let entries = entries.map(|fields| -> String {
        let id: Option<String> = connection.xadd(STREAM, "*", fields).unwrap();
        id.unwrap()
    });
    // It seems to have killed all workers that had it.
    let poison = add(&mut connection, &Job::Wait { milliseconds: 1 }).unwrap();
    let _: u64 = connection.hset(BEGUN, &poison, TRIES).unwrap();
    let good = add(&mut connection, &Job::Primes { most: 10 }).unwrap();
    let _worker = redis.worker("worker", 60);
    let watch = redis.command("watch", 60).arg("watch").output().unwrap();
    assert!(watch.status.success(), "{watch:?}");
    let results: HashMap<String, String> = connection.hgetall(RESULTS).unwrap();
    for id in &entries {
        assert!(results[id].starts_with("refused: "), "{results:?}");
    }
    assert!(results[&poison].starts_with("given up"), "{results:?}");
    assert_eq!(results[&good], "4 primes");
    wait_until("an entry is left", || {
        pending(&mut connection, "worker").is_empty()
    });
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (name, value) in [
        ("SEATS", "0"),
        ("SEATS", "many"),
        ("DEAD_SECONDS", "1"),
        ("REDIS_URL", "web://here"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_jobs"))
            .arg("work")
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}={value}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_jobs"))
        .arg("dance")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("usage"), "{text}");
}
