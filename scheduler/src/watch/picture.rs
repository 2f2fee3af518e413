//! What is drawn so far of a [`Recording`]: the tracks of runtimes, workers, OS threads and green threads, each made when
//! it is first needed. `perfetto.rs` draws on them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::panic::Location;
use std::time::Duration;

use super::recording::{Event, Recording, What};
use super::tracks::{Track, Tracks};
use crate::green::id::GreenThreadId;

/// One green thread.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) track: Track,
    pub(super) spans: Option<Track>,
    pub(super) open_spans: usize,
    /// What it does, if that is known.
    pub(super) doing: Option<Doing>,
    /// A flow that ends where it runs next.
    pub(super) flow: Option<u64>,
    pub(super) runtime: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Runs,
    Ready,
    Waits,
}

/// What is drawn of one runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) workers: Track,
    pub(super) threads: Track,
    pub(super) ready: Track,
    /// How many threads are known to be ready.
    pub(super) count: u64,
    pub(super) counted: Duration,
}

pub(super) struct Picture<'a, W: Write> {
    pub(super) recording: &'a Recording,
    pub(super) tracks: Tracks<W>,
    pub(super) sites: HashMap<GreenThreadId, &'static Location<'static>>,
    /// The runtimes of threads.
    pub(super) homes: HashMap<GreenThreadId, usize>,
    pub(super) threads: HashMap<GreenThreadId, Thread>,
    pub(super) runtimes: HashMap<Option<usize>, Runtime>,
    pub(super) workers: HashMap<(Option<usize>, usize), Track>,
    pub(super) os_threads: HashMap<Option<usize>, Track>,
    /// Slices that are open on the tracks of workers and OS threads, by the OS thread that has begun them.
    pub(super) open: HashMap<Option<usize>, (Track, String)>,
    pub(super) flows: u64,
    pub(super) last: Duration,
}

impl<'a, W: Write> Picture<'a, W> {
    pub(super) fn new(recording: &'a Recording, writer: W) -> Self {
        let (mut sites, mut homes) = (HashMap::new(), HashMap::new());
        for event in &recording.events {
            // Who makes or wakes a thread may belong to another runtime, but no other one runs it.
            if let (Some(thread), Some(runtime), What::Run) =
                (event.thread, event.runtime, &event.what)
            {
                homes.insert(thread, runtime);
            }
            if let (
                Some(thread),
                What::Spawn {
                    site: Some(site), ..
                },
            ) = (event.thread, &event.what)
            {
                sites.insert(thread, *site);
            }
        }
        Self {
            recording,
            tracks: Tracks::new(writer),
            sites,
            homes,
            threads: HashMap::new(),
            runtimes: HashMap::new(),
            workers: HashMap::new(),
            os_threads: HashMap::new(),
            open: HashMap::new(),
            flows: 0,
            last: recording.since_boot,
        }
    }

    /// What a slice of this thread is called: its name, or where it was spawned.
    pub(super) fn label(&self, thread: GreenThreadId) -> String {
        match (self.recording.name(thread), self.sites.get(&thread)) {
            (Some(name), _) => name.to_string(),
            (None, Some(site)) => format!("{}:{}", file_name(site.file()), site.line()),
            (None, None) => String::from("green thread"),
        }
    }

    pub(super) fn runtime(&mut self, number: Option<usize>) -> io::Result<&mut Runtime> {
        if !self.runtimes.contains_key(&number) {
            let name = number.and_then(|number| self.recording.runtime(number));
            let name = name.unwrap_or("other threads");
            let root = self.tracks.add(name, None)?;
            let runtime = Runtime {
                workers: self.tracks.add("workers", Some(root))?,
                threads: self.tracks.add("green threads", Some(root))?,
                ready: self
                    .tracks
                    .add_counter("threads that are ready", Some(root))?,
                count: 0,
                counted: Duration::ZERO,
            };
            self.runtimes.insert(number, runtime);
        }
        Ok(self.runtimes.get_mut(&number).expect("just seen"))
    }

    pub(super) fn thread(
        &mut self,
        event: &Event,
        thread: GreenThreadId,
    ) -> io::Result<&mut Thread> {
        if !self.threads.contains_key(&thread) {
            let runtime = self.homes.get(&thread).copied().or(event.runtime);
            let parent = self.runtime(runtime)?.threads;
            let name = format!("{} ({})", self.label(thread), thread.get());
            let known = Thread {
                track: self.tracks.add(&name, Some(parent))?,
                spans: None,
                open_spans: 0,
                doing: None,
                flow: None,
                runtime,
            };
            self.threads.insert(thread, known);
        }
        Ok(self.threads.get_mut(&thread).expect("just seen"))
    }

    pub(super) fn spans(&mut self, event: &Event, thread: GreenThreadId) -> io::Result<Track> {
        let known = self.thread(event, thread)?;
        if let Some(spans) = known.spans {
            return Ok(spans);
        }
        let parent = known.track;
        let spans = self.tracks.add("spans", Some(parent))?;
        self.thread(event, thread)?.spans = Some(spans);
        Ok(spans)
    }

    /// The track of the event's worker, or of its OS thread if it has none.
    pub(super) fn place(&mut self, event: &Event) -> io::Result<Option<Track>> {
        match (event.worker, event.os_thread) {
            (Some(worker), _) => self.worker(event.runtime, worker).map(Some),
            (None, Some(_)) => self.os_thread(event.runtime, event.os_thread).map(Some),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn worker(&mut self, runtime: Option<usize>, worker: usize) -> io::Result<Track> {
        if let Some(&track) = self.workers.get(&(runtime, worker)) {
            return Ok(track);
        }
        let parent = self.runtime(runtime)?.workers;
        let track = self.tracks.add(&format!("worker {worker}"), Some(parent))?;
        self.workers.insert((runtime, worker), track);
        Ok(track)
    }

    pub(super) fn os_thread(
        &mut self,
        runtime: Option<usize>,
        thread: Option<usize>,
    ) -> io::Result<Track> {
        if let Some(&track) = self.os_threads.get(&thread) {
            return Ok(track);
        }
        let parent = self.runtime(runtime)?.workers;
        let name = thread.map_or_else(
            || String::from("other OS threads"),
            |thread| format!("OS thread {thread}, without a worker"),
        );
        let track = self.tracks.add(&name, Some(parent))?;
        self.os_threads.insert(thread, track);
        Ok(track)
    }

    /// Where a mark of the user's is drawn.
    pub(super) fn place_of_user(
        &mut self,
        event: &Event,
        thread: Option<GreenThreadId>,
    ) -> io::Result<Track> {
        match thread {
            Some(thread) => Ok(self.thread(event, thread)?.track),
            None => self.os_thread(event.runtime, event.os_thread),
        }
    }
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
