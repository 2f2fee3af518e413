//! A page about a running weald program: its green threads by state and by group, deadlocks, workers, hogs, flame graphs. Also metrics
//! for Prometheus, and dumps.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! let console = weald_console::serve("127.0.0.1:6680")?;
//! println!("look at http://{}", console.local_addr());
//! // The program goes on.
//! # Ok(())
//! # }
//! ```
//!
//! The console has a runtime and OS threads of its own. So it answers as well when each worker of the program is kept by a green
//! thread that computes, and when all green threads wait for each other. It reports on all other runtimes of the process.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page; works without a network, by keyboard, light or dark |
//! | `/dump` | the dumps of all runtimes as text; `?all` leaves nothing out; `?runtime=1` is one runtime |
//! | `/dump.json` | the dumps as data: [`weald::Dump`] says how |
//! | `/view.json` | what the page shows: threads by state and by group, deadlocks, locks, counters; bounded, however many threads there are |
//! | `/metrics` | counters in OpenMetrics, for Prometheus and the OpenTelemetry Collector |
//! | `/metrics.json` | the counters as JSON, without a look at the threads |
//! | `/stacks` | where green threads wait, in the format of flame graphs: one line for each stack |
//! | `/flame.svg` | the same as a flame graph (feature `flamegraph`) |
//! | `POST /trace?seconds=5` | records for so long, and answers with the recording: a file for `ui.perfetto.dev` |
//! | `POST /trace/start`, `GET /trace`, `POST /trace/stop` | begins a recording, answers with what it has, ends it |
//!
//! # Who may look
//! A dump shows names of threads and functions. So the console listens at loopback addresses only, and refuses others with an error,
//! unless it has a token ([`Builder::token`]). Everybody who can open a connection to the address can read it: on a machine
//! with other users use a token too. Pages of other sites cannot read it in the user's browser: names in `Host` other than the
//! loopback's are refused (against DNS rebinding), and no answer allows other origins.
//!
//! The files, from the top. A file names only files further down.
//!
//! | file | holds |
//! |---|---|
//! | `serve.rs` | addresses, settings, the handle |
//! | `routes.rs` | what is answered at which path |
//! | `guard.rs` | who may ask: `Host`, origin, token; the header fields of answers |
//! | `flame.rs` | stacks and flame graphs |
//! | `recording.rs` | recordings of the flight recorder |
//! | `metrics.rs` | counters in OpenMetrics |
//! | `view.rs` | dumps and counters as JSON |
//! | `calls.rs` | traces with the names of their calls |
//! | `watched.rs` | the runtimes that are reported on; dumps that several clients share |
//! | `process.rs` | memory, descriptors and time of the process |

mod calls;
mod flame;
mod guard;
mod metrics;
mod process;
mod recording;
mod routes;
mod serve;
mod view;
mod watched;

pub use crate::serve::{Builder, Console, serve};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
