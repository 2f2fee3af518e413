//! `tracing` on any number of green threads.
//!
//! Most subscribers use the `Registry` of `tracing-subscriber`. It gives a number to each thread that makes a span,
//! and has 4,096 numbers. With [`ThreadLocals::Own`](weald_scheduler::ThreadLocals) each green thread counts as a
//! thread. The 4,097th living thread then panics at its first span. From then on a share of all later threads does so
//! too, as the numbers above go round.
//!
//! [`GreenSubscriber`] wraps the whole subscriber. It makes and closes spans as the OS thread, so that these numbers
//! belong to the few OS threads. Everything else happens in the green thread: the current span, the filters of spans
//! and events, and events.
//! ```
//! use tracing_subscriber::layer::SubscriberExt as _;
//! use weald_tracing::{GreenSubscriber, in_current_span};
//!
//! // Any stack of layers; `tracing_subscriber::fmt().finish()` as well.
//! let layers = tracing_subscriber::registry().with(tracing_subscriber::fmt::layer());
//! tracing::subscriber::set_global_default(GreenSubscriber::new(layers))?;
//!
//! let request = tracing::info_span!("request", id = 5).entered();
//! // A new green thread is in no span, as a new OS thread is not. This one is in the span of the thread that spawns it.
//! let child = weald::spawn(in_current_span(|| tracing::info!("in the request")));
//! child.join().unwrap();
//! # drop(request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`NamesThreads`] puts the green thread's number and name before each line of a log.
//!
//! The runtime's own warnings, of hogs for instance, come through the crate `log`, with targets that begin with `weald_scheduler`.
//! `tracing_subscriber::fmt().init()` and its like make events of `tracing` of them; where the subscriber is set by hand,
//! `tracing_log::LogTracer` does. Spawns, waits and wake-ups are too many for a log: `weald::trace` records them.
//!
//! With [`ThreadLocals::Pinned`](weald_scheduler::ThreadLocals) green threads share what `tracing` keeps per thread.
//! A span that stays entered during a blocking call becomes the parent of spans that other green threads make
//! meanwhile. No wrapper can correct that: use `Own`.

mod filters;
#[cfg(feature = "fmt")]
mod names;
mod subscriber;
mod values;

use tracing::Span;

#[cfg(feature = "fmt")]
pub use crate::names::NamesThreads;
pub use crate::subscriber::GreenSubscriber;

/// Returns the closure, to be run in the span that is current now. Use it with [`spawn`](weald_scheduler::spawn())
/// and similar functions.
///
/// The span is held until the closure has returned or was dropped.
///
/// # Examples
/// ```
/// let span = tracing::info_span!("job").entered();
/// let named = weald::Builder::new().name("child".to_owned());
/// let child = named.spawn(weald_tracing::in_current_span(|| 5))?;
/// assert_eq!(child.join().unwrap(), 5);
/// # drop(span);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn in_current_span<F, T>(f: F) -> impl FnOnce() -> T + Send + use<F, T>
where
    F: FnOnce() -> T + Send,
{
    let span = Span::current();
    move || span.in_scope(f)
}
