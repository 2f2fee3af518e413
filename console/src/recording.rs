//! Recordings of the flight recorder, `weald::trace`: one for the process, whoever has begun it.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weald::trace::{self, Options, Recording};
use weald_http::Response;

/// A recording takes so much memory at most: a snapshot copies all of it, several times as large. The program itself may
/// begin larger ones.
const MOST: u64 = 64 << 20;

/// Begins a recording with so many bytes of memory.
///
/// # Errors
/// `AlreadyExists` if there is one; `InvalidInput` for a size out of range.
pub(crate) fn start(memory: Option<u64>) -> io::Result<()> {
    let mut options = Options::new();
    if let Some(memory) = memory {
        if memory > MOST {
            let text = format!("the console records in {MOST} bytes at most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        options = options.memory(usize::try_from(memory).unwrap_or(usize::MAX));
    }
    trace::start(options)
}

/// What has been recorded until now; the recording goes on. `None`: nothing is recorded.
pub(crate) fn snapshot() -> Option<Response> {
    trace::is_on().then(|| file(trace::snapshot()))
}

/// Ends the recording. `None`: nothing was recorded.
pub(crate) fn stop() -> Option<Response> {
    trace::is_on().then(|| file(trace::stop()))
}

/// Ends the recording that the caller has begun after this time, or when the caller is killed because its client has gone.
pub(crate) fn stop_after(time: Duration) -> Response {
    struct Stops;
    impl Drop for Stops {
        fn drop(&mut self) {
            trace::stop();
        }
    }
    let stops = Stops;
    weald::sleep(time);
    std::mem::forget(stops);
    file(trace::stop())
}

/// A recording as a file that `ui.perfetto.dev` opens. It is written while it is sent.
fn file(recording: Recording) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    let name = format!("weald-{}-{seconds}.pftrace", std::process::id());
    let body = weald_http::Body::writer(move |out| recording.write_to(out));
    Response::new(body)
        .header("content-type", "application/octet-stream")
        .header(
            "content-disposition",
            format!("attachment; filename=\"{name}\""),
        )
}
