//! `dump`: who there is, and what each one does, for whoever asks why nothing goes on.
#![allow(unsafe_code, reason = "refers to a thread that is held where it runs")]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::worker::millis_since;
use crate::green::green_thread::Header;
use crate::green::id::GreenThreadId;
use crate::green::trace::{Trace, Tracer};
use crate::shim::atomic::Ordering;
use crate::shim::clock;

/// What a green thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doing {
    /// It runs on an OS thread.
    Runs,
    /// It waits for an OS thread to run on.
    Ready,
    /// It waits in [`park`](crate::park) or [`park_timeout`](crate::park_timeout).
    Parks,
    /// It waits for something else: a time, a descriptor, a lock, a channel, another thread's end.
    Waits,
    /// It waits and blocks its OS thread meanwhile: inside [`blocking`](crate::blocking()).
    Blocks,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Runs => "runs",
            Self::Ready => "ready",
            Self::Parks => "parks",
            Self::Waits => "waits",
            Self::Blocks => "blocks",
        })
    }
}

/// One green thread, as [`dump`](crate::dump()) saw it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpedThread {
    /// Its number.
    pub id: GreenThreadId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// What it did.
    pub doing: Doing,
    /// For how long it has waited, if it waits; exact to the time that its worker takes for some 60
    /// other threads, since it asks for the time only so often.
    pub waited: Option<Duration>,
    /// The calls that it is in, if it waits: the first ones say what for.
    pub trace: Trace,
}

/// The green threads of a runtime; from [`dump`](crate::dump()). Its `Display` is a line for each, and
/// below those that are in the same place the calls that led there.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Dump {
    /// In no order.
    pub threads: Vec<DumpedThread>,
    /// If workers stand still, as there is no OS thread to take them over from green threads that block
    /// or compute: how many, and why. If green threads wait to enter [`blocking`](crate::blocking()), as the bound of such calls is
    /// reached: how many, and the bound.
    pub stalled: Option<String>,
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} green threads", self.threads.len())?;
        if let Some(stalled) = &self.stalled {
            writeln!(f, "{stalled}")?;
        }
        let mut places: Vec<(&Trace, Vec<&DumpedThread>)> = Vec::new();
        let mut place_of = HashMap::new();
        for thread in &self.threads {
            let place = *place_of.entry(&thread.trace).or_insert_with(|| {
                places.push((&thread.trace, Vec::new()));
                places.len() - 1
            });
            places[place].1.push(thread);
        }
        for (trace, threads) in places {
            for thread in threads {
                let name = thread.name.as_deref().unwrap_or("<unnamed>");
                write!(f, "{:?} {:<6} {name}", thread.id, thread.doing)?;
                match thread.waited {
                    Some(waited) => writeln!(f, ", for {waited:.3?}")?,
                    None => writeln!(f)?,
                }
            }
            trace.fmt(f)?;
        }
        Ok(())
    }
}

/// What there is to say of workers that stand still, and of green threads that wait for others to come back from
/// `blocking`.
fn stalled(inner: &Inner) -> Option<String> {
    let stalled = inner.monitor.stalled.load(Ordering::Relaxed);
    let workers = (stalled > 0).then(|| {
        let why = inner.seats.shortage().map_or_else(
            || String::from("an OS thread is there now"),
            |why| why.to_string(),
        );
        format!(
            "{stalled} of {} workers stand still: {why}",
            inner.workers.len()
        )
    });
    let waiting = inner.blocking.waiting();
    let calls = (waiting > 0).then(|| {
        let spares = inner.settings.spares;
        format!(
            "{waiting} green threads wait to enter `blocking`: {spares} such calls run (RuntimeBuilder::spare_threads)"
        )
    });
    match (workers, calls) {
        (Some(workers), Some(calls)) => Some(format!("{workers}\n{calls}")),
        (workers, calls) => workers.or(calls),
    }
}

pub(crate) fn of(inner: &Inner) -> Dump {
    let running: HashSet<*const Header> = inner
        .carriers
        .iter()
        .filter(|carrier| carrier.door.is_outside())
        .map(|carrier| carrier.running.load(Ordering::Relaxed).cast_const())
        .collect();
    let mut tasks = inner.registry.all();
    let known: HashSet<*const Header> = tasks.iter().map(|task| &raw const **task).collect();
    tasks.extend(
        inner
            .carriers
            .iter()
            .filter_map(Carrier::running_thread)
            .filter(|task| !known.contains(&(&raw const **task))),
    );
    let mut tracer = Tracer::new();
    let now = millis_since(inner.start, clock::now());
    let waited = |header: &Header| {
        let millis = now.saturating_sub(header.left_at.time());
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    };
    let threads = tasks.iter().filter_map(|task| {
        let header: &Header = task;
        let doing = match header.state.waits() {
            _ if header.state.is_done() => return None,
            Some(kind) if kind.in_place && header.runs_on_carriers() => Doing::Blocks,
            Some(kind) if kind.by_token => Doing::Parks,
            Some(_) => Doing::Waits,
            None if running.contains(&std::ptr::from_ref(header)) => Doing::Runs,
            None if !header.runs_on_carriers() => Doing::Runs,
            None => Doing::Ready,
        };
        Some(DumpedThread {
            id: header.id,
            name: header.name().map(str::to_string),
            doing,
            waited: header.state.waits().map(|_| waited(header)),
            trace: tracer.take(header),
        })
    });
    Dump {
        threads: threads.collect(),
        stalled: stalled(inner),
    }
}
