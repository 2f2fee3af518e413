//! Carries the decisions of layers' filters about a span from the thread-locals of one thread to those of another.
//!
//! A layer with a filter (`Layer::with_filter`) notes in a thread-local that it does not want the span that is about
//! to be made. When the span is made, the `Registry` and the layer look there. Whether a span is wanted may depend on
//! the thread (`EnvFilter` knows the thread's spans), so the filters are asked in the green thread. The span is made
//! as the OS thread. So the notes must move from the thread-locals of the green thread to those of the OS thread.
//!
//! The thread-local is private to `tracing-subscriber`: a word with a bit for each filter. But a filter of our own
//! that has the same number as another filter reads and writes the other filter's bit. Any `Registry` gives numbers
//! in order.
//!
//! 1. Reading a bit clears it, as when a span is made. Writing a bit is what a filter does when it is asked.
//! 2. A build with debug assertions counts the filters that were asked and have not answered, and wants all bits
//!    clear when there are none. So either all bits are written or none, and all bits in use were read before.

use std::cell::Cell;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterId, Filtered};
use tracing_subscriber::layer::{Context, Filter, Layered};
use tracing_subscriber::registry::{Data, LookupSpan, Registry};

/// How many filters a `Registry` has numbers for.
const FILTERS: usize = 64;

thread_local! {
    /// The filter that was read last had not disabled the span.
    static IS_ENABLED: Cell<bool> = const { Cell::new(false) };
}

/// For each number, a filter that says yes and a filter that says no.
pub(crate) struct Filters(Vec<[Probe; 2]>);

/// The decisions of all filters: a bit for each filter that does not want the span.
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

    /// Takes the decisions out of the running thread's thread-locals.
    pub(crate) fn take(&self, attributes: &Attributes<'_>) -> Decision {
        let mut disabled = 0;
        for (index, [probe, _]) in self.0.iter().enumerate() {
            IS_ENABLED.set(false);
            probe.new_span(attributes);
            disabled |= u64::from(!IS_ENABLED.get()) << index;
        }
        Decision(disabled)
    }

    /// Puts the decisions into the running thread's thread-locals, for the span that is made next.
    pub(crate) fn put(&self, decision: Decision, metadata: &Metadata<'_>) {
        if decision.0 != 0 {
            for (index, probes) in self.0.iter().enumerate() {
                let is_enabled = decision.0 >> index & 1 == 0;
                probes[usize::from(is_enabled)].enabled(metadata);
            }
        }
    }
}

/// A layer that notes that it was told of a span.
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

/// A subscriber that does nothing but give its filter this number.
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
