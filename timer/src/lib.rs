//! The hierarchical timing wheel of weald: no clock, no thread, no IO inside.
//!
//! A [`Wheel`] holds timers. A timer is a deadline, counted in [`Tick`]s, and a value. The wheel's owner, one thread
//! at a time, inserts timers, moves them, cancels them, and says what time it is. Then the wheel hands out the timers
//! that are due, in the order of their deadlines. Other threads hold a [`Remote`], by which they
//! can cancel timers. A timer may be cancelled while it fires. Then only one of the two happens, and its caller
//! gets the value.
//!
//! All of this takes constant time, and nothing blocks, locks or makes a system call. A timer never
//! fires early. It is late by less than a tick (16.384 us) because its deadline is rounded, by less
//! than a tick because the present is rounded, and by the time that the owner takes to look again.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use weald_timer::{Tick, Wheel};
//!
//! let start = Instant::now();
//! let nanos = |instant: Instant| (instant - start).as_nanos().try_into().unwrap_or(u64::MAX);
//!
//! let mut wheel = Wheel::new(Tick::ZERO);
//! let deadline = start + Duration::from_millis(2);
//! wheel.insert(Tick::from_nanos_ceil(nanos(deadline)), "tea");
//! let eggs = wheel.insert(Tick::from_nanos_ceil(nanos(start + Duration::from_secs(300))), "eggs");
//!
//! // Another thread calls one timer off.
//! let remote = wheel.remote();
//! let kitchen = std::thread::spawn(move || remote.cancel(eggs));
//! assert_eq!(kitchen.join().expect("no panic"), Some("eggs"));
//!
//! // The owner sleeps until something may be due, and looks.
//! let mut fired = Vec::new();
//! while let Some(next) = wheel.next_deadline() {
//!     let now = nanos(Instant::now());
//!     std::thread::sleep(Duration::from_nanos(next.as_nanos().saturating_sub(now)));
//!     wheel.advance(Tick::from_nanos_floor(nanos(Instant::now())), |value| fired.push(value));
//! }
//! assert_eq!(fired, ["tea"]);
//! assert!(Instant::now() >= deadline, "never early");
//! ```
//!
//! Where things are: `wheel` says in which slot a timer lies and how time passes. `level` has the
//! lists and their bitmap. `entry` has the state word for which fire and cancel race. `slab` has the
//! memory, and the way by which timers come back that other threads have cancelled.

#[cfg(all(feature = "unix-only", not(unix)))]
compile_error!("weald runs on Unix-like systems; on Windows it runs inside WSL 2");

#[macro_use]
mod shim;

mod entry;
mod level;
mod remote;
mod slab;
mod tick;
mod wheel;

pub use entry::Key;
pub use remote::Remote;
pub use tick::Tick;
pub use wheel::{Advanced, Wheel};
