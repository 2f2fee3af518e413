//! An actor of the crowd: it waits, does something to the others or with them, and repeats that until it is ended.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::counted::Ticket;
use super::random::Random;
use super::traffic as t;
use super::world::{World, lock};

/// An exception from another thread (0), or one that the actor has thrown itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) u64);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark {}", self.0)
    }
}

impl Error for Mark {}

/// An actor of the crowd, or a helper of one.
pub(crate) struct Actor {
    pub(crate) world: Arc<World>,
    pub(crate) random: Random,
}

/// An operation: its name, its share of all operations, and its code.
type Operation = (&'static str, u64, fn(&mut Actor));

/// What an actor does.
const OPERATIONS: [Operation; 16] = [
    ("takes a permit", 12, t::permit),
    ("transfers money", 12, t::transfer),
    ("uses the table", 8, t::table),
    ("sends", 14, t::send),
    ("receives", 14, t::receive),
    ("uses the mailbox", 6, t::mailbox),
    ("exchanges with a child", 8, t::exchange),
    ("asks for a call later", 6, t::call_later),
    ("interrupts itself", 6, interrupt_self),
    ("sets itself a limit", 6, limit_self),
    ("disturbs another", 8, disturb),
    ("has a family", 2, t::family),
    ("leaves a will", 6, t::leave_will),
    ("raises hogs", 1, t::raise_hogs),
    ("talks by TCP", 3, t::talk_tcp),
    ("talks by a Unix socket", 4, t::talk_unix),
];

/// The operations that return no `io::Result`: nothing swallows what is raised in them.
const PLAIN: usize = 8;

/// The names of the operations.
pub(crate) const NAMES: [&str; OPERATIONS.len()] = {
    let mut names = [""; OPERATIONS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = OPERATIONS[at].0;
        at += 1;
    }
    names
};

/// Notes what a seat's thread does, for the report about threads that are stuck.
struct Told<'a>(&'a Ticket, usize);

impl<'a> Told<'a> {
    fn new(ticket: &'a Ticket, slot: usize, operation: usize) -> Self {
        ticket.world.doing[slot].store(operation + 1, SeqCst);
        Self(ticket, slot)
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.world.doing[self.1].store(0, SeqCst);
    }
}

/// The life of a seat's thread.
pub(crate) fn live(ticket: &Ticket, slot: usize, random: Random) {
    let mut actor = Actor {
        world: Arc::clone(&ticket.world),
        random,
    };
    while !ticket.world.ends.load(SeqCst) && !actor.random.one_in(40) {
        actor.pause();
        let _under_way = ticket.world.enter();
        ticket.world.counts.operations.fetch_add(1, SeqCst);
        let operation = actor.choose(OPERATIONS.len());
        let _told = Told::new(ticket, slot, operation);
        if std::thread::panicking() {
            let what = "a thread seems to unwind that does not";
            ticket.world.fault(what.to_owned());
        }
        OPERATIONS[operation].2(&mut actor);
    }
}

impl Actor {
    /// Returns one of the first `among` numbers.
    fn choose(&mut self, among: usize) -> usize {
        let parts = OPERATIONS[..among]
            .iter()
            .map(|operation| operation.1)
            .sum();
        let mut part = self.random.below(parts);
        for (index, operation) in OPERATIONS.iter().enumerate() {
            if part < operation.1 {
                return index;
            }
            part -= operation.1;
        }
        unreachable!("the part is less than all parts")
    }

    fn plain_operation(&mut self) {
        let operation = self.choose(PLAIN);
        OPERATIONS[operation].2(self);
    }

    /// Waits in one of the ways to wait for nothing.
    fn pause(&mut self) {
        let mean = u64::try_from(self.world.mean_pause.as_micros()).unwrap_or(u64::MAX / 4);
        let limit = self.random.micros(mean * 2);
        match self.random.below(5) {
            0 => weald::park_timeout(limit),
            1 => drop(self.world.no_permits.acquire_timeout(limit)),
            2 => drop(weald::sync::channel::never::<()>().recv_timeout(limit)),
            3 => weald::select! {
                recv(weald::sync::channel::after(limit)) -> _ => {}
                recv(weald::sync::channel::never::<()>()) -> _ => {}
            },
            _ => weald::sleep(limit),
        }
    }

    /// Keeps what it holds for a moment.
    pub(crate) fn hold(&mut self) {
        match self.random.below(200) {
            0 => spin(self.random.micros(15_000)),
            1 => weald::blocking(|| std::thread::sleep(Duration::from_millis(2))),
            2..40 => weald::sleep(self.random.micros(2000)),
            40..100 => weald::yield_now(),
            100..110 => weald::checkpoint(),
            _ => {}
        }
    }
}

/// Computes and so holds its worker.
pub(crate) fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Does something to a random other thread, or to itself.
fn disturb(actor: &mut Actor) {
    let seat = actor.random.pick(&actor.world.seats);
    let Some(victim) = lock(seat).as_ref().map(|seat| seat.thread().clone()) else {
        return;
    };
    match actor.random.below(4) {
        0 => victim.kill(),
        1 => victim.throw(Mark(0)),
        _ => victim.unpark(),
    }
}

/// An exception of its own that is due soon: raised once, or cancelled, never both or neither.
fn interrupt_self(actor: &mut Actor) {
    let mark = Mark(1 + actor.random.below(u64::MAX));
    let timer = weald::exc_after(actor.random.micros(3000), mark);
    let caught = weald::catch::<Mark, _>(|| {
        while !actor.random.one_in(3) {
            actor.plain_operation();
        }
    });
    let raised = caught == Err(mark);
    if raised == timer.cancel() {
        let what = if raised {
            "raised and cancelled"
        } else {
            "neither raised nor cancelled"
        };
        actor.world.fault(format!("an exception was {what}"));
    }
}

/// Limits within limits.
fn limit_self(actor: &mut Actor) {
    let limit = actor.random.micros(5000);
    let _in_time = weald::timeout(limit, || {
        if actor.random.one_in(3) {
            limit_self(actor);
        }
        actor.plain_operation();
    });
}
