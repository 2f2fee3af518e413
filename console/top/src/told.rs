//! The console's answer as values. Fields that are missing have defaults: the console may be older.

use std::collections::HashMap;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct All {
    pub(crate) time_ms: u64,
    pub(crate) process: Process,
    pub(crate) runtimes: Vec<Runtime>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) program: Option<String>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) os_threads: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Runtime {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) uptime_ms: u64,
    pub(crate) metrics: Metrics,
    pub(crate) workers: Vec<Worker>,
    pub(crate) wake_latency: Latency,
    pub(crate) stalled: Option<String>,
    pub(crate) states: HashMap<String, u64>,
    pub(crate) deadlocks: Vec<Deadlock>,
    pub(crate) groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) busy_us: u64,
    pub(crate) queued: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Latency {
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metrics {
    pub(crate) workers: u64,
    pub(crate) injector_len: u64,
    pub(crate) run_queue_len: u64,
    pub(crate) timers: u64,
    pub(crate) spawned: u64,
    pub(crate) parks: u64,
    pub(crate) hogs: u64,
    pub(crate) carriers: u64,
    pub(crate) stack_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deadlock {
    pub(crate) is_certain: bool,
    pub(crate) count: u64,
    pub(crate) threads: Vec<Thread>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    pub(crate) key: String,
    pub(crate) doing: String,
    pub(crate) what: Option<String>,
    pub(crate) count: u64,
    pub(crate) longest_ms: Option<u64>,
    pub(crate) shortest_ms: Option<u64>,
    pub(crate) trace: Vec<Call>,
    pub(crate) threads: Vec<Thread>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) at: String,
    /// It is the program's.
    pub(crate) own: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Thread {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) waited_ms: Option<u64>,
    pub(crate) what: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) holder: Option<Box<Thread>>,
    pub(crate) holder_is_gone: bool,
}

impl Thread {
    pub(crate) fn named(&self) -> String {
        match &self.name {
            Some(name) => format!("#{} {}", self.id, visible(name)),
            None => format!("#{}", self.id),
        }
    }

    /// What it waits for, and who has that.
    pub(crate) fn object(&self) -> String {
        let mut text = self.what.clone().unwrap_or_default();
        if let Some(address) = &self.address {
            text.extend([" (", address, ")"]);
        }
        if let Some(holder) = &self.holder {
            text.extend([" that ", &holder.named(), " has"]);
        }
        if self.holder_is_gone {
            text += " that a thread has which has ended";
        }
        text
    }
}

/// A name of the program's, without characters that would change the terminal.
pub(crate) fn visible(name: &str) -> String {
    let shown = name
        .chars()
        .map(|it| if it.is_control() { '?' } else { it });
    shown.collect()
}

/// The call of a group that says most: the innermost of the program's own.
pub(crate) fn first_own(calls: &[Call]) -> &str {
    let call = calls.iter().find(|call| call.own).or(calls.first());
    call.map_or("calls unknown", |call| &call.name)
}
