//! Channels and `select!` against rules that hold in every order of events. Random sends, receptions and selects run
//! over a few channels; some wait, some are killed, and ends are dropped. After each step, when all threads have come
//! to rest, these rules are checked:
//!
//! 1. a thread that still waits could not go on: none of its arms is ready, and no two waiting threads could serve
//!    each other;
//! 2. each channel holds the messages that were accepted and not received; no message is received twice, or without
//!    having been sent;
//! 3. a select has done one of its arms and no other;
//! 4. a thread that was killed has done nothing;
//! 5. messages that one thread sends and one receives without waiting keep their order;
//! 6. a thread that is told that the other side is gone is told the truth, and not before the channel is empty;
//! 7. each message is dropped once.
//!
//! `PROPTEST_CASES` is the number of programs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use weald::sync::channel::{
    Receiver, Select, Sender, TryRecvError, TrySendError, bounded, unbounded,
};
use weald::{JoinHandle, Runtime};

use crate::support::{MODES, fuzz_limit, runtime, was_killed, with_deadline};

const CAPACITIES: [Option<usize>; 4] = [Some(0), Some(1), Some(2), None];
const CHANNELS: usize = CAPACITIES.len();

/// Sends to or receives from one of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Send(usize),
    Recv(usize),
}

#[derive(Clone, Debug)]
enum Step {
    /// Does one of the arms if it can at once.
    Try(Vec<Arm>),
    /// Does one of the arms in a thread of its own, which waits for it.
    Start(Vec<Arm>),
    /// Kills a thread that waits.
    Kill(usize),
    /// Drops the driver's end that the arm would use. Threads that wait keep theirs.
    Close(Arm),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let channel = 0..CHANNELS;
    let arm = prop_oneof![
        channel.clone().prop_map(Arm::Send),
        channel.prop_map(Arm::Recv),
    ];
    let arms = prop::collection::vec(arm.clone(), 1..4);
    let step = prop_oneof![
        12 => arms.clone().prop_map(Step::Try),
        12 => arms.prop_map(Step::Start),
        3 => (0..8_usize).prop_map(Step::Kill),
        1 => arm.prop_map(Step::Close),
    ];
    prop::collection::vec(step, 0..40)
}

/// A message, identified by its number; the rest counts the messages that live.
#[derive(Debug)]
struct Message(u64, #[allow(dead_code, reason = "it is counted")] Arc<()>);

/// A thread's own end of a channel.
#[derive(Clone)]
enum End {
    Send(Sender<Message>),
    Recv(Receiver<Message>),
}

/// The arm that an operation has done, and the message that it sent or received; none if the other side was gone.
type Done = (Arm, Option<u64>);

/// An operation with one or several arms. The messages of a select are `number * 4 + arm`, so each arm has its own.
struct Operation {
    number: u64,
    arms: Vec<(Arm, End)>,
    lives: Arc<()>,
}

impl Operation {
    fn message(&self, arm: usize) -> Message {
        Message(self.number * 4 + arm as u64, Arc::clone(&self.lives))
    }

    /// Returns `None` if nothing could be done at once and the operation does not wait.
    fn perform(&self, waits: bool) -> Option<Done> {
        match &self.arms[..] {
            [(arm, end)] => self.perform_plainly(*arm, end, waits),
            _ => self.select(waits),
        }
    }

    fn select(&self, waits: bool) -> Option<Done> {
        let mut select = Select::new();
        for (_, end) in &self.arms {
            match end {
                End::Send(sender) => select.send(sender),
                End::Recv(receiver) => select.recv(receiver),
            };
        }
        let selected = if waits {
            select.select()
        } else {
            select.try_select().ok()?
        };
        let index = selected.index();
        let (arm, end) = &self.arms[index];
        let message = self.message(index);
        let number = message.0;
        let done = match end {
            End::Send(sender) => match selected.send(sender, message) {
                Ok(()) => Some(number),
                Err(back) => {
                    assert_eq!(back.into_inner().0, number);
                    None
                }
            },
            End::Recv(receiver) => selected.recv(receiver).ok().map(|message| message.0),
        };
        Some((*arm, done))
    }

    /// A plain send or reception, not through `Select`.
    fn perform_plainly(&self, arm: Arm, end: &End, waits: bool) -> Option<Done> {
        let message = self.message(0);
        let number = message.0;
        let is_back = |back: Message| assert_eq!(back.0, number);
        let done = match (end, waits) {
            (End::Send(sender), true) => match sender.send(message) {
                Ok(()) => Some(number),
                Err(back) => {
                    is_back(back.into_inner());
                    None
                }
            },
            (End::Send(sender), false) => match sender.try_send(message) {
                Ok(()) => Some(number),
                Err(TrySendError::Full(back)) => {
                    is_back(back);
                    return None;
                }
                Err(TrySendError::Disconnected(back)) => {
                    is_back(back);
                    None
                }
            },
            (End::Recv(receiver), true) => receiver.recv().ok().map(|message| message.0),
            (End::Recv(receiver), false) => match receiver.try_recv() {
                Ok(message) => Some(message.0),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => None,
            },
        };
        Some((arm, done))
    }
}

/// The ends that the driver still has.
type Ends = (Option<Sender<Message>>, Option<Receiver<Message>>);

struct Waiting {
    operation: u64,
    arms: Vec<Arm>,
    thread: JoinHandle<()>,
}

/// The threads that wait, and what has happened to the messages.
struct Check<'a> {
    rt: &'a Runtime,
    ends: Vec<Ends>,
    next: u64,
    waiting: Vec<Waiting>,
    /// By operation. The operation's thread adds its entry.
    done: Arc<Mutex<HashMap<u64, Done>>>,
    sent: [HashSet<u64>; CHANNELS],
    received: [HashSet<u64>; CHANNELS],
    /// For each channel, what the driver has sent, and what it has received of that.
    own_sent: [Vec<u64>; CHANNELS],
    own_received: [Vec<u64>; CHANNELS],
    lives: Arc<()>,
}

impl<'a> Check<'a> {
    fn new(rt: &'a Runtime) -> Self {
        let ends = CAPACITIES.map(|capacity| capacity.map_or_else(unbounded, bounded));
        let ends = ends.map(|(sender, receiver)| (Some(sender), Some(receiver)));
        Self {
            rt,
            ends: ends.into(),
            next: 0,
            waiting: Vec::new(),
            done: Arc::default(),
            sent: Default::default(),
            received: Default::default(),
            own_sent: Default::default(),
            own_received: Default::default(),
            lives: Arc::new(()),
        }
    }

    /// Starts a thread with ends of its own, for those arms whose ends the driver still has.
    fn operation(&mut self, arms: &[Arm]) -> Option<Operation> {
        let number = self.next;
        self.next += 1;
        let end = |arm: &Arm| {
            let end = match *arm {
                Arm::Send(channel) => self.ends[channel].0.clone().map(End::Send),
                Arm::Recv(channel) => self.ends[channel].1.clone().map(End::Recv),
            };
            Some((*arm, end?))
        };
        let arms: Vec<_> = arms.iter().filter_map(end).collect();
        let lives = Arc::clone(&self.lives);
        (!arms.is_empty()).then_some(Operation {
            number,
            arms,
            lives,
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Try(arms) => {
                if let Some(operation) = self.operation(arms) {
                    self.try_now(&operation)?;
                }
            }
            Step::Start(arms) => {
                if let Some(operation) = self.operation(arms) {
                    self.start(operation);
                }
            }
            Step::Kill(nth) => {
                if !self.waiting.is_empty() {
                    let waiting = self.waiting.remove(nth % self.waiting.len());
                    waiting.thread.thread().kill();
                    prop_assert!(was_killed(&waiting.thread.join()));
                    let done = self.done.lock().unwrap();
                    prop_assert!(!done.contains_key(&waiting.operation));
                }
            }
            Step::Close(Arm::Send(channel)) => drop(self.ends[*channel].0.take()),
            Step::Close(Arm::Recv(channel)) => drop(self.ends[*channel].1.take()),
        }
        self.settle()?;
        self.check()
    }

    fn try_now(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        let arms: Vec<Arm> = operation.arms.iter().map(|(arm, _)| *arm).collect();
        let Some(done) = operation.perform(false) else {
            // All threads are at rest, so an arm that could not be done at once is not ready.
            return self.check_not_ready(operation.number, &arms);
        };
        match done {
            (Arm::Send(channel), Some(message)) => self.own_sent[channel].push(message),
            (Arm::Recv(channel), Some(message)) => self.own_received[channel].push(message),
            _ => {}
        }
        self.note(operation.number, &arms, done)
    }

    fn start(&mut self, operation: Operation) {
        let number = operation.number;
        let arms = operation.arms.iter().map(|(arm, _)| *arm).collect();
        let all_done = Arc::clone(&self.done);
        let thread = weald::spawn(move || {
            let done = operation.perform(true).expect("it waited");
            all_done.lock().unwrap().insert(operation.number, done);
        });
        self.waiting.push(Waiting {
            operation: number,
            arms,
            thread,
        });
    }

    /// Lets all threads run that can, until only the driver is not parked.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        loop {
            weald::yield_now();
            // Also one that lost its worker to another OS thread, and runs on there, has come to rest.
            let metrics = self.rt.metrics();
            let rests = metrics.live - metrics.parked == 1;
            let done: Vec<(u64, Done)> = self.done.lock().unwrap().drain().collect();
            if done.is_empty() {
                if rests {
                    return Ok(());
                }
                continue;
            }
            let mut ended = Vec::new();
            for (operation, done) in done {
                let is_it = |waiting: &Waiting| waiting.operation == operation;
                let at = self.waiting.iter().position(is_it).expect("it waited");
                ended.push((self.waiting.remove(at), done));
            }
            // The ends of threads that have ended are gone, and others may have been told so.
            for (waiting, done) in ended {
                prop_assert!(waiting.thread.join().is_ok());
                self.note(waiting.operation, &waiting.arms, done)?;
            }
        }
    }

    fn note(&mut self, operation: u64, arms: &[Arm], done: Done) -> Result<(), TestCaseError> {
        prop_assert!(arms.contains(&done.0));
        match done {
            (Arm::Send(channel), Some(message)) => {
                prop_assert_eq!(message / 4, operation);
                prop_assert!(self.sent[channel].insert(message));
            }
            (Arm::Recv(channel), Some(message)) => {
                prop_assert!(self.received[channel].insert(message), "received twice");
            }
            (arm, None) => {
                let own = arms.contains(&partner(arm));
                prop_assert!(!own && !self.lives(partner(arm)), "{:?}: it is there", arm);
                if let Arm::Recv(channel) = arm {
                    prop_assert_eq!(self.held(channel), 0, "not empty yet");
                }
            }
        }
        Ok(())
    }

    /// Tells if some thread has an end with which the arm could be done.
    fn lives(&self, arm: Arm) -> bool {
        let driver = match arm {
            Arm::Send(channel) => self.ends[channel].0.is_some(),
            Arm::Recv(channel) => self.ends[channel].1.is_some(),
        };
        driver || self.waiting.iter().any(|other| other.arms.contains(&arm))
    }

    /// How many messages lie in the channel.
    fn held(&self, channel: usize) -> usize {
        match &self.ends[channel] {
            (Some(sender), _) => sender.len(),
            (_, Some(receiver)) => receiver.len(),
            (None, None) => 0,
        }
    }

    fn is_full(&self, channel: usize) -> bool {
        CAPACITIES[channel].is_some_and(|capacity| self.held(channel) >= capacity)
    }

    /// Checks that neither the channels' contents nor the waiting threads make an arm ready.
    fn check_not_ready(&self, operation: u64, arms: &[Arm]) -> Result<(), TestCaseError> {
        for &arm in arms {
            let partner = partner(arm);
            prop_assert!(
                self.lives(partner) || arms.contains(&partner),
                "{:?} of {} waits for nobody",
                arm,
                operation
            );
            let (channel, blocked) = match arm {
                Arm::Send(channel) => (channel, self.is_full(channel)),
                Arm::Recv(channel) => (channel, self.held(channel) == 0),
            };
            // Without the driver's ends nothing tells what the channel holds.
            if matches!(self.ends[channel], (None, None)) {
                continue;
            }
            prop_assert!(blocked, "{:?} of {} is ready", arm, operation);
            let others = self.waiting.iter();
            let others = others.filter(|other| other.operation != operation);
            let partners = others.filter(|other| other.arms.contains(&partner));
            let partners: Vec<u64> = partners.map(|other| other.operation).collect();
            prop_assert!(
                partners.is_empty(),
                "{:?} of {} and {:?} wait for each other",
                arm,
                operation,
                partners
            );
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for waiting in &self.waiting {
            self.check_not_ready(waiting.operation, &waiting.arms)?;
        }
        for channel in 0..CHANNELS {
            let (sent, received) = (&self.sent[channel], &self.received[channel]);
            prop_assert!(received.is_subset(sent), "received and not sent");
            // What is left when the last receiver goes is dropped.
            let is_told = !matches!(self.ends[channel], (None, None));
            if is_told && self.lives(Arm::Recv(channel)) {
                prop_assert_eq!(self.held(channel), sent.len() - received.len());
            }
            let own = &self.own_sent[channel];
            let mut ordered = self.own_received[channel].clone();
            ordered.retain(|message| own.contains(message));
            prop_assert!(ordered.is_sorted(), "out of order: {:?}", ordered);
        }
        Ok(())
    }

    /// Ends all threads that wait.
    fn end(self) -> Result<(), TestCaseError> {
        for waiting in self.waiting {
            waiting.thread.thread().kill();
            prop_assert!(was_killed(&waiting.thread.join()));
        }
        drop(self.ends);
        prop_assert_eq!(Arc::strong_count(&self.lives), 1, "messages live on");
        Ok(())
    }
}

/// Returns the arm of the other side.
fn partner(arm: Arm) -> Arm {
    match arm {
        Arm::Send(channel) => Arm::Recv(channel),
        Arm::Recv(channel) => Arm::Send(channel),
    }
}

#[test]
fn random_sends_receptions_and_selects_lose_nothing_and_never_wait_in_vain() {
    for mode in MODES {
        with_deadline(fuzz_limit(), || {
            let rt = runtime(1, mode);
            let outcome = TestRunner::default().run(&steps(), |steps| {
                rt.run(|| {
                    let mut check = Check::new(&rt);
                    steps.iter().try_for_each(|step| check.step(step))?;
                    check.end()
                })
            });
            if let Err(failure) = outcome {
                panic!("{failure}");
            }
        });
    }
}
