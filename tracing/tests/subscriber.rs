//! Spans on green threads: any number of them, with the same parents, fields and filters as on OS threads.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::dispatcher::{Dispatch, with_default};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Span, Subscriber, debug, error, info, info_span, trace, warn};
use tracing_subscriber::filter::{EnvFilter, FilterFn, LevelFilter};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};
use weald::{Runtime, ThreadLocals};
use weald_tracing::{GreenSubscriber, in_current_span};

/// Runs the check in runtimes with 1 and 2 workers, in each mode that the machine has.
fn each_mode(check: impl Fn(&Runtime)) {
    for mode in [ThreadLocals::Own, ThreadLocals::Pinned] {
        for workers in [1, 2] {
            match Runtime::builder()
                .workers(workers)
                .thread_locals(mode)
                .build()
            {
                Ok(rt) => check(&rt),
                Err(error) => eprintln!("not tested: {mode:?}: {error}"),
            }
        }
    }
}

fn own() -> Option<Runtime> {
    let own = ThreadLocals::Own;
    Runtime::builder()
        .workers(2)
        .thread_locals(own)
        .build()
        .ok()
}

/// The value of the field `n`.
#[derive(Clone, Copy, Default)]
struct N(u64);

impl Visit for N {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "n" {
            self.0 = value;
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// Counts spans, and those whose parent has another number.
#[derive(Clone, Default)]
struct Parents {
    made: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    wrong: Arc<AtomicUsize>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Parents {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut number = N::default();
        attributes.record(&mut number);
        self.made.fetch_add(1, SeqCst);
        let span = context.span(id).unwrap();
        let parent = span.parent();
        let right = match span.name() {
            "outer" => parent.is_none(),
            _ => parent.is_some_and(|parent| {
                parent
                    .extensions()
                    .get::<N>()
                    .is_some_and(|it| it.0 == number.0)
            }),
        };
        self.wrong.fetch_add(usize::from(!right), SeqCst);
        span.extensions_mut().insert(number);
    }

    fn on_close(&self, _id: Id, _context: Context<'_, S>) {
        self.closed.fetch_add(1, SeqCst);
    }
}

#[test]
fn twenty_thousand_threads_are_in_two_spans_each_at_once() {
    const THREADS: usize = 20_000;
    let Some(rt) = own() else { return };
    let parents = Parents::default();
    let subscriber = GreenSubscriber::new(Registry::default().with(parents.clone()));
    let dispatch = Dispatch::new(subscriber);
    for _ in 0..2 {
        let body = |n: usize| {
            let dispatch = dispatch.clone();
            rt.spawn(move || {
                with_default(&dispatch, || {
                    let n = u64::try_from(n).unwrap();
                    let _outer = info_span!("outer", n).entered();
                    weald::yield_now();
                    let _inner = info_span!("inner", n, text = %n).entered();
                    weald::park();
                });
            })
        };
        let all: Vec<_> = (0..THREADS).map(body).collect();
        let begun = Instant::now();
        while rt.metrics().parked < THREADS {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        for thread in &all {
            thread.thread().unpark();
        }
        for thread in all {
            thread.join().unwrap();
        }
    }
    assert_eq!(parents.made.load(SeqCst), 4 * THREADS);
    assert_eq!(parents.closed.load(SeqCst), 4 * THREADS);
    assert_eq!(parents.wrong.load(SeqCst), 0);
}

#[test]
fn a_thread_is_in_the_span_of_who_spawns_it_if_that_is_asked_for() {
    each_mode(|rt| {
        let parents = Parents::default();
        let dispatch = Dispatch::new(GreenSubscriber::new(
            Registry::default().with(parents.clone()),
        ));
        rt.run(|| {
            with_default(&dispatch, || {
                let outer = info_span!("outer", n = 3_u64).entered();
                let in_it = || {
                    with_default(&dispatch, || {
                        let _inner = info_span!("inner", n = 3_u64).entered();
                    });
                };
                weald::scope(|scope| {
                    for _ in 0..10 {
                        scope.spawn(in_current_span(in_it));
                    }
                });
                drop(outer);
            });
        });
        assert_eq!(parents.made.load(SeqCst), 11);
        assert_eq!(parents.closed.load(SeqCst), 11);
        assert_eq!(parents.wrong.load(SeqCst), 0);
        let child = rt.spawn(in_current_span(|| Span::current().is_none()));
        assert!(child.join().unwrap());
    });
}

/// Writes down everything that it is told.
#[derive(Clone)]
struct Log {
    name: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Writes each field when it is told.
#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let _ = write!(self.0, " {field}=f64 {value}");
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, " {field}=i64 {value}");
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let _ = write!(self.0, " {field}=u64 {value}");
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        let _ = write!(self.0, " {field}=u128 {value}");
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.0, " {field}=bool {value}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {field}=str {value}");
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let source = value.source().map(ToString::to_string);
        let _ = write!(self.0, " {field}=error {value} {value:?} {source:?}");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {field}=debug {value:?}");
    }
}

impl Log {
    fn add(&self, line: &str) {
        self.lines
            .lock()
            .unwrap()
            .push(format!("{}: {line}", self.name));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = context.span(id).unwrap();
        let parent = span.parent().map(|it| it.name());
        self.add(&format!("new {} in {parent:?}{}", span.name(), fields.0));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let name = context.span(id).unwrap().name();
        self.add(&format!("record {name}{}", fields.0));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).into_iter().flatten();
        let scope: Vec<_> = scope.map(|span| span.name()).collect();
        self.add(&format!("event in {scope:?}{}", fields.0));
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.add(&format!("enter {}", context.span(id).unwrap().name()));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.add(&format!("exit {}", context.span(id).unwrap().name()));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.add(&format!("close {}", context.span(&id).unwrap().name()));
    }
}

/// Returns a subscriber: a number of filters of several kinds, which `kind` chooses.
fn layers(kind: usize, lines: &Arc<Mutex<Vec<String>>>) -> Box<dyn Subscriber + Send + Sync> {
    let log = |name| Log {
        name,
        lines: Arc::clone(lines),
    };
    let env = || EnvFilter::new("warn,[b{n=2}]=trace,[c]=debug");
    match kind {
        0 => Box::new(Registry::default().with(log("all"))),
        1 => Box::new(Registry::default().with(log("info").with_filter(LevelFilter::INFO))),
        2 => Box::new(
            Registry::default()
                .with(log("info").with_filter(LevelFilter::INFO))
                .with(log("debug").with_filter(LevelFilter::DEBUG))
                .with(log("no b").with_filter(FilterFn::new(|it| it.name() != "b"))),
        ),
        3 => Box::new(Registry::default().with(env()).with(log("env"))),
        4 => Box::new(
            Registry::default()
                .with(log("env").with_filter(env()))
                .with(log("all"))
                .with(log("warn").with_filter(LevelFilter::WARN)),
        ),
        _ => Box::new(
            Registry::default()
                .with(log("only c").with_filter(FilterFn::new(|it| it.name() == "c")))
                .with(log("error").with_filter(LevelFilter::ERROR)),
        ),
    }
}

/// A value whose `Debug` calls the function.
struct Waits<'a>(&'a dyn Fn());

impl fmt::Debug for Waits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)();
        f.write_str("waits")
    }
}

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer error")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Does everything that can be done with spans and events, and calls `wait` between.
fn work(wait: &dyn Fn()) {
    let error = Outer("x".parse::<u32>().unwrap_err());
    for n in 0..4_u64 {
        error!(n, "first");
        let a = info_span!("a", n, late = tracing::field::Empty, waits = ?Waits(wait));
        let inside = a.enter();
        wait();
        info!("in a");
        a.record("late", n + 10);
        {
            let error: &(dyn std::error::Error + 'static) = &error;
            let b = tracing::span!(
                Level::DEBUG, "b", n, text = "text", displayed = %"shown", error,
                float = 1.5, minus = -3_i64, long = 5_u128, yes = true
            );
            let _inside = b.enter();
            wait();
            debug!(n, "in b");
            trace!("deep in b");
            let c = tracing::span!(Level::TRACE, "c", n);
            wait();
            let _inside = c.enter();
            warn!("in c");
            debug!("in c");
            let root = tracing::span!(parent: None, Level::WARN, "root");
            let child = tracing::span!(parent: &a, Level::ERROR, "child of a");
            child.follows_from(&root);
            root.in_scope(|| error!("in root"));
            wait();
            child.in_scope(|| info!("in child"));
        }
        assert!(tracing::enabled!(Level::ERROR));
        info!("in a again");
        drop(inside);
        let kept = a.clone();
        drop(a);
        wait();
        drop(kept);
        info!(n, "last");
    }
}

#[test]
fn layers_and_filters_see_what_they_see_on_a_thread() {
    for kind in 0..6 {
        let lines = Arc::default();
        let dispatch = Dispatch::new(layers(kind, &lines));
        let waits = Cell::new(0);
        let as_thread = std::thread::scope(|scope| {
            let run = || with_default(&dispatch, || work(&|| ()));
            scope.spawn(run).join().unwrap();
            std::mem::take(&mut *lines.lock().unwrap())
        });
        waits.set(as_thread.len());
        assert!(as_thread.len() > 4, "{kind}: {as_thread:?}");
        each_mode(|rt| {
            let lines = Arc::default();
            let dispatch = Dispatch::new(GreenSubscriber::new(layers(kind, &lines)));
            // Meanwhile other threads make spans, with filters that decide otherwise.
            let others = Dispatch::new(GreenSubscriber::new(layers(5, &Arc::default())));
            let stop = Arc::new(AtomicUsize::new(0));
            let own = rt.thread_locals() == Some(ThreadLocals::Own);
            let busy: Vec<_> = (0..if own { 4 } else { 0 })
                .map(|_| {
                    let (others, stop) = (others.clone(), Arc::clone(&stop));
                    rt.spawn(move || {
                        while stop.load(SeqCst) == 0 {
                            with_default(&others, || work(&weald::yield_now));
                        }
                    })
                })
                .collect();
            rt.run(|| with_default(&dispatch, || work(&weald::yield_now)));
            stop.store(1, SeqCst);
            for thread in busy {
                thread.join().unwrap();
            }
            assert_eq!(*lines.lock().unwrap(), as_thread, "{kind}");
        });
    }
}

thread_local! { static KEPT: RefCell<BTreeSet<usize>> = const { RefCell::new(BTreeSet::new()) } }

#[test]
fn a_field_is_written_by_the_green_thread() {
    struct Notes;
    impl fmt::Debug for Notes {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            KEPT.with_borrow_mut(|kept| kept.insert(5));
            assert!(weald::is_green());
            f.write_str("notes")
        }
    }
    each_mode(|rt| {
        let dispatch = Dispatch::new(GreenSubscriber::new(layers(0, &Arc::default())));
        rt.run(|| {
            with_default(&dispatch, || {
                let _span = info_span!("outer", notes = ?Notes).entered();
            });
            assert_eq!(KEPT.with_borrow(BTreeSet::len), 1);
        });
    });
}

#[test]
fn more_fields_than_go_at_once_all_arrive() {
    let lines = Arc::default();
    let Some(rt) = own() else { return };
    let dispatch = Dispatch::new(GreenSubscriber::new(layers(0, &lines)));
    rt.run(|| {
        with_default(&dispatch, || {
            let _span = info_span!(
                "wide",
                f0 = 0,
                f1 = 1,
                f2 = 2,
                f3 = 3,
                f4 = 4,
                f5 = 5,
                f6 = 6,
                f7 = 7,
                f8 = 8,
                f9 = 9,
                f10 = 10,
                f11 = 11,
                f12 = 12,
                f13 = 13,
                f14 = 14,
                f15 = 15,
                f16 = 16,
                f17 = 17,
                f18 = 18,
                f19 = 19,
                f20 = 20,
                f21 = 21,
                f22 = 22,
                f23 = 23,
                f24 = 24,
                f25 = 25,
                f26 = 26,
                f27 = 27,
                f28 = 28,
                f29 = 29,
                f30 = 30,
                f31 = 31,
                f32 = 32,
                f33 = 33,
                f34 = 34,
                f35 = 35,
                f36 = 36,
                f37 = 37,
                f38 = 38,
                f39 = 39
            );
        });
    });
    let lines = lines.lock().unwrap();
    assert!(lines[0].ends_with("f30=i64 30 f31=i64 31"), "{lines:?}");
    // The rest is recorded as soon as the span is made.
    assert!(
        lines[1].starts_with("all: record wide f32=i64 32"),
        "{lines:?}"
    );
    assert!(lines[1].ends_with("f39=i64 39"), "{lines:?}");
}

#[test]
fn the_wrapped_subscriber_is_found_by_its_type() {
    let dispatch = Dispatch::new(GreenSubscriber::new(Registry::default()));
    assert!(dispatch.is::<Registry>());
    assert!(dispatch.is::<GreenSubscriber<Registry>>());
    assert!(!dispatch.is::<Parents>());
}
