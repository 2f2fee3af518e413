//! What the filters of single layers have decided about a span, carried from one thread's thread-locals to another's.
//!
//! A layer with a filter (`Layer::with_filter`) notes in a thread-local that it does not want the span that is about to
//! be made; when the span is made, the `Registry` and that layer look there. Whether a span is
//! wanted may depend on the thread (`EnvFilter` knows its spans), so it is asked in the green thread. The
//! span is made as the OS thread. So what was noted is taken from the one and put to the other.
//!
//! The thread-local is private to `tracing-subscriber`: a word with a bit for each filter. But a filter of our own that has the
//! number of another one reads and writes the other one's bit. Numbers are given in order, by any `Registry`.
//!
//! 1. To read a bit clears it, as when a span is made. To write one is what a filter does when it is asked.
//! 2. A build with debug assertions counts how many filters were asked and not yet answered, and wants all bits
//!    clear when there are none. So either all bits are written or none, and all that are in use were read before.

use std::cell::Cell;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterId, Filtered};
use tracing_subscriber::layer::{Context, Filter, Layered};
use tracing_subscriber::registry::{Data, LookupSpan, Registry};

/// Filters that a `Registry` has numbers for.
const FILTERS: usize = 64;

thread_local! {
    /// The filter that was read last had not disabled the span.
    static IS_ENABLED: Cell<bool> = const { Cell::new(false) };
}

/// For each number a filter that says yes, and one that says no.
pub(crate) struct Filters(Vec<[Probe; 2]>);

/// What all filters have decided: a bit for each that does not want the span.
#[derive(Clone, Copy)]
pub(crate) struct Decision(u64);

type Probe = Layered<Filtered<Tells, Answers, Numbered>, Numbered>;

impl Filters {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let probes = (0..FILTERS).map(|_| {
            let number = LookupSpan::register_filter(&mut registry);
            [false, true].map(|answer| {
                let filter = Layer::<Numbered>::with_filter(Tells, Answers(answer));
                filter.with_subscriber(Numbered(number))
            })
        });
        Self(probes.collect())
    }

    /// Takes what was decided out of the running thread's thread-locals.
    pub(crate) fn take(&self, attributes: &Attributes<'_>) -> Decision {
        let mut disabled = 0;
        for (index, [probe, _]) in self.0.iter().enumerate() {
            IS_ENABLED.set(false);
            probe.new_span(attributes);
            disabled |= u64::from(!IS_ENABLED.get()) << index;
        }
        Decision(disabled)
    }

    /// Puts it to those of the running thread, for a span that is made next.
    pub(crate) fn put(&self, decision: Decision, metadata: &Metadata<'_>) {
        if decision.0 != 0 {
            for (index, probes) in self.0.iter().enumerate() {
                let is_enabled = decision.0 >> index & 1 == 0;
                probes[usize::from(is_enabled)].enabled(metadata);
            }
        }
    }
}

/// Tells that it was told of a span.
struct Tells;

impl<S: Subscriber> Layer<S> for Tells {
    fn on_new_span(&self, _attributes: &Attributes<'_>, _id: &Id, _context: Context<'_, S>) {
        IS_ENABLED.set(true);
    }
}

/// A filter that always gives this answer.
struct Answers(bool);

impl<S> Filter<S> for Answers {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        self.0
    }
}

/// A subscriber that does nothing, and gives its filter this number.
struct Numbered(FilterId);

impl Subscriber for Numbered {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

impl<'a> LookupSpan<'a> for Numbered {
    type Data = Data<'a>;

    fn span_data(&'a self, _id: &Id) -> Option<Self::Data> {
        None
    }

    fn register_filter(&mut self) -> FilterId {
        self.0
    }
}
