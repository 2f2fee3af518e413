//! Makes a [`Recording`] of the pages of the flight recorder.
#![allow(unsafe_code, reason = "places in the program, by their addresses")]

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::recording::{Cause, Event, Recording, What};
use super::runtimes;
use crate::engine::record::{self, Kind};
use crate::green::awaited::On;
use crate::green::id::GreenThreadId;
use crate::parts::recorder::book::Words;
use crate::parts::recorder::{Copy, Head, event};
use crate::parts::state::Why;

/// What is collected.
#[derive(Default)]
struct Story {
    recording: Recording,
    sites: HashMap<GreenThreadId, &'static Location<'static>>,
    /// Numbers for OS threads, by runtime and carrier.
    os_threads: HashMap<(u32, usize), usize>,
}

/// The recording that the pages tell of.
pub(crate) fn tell(copy: &Copy) -> Recording {
    let mut story = Story::default();
    let time = copy.since.until(&copy.now);
    let (started, since_boot) = copy.since.as_dates();
    story.recording.lost = copy.lost;
    story.recording.started = Some(started);
    story.recording.since_boot = since_boot;
    for (head, events) in &copy.pages {
        story.add_page(head, events, &time);
    }
    // Those whose beginning was overwritten, and that are still there.
    for inner in runtimes::all() {
        for task in inner.registry.all() {
            if let Some(name) = task.name() {
                story.name(task.id, name);
            }
        }
    }
    let Story {
        mut recording,
        sites,
        ..
    } = story;
    // Stable: the events of a page stay in their order.
    recording.events.sort_by_key(|event| event.time);
    for event in &mut recording.events {
        if let (Some(thread), What::Spawn { site, .. }) = (event.thread, &mut event.what) {
            *site = sites.get(&thread).copied();
        }
    }
    recording
}

impl Story {
    fn name(&mut self, thread: GreenThreadId, name: &str) {
        let names = &mut self.recording.names;
        names.entry(thread).or_insert_with(|| Arc::from(name));
    }

    fn os_thread(&mut self, runtime: u32, carrier: usize) -> usize {
        let next = self.os_threads.len();
        *self.os_threads.entry((runtime, carrier)).or_insert(next)
    }

    fn add_page(&mut self, head: &Head, events: &[Words], time: &impl Fn(u64) -> Duration) {
        let os_thread = head.runtime.as_ref().map(|label| {
            let runtimes = &mut self.recording.runtimes;
            let number = label.number as usize;
            runtimes.entry(number).or_insert_with(|| label.name.clone());
            self.os_thread(label.number, head.carrier)
        });
        let runtime = head.runtime.as_ref().map(|label| label.number as usize);
        // The thread whose joiners are woken next.
        let mut ended = None;
        let mut next = 0;
        while let Some(&[ticks, word, argument]) = events.get(next) {
            next += 1;
            let Some((kind, worker, thread)) = event::parts(word) else {
                continue;
            };
            let (text, pieces) = event::text(&events[next..]);
            next += pieces;
            let thread = GreenThreadId::of(thread);
            let mut event = Event {
                time: time(ticks),
                os_thread,
                runtime,
                worker,
                thread,
                what: What::Run,
                lost_by: None,
            };
            if let (Kind::Spawn | Kind::End, Some(thread), false) = (kind, thread, text.is_empty())
            {
                self.name(thread, &text);
            }
            let count = usize::try_from(argument).unwrap_or(usize::MAX);
            event.what = match kind {
                Kind::Text => continue,
                Kind::Spawn => What::Spawn {
                    by: GreenThreadId::of(argument),
                    site: None,
                },
                Kind::Site => {
                    // SAFETY: an event of this process.
                    let site = unsafe { record::site(argument) };
                    if let Some((thread, site)) = thread.zip(site) {
                        self.sites.insert(thread, site);
                    }
                    continue;
                }
                Kind::Run => What::Run,
                Kind::Yield => What::Yield,
                Kind::Park => What::Park {
                    what: On::from_word(argument).what(),
                },
                Kind::Wake => wake(argument, os_thread.is_some(), ended),
                Kind::End => What::End,
                Kind::Steal => What::Steal { from: count },
                Kind::Poll => What::Poll { events: count },
                Kind::Sleep => What::Sleep,
                Kind::Awake => What::Awake { events: count },
                Kind::HandOver => {
                    let (runtime, carrier) = event::carrier_parts(argument);
                    event.lost_by = Some(self.os_thread(runtime, carrier));
                    event.runtime = Some(runtime as usize);
                    What::HandOver
                }
                Kind::Hog => What::Hog {
                    lasts: Duration::from_micros(argument),
                },
                Kind::Exception => What::Exception,
                Kind::Panic => What::Panic,
                Kind::Mark => What::Mark { label: text.into() },
                Kind::Begin => What::Begin { label: text.into() },
                Kind::Finish => What::Finish,
            };
            ended = match event.what {
                What::End => event.thread,
                What::Wake { .. } => ended,
                _ => None,
            };
            self.recording.events.push(event);
        }
    }
}

/// `on_carrier`: a carrier has ended the wait. `ended`: the carrier has just said that this thread has ended.
fn wake(argument: u64, on_carrier: bool, ended: Option<GreenThreadId>) -> What {
    if argument == record::EARLY_WAKE {
        return What::Wake {
            by: None,
            cause: Cause::Early,
        };
    }
    let (by, why) = event::waker_parts(argument);
    let by = GreenThreadId::of(by).or(ended);
    let cause = match Why(why) {
        Why::TIMED_OUT => Cause::Timer,
        Why::EXCEPTION => Cause::Exception,
        _ if by.is_some() => Cause::Thread,
        _ if on_carrier => Cause::Event,
        _ => Cause::OsThread,
    };
    What::Wake { by, cause }
}
