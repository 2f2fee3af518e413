//! The rules for exceptions (DESIGN 4.3), against a model of one thread in a hundred lines. A random program of
//! limits, catches, throws, alarms and calls must do the same in both. `PROPTEST_CASES` is the number of programs.

use std::io::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use weald::net::unix::UnixStream;
use weald::{Elapsed, Exception, Killed, Timer};

use crate::support::{Mark, Mode, caught, fuzz_limit, runtime, source_of, with_deadline};

/// A step of a program that runs in one green thread and does everything to itself.
#[derive(Clone, Debug)]
enum Step {
    /// A blocking call that unwinds.
    Call,
    /// A blocking call that returns an `io::Result`.
    IoCall,
    /// Calls `throw` on itself.
    Throw,
    /// Calls `exc_after`, due at once.
    Alarm,
    /// Calls `exc_after`, not due before the end.
    LateAlarm,
    /// Cancels one of the alarms so far.
    Cancel(usize),
    Kill,
    /// A limit that has passed already, or never does.
    Timeout(bool, Vec<Step>),
    /// Catches a `Mark`.
    Catch(Vec<Step>),
}

/// What can be seen of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Called,
    IoCalled(Result<(), What>),
    Cancelled(bool),
    /// What `timeout` returned.
    Limit(bool),
    /// What `catch` returned.
    Caught(Option<u32>),
    Ended(Option<What>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Killed,
    Elapsed,
    Mark(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leaf = prop_oneof![
        6 => Just(Step::Call),
        4 => Just(Step::IoCall),
        2 => Just(Step::Throw),
        2 => Just(Step::Alarm),
        1 => Just(Step::LateAlarm),
        2 => (0..8_usize).prop_map(Step::Cancel),
        1 => Just(Step::Kill),
    ];
    let step = leaf.prop_recursive(4, 48, 6, |inner| {
        let body = prop::collection::vec(inner, 0..6);
        prop_oneof![
            (any::<bool>(), body.clone()).prop_map(|(passed, body)| Step::Timeout(passed, body)),
            body.prop_map(Step::Catch),
        ]
    });
    prop::collection::vec(step, 0..10)
}

/// The rules, written in the simplest way.
#[derive(Default)]
struct Model {
    seen: Vec<Seen>,
    killed: bool,
    kill_reported: bool,
    /// The limits around the current step, outermost first: passed, reported.
    scopes: Vec<(bool, bool)>,
    /// What is to be raised once, in order.
    once: Vec<u32>,
    /// The marks of the alarms in the order they were set.
    alarms: Vec<u32>,
    /// The alarms that are not due.
    late: Vec<u32>,
    next_mark: u32,
}

/// What unwinds, with the index of the limit that it belongs to, counted from outside.
type Unwinds = (What, Option<usize>);

impl Model {
    /// Rules 3 and 8: what a blocking call raises, and whether it was reported before.
    fn raise(&mut self) -> Option<(Unwinds, bool)> {
        if self.killed {
            return Some((
                (What::Killed, None),
                std::mem::replace(&mut self.kill_reported, true),
            ));
        }
        if let Some(outermost) = self.scopes.iter().position(|scope| scope.0) {
            let again = std::mem::replace(&mut self.scopes[outermost].1, true);
            return Some(((What::Elapsed, Some(outermost)), again));
        }
        let once = (!self.once.is_empty()).then(|| self.once.remove(0));
        once.map(|mark| ((What::Mark(mark), None), false))
    }

    fn mark(&mut self) -> u32 {
        self.next_mark += 1;
        self.next_mark
    }

    fn run(&mut self, steps: &[Step]) -> Result<(), Unwinds> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), Unwinds> {
        match step {
            Step::Call => {
                if let Some((unwinds, _)) = self.raise() {
                    return Err(unwinds);
                }
                self.seen.push(Seen::Called);
            }
            Step::IoCall => match self.raise() {
                Some((unwinds, true)) => return Err(unwinds),
                Some(((what, _), false)) => self.seen.push(Seen::IoCalled(Err(what))),
                None => self.seen.push(Seen::IoCalled(Ok(()))),
            },
            Step::Throw => {
                let mark = self.mark();
                self.once.push(mark);
            }
            Step::Alarm => {
                let mark = self.mark();
                self.once.push(mark);
                self.alarms.push(mark);
            }
            Step::LateAlarm => {
                let mark = self.mark();
                self.late.push(mark);
                self.alarms.push(mark);
            }
            Step::Cancel(nth) => {
                if self.alarms.is_empty() {
                    return Ok(());
                }
                let mark = self.alarms[nth % self.alarms.len()];
                let before = self.once.len() + self.late.len();
                self.once.retain(|other| *other != mark);
                self.late.retain(|other| *other != mark);
                let cancelled = self.once.len() + self.late.len() < before;
                self.seen.push(Seen::Cancelled(cancelled));
            }
            Step::Kill => self.killed = true,
            Step::Timeout(passed, body) => {
                let depth = self.scopes.len();
                self.scopes.push((*passed, false));
                let outcome = self.run(body);
                let (_, reported) = self.scopes.pop().unwrap();
                match outcome {
                    Err(unwinds) if unwinds != (What::Elapsed, Some(depth)) => return Err(unwinds),
                    _ => self.seen.push(Seen::Limit(reported)),
                }
            }
            Step::Catch(body) => match self.run(body) {
                Err((What::Mark(mark), None)) => self.seen.push(Seen::Caught(Some(mark))),
                Err(other) => return Err(other),
                Ok(()) => self.seen.push(Seen::Caught(None)),
            },
        }
        Ok(())
    }
}

/// The same program with weald's own functions.
struct Real {
    seen: Vec<Seen>,
    alarms: Vec<Timer>,
    next_mark: u32,
    socket: UnixStream,
}

impl Real {
    fn mark(&mut self) -> Mark {
        self.next_mark += 1;
        Mark(self.next_mark)
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Call => {
                weald::checkpoint();
                self.seen.push(Seen::Called);
            }
            Step::IoCall => {
                let written = self.socket.write(b"x");
                let seen = written.map(drop).map_err(|error| {
                    if let Some(mark) = source_of::<Mark>(&error) {
                        What::Mark(mark.0)
                    } else if source_of::<Killed>(&error).is_some() {
                        What::Killed
                    } else {
                        assert!(source_of::<Elapsed>(&error).is_some(), "{error:?}");
                        What::Elapsed
                    }
                });
                self.seen.push(Seen::IoCalled(seen));
            }
            Step::Throw => {
                let mark = self.mark();
                weald::current().throw(mark);
            }
            Step::Alarm => {
                let mark = self.mark();
                self.alarms.push(weald::exc_after(Duration::ZERO, mark));
            }
            Step::LateAlarm => {
                let mark = self.mark();
                self.alarms.push(weald::exc_after(Duration::MAX, mark));
            }
            Step::Cancel(nth) => {
                if !self.alarms.is_empty() {
                    let cancelled = self.alarms[nth % self.alarms.len()].cancel();
                    self.seen.push(Seen::Cancelled(cancelled));
                }
            }
            Step::Kill => weald::current().kill(),
            Step::Timeout(passed, body) => {
                let limit = if *passed {
                    Duration::ZERO
                } else {
                    Duration::MAX
                };
                let outcome = weald::timeout(limit, || self.run(body));
                self.seen.push(Seen::Limit(outcome.is_err()));
            }
            Step::Catch(body) => {
                let outcome = weald::catch::<Mark, _>(|| self.run(body));
                self.seen
                    .push(Seen::Caught(outcome.err().map(|mark| mark.0)));
            }
        }
    }
}

/// Runs the program in a green thread of its own. Returns what was seen, and how it ended.
fn run_really(steps: &[Step]) -> Vec<Seen> {
    let (socket, _drain) = UnixStream::pair().unwrap();
    let mut real = Real {
        seen: Vec::new(),
        alarms: Vec::new(),
        next_mark: 0,
        socket,
    };
    let mut seen = weald::scope(|scope| {
        let thread = scope.spawn(move || {
            let ended = caught(|| real.run(steps));
            (real.seen, ended.err().map(what_of))
        });
        let (mut seen, ended) = thread.join().unwrap();
        seen.push(Seen::Ended(ended));
        seen
    });
    seen.shrink_to_fit();
    seen
}

fn what_of(payload: Box<dyn std::any::Any + Send>) -> What {
    let exception = payload
        .downcast::<Exception>()
        .expect("nothing here panics");
    if let Some(mark) = exception.downcast_ref::<Mark>() {
        What::Mark(mark.0)
    } else if exception.downcast_ref::<Killed>().is_some() {
        What::Killed
    } else {
        assert!(exception.downcast_ref::<Elapsed>().is_some());
        What::Elapsed
    }
}

#[test]
fn random_programs_of_limits_and_exceptions_do_what_the_rules_say() {
    for mode in [Mode::Pinned, Mode::Shared] {
        with_deadline(fuzz_limit(), || {
            let rt = runtime(1, mode);
            let outcome = TestRunner::default().run(&steps(), |steps| {
                let mut model = Model::default();
                let ended = model.run(&steps).err().map(|(what, _)| what);
                model.seen.push(Seen::Ended(ended));
                let seen = rt.run(|| run_really(&steps));
                prop_assert_eq!(seen, model.seen);
                Ok(())
            });
            if let Err(failure) = outcome {
                panic!("{failure}");
            }
        });
    }
}
