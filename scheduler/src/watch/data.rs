//! A dump as data, with the feature `serde`: what the documentation of `Dump` says of its fields.
//!
//! Written by hand instead of derived, for two reasons. The data has groups, which are no field of `Dump`. And each struct is taken apart
//! in full here, so a field that is added later does not compile until somebody has given it a name.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde_core::ser::{Serialize, SerializeStruct as _, Serializer};

use super::dump::{Deadlock, Doing, Dump, DumpedThread, WaitsFor};
use super::groups::DumpedGroup;
use super::metrics::Metrics;
use super::utc::Rfc3339;
use crate::green::awaited::Awaited;
use crate::green::id::GreenThreadId;
use crate::green::trace::{Frame, Trace};

/// Writes the fields of a struct in their order.
macro_rules! fields {
    ($serializer:ident, $name:literal, { $($field:ident: $value:expr),* $(,)? }) => {{
        let count = [$(stringify!($field)),*].len();
        let mut written = $serializer.serialize_struct($name, count)?;
        $(written.serialize_field(stringify!($field), &$value)?;)*
        written.end()
    }};
}

/// As text, by its `Display`.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An address, as people write it: JSON's numbers are no good for 64 bits.
struct Address(usize);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

/// The number.
impl Serialize for GreenThreadId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.as_u64())
    }
}

/// `"runs"`, `"ready"`, `"parks"`, `"waits"`, `"blocks"`.
impl Serialize for Doing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Its [`name`](Awaited::name).
impl Serialize for Awaited {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            address,
            function,
            file,
            line,
        } = self;
        fields!(serializer, "Frame", {
            address: Address(*address), function: function, file: file, line: line,
        })
    }
}

/// Its [`frames`](Trace::frames).
impl Serialize for Trace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.frames())
    }
}

impl Serialize for WaitsFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            what,
            address,
            holder,
            holder_is_gone,
            readers,
            others,
            is_limited,
        } = self;
        let address = (*address != 0).then_some(Address(*address));
        fields!(serializer, "WaitsFor", {
            what: what, address: address, holder: holder, holder_is_gone: holder_is_gone,
            readers: readers, others: others, is_limited: is_limited,
        })
    }
}

/// A thread, and which of the groups it is in.
struct Member<'a>(&'a DumpedThread, Option<usize>);

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The trace is the group's. The number of the wait is of use to weald alone.
        let DumpedThread {
            id,
            name,
            doing,
            waited,
            waits_for,
            trace: _,
            epoch: _,
        } = self.0;
        fields!(serializer, "DumpedThread", {
            id: id, name: name, doing: doing, waited_seconds: seconds(*waited),
            waits_for: waits_for, group: self.1,
        })
    }
}

impl Serialize for DumpedGroup<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            doing,
            what,
            trace,
            threads,
        } = self;
        let ids: Vec<GreenThreadId> = threads.iter().map(|thread| thread.id).collect();
        fields!(serializer, "DumpedGroup", {
            doing: doing, what: what, count: ids.len(), longest_seconds: seconds(self.longest()),
            shortest_seconds: seconds(self.shortest()), threads: ids, trace: trace,
        })
    }
}

impl Serialize for Deadlock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            threads,
            is_certain,
        } = self;
        fields!(serializer, "Deadlock", { is_certain: is_certain, threads: threads })
    }
}

impl Serialize for Dump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            runtime,
            taken,
            uptime,
            metrics,
            threads,
            deadlocks,
            stalled,
        } = self;
        let groups = self.groups();
        let mut group_of: HashMap<GreenThreadId, usize> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            group_of.extend(group.threads.iter().map(|thread| (thread.id, index)));
        }
        let member = |thread| -> Member<'_> {
            let thread: &DumpedThread = thread;
            Member(thread, group_of.get(&thread.id).copied())
        };
        let members: Vec<Member<'_>> = threads.iter().map(member).collect();
        fields!(serializer, "Dump", {
            runtime: runtime, taken: taken.map(|taken| Text(Rfc3339(taken))),
            uptime_seconds: uptime.as_secs_f64(), metrics: metrics, stalled: stalled,
            deadlocks: deadlocks, groups: groups, threads: members,
        })
    }
}

/// The fields by their names.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        macro_rules! all {
            ($($field:ident),* $(,)?) => {{
                let Self { $($field),* } = self;
                fields!(serializer, "Metrics", { $($field: $field),* })
            }};
        }
        all!(
            workers,
            live,
            parked,
            injector_len,
            run_queue_len,
            timers,
            spawned,
            steals,
            parks,
            polls,
            carriers,
            spare_threads,
            own_threads,
            hogs,
            handovers,
            unrelieved,
            stalled,
            waiting_to_block,
            refused_threads,
            stack_bytes,
        )
    }
}
