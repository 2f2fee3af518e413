//! Reads traces back, by a reader of its own, and checks what must hold in each.

use std::collections::{HashMap, HashSet};

use weald::trace::{self, Options};
use weald::{Builder, Runtime};

use super::support::{MS, each_mode_on};
use super::{LONG, alone, record};

/// A field's value.
#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message: its fields in their order.
#[derive(Clone, Debug, Default)]
struct Message(Vec<(u64, Value)>);

impl Message {
    fn read(mut bytes: &[u8]) -> Self {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => {
                    let (eight, rest) = bytes.split_at(8);
                    bytes = rest;
                    Value::Number(u64::from_le_bytes(eight.try_into().unwrap()))
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (some, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Bytes(some.to_vec())
                }
                kind => panic!("no such kind of field: {kind}"),
            };
            fields.push((key >> 3, value));
        }
        Self(fields)
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &Value> {
        self.0
            .iter()
            .filter(move |(number, _)| *number == field)
            .map(|(_, value)| value)
    }

    fn number(&self, field: u64) -> Option<u64> {
        self.all(field).find_map(|value| match value {
            Value::Number(number) => Some(*number),
            Value::Bytes(_) => None,
        })
    }

    fn bytes(&self, field: u64) -> Option<&[u8]> {
        self.all(field).find_map(|value| match value {
            Value::Number(_) => None,
            Value::Bytes(bytes) => Some(&bytes[..]),
        })
    }

    fn message(&self, field: u64) -> Option<Self> {
        self.bytes(field).map(Self::read)
    }

    fn messages(&self, field: u64) -> Vec<Self> {
        let read = |value: &Value| match value {
            Value::Number(_) => panic!("a message"),
            Value::Bytes(bytes) => Self::read(bytes),
        };
        self.all(field).map(read).collect()
    }

    fn text(&self, field: u64) -> Option<String> {
        self.bytes(field)
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }
}

/// What was read of a trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Names of tracks.
    tracks: HashMap<u64, String>,
    /// Names of slices and instants, by track.
    events: HashMap<String, Vec<String>>,
    /// How many flows were ended.
    flows: usize,
}

/// Checks a trace: each event has its track, and each name its text; time goes on; each slice ends, and those of a track
/// nest; each flow ends once at most, after it has begun.
pub(super) fn check(bytes: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut names = HashMap::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    let (mut begun, mut ended) = (HashSet::new(), HashSet::new());
    let mut last = 0;
    for (index, packet) in Message::read(bytes).messages(1).iter().enumerate() {
        assert!(packet.number(10).is_some(), "its sequence");
        assert_eq!(
            packet.number(13) == Some(1),
            index == 0,
            "names begin with the first"
        );
        for entry in packet
            .message(12)
            .map(|data| data.messages(2))
            .unwrap_or_default()
        {
            let known = names.insert(entry.number(1).unwrap(), entry.text(2).unwrap());
            assert_eq!(known, None, "a number has one name");
        }
        if let Some(track) = packet.message(60) {
            let parent = track.number(5);
            assert!(parent.is_none_or(|parent| trace.tracks.contains_key(&parent)));
            let known = trace
                .tracks
                .insert(track.number(1).unwrap(), track.text(2).unwrap());
            assert_eq!(known, None, "a track is described once");
        }
        let Some(event) = packet.message(11) else {
            continue;
        };
        let time = packet.number(8).unwrap();
        assert!(time >= last, "time goes on");
        last = time;
        let number = event.number(11).unwrap();
        let track = trace.tracks.get(&number).expect("the track was described");
        if let Some(name) = event.number(10) {
            let name = names.get(&name).expect("the name was told").clone();
            trace.events.entry(track.clone()).or_default().push(name);
        }
        let depth = open.entry(number).or_default();
        match event.number(9).unwrap() {
            1 => *depth += 1,
            2 => *depth = depth.checked_sub(1).expect("a slice has begun"),
            3 | 4 => {}
            kind => panic!("no such event: {kind}"),
        }
        if !track.contains("spans") {
            assert!(*depth <= 1, "{track}: one slice at a time");
        }
        if let Some(flow) = event.number(47) {
            assert!(begun.insert(flow), "a flow begins once");
        }
        if let Some(flow) = event.number(48) {
            assert!(
                begun.contains(&flow) && ended.insert(flow),
                "and ends once, later"
            );
        }
    }
    assert!(open.values().all(|depth| *depth == 0), "each slice ends");
    trace.flows = ended.len();
    trace
}

/// What the trace has on the track with this name.
fn on<'a>(trace: &'a Trace, track: &str) -> &'a [String] {
    let found = trace
        .events
        .iter()
        .find(|(name, _)| name.starts_with(track));
    found.map_or(&[], |(_, events)| events)
}

#[test]
fn a_trace_keeps_its_rules_and_tells_who_woke_whom() {
    let _alone = alone();
    each_mode_on(2, |rt| {
        let (recording, ()) = record(|| {
            rt.run(|| {
                let waiter = Builder::new().name(String::from("waiter"));
                let waiter = waiter.spawn(|| {
                    let _span = trace::span("a request");
                    weald::sleep(LONG);
                    trace::mark("awake");
                });
                let threads: Vec<_> = (0..50).map(|_| weald::spawn(weald::yield_now)).collect();
                for thread in threads {
                    thread.join().unwrap();
                }
                waiter.unwrap().join().unwrap();
            });
        });
        let mut file = Vec::new();
        recording.write_to(&mut file).unwrap();
        let trace = check(&file);
        let waiter = on(&trace, "waiter (");
        for name in ["is ready", "runs", "waits for a time", "awake"] {
            assert!(waiter.iter().any(|it| it == name), "{name}: {waiter:?}");
        }
        assert!(
            trace
                .events
                .values()
                .flatten()
                .any(|name| name == "a request")
        );
        assert!(
            trace
                .events
                .values()
                .flatten()
                .any(|name| name.starts_with("perfetto.rs:"))
        );
        let workers = trace
            .tracks
            .values()
            .filter(|name| name.starts_with("worker "));
        assert!(workers.count() >= 1);
        // Each thread was spawned, and its first run is where a flow ends.
        assert!(trace.flows >= 51, "{}", trace.flows);
        if let Some(path) = std::env::var_os("WEALD_TEST_TRACE") {
            std::fs::write(path, &file).unwrap();
        }
    });
}

#[test]
fn a_trace_of_a_recording_with_gaps_keeps_its_rules() {
    let _alone = alone();
    let rt = Runtime::builder().workers(2).build().unwrap();
    // Enough to overwrite the memory several times.
    trace::start(Options::new().memory(64 << 10)).unwrap();
    rt.run(|| {
        for round in 0..20 {
            weald::scope(|s| {
                for _ in 0..100 {
                    s.spawn(move || {
                        let _span = trace::span("outer");
                        weald::yield_now();
                        if round % 4 == 0 {
                            weald::sleep(MS);
                        }
                        let _inner = trace::span("inner");
                        weald::yield_now();
                    });
                }
            });
        }
    });
    let recording = trace::stop();
    assert!(recording.events().len() < 64 << 10);
    let mut file = Vec::new();
    recording.write_to(&mut file).unwrap();
    check(&file);
    let mut empty = Vec::new();
    trace::stop().write_to(&mut empty).unwrap();
    assert!(empty.is_empty());
}

#[test]
fn a_writer_that_fails_ends_the_writing() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let _alone = alone();
    let rt = Runtime::builder().workers(1).build().unwrap();
    let (recording, ()) = record(|| rt.run(|| ()));
    let error = recording.write_to(Full).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
