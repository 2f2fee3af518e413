//! The green thread in each line that `tracing_subscriber::fmt` writes.

use std::fmt;

use tracing_core::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Puts the number and the name of the green thread before each line of another format. Lines of OS threads stay as they are.
///
/// It is for lines that people read: before a line of `json()` it would spoil the JSON.
///
/// # Examples
/// ```
/// use tracing_subscriber::fmt::format;
/// use weald_tracing::{GreenSubscriber, NamesThreads};
///
/// let layers = tracing_subscriber::fmt().event_format(NamesThreads::new(format()));
/// tracing::subscriber::set_global_default(GreenSubscriber::new(layers.finish()))?;
/// let named = weald::Builder::new().name("lease".to_owned());
/// // #2 lease 2026-12-01T00:13:10.216034Z  INFO server: it has begun
/// let thread = named.spawn(|| tracing::info!("it has begun"))?;
/// thread.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct NamesThreads<F>(F);

impl<F> NamesThreads<F> {
    /// Wraps a format, such as `tracing_subscriber::fmt::format()` or `format().compact()`.
    pub fn new(format: F) -> Self {
        Self(format)
    }
}

impl<S, N, F> FormatEvent<S, N> for NamesThreads<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if weald_scheduler::is_green() {
            let thread = weald_scheduler::current();
            write!(writer, "{} ", thread.id())?;
            if let Some(name) = thread.name() {
                write!(writer, "{name} ")?;
            }
        }
        self.0.format_event(context, writer, event)
    }
}
