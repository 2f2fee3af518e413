//! The programs that take part.
#![allow(
    unsafe_code,
    reason = "the mode share_thread_locals is a promise of the author"
)]

use weald::{Runtime, ThreadLocals};

/// One column of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contestant {
    /// weald, the runtime built with `share_thread_locals`: started green threads migrate.
    WealdShared,
    /// weald in the mode `Pinned`: only green threads that have not started migrate.
    WealdPinned,
    /// weald in the mode `Own`: started green threads migrate, with thread-locals of their own.
    WealdOwn,
    /// The crate `may`.
    May,
    /// tokio, multi-threaded runtime, also with one worker.
    Tokio,
    /// A bare epoll loop, no scheduler at all: what the kernel alone costs.
    Epoll,
    /// std's threads.
    OsThreads,
    /// parking_lot's locks, between OS threads.
    ParkingLot,
    /// crossbeam's channels, between OS threads.
    Crossbeam,
    /// flume's channels, between OS threads.
    Flume,
    /// rayon's `join`, in a pool of its own.
    Rayon,
}

impl Contestant {
    /// All but the floor: the columns of nearly every table.
    pub const ALL: &[Self] = &[
        Self::WealdShared,
        Self::WealdPinned,
        Self::WealdOwn,
        Self::May,
        Self::Tokio,
    ];

    /// The heading of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::WealdShared => "weald shared",
            Self::WealdPinned => "weald pinned",
            Self::WealdOwn => "weald own",
            Self::May => "may",
            Self::Tokio => "tokio",
            Self::Epoll => "bare epoll",
            Self::OsThreads => "OS threads",
            Self::ParkingLot => "parking_lot",
            Self::Crossbeam => "crossbeam",
            Self::Flume => "flume",
            Self::Rayon => "rayon",
        }
    }

    /// The contestant of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let others = [
            Self::Epoll,
            Self::OsThreads,
            Self::ParkingLot,
            Self::Crossbeam,
            Self::Flume,
            Self::Rayon,
        ];
        [Self::ALL, &others]
            .concat()
            .into_iter()
            .find(|contestant| contestant.name() == name)
    }
}

/// A runtime of weald in the mode of `contestant`.
///
/// # Panics
///
/// If it cannot be built, or if `contestant` is not weald.
pub fn weald_runtime(contestant: Contestant, workers: usize) -> Runtime {
    let builder = Runtime::builder().workers(workers);
    let builder = match contestant {
        // SAFETY: the benches keep nothing thread-local over a blocking call.
        Contestant::WealdShared => unsafe { builder.share_thread_locals() },
        Contestant::WealdPinned => builder.thread_locals(ThreadLocals::Pinned),
        Contestant::WealdOwn => builder.thread_locals(ThreadLocals::Own),
        rival => panic!("{} is not weald", rival.name()),
    };
    builder.build().expect("the runtime starts")
}
