//! A contestant in a process of its own.
//!
//! The bench starts its own executable again, with the role in the environment. Then, by lines:
//!
//! | parent writes | child answers       | meaning                                      |
//! |---------------|---------------------|----------------------------------------------|
//! | `AMOUNT`      | `= VALUE VALUE ...` | measure that much, tell the case's metrics   |
//! | end of file   | exits               | the parent is done, or gone                  |
//!
//! A child that dies or is silent for too long has failed; the parent ends it by its handle.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Contestant;

const CONTESTANT: &str = "WEALD_BENCH_CONTESTANT";
const CASE: &str = "WEALD_BENCH_CASE";
const WORKERS: &str = "WEALD_BENCH_WORKERS";

/// What a child is to measure.
#[derive(Clone, Debug)]
pub struct Role {
    /// The program that is measured.
    pub contestant: Contestant,
    /// The case, if the bench has several.
    pub case: String,
    /// The number of workers.
    pub workers: usize,
}

impl Role {
    /// The role of this process; `None` in the parent.
    pub fn of_this_process() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        Some(Self {
            contestant: Contestant::from_name(&variable(CONTESTANT)?)?,
            case: variable(CASE)?,
            workers: variable(WORKERS)?.parse().ok()?,
        })
    }
}

/// The child's side: measures as often as the parent asks, then ends the process.
pub fn answer(mut measure: impl FnMut(u64) -> Vec<f64>) -> ! {
    for line in io::stdin().lock().lines() {
        let Some(amount) = line.ok().and_then(|line| line.parse().ok()) else {
            break;
        };
        let values: Vec<String> = measure(amount).iter().map(f64::to_string).collect();
        println!("= {}", values.join(" "));
    }
    // Without waiting for the contestant's threads: the parent has all it wanted.
    std::process::exit(0)
}

/// The parent's side. Dropping it ends the child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// `None` once the child has been told to end.
    questions: Option<ChildStdin>,
    answers: Receiver<String>,
    /// The last line of the child's standard error that says something: why it failed.
    complaint: Arc<Mutex<String>>,
    limit: Duration,
}

impl Process {
    /// Starts a child that has to answer each question within `limit`.
    ///
    /// # Errors
    ///
    /// If this executable cannot be started again.
    pub fn start(role: &Role, limit: Duration) -> Result<Self, String> {
        let mut child = std::env::current_exe()
            .and_then(|bench| {
                Command::new(bench)
                    .env(CONTESTANT, role.contestant.name())
                    .env(CASE, &role.case)
                    .env(WORKERS, role.workers.to_string())
                    // The last line of a complaint is to be the message.
                    .env("RUST_BACKTRACE", "0")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
            })
            .map_err(|error| format!("does not start: {error}"))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("starts without its pipes".into());
        };
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Some(values) = line.strip_prefix("= ") else {
                    continue;
                };
                if sender.send(values.to_owned()).is_err() {
                    break;
                }
            }
        });
        let complaint = Arc::new(Mutex::new(String::new()));
        let last = Arc::clone(&complaint);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with("note:") {
                    line.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
                }
            }
        });
        Ok(Self {
            questions: child.stdin.take(),
            child,
            answers,
            complaint,
            limit,
        })
    }

    /// Has the child measure `amount` and returns the values of its metrics.
    ///
    /// # Errors
    ///
    /// Why there are none: it died, or did not answer in time.
    pub fn ask(&mut self, amount: u64) -> Result<Vec<f64>, String> {
        let asked = self
            .questions
            .as_mut()
            .ok_or("it has ended")
            .and_then(|pipe| writeln!(pipe, "{amount}").map_err(|_| "it has ended"));
        let answer = match asked {
            Ok(()) => self.answers.recv_timeout(self.limit),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(values) => values
                .split(' ')
                .map(|value| value.parse().map_err(|_| format!("answers `{values}`")))
                .collect(),
            Err(RecvTimeoutError::Timeout) => {
                self.end(Duration::ZERO);
                Err(format!("no answer in {} s", self.limit.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.end(Duration::from_secs(1));
                let complaint = self
                    .complaint
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                Err(if complaint.is_empty() {
                    "ended without a word".into()
                } else {
                    complaint.clone()
                })
            }
        }
    }

    /// Tells the child to end, and ends it by force after `grace`.
    fn end(&mut self, grace: Duration) {
        drop(self.questions.take());
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        // Both fail only if it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::from_secs(2));
    }
}
