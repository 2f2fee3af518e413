//! Packets of a Perfetto trace: tracks, slices, instants, flows, counters.
//!
//! Source: `protos/perfetto/trace/` of <https://github.com/google/perfetto>: `trace_packet.proto` and `track_event/`. The
//! numbers of fields are from there.
//!
//! All packets are of one sequence. Names are interned: written once, with a number. Timestamps are those of
//! `CLOCK_BOOTTIME`, so that a trace of the system's can be laid beside.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use super::protobuf::Message;

/// `Trace.packet`.
const PACKET: u32 = 1;

/// Fields of `TracePacket`.
mod packet {
    pub(super) const TIMESTAMP: u32 = 8;
    pub(super) const SEQUENCE: u32 = 10;
    pub(super) const TRACK_EVENT: u32 = 11;
    pub(super) const INTERNED_DATA: u32 = 12;
    pub(super) const SEQUENCE_FLAGS: u32 = 13;
    pub(super) const TRACK_DESCRIPTOR: u32 = 60;
}

/// Fields of `TrackDescriptor`.
mod descriptor {
    pub(super) const UUID: u32 = 1;
    pub(super) const NAME: u32 = 2;
    pub(super) const PARENT: u32 = 5;
    pub(super) const COUNTER: u32 = 8;
}

/// Fields of `TrackEvent`.
mod event {
    pub(super) const CATEGORIES: u32 = 3;
    pub(super) const ANNOTATIONS: u32 = 4;
    pub(super) const TYPE: u32 = 9;
    pub(super) const NAME: u32 = 10;
    pub(super) const TRACK: u32 = 11;
    pub(super) const COUNTER_VALUE: u32 = 30;
    pub(super) const FLOWS: u32 = 47;
    pub(super) const ENDING_FLOWS: u32 = 48;
}

/// Fields of `DebugAnnotation`.
mod annotation {
    pub(super) const NAME: u32 = 1;
    pub(super) const UNSIGNED: u32 = 3;
}

/// Fields of `InternedData`; each entry has a number and a name.
mod interned {
    pub(super) const CATEGORIES: u32 = 1;
    pub(super) const EVENT_NAMES: u32 = 2;
    pub(super) const ANNOTATION_NAMES: u32 = 3;
    pub(super) const NUMBER: u32 = 1;
    pub(super) const NAME: u32 = 2;
}

/// All packets have this number.
const SEQUENCE: u64 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: interned names begin here.
const CLEARED: u64 = 1;
/// `SEQ_NEEDS_INCREMENTAL_STATE`: refers to interned names.
const NEEDS: u64 = 2;

/// Of a `TrackEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Begin = 1,
    End = 2,
    Instant = 3,
    Counter = 4,
}

/// A number of a track; from [`Tracks::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Track(u64);

/// What more there is to say of an event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct More {
    pub(super) category: Option<&'static str>,
    /// A flow that begins here.
    pub(super) flow: Option<u64>,
    /// A flow that ends here.
    pub(super) ends: Option<u64>,
    /// A named number.
    pub(super) value: Option<(&'static str, u64)>,
}

/// Writes a trace.
pub(super) struct Tracks<W> {
    writer: W,
    packet: Message,
    names: HashMap<String, u64>,
    categories: HashMap<&'static str, u64>,
    annotations: HashMap<&'static str, u64>,
    /// How many tracks there are.
    count: u64,
    has_begun: bool,
}

impl<W: Write> Tracks<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writer,
            packet: Message::default(),
            names: HashMap::new(),
            categories: HashMap::new(),
            annotations: HashMap::new(),
            count: 0,
            has_begun: false,
        }
    }

    /// Adds a track with this name, below another one.
    pub(super) fn add(&mut self, name: &str, parent: Option<Track>) -> io::Result<Track> {
        self.describe(name, parent, false)
    }

    /// Adds a track of numbers.
    pub(super) fn add_counter(&mut self, name: &str, parent: Option<Track>) -> io::Result<Track> {
        self.describe(name, parent, true)
    }

    fn describe(&mut self, name: &str, parent: Option<Track>, counts: bool) -> io::Result<Track> {
        self.count += 1;
        let track = Track(self.count);
        self.write(|packet| {
            packet.message(packet::TRACK_DESCRIPTOR, |descriptor| {
                descriptor.number(descriptor::UUID, track.0);
                descriptor.text(descriptor::NAME, name);
                if let Some(parent) = parent {
                    descriptor.number(descriptor::PARENT, parent.0);
                }
                if counts {
                    descriptor.message(descriptor::COUNTER, |_| {});
                }
            });
        })?;
        Ok(track)
    }

    /// Writes an event with a name.
    pub(super) fn event(
        &mut self,
        time: Duration,
        kind: Type,
        track: Track,
        name: &str,
        more: More,
    ) -> io::Result<()> {
        let next = self.names.len() as u64 + 1;
        let known = self.names.get(name).copied();
        if known.is_none() {
            self.names.insert(name.to_string(), next);
        }
        let is_new = known.is_none().then_some(name);
        let name = known.unwrap_or(next);
        let (category, new_category) = intern(&mut self.categories, more.category);
        let (label, new_label) = intern(&mut self.annotations, more.value.map(|(label, _)| label));
        let news = [
            (interned::CATEGORIES, category, new_category),
            (interned::EVENT_NAMES, Some(name), is_new),
            (interned::ANNOTATION_NAMES, label, new_label),
        ];
        self.write(|packet| {
            packet.number(packet::TIMESTAMP, nanos(time));
            packet.number(packet::SEQUENCE_FLAGS, NEEDS);
            if news.iter().any(|(_, _, new)| new.is_some()) {
                packet.message(packet::INTERNED_DATA, |data| {
                    for (field, number, text) in news {
                        if let (Some(number), Some(text)) = (number, text) {
                            data.message(field, |entry| {
                                entry.number(interned::NUMBER, number);
                                entry.text(interned::NAME, text);
                            });
                        }
                    }
                });
            }
            packet.message(packet::TRACK_EVENT, |event| {
                event.number(event::TYPE, kind as u64);
                event.number(event::TRACK, track.0);
                event.number(event::NAME, name);
                if let Some(category) = category {
                    event.number(event::CATEGORIES, category);
                }
                if let Some((label, (_, value))) = label.zip(more.value) {
                    event.message(event::ANNOTATIONS, |annotation| {
                        annotation.number(annotation::NAME, label);
                        annotation.number(annotation::UNSIGNED, value);
                    });
                }
                if let Some(flow) = more.flow {
                    event.fixed(event::FLOWS, flow);
                }
                if let Some(flow) = more.ends {
                    event.fixed(event::ENDING_FLOWS, flow);
                }
            });
        })
    }

    /// Ends the slice of the track that has begun last.
    pub(super) fn end(&mut self, time: Duration, track: Track) -> io::Result<()> {
        self.plain(time, Type::End, track, None)
    }

    /// Writes a number of a track of numbers.
    pub(super) fn count(&mut self, time: Duration, track: Track, value: u64) -> io::Result<()> {
        self.plain(time, Type::Counter, track, Some(value))
    }

    fn plain(
        &mut self,
        time: Duration,
        kind: Type,
        track: Track,
        value: Option<u64>,
    ) -> io::Result<()> {
        self.write(|packet| {
            packet.number(packet::TIMESTAMP, nanos(time));
            packet.message(packet::TRACK_EVENT, |event| {
                event.number(event::TYPE, kind as u64);
                event.number(event::TRACK, track.0);
                if let Some(value) = value {
                    event.number(event::COUNTER_VALUE, value);
                }
            });
        })
    }

    fn write(&mut self, write: impl FnOnce(&mut Message)) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.has_begun, true);
        self.packet.clear();
        self.packet.message(PACKET, |packet| {
            packet.number(packet::SEQUENCE, SEQUENCE);
            if first {
                packet.number(packet::SEQUENCE_FLAGS, CLEARED);
            }
            write(packet);
        });
        self.writer.write_all(self.packet.bytes())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The number of a name, and the name if the number is new.
fn intern(
    names: &mut HashMap<&'static str, u64>,
    name: Option<&'static str>,
) -> (Option<u64>, Option<&'static str>) {
    let Some(name) = name else {
        return (None, None);
    };
    let next = names.len() as u64 + 1;
    let number = *names.entry(name).or_insert(next);
    (Some(number), (number == next).then_some(name))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
