//! Writes a [`Recording`] as a trace that ui.perfetto.dev opens: who ran where, who waited for what, who woke whom.
//!
//! | track                  | slices                                          | instants                            |
//! |------------------------|-------------------------------------------------|-------------------------------------|
//! | a worker               | the green threads that run there; `sleeps`      | polls, thefts, hand-overs           |
//! | an OS thread           | green threads that run there without a worker   |                                     |
//! | a green thread         | `runs`, `is ready`, `waits for ..`              | wakes, spawns, hogs, marks          |
//! | its spans              | the user's spans                                |                                     |
//! | threads that are ready | a number                                        |                                     |
//!
//! Each wake-up is a flow from the waker's instant to the slice in which the woken thread runs next.
//!
//! The recording may begin and end in the middle of anything, and may have gaps. So each step here looks what is open
//! before it ends something, and at the end all that is open ends.

use std::io::{self, Write};
use std::time::Duration;

use super::picture::{Doing, Picture};
use super::recording::{Cause, Event, Recording, What};
use super::tracks::{More, Track, Type};
use crate::green::id::GreenThreadId;

/// Numbers of a track of numbers are written that often at most.
const COUNT_INTERVAL: Duration = Duration::from_micros(50);

/// The category of what a person should see first.
const HOG: Option<&str> = Some("hog");
const USER: Option<&str> = Some("user");

impl Recording {
    /// Writes the recording as a trace of Perfetto's, in Protocol Buffers: the file's name should end with `.pftrace`.
    /// <https://ui.perfetto.dev> and other tools open it. Tell the page nothing else: it reads the file in the browser.
    ///
    /// There are tracks for workers and for green threads. Wake-ups are arrows. Hogs, hand-overs, marks and spans are marked.
    /// A switch takes some 200 bytes in the file.
    ///
    /// It waits for nobody but the writer.
    ///
    /// # Errors
    /// Those of the writer.
    ///
    /// # Examples
    /// ```
    /// use weald::trace;
    ///
    /// trace::start(trace::Options::new())?;
    /// weald::spawn(|| weald::yield_now()).join().unwrap();
    /// let recording = trace::stop();
    /// let mut file = Vec::new();
    /// recording.write_to(&mut file)?;
    /// assert!(!file.is_empty());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write_to(&self, writer: impl Write) -> io::Result<()> {
        let mut picture = Picture::new(self, io::BufWriter::new(writer));
        for event in &self.events {
            picture.draw(event)?;
        }
        picture.finish()
    }
}

impl<W: Write> Picture<'_, W> {
    fn draw(&mut self, event: &Event) -> io::Result<()> {
        self.last = self.recording.since_boot + event.time;
        let now = self.last;
        match (&event.what, event.thread) {
            (What::Spawn { by, .. }, Some(thread)) => {
                self.becomes(event, thread, Doing::Ready, "is ready")?;
                self.flow(event, *by, thread, "spawns")?;
            }
            (What::Run, Some(thread)) => {
                let label = self.label(thread);
                self.close(event.os_thread)?;
                if let Some(track) = self.place(event)? {
                    self.begin(event.os_thread, track, label, Some(thread))?;
                }
                self.becomes(event, thread, Doing::Runs, "runs")?;
            }
            (What::Yield, Some(thread)) => {
                self.close(event.os_thread)?;
                self.becomes(event, thread, Doing::Ready, "is ready")?;
            }
            (What::Park { what }, Some(thread)) => {
                self.close(event.os_thread)?;
                self.becomes(event, thread, Doing::Waits, &format!("waits for {what}"))?;
            }
            (What::Wake { by, cause }, Some(thread)) => {
                self.becomes(event, thread, Doing::Ready, "is ready")?;
                let name = match cause {
                    Cause::Timer => "timer",
                    Cause::Event => "event",
                    Cause::Exception => "wakes for an exception",
                    _ => "wakes",
                };
                self.flow(event, *by, thread, name)?;
            }
            (What::End, Some(thread)) => {
                self.close(event.os_thread)?;
                self.ends(thread)?;
            }
            (What::Hog { lasts }, Some(thread)) => {
                let more = More {
                    category: HOG,
                    value: Some(("microseconds", micros(*lasts))),
                    ..More::default()
                };
                let track = self.thread(event, thread)?.track;
                self.tracks.event(now, Type::Instant, track, "hog", more)?;
            }
            (What::HandOver, _) => self.hand_over(event)?,
            (What::Exception, Some(thread)) => self.instant(event, thread, "exception")?,
            (What::Panic, Some(thread)) => self.instant(event, thread, "panic")?,
            (What::Steal { from }, _) => self.at_worker(event, "steals", "from", *from)?,
            (What::Poll { events }, _) if *events > 0 => {
                self.at_worker(event, "polls", "events", *events)?;
            }
            (What::Sleep, _) => {
                self.close(event.os_thread)?;
                if let Some(track) = self.place(event)? {
                    self.begin(event.os_thread, track, String::from("sleeps"), None)?;
                }
            }
            (What::Awake { .. }, _) => self.close(event.os_thread)?,
            (What::Mark { label }, thread) => {
                let track = self.place_of_user(event, thread)?;
                self.tracks
                    .event(now, Type::Instant, track, label, user())?;
            }
            (What::Begin { label }, Some(thread)) => {
                let spans = self.spans(event, thread)?;
                self.tracks.event(now, Type::Begin, spans, label, user())?;
                self.thread(event, thread)?.open_spans += 1;
            }
            (What::Finish, Some(thread)) => {
                let known = self.thread(event, thread)?;
                if let Some(spans) = known.spans.filter(|_| known.open_spans > 0) {
                    known.open_spans -= 1;
                    self.tracks.end(now, spans)?;
                }
            }
            // Spans of OS threads are not told apart; their marks are there.
            _ => {}
        }
        Ok(())
    }

    /// Begins a slice of an OS thread, here or on a worker's track.
    fn begin(
        &mut self,
        os_thread: Option<usize>,
        track: Track,
        label: String,
        thread: Option<GreenThreadId>,
    ) -> io::Result<()> {
        // The track may still be another one's: some events are lost.
        let others = self.open.iter().find(|(_, (open, _))| *open == track);
        if let Some(other) = others.map(|(other, _)| *other) {
            self.close(other)?;
        }
        let more = More {
            value: thread.map(|thread| ("thread", thread.get())),
            ..More::default()
        };
        let now = self.last;
        self.tracks.event(now, Type::Begin, track, &label, more)?;
        self.open.insert(os_thread, (track, label));
        Ok(())
    }

    /// Ends the slice of an OS thread that is open.
    fn close(&mut self, os_thread: Option<usize>) -> io::Result<()> {
        match self.open.remove(&os_thread) {
            Some((track, _)) => self.tracks.end(self.last, track),
            None => Ok(()),
        }
    }

    /// The thread does something else from now on.
    fn becomes(
        &mut self,
        event: &Event,
        thread: GreenThreadId,
        doing: Doing,
        name: &str,
    ) -> io::Result<()> {
        self.ends_slice(thread)?;
        let known = self.thread(event, thread)?;
        known.doing = Some(doing);
        let (track, runtime) = (known.track, known.runtime);
        let flow = if doing == Doing::Runs {
            known.flow.take()
        } else {
            None
        };
        let more = More {
            ends: flow,
            ..More::default()
        };
        let now = self.last;
        self.tracks.event(now, Type::Begin, track, name, more)?;
        if doing == Doing::Ready {
            self.count(runtime, 1)?;
        }
        Ok(())
    }

    /// Ends what the thread has done until now.
    fn ends_slice(&mut self, thread: GreenThreadId) -> io::Result<()> {
        let Some(known) = self.threads.get_mut(&thread) else {
            return Ok(());
        };
        let (track, runtime) = (known.track, known.runtime);
        let Some(doing) = known.doing.take() else {
            return Ok(());
        };
        self.tracks.end(self.last, track)?;
        if doing == Doing::Ready {
            self.count(runtime, -1)?;
        }
        Ok(())
    }

    /// The thread has ended.
    fn ends(&mut self, thread: GreenThreadId) -> io::Result<()> {
        self.ends_slice(thread)?;
        let Some(known) = self.threads.get_mut(&thread) else {
            return Ok(());
        };
        let open = std::mem::take(&mut known.open_spans);
        for spans in std::iter::repeat_n(known.spans, open).flatten() {
            self.tracks.end(self.last, spans)?;
        }
        Ok(())
    }

    /// So many threads more are ready.
    fn count(&mut self, runtime: Option<usize>, more: i64) -> io::Result<()> {
        let now = self.last;
        let known = self.runtime(runtime)?;
        known.count = known.count.saturating_add_signed(more);
        if now.saturating_sub(known.counted) < COUNT_INTERVAL {
            return Ok(());
        }
        known.counted = now;
        let (track, count) = (known.ready, known.count);
        self.tracks.count(now, track, count)
    }

    /// A flow begins: from the thread `by`, or from the place of the event, to the next run of `to`.
    fn flow(
        &mut self,
        event: &Event,
        by: Option<GreenThreadId>,
        to: GreenThreadId,
        name: &str,
    ) -> io::Result<()> {
        self.flows += 1;
        let flow = self.flows;
        let track = match by {
            Some(by) => self.thread(event, by)?.track,
            None => match self.place(event)? {
                Some(place) => place,
                None => self.os_thread(event.runtime, None)?,
            },
        };
        self.thread(event, to)?.flow = Some(flow);
        let more = More {
            flow: Some(flow),
            value: Some(("thread", to.get())),
            ..More::default()
        };
        self.tracks
            .event(self.last, Type::Instant, track, name, more)
    }

    fn instant(&mut self, event: &Event, thread: GreenThreadId, name: &str) -> io::Result<()> {
        let track = self.thread(event, thread)?.track;
        let more = More::default();
        self.tracks
            .event(self.last, Type::Instant, track, name, more)
    }

    fn at_worker(
        &mut self,
        event: &Event,
        name: &str,
        label: &'static str,
        value: usize,
    ) -> io::Result<()> {
        let Some(track) = self.place(event)? else {
            return Ok(());
        };
        let more = More {
            value: Some((label, value as u64)),
            ..More::default()
        };
        self.tracks
            .event(self.last, Type::Instant, track, name, more)
    }

    /// The worker has left its OS thread, where what runs goes on.
    fn hand_over(&mut self, event: &Event) -> io::Result<()> {
        let Some(worker) = event.worker else {
            return Ok(());
        };
        let track = self.worker(event.runtime, worker)?;
        let more = More {
            category: HOG,
            ..More::default()
        };
        let name = "goes to another OS thread";
        self.tracks
            .event(self.last, Type::Instant, track, name, more)?;
        if let Some((open, label)) = self.open.get(&event.lost_by)
            && *open == track
        {
            let label = label.clone();
            self.close(event.lost_by)?;
            let place = self.os_thread(event.runtime, event.lost_by)?;
            self.begin(event.lost_by, place, label, None)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        for (track, _) in std::mem::take(&mut self.open).into_values() {
            self.tracks.end(self.last, track)?;
        }
        let threads: Vec<_> = self.threads.keys().copied().collect();
        for thread in threads {
            self.ends(thread)?;
        }
        self.tracks.finish()
    }
}

fn user() -> More {
    More {
        category: USER,
        ..More::default()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
