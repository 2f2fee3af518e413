//! `WEALD_TRACE=FILE`: the flight recorder is on from the first runtime on, and writes a trace to the file when `SIGQUIT`
//! comes, and at the first panic.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::story;
use crate::parts::last_words;
use crate::parts::recorder;

/// Where the traces go; set if the variable is.
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// A runtime starts: looks at the environment, once. True: traces are wanted. `pages`: how much memory there is to be.
pub(crate) fn begin(pages: usize) -> bool {
    static LOOKED: AtomicBool = AtomicBool::new(false);
    if !LOOKED.swap(true, Ordering::Relaxed)
        && let Some(path) = std::env::var_os("WEALD_TRACE").filter(|path| !path.is_empty())
        && FILE.set(PathBuf::from(path)).is_ok()
    {
        // False: the program has switched it on, with its own settings.
        recorder::start(pages);
    }
    FILE.get().is_some()
}

/// `SIGQUIT` has come; on an OS thread of weald's.
pub(crate) fn write_if_wanted() {
    if let Some(file) = FILE.get() {
        match write(file) {
            Ok(events) => last_words::say(format_args!(
                "weald: a trace with {events} events is in {}",
                file.display()
            )),
            Err(error) => last_words::say(format_args!(
                "weald: no trace was written to {}: {error}",
                file.display()
            )),
        }
    }
}

/// A thread panics; in the hook, which must not panic.
pub(crate) fn panicked() {
    static FIRST: AtomicBool = AtomicBool::new(true);
    if FILE.get().is_some() && FIRST.swap(false, Ordering::Relaxed) {
        let _bypass = crate::shim::bypass::Bypass::enter();
        // The stack here may be small, and half full.
        let writer = thread::Builder::new().name(String::from("weald-trace"));
        if let Ok(writer) = writer.spawn(write_if_wanted) {
            // It says itself what has failed.
            let _ = writer.join();
        }
    }
}

/// Writes beside the file first, so that nobody reads half a trace.
fn write(file: &PathBuf) -> io::Result<usize> {
    let Some(copy) = recorder::read() else {
        return Err(io::Error::other("the recorder is off"));
    };
    let recording = story::tell(&copy);
    let mut part = file.clone().into_os_string();
    part.push(".part");
    recording.write_to(File::create(&part)?)?;
    fs::rename(&part, file)?;
    Ok(recording.events().len())
}
