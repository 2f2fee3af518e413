//! Each line of a log names the green thread that wrote it.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::dispatcher::{Dispatch, with_default};
use tracing::info;
use tracing_subscriber::fmt::format;
use weald_tracing::{GreenSubscriber, NamesThreads};

/// Keeps what is written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_begins_with_the_number_and_the_name_of_its_green_thread() {
    let lines = Lines::default();
    let writer = lines.clone();
    let layers = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .event_format(NamesThreads::new(format().without_time()));
    let dispatch = Dispatch::new(GreenSubscriber::new(layers.finish()));
    let rt = weald::Runtime::builder().workers(1).build().unwrap();
    let says = |what: &'static str| {
        let dispatch = dispatch.clone();
        move || with_default(&dispatch, || info!("{what}"))
    };
    let ids = rt.run(|| {
        let named = weald::Builder::new().name("lease".to_owned());
        let named = named.spawn(says("has a name")).unwrap();
        let unnamed = weald::spawn(says("has none"));
        let ids = [&named, &unnamed].map(|handle| handle.thread().id());
        named.join().unwrap();
        unnamed.join().unwrap();
        ids
    });
    says("is an OS thread")();
    let bytes = lines.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    let line = |what: &str| text.lines().find(|line| line.ends_with(what)).unwrap();
    assert!(
        line("has a name").starts_with(&format!("{} lease  INFO", ids[0])),
        "{text}"
    );
    assert!(
        line("has none").starts_with(&format!("{}  INFO", ids[1])),
        "{text}"
    );
    assert!(line("is an OS thread").starts_with(" INFO"), "{text}");
}
