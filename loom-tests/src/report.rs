//! The verdict of a model: one line that `run` collects, and the end of the process if it failed.
//!
//! The line goes to the process's real standard output, past the capturing of the test harness:
//! `@model`, then `key=value` fields, separated by tabs, `detail` last.

/// The payload of a panic that belongs to the scenario and is caught by the code under test.
///
/// Throw it with `std::panic::panic_any(Deliberate)`; any other panic is the failure of the model.
/// `std::panic::resume_unwind` is not seen by a panic hook and needs no such payload.
#[derive(Debug)]
pub struct Deliberate;

#[cfg(loom)]
pub(crate) use self::checked::{Progress, Reason, Verdict, begin, failed, report, set_hook};

#[cfg(loom)]
mod checked {
    use std::cell::Cell;
    use std::fmt;
    use std::io::Write;
    use std::panic::PanicHookInfo;
    use std::sync::Once;
    use std::time::Instant;

    use super::Deliberate;

    /// The exit status of a model that failed, as of any panicking Rust program.
    const EXIT_FAILED: i32 = 101;

    /// What is known about the model that runs on this OS thread.
    #[derive(Clone, Copy)]
    pub(crate) struct Progress {
        pub(crate) name: &'static str,
        /// `None` if the search has no bound.
        pub(crate) bound: Option<usize>,
        pub(crate) start: Instant,
        /// The number of the current permutation, from 1; loom counts them the same way.
        pub(crate) permutation: u64,
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Verdict {
        Complete,
        Truncated,
        Failed,
    }

    /// Why a verdict is what it is.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Reason<'a> {
        /// Nothing more to say.
        None,
        /// Something about the search as a whole.
        Search(&'a str),
        /// A panic in the current permutation, which can be replayed.
        Permutation(&'a str),
    }

    thread_local! {
        static PROGRESS: Cell<Option<Progress>> = const { Cell::new(None) };
    }

    /// Notes how far the model has come, for a panic that may follow.
    pub(crate) fn begin(progress: Progress) {
        PROGRESS.set(Some(progress));
    }

    /// Makes every panic but a [`Deliberate`] one end the process with a report.
    pub(crate) fn set_hook() {
        static SET: Once = Once::new();
        SET.call_once(|| {
            let harness = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| match PROGRESS.get() {
                _ if info.payload().is::<Deliberate>() => {}
                Some(progress) => fail_at(&progress, info),
                None => harness(info),
            }));
        });
    }

    fn fail_at(progress: &Progress, info: &PanicHookInfo<'_>) -> ! {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        let place = info
            .location()
            .map_or_else(String::new, |at| format!(" at {at}"));
        // A backtrace needs more stack than loom's threads have, so it must be asked for; its
        // crash would lose nothing but itself.
        let why = format!("{message}{place}");
        report(progress, Verdict::Failed, &[], Reason::Permutation(&why));
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
        }
        std::process::exit(EXIT_FAILED)
    }

    /// Ends the process: the search is complete, but not what the model promised.
    pub(crate) fn failed(progress: &Progress, witnesses: &[(&str, u64)], why: &str) -> ! {
        report(progress, Verdict::Failed, witnesses, Reason::Search(why));
        std::process::exit(EXIT_FAILED)
    }

    /// Prints the line of the model.
    pub(crate) fn report(
        progress: &Progress,
        verdict: Verdict,
        witnesses: &[(&str, u64)],
        reason: Reason<'_>,
    ) {
        let (replay, detail) = match reason {
            Reason::None => ("no", ""),
            Reason::Search(why) => ("no", why),
            Reason::Permutation(why) => ("yes", why),
        };
        let bound = progress
            .bound
            .map_or_else(|| "none".to_owned(), |bound| bound.to_string());
        let witnesses: Vec<String> = witnesses
            .iter()
            .map(|(name, count)| format!("{name}:{count}"))
            .collect();
        let line = format!(
            "@model\tverdict={verdict}\tname={}\tpermutations={}\tseconds={:.2}\tbound={bound}\
             \twitnesses={}\treplay={replay}\tdetail={}\n",
            progress.name,
            progress.permutation,
            progress.start.elapsed().as_secs_f64(),
            witnesses.join(","),
            detail.replace(['\t', '\n'], " "),
        );
        let mut out = std::io::stdout().lock();
        // The harness prints `test NAME ... ` without an end of line before a test runs. Nobody
        // can be told if standard output is gone.
        let _ = out.write_all(format!("\n{line}").as_bytes());
        let _ = out.flush();
    }

    impl fmt::Display for Verdict {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(match self {
                Verdict::Complete => "COMPLETE",
                Verdict::Truncated => "TRUNCATED",
                Verdict::Failed => "FAILED",
            })
        }
    }
}
