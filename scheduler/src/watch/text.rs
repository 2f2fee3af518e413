//! A dump as text: first what is wrong, then groups of threads. It is short enough for a person also with many threads.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::dump::{Deadlock, Doing, Dump, DumpedThread, WaitsFor};
use super::groups::{self, DumpedGroup};
use super::utc::Utc;
use crate::green::awaited::Awaited;
use crate::green::id::GreenThreadId;
use crate::green::trace::Trace;

/// Lines of a dump at most, unless all of it is asked for.
const LINES: usize = 190;

/// So many lines are left for what comes after a trace.
const LINES_FOR_GROUPS: usize = 40;

/// Members of a group, or of a deadlock, that are listed one by one.
const MEMBERS: usize = 8;

/// Text of at most so many lines.
struct Page {
    text: String,
    lines: usize,
    /// `usize::MAX`: any number.
    limit: usize,
}

impl Page {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        if self.lines < self.limit {
            // Writing to a string cannot fail.
            let _ = writeln!(self.text, "{line}");
            self.lines += 1;
        }
    }

    /// How many lines can still be written, if so many are to be left.
    fn room(&self, left: usize) -> usize {
        self.limit.saturating_sub(self.lines + left)
    }

    /// A trace, as far as there is room.
    fn trace(&mut self, trace: &Trace, indent: &str, at_most: usize) {
        let room = self.room(LINES_FOR_GROUPS).min(at_most);
        if room == 0 || trace.is_empty() {
            return;
        }
        let text = trace.to_string();
        let lines = text.lines().count();
        for line in text.lines().take(room) {
            self.line(format_args!("{indent}{line}"));
        }
        if lines > room {
            self.line(format_args!("{indent}    ... {} more", lines - room));
        }
    }
}

/// A thread's number and name.
struct Named<'a>(&'a DumpedThread);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0.id.get())?;
        match &self.0.name {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
    }
}

/// The threads of a dump by their numbers.
struct Names<'a>(HashMap<GreenThreadId, &'a DumpedThread>);

impl<'a> Names<'a> {
    fn of(dump: &'a Dump) -> Self {
        Self(
            dump.threads
                .iter()
                .map(|thread| (thread.id, thread))
                .collect(),
        )
    }

    fn name(&self, id: GreenThreadId) -> String {
        self.0.get(&id).map_or_else(
            || format!("#{}", id.get()),
            |thread| Named(thread).to_string(),
        )
    }

    /// What one thread waits for, and who has it.
    fn object(&self, waits: &WaitsFor) -> String {
        let mut text = waits.what.to_string();
        let address = waits.address;
        match (waits.what, waits.holder) {
            (Awaited::Join, Some(thread)) => {
                text = format!("the end of {}", self.name(thread));
            }
            (Awaited::Once, Some(thread)) => {
                let _ = write!(text, " ({address:#x}) that {} runs", self.name(thread));
            }
            (Awaited::ReadLock | Awaited::WriteLock, Some(thread)) if waits.readers > 0 => {
                let name = self.name(thread);
                let _ = write!(text, " ({address:#x}) that {name} reads");
                if waits.readers > 1 {
                    let _ = write!(text, ", and {} more", waits.readers - 1);
                }
            }
            (_, Some(thread)) => {
                let _ = write!(text, " ({address:#x}) that {} has", self.name(thread));
            }
            _ if waits.holder_is_gone => {
                let _ = write!(
                    text,
                    " ({address:#x}) that a green thread has which has ended or is not of this runtime"
                );
            }
            (Awaited::ReadLock | Awaited::WriteLock, None) if waits.readers > 0 => {
                let _ = write!(text, " ({address:#x}) that {} read", waits.readers);
            }
            (Awaited::Join | Awaited::Descriptor, None) => {}
            _ if address == 0 => {}
            _ => {
                let _ = match (waits.what, waits.others) {
                    (_, 0) => write!(text, " ({address:#x})"),
                    (Awaited::Room, others) => {
                        write!(text, " ({address:#x}; {})", counted(others, "receiver"))
                    }
                    (Awaited::WaitGroup, others) => {
                        write!(text, " ({address:#x}; {})", counted(others, "member"))
                    }
                    (_, others) => {
                        write!(text, " ({address:#x}; {})", counted(others, "sender"))
                    }
                };
            }
        }
        if waits.is_limited && waits.what != Awaited::Time {
            text.push_str(", with a limit");
        }
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| String::from("?"), |duration| format!("{duration:.3?}"))
}

/// What a thread does, with an `s` if it is one.
fn verb(doing: Doing, one: bool) -> &'static str {
    match (doing, one) {
        (Doing::Runs, true) => "runs",
        (Doing::Runs, false) => "run",
        (Doing::Ready, true) => "is ready to run",
        (Doing::Ready, false) => "are ready to run",
        (Doing::Parks, true) => "parks",
        (Doing::Parks, false) => "park",
        (Doing::Waits, true) => "waits",
        (Doing::Waits, false) => "wait",
        (Doing::Blocks, true) => "blocks its OS thread",
        (Doing::Blocks, false) => "block their OS threads",
    }
}

fn write_deadlock(page: &mut Page, deadlock: &Deadlock, names: &Names<'_>) {
    let count = deadlock.threads.len();
    let who = if count == 1 {
        String::from("a green thread waits for itself")
    } else {
        format!("{count} green threads wait for each other")
    };
    if deadlock.is_certain {
        page.line(format_args!("DEADLOCK: {who}"));
    } else {
        page.line(format_args!(
            "LIKELY DEADLOCK, as far as stacks tell: {who}"
        ));
    }
    for (index, id) in deadlock.threads.iter().enumerate() {
        if index >= MEMBERS && page.limit != usize::MAX {
            page.line(format_args!("  ... and {} more", count - index));
            return;
        }
        let Some(thread) = names.0.get(id) else {
            continue;
        };
        let next = deadlock.threads[(index + 1) % count];
        let Some(waits) = &thread.waits_for else {
            continue;
        };
        let by_stack = if waits.holder.is_some() {
            String::new()
        } else if count <= 2 {
            format!(", which the stack of {} refers to", names.name(next))
        } else {
            String::from(", which stacks of the others refer to")
        };
        page.line(format_args!(
            "  {} waits for {}{by_stack}, for {}",
            Named(thread),
            names.object(waits),
            seconds(thread.waited)
        ));
        let at_most = if count > 2 { 8 } else { 14 };
        let at_most = if page.limit == usize::MAX {
            usize::MAX
        } else {
            at_most
        };
        page.trace(&thread.trace, "  ", at_most);
    }
}

/// Three names of those who have what the members wait for.
fn holders(group: &DumpedGroup<'_>, names: &Names<'_>) -> Vec<String> {
    let mut holders: Vec<String> = Vec::new();
    for thread in &group.threads {
        if let Some(holder) = thread.waits_for.as_ref().and_then(|waits| waits.holder) {
            let name = names.name(holder);
            if !holders.contains(&name) {
                holders.push(name);
            }
            if holders.len() == 3 {
                break;
            }
        }
    }
    holders
}

fn write_group(page: &mut Page, group: &DumpedGroup<'_>, names: &Names<'_>, at_most: usize) {
    let count = group.threads.len();
    let mut line = format!("{count} {}", verb(group.doing, count == 1));
    let first = group.threads[0].waits_for.as_ref();
    let same = group.threads.iter().all(|thread| {
        let waits = thread.waits_for.as_ref();
        waits.map(|waits| waits.address) == first.map(|waits| waits.address)
    });
    match (first, group.doing) {
        (None, _) | (_, Doing::Parks) => {}
        (Some(waits), _) if same => {
            let _ = write!(line, " for {}", names.object(waits));
        }
        (Some(waits), _) => {
            let mut addresses: Vec<usize> = group
                .threads
                .iter()
                .filter_map(|thread| thread.waits_for.as_ref().map(|waits| waits.address))
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            let _ = write!(
                line,
                " for {} ({} different ones",
                waits.what,
                addresses.len()
            );
            let holders = holders(group, names);
            if !holders.is_empty() {
                let _ = write!(line, ", of {} ...", holders.join(", "));
            }
            line.push(')');
            let is_limited = |waits: &WaitsFor| waits.is_limited && waits.what != Awaited::Time;
            let mut all = group.threads.iter();
            if all.all(|thread| thread.waits_for.as_ref().is_some_and(is_limited)) {
                line.push_str(", with a limit");
            }
        }
    }
    match (group.longest(), group.shortest()) {
        (None, _) | (_, None) => {}
        (longest, shortest) if count == 1 || longest == shortest => {
            let _ = write!(line, ", for {}", seconds(longest));
        }
        (longest, shortest) => {
            let _ = write!(line, ", for {} to {}", seconds(shortest), seconds(longest));
        }
    }
    let told = if page.limit == usize::MAX || count <= MEMBERS + 2 {
        count
    } else {
        MEMBERS
    };
    line.push_str(": ");
    let members = group.threads.iter().take(told);
    let members: Vec<String> = members.map(|thread| Named(thread).to_string()).collect();
    line.push_str(&members.join(", "));
    if told < count {
        let _ = write!(line, ", ... and {} more", count - told);
    }
    page.line(format_args!("{line}"));
    page.trace(group.trace, "", at_most);
}

/// Writes groups of threads, the first ones with their traces.
fn write_groups<'a>(
    page: &mut Page,
    threads: impl Iterator<Item = &'a DumpedThread>,
    names: &Names<'_>,
) {
    let groups = groups::of(threads);
    let mut members_left: usize = groups.iter().map(|group| group.threads.len()).sum();
    // Few groups have room for whole traces.
    let at_most = if page.limit == usize::MAX {
        usize::MAX
    } else {
        (page.room(LINES_FOR_GROUPS) / groups.len().max(1)).max(8)
    };
    for (index, group) in groups.iter().enumerate() {
        if page.room(1) <= 1 && index + 1 < groups.len() {
            page.line(format_args!(
                "... and {members_left} green threads in {} more groups; `{{:#}}` writes all of them",
                groups.len() - index
            ));
            return;
        }
        write_group(page, group, names, at_most);
        members_left -= group.threads.len();
    }
}

/// The page for a formatter: all of it with `#`.
fn page(f: &fmt::Formatter<'_>) -> Page {
    Page {
        text: String::new(),
        lines: 0,
        limit: if f.alternate() { usize::MAX } else { LINES },
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = page(f);
        let names = Names::of(self);
        write_head(&mut page, self);
        let mut told: HashSet<GreenThreadId> = HashSet::new();
        for deadlock in &self.deadlocks {
            if page.room(LINES_FOR_GROUPS) == 0 {
                page.line(format_args!("... and more deadlocks"));
                break;
            }
            write_deadlock(&mut page, deadlock, &names);
            told.extend(&deadlock.threads);
        }
        let others = self.threads.iter();
        let others = others.filter(|thread| !told.contains(&thread.id));
        write_groups(&mut page, others, &names);
        f.write_str(&page.text)
    }
}

/// A dump without its head; for the parts of `Changes`.
pub(super) fn write_threads(f: &mut fmt::Formatter<'_>, dump: &Dump, limit: usize) -> fmt::Result {
    let mut page = page(f);
    page.limit = page.limit.min(limit);
    if f.alternate() {
        page.limit = usize::MAX;
    }
    write_groups(&mut page, dump.threads.iter(), &Names::of(dump));
    f.write_str(&page.text)
}

fn write_head(page: &mut Page, dump: &Dump) {
    let taken = dump.taken.map(Utc).map(|taken| format!(" at {taken}"));
    let name = match dump.runtime.as_str() {
        "" => "a runtime",
        name => name,
    };
    page.line(format_args!(
        "{name}: {} green threads{}, {:.1?} after the runtime's start",
        dump.threads.len(),
        taken.unwrap_or_default(),
        dump.uptime
    ));
    let count = |doing: &[Doing]| {
        let threads = dump.threads.iter();
        threads
            .filter(|thread| doing.contains(&thread.doing))
            .count()
    };
    let metrics = &dump.metrics;
    page.line(format_args!(
        "{} run, {} are ready, {} wait, {} block their OS threads; {} workers, {} OS threads, {} queued, {} timers, \
         {} spawned, {} hogs, {} MiB of stacks",
        count(&[Doing::Runs]),
        count(&[Doing::Ready]),
        count(&[Doing::Waits, Doing::Parks]),
        count(&[Doing::Blocks]),
        metrics.workers,
        metrics.carriers,
        metrics.run_queue_len + metrics.injector_len,
        metrics.timers,
        metrics.spawned,
        metrics.hogs,
        metrics.stack_bytes >> 20
    ));
    if let Some(stalled) = &dump.stalled {
        for line in stalled.lines() {
            page.line(format_args!("{line}"));
        }
    }
}
