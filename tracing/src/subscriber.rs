//! The wrapper: it makes and closes spans as the OS thread.
//!
//! 1. A span's parent is found in the green thread, which knows the current span, before the span is made.
//! 2. The green thread also finds out if the span is enabled. The decisions of layers' filters go with the span
//!    (`filters.rs`).
//! 3. The green thread writes down what the fields of the span hold (`values.rs`).
//! 4. A span that closes also closes its parent, by the thread's default dispatcher. If the OS thread has another
//!    default dispatcher than the green thread (`with_default`), the green thread's is set meanwhile.
#![allow(unsafe_code, reason = "a subscriber is found by its type")]

use std::any::TypeId;
use std::fmt;
use std::ptr;

use tracing::dispatcher::{self, Dispatch};
use tracing::field::ValueSet;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;
use weald_scheduler::on_os_thread;

use crate::filters::Filters;
use crate::values::Values;

/// A subscriber that makes and closes spans as the OS thread, so that any number of green threads may have spans.
/// Wrap the whole subscriber with all of its layers.
///
/// Layers must not wait when a span is made or closed: a blocking call of weald's panics there. Writing to a file or
/// a terminal is not such a call. Layers may wait in events and when a span is entered. The `Debug` and `Display` of
/// a span's fields run in the green thread and may wait. They run once for all layers, and the layers see the text
/// that they wrote.
///
/// In other modes than [`Own`](weald_scheduler::ThreadLocals), and on plain OS threads, the wrapper only passes calls
/// on.
///
/// # Examples
/// ```
/// use tracing_subscriber::layer::SubscriberExt as _;
/// use weald_tracing::GreenSubscriber;
///
/// let subscriber = GreenSubscriber::new(tracing_subscriber::registry());
/// tracing::subscriber::with_default(subscriber, || {
///     let _span = tracing::info_span!("request").entered();
/// });
/// ```
pub struct GreenSubscriber<S> {
    inner: S,
    filters: Filters,
}

impl<S: Subscriber + Sync> GreenSubscriber<S> {
    /// Wraps a subscriber.
    pub fn new(subscriber: S) -> Self {
        Self {
            inner: subscriber,
            filters: Filters::new(),
        }
    }

    /// Calls `f` as the OS thread, with the caller's default dispatcher (point 4).
    fn as_os_thread<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let default = (!self.is_default()).then(|| dispatcher::get_default(Dispatch::clone));
        let answer = on_os_thread(|| match &default {
            Some(default) => Ok(dispatcher::with_default(default, f)),
            None if self.is_default() => Ok(f()),
            // The green thread's default is this subscriber, the OS thread's is another one.
            None => Err(f),
        });
        answer.unwrap_or_else(|f| {
            let default = dispatcher::get_default(Dispatch::clone);
            on_os_thread(|| dispatcher::with_default(&default, f))
        })
    }

    /// Tells if this is the running thread's default.
    fn is_default(&self) -> bool {
        dispatcher::get_default(|default| {
            let default = default.downcast_ref::<Self>();
            default.is_some_and(|default| ptr::eq(default, self))
        })
    }
}

impl<S: Subscriber + Sync> Subscriber for GreenSubscriber<S> {
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        if !weald_scheduler::has_own_thread_locals() {
            return self.inner.new_span(attributes);
        }
        let parent = if attributes.is_contextual() {
            self.inner.current_span().id().cloned()
        } else {
            attributes.parent().cloned()
        };
        let metadata = attributes.metadata();
        let values = Values::of(attributes.values());
        let decision = self.filters.take(attributes);
        self.as_os_thread(|| {
            let make = |values: &ValueSet<'_>| {
                let attributes = match parent {
                    Some(parent) => Attributes::child_of(parent, metadata, values),
                    None => Attributes::new_root(metadata, values),
                };
                self.filters.put(decision, metadata);
                self.inner.new_span(&attributes)
            };
            let record = |id: &Id, values: &Record<'_>| self.inner.record(id, values);
            values.give(metadata, make, record)
        })
    }

    fn try_close(&self, id: Id) -> bool {
        if !weald_scheduler::has_own_thread_locals() {
            return self.inner.try_close(id);
        }
        self.as_os_thread(|| self.inner.try_close(id))
    }

    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        self.inner.on_register_dispatch(subscriber);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.inner.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.inner.max_level_hint()
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.inner.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.inner.record_follows_from(span, follows);
    }

    fn event_enabled(&self, event: &Event<'_>) -> bool {
        self.inner.event_enabled(event)
    }

    fn event(&self, event: &Event<'_>) {
        self.inner.event(event);
    }

    fn enter(&self, span: &Id) {
        self.inner.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.inner.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.inner.clone_span(id)
    }

    fn current_span(&self) -> Current {
        self.inner.current_span()
    }

    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        if id == TypeId::of::<Self>() {
            return Some(ptr::from_ref(self).cast());
        }
        // SAFETY: by contract.
        unsafe { self.inner.downcast_raw(id) }
    }
}

impl<S: fmt::Debug> fmt::Debug for GreenSubscriber<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenSubscriber")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
