//! Each request to weald-http has a span, in which its handler runs. The test has a process of its own, which has a subscriber.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use weald_http::{Body, Request, Response, Router, Server, StatusCode};
use weald_tracing::GreenSubscriber;

type Fields = HashMap<&'static str, String>;

/// Spans that are closed, and events with the path of the request that they belong to.
static CLOSED: Mutex<Vec<Fields>> = Mutex::new(Vec::new());
static EVENTS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

struct Collects(Fields);

impl Visit for Collects {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

struct Notes;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Collects(Fields::new());
        attributes.record(&mut fields);
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(fields.0);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        let mut fields = Collects(Fields::new());
        values.record(&mut fields);
        extensions.get_mut::<Fields>().unwrap().extend(fields.0);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "a_handler" {
            return;
        }
        let mut fields = Collects(Fields::new());
        event.record(&mut fields);
        let span = context.event_span(event).unwrap();
        let path = span.extensions().get::<Fields>().unwrap()["url.path"].clone();
        let text = fields.0["message"].clone();
        EVENTS.lock().unwrap().push((path, text));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        if span.metadata().target() == "weald_http" {
            let fields = span.extensions().get::<Fields>().unwrap().clone();
            CLOSED.lock().unwrap().push(fields);
        }
    }
}

/// Sends one request, and returns the whole answer.
fn ask(addr: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{head}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_handler_runs_inside_of_its_requests_span() {
    let layers = tracing_subscriber::registry().with(Notes);
    tracing::subscriber::set_global_default(GreenSubscriber::new(layers)).unwrap();
    let router = Router::new()
        .get("/trees/{id}", |request: Request| {
            tracing::info!(target: "a_handler", "begins");
            // Others run in between.
            weald::sleep(Duration::from_millis(5));
            tracing::info!(target: "a_handler", "goes on");
            Response::new(Body::writer(move |out| {
                tracing::info!(target: "a_handler", "writes");
                write!(out, "{}", request.path())
            }))
        })
        .get("/fails", |_request| StatusCode::SERVICE_UNAVAILABLE)
        .fallback(|_request| "no such tree");
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    let server = Server::new(listener).serve(router.into_handler());
    let addr = server.local_addr();
    std::thread::scope(|scope| {
        for n in 0..20 {
            scope.spawn(move || {
                let answer = ask(addr, &format!("GET /trees/{n}?secret=5 HTTP/1.0"));
                assert!(answer.ends_with(&format!("/trees/{n}")), "{answer}");
            });
        }
    });
    ask(
        addr,
        "GET /fails HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: a test",
    );
    ask(addr, "FELL /fir HTTP/1.0");
    // A span is closed when its thread has ended, which may be after the answer.
    let start = Instant::now();
    while CLOSED.lock().unwrap().len() < 22 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "they are not closed"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let closed = CLOSED.lock().unwrap();
    let events = EVENTS.lock().unwrap();
    let span_of = |path: &str| {
        let own: Vec<_> = closed
            .iter()
            .filter(|span| span["url.path"] == path)
            .collect();
        assert_eq!(own.len(), 1, "{closed:?}");
        own[0]
    };
    for n in 0..20 {
        let path = format!("/trees/{n}");
        let span = span_of(&path);
        for (name, value) in [
            ("otel.kind", "server"),
            ("otel.name", "GET /trees/{id}"),
            ("http.request.method", "GET"),
            ("http.route", "/trees/{id}"),
            ("http.response.status_code", "200"),
            ("http.response.body.size", &path.len().to_string()),
            ("url.scheme", "http"),
            ("network.protocol.version", "1.0"),
            ("network.peer.address", "127.0.0.1"),
        ] {
            assert_eq!(span[name], value, "{name}: {span:?}");
        }
        assert!(!span.contains_key("error.type"), "{span:?}");
        let said = events.iter().filter(|(of, _)| *of == path);
        let said: Vec<_> = said.map(|(_, text)| text.as_str()).collect();
        assert_eq!(said, ["begins", "goes on", "writes"], "{path}");
    }
    assert!(!format!("{closed:?}").contains("secret"));
    let failed = span_of("/fails");
    for (name, value) in [
        ("http.response.status_code", "503"),
        ("error.type", "503"),
        ("otel.status_code", "ERROR"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "a test"),
    ] {
        assert_eq!(failed[name], value, "{name}: {failed:?}");
    }
    // No client can make new values of the method, nor of the name.
    let odd = span_of("/fir");
    assert_eq!(odd["http.request.method"], "_OTHER");
    assert_eq!(odd["http.request.method_original"], "FELL");
    assert_eq!(odd["otel.name"], "HTTP");
    assert!(!odd.contains_key("http.route"));
}
