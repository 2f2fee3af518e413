//! Stacks with weights, in the format of flame graphs: `outermost;...;innermost weight`, a line for each stack.
//!
//! | kind | weight |
//! |---|---|
//! | `waiting` | milliseconds that threads have waited there until now, of all threads together |
//! | `threads` | threads that wait there now |
//! | `running` | looks in which a thread ran, was ready to run, or blocked its OS thread |
//!
//! Nobody can take the trace of a thread that runs without stopping it. So a running thread is told under the calls of the last wait
//! in which it was seen.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use weald::{Doing, DumpedThread, Trace};

use crate::calls::Names;
use crate::watched::{Dumped, Watched};

/// The least time between two looks at running threads.
const PAUSE: Duration = Duration::from_millis(10);
/// A look may take this part of the time: looks at many threads are rarer.
const SHARE: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Waiting,
    Threads,
    Running,
}

impl Kind {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "waiting" => Some(Self::Waiting),
            "threads" => Some(Self::Threads),
            "running" => Some(Self::Running),
            _ => None,
        }
    }
}

/// Weights by stack.
#[derive(Debug, Default)]
pub(crate) struct Stacks(BTreeMap<String, u64>);

impl Stacks {
    /// The stacks of all runtimes, or of the one with this number. `Running` looks for so long; a blocking call.
    pub(crate) fn take(
        kind: Kind,
        time: Duration,
        runtime: Option<u64>,
        watched: &Watched,
        names: &Names,
    ) -> Self {
        let mut stacks = Self::default();
        if kind != Kind::Running {
            for dumped in of(&watched.dumps(), runtime) {
                for thread in &dumped.dump.threads {
                    stacks.add_waiting(kind, thread, names);
                }
            }
            return stacks;
        }
        let begun = Instant::now();
        let mut last_waits: HashMap<(u64, u64), Trace> = HashMap::new();
        loop {
            let look = Instant::now();
            let dumps = watched.dumps_now();
            for dumped in of(&dumps, runtime) {
                let number = dumped.runtime.number();
                for thread in &dumped.dump.threads {
                    let id = (number, thread.id.as_u64());
                    stacks.add_running(thread, last_waits.get(&id), names);
                    if !thread.trace.is_empty() {
                        last_waits.insert(id, thread.trace.clone());
                    }
                }
            }
            if begun.elapsed() >= time {
                return stacks;
            }
            weald::sleep((look.elapsed() * (SHARE - 1)).max(PAUSE));
        }
    }

    fn add_waiting(&mut self, kind: Kind, thread: &DumpedThread, names: &Names) {
        let Some(waited) = thread.waited else {
            return;
        };
        let weight = match kind {
            Kind::Threads => 1,
            _ => u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        };
        let what = match (&thread.waits_for, thread.doing) {
            (Some(waits), Doing::Waits) => format!("waits for {}", waits.what),
            (_, doing) => doing.to_string(),
        };
        self.add(thread, Some(&thread.trace), &what, weight, names);
    }

    fn add_running(&mut self, thread: &DumpedThread, last: Option<&Trace>, names: &Names) {
        match thread.doing {
            Doing::Runs => self.add(thread, last, "runs", 1, names),
            Doing::Ready => self.add(thread, last, "is ready to run", 1, names),
            Doing::Blocks => {
                let calls = Some(&thread.trace);
                self.add(thread, calls, "blocks its OS thread", 1, names);
            }
            _ => {}
        }
    }

    fn add(
        &mut self,
        thread: &DumpedThread,
        calls: Option<&Trace>,
        state: &str,
        weight: u64,
        names: &Names,
    ) {
        if weight == 0 {
            return;
        }
        let mut stack = frame(&kind_of_name(thread.name.as_deref().unwrap_or("unnamed")));
        match calls.filter(|calls| !calls.is_empty()) {
            Some(calls) => {
                for call in names.of(calls).iter().rev() {
                    stack.push(';');
                    stack.push_str(&frame(&call.function));
                }
            }
            None => stack.push_str(";calls unknown"),
        }
        stack.push(';');
        // The last frame does not end with a number, which would be taken for a second weight.
        stack.push_str(&frame(state));
        let sum = self.0.entry(stack).or_default();
        *sum = sum.saturating_add(weight);
    }

    /// The stacks as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (stack, weight) in &self.0 {
            let _ = writeln!(text, "{stack} {weight}");
        }
        text
    }

    /// The stacks as a picture that a browser shows. `None`: there are none.
    #[cfg(feature = "flamegraph")]
    pub(crate) fn picture(&self, kind: Kind) -> std::io::Result<Option<Vec<u8>>> {
        use inferno::flamegraph::{Options, from_lines};

        if self.0.is_empty() {
            return Ok(None);
        }
        let (title, unit) = match kind {
            Kind::Waiting => ("Waiting time of green threads", "ms"),
            Kind::Threads => ("Green threads that wait", "threads"),
            Kind::Running => (
                "Running green threads, by the last wait that was seen",
                "looks",
            ),
        };
        let mut options = Options::default();
        title.clone_into(&mut options.title);
        unit.clone_into(&mut options.count_name);
        // The same function has the same colour in each picture.
        options.deterministic = true;
        let text = self.text();
        let mut picture = Vec::new();
        from_lines(&mut options, text.lines(), &mut picture)?;
        Ok(Some(picture))
    }
}

/// The dumps of all runtimes, or of the one with this number.
fn of(dumps: &[Dumped], runtime: Option<u64>) -> impl Iterator<Item = &Dumped> {
    let is_meant = move |number| runtime.is_none_or(|meant| meant == number);
    dumps
        .iter()
        .filter(move |dumped| is_meant(dumped.runtime.number()))
}

/// A name without the numbers in it, which tell threads of one kind apart.
fn kind_of_name(name: &str) -> String {
    let mut kind = String::new();
    for character in name.chars() {
        if !character.is_ascii_digit() {
            kind.push(character);
        } else if !kind.ends_with('#') {
            kind.push('#');
        }
    }
    kind
}

/// A frame of a stack: without the characters that separate frames and lines.
fn frame(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            ';' => ':',
            character if character.is_control() => ' ',
            character => character,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{frame, kind_of_name};

    #[test]
    fn threads_of_one_kind_have_one_frame_and_no_name_breaks_the_format() {
        assert_eq!(kind_of_name("worker-17"), kind_of_name("worker-4"));
        assert_eq!(kind_of_name("a1b22"), "a#b#");
        assert_eq!(frame("[u8; 8]\n; x"), "[u8: 8] : x");
    }
}
