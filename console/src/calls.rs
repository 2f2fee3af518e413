//! Traces with the names of their calls, each looked up once, without the calls inside of weald by which a thread came to wait.

use std::collections::HashMap;
use std::path::{MAIN_SEPARATOR, Path};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};
use weald::{Frame, Trace};

/// So many traces are kept. A program has fewer places where threads wait.
const MOST: usize = 4096;

/// Folders of weald's sources, beside that of this crate. A registry has each crate in a folder of its own.
const FOLDERS: [&str; 7] = ["scheduler", "sync", "net", "timer", "patch", "http", "src"];

/// Whose a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Weald,
    /// The standard library's.
    Std,
    /// The program's, or that of another library.
    Program,
}

/// One call of a trace.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) function: String,
    /// `file:line`; empty if it is not known.
    place: String,
    whose: Whose,
}

impl Call {
    fn of(frame: &Frame) -> Self {
        let function = frame.function.clone();
        let function = function.unwrap_or_else(|| format!("{:#x}", frame.address));
        let file = frame.file.as_deref().unwrap_or_default();
        let place = match frame.line {
            Some(line) if !file.is_empty() => format!("{}:{line}", short(file)),
            _ => short(file).to_owned(),
        };
        Self {
            place,
            whose: whose(&function, file),
            function,
        }
    }

    fn told(&self) -> Value {
        json!({
            "name": self.function,
            "at": self.place,
            "own": self.whose == Whose::Program,
        })
    }
}

/// The calls of a trace, the innermost first, from the call of weald's by which the thread waits.
pub(crate) type Calls = Arc<[Call]>;

pub(crate) fn told(calls: &[Call]) -> Value {
    calls.iter().map(Call::told).collect()
}

#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<HashMap<Trace, Calls>>);

impl Names {
    /// The calls of a trace. Takes some milliseconds for a trace that is new.
    pub(crate) fn of(&self, trace: &Trace) -> Calls {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = known().get(trace) {
            return Arc::clone(calls);
        }
        // Not under the lock: other clients go on.
        let calls = from_outside(trace.frames().iter().map(Call::of).collect());
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(trace.clone(), Arc::clone(&calls));
        calls
    }
}

/// Leaves out the calls by which weald's function waits, but not that function.
fn from_outside(mut calls: Vec<Call>) -> Calls {
    let inside = calls.iter().take_while(|call| call.whose == Whose::Weald);
    let inside = inside.count().saturating_sub(1);
    calls.drain(..inside);
    calls.into()
}

/// Tells whose a function is, by its file. Functions without a file, and those that the compiler has inlined, may have names without a path.
fn whose(function: &str, file: &str) -> Whose {
    let function = function.trim_start_matches('<');
    let first = function.split("::").next().unwrap_or_default();
    if file.contains("/rustc/") || file.contains("/lib/rustlib/src/rust/library/") {
        Whose::Std
    } else if first.starts_with("weald") || is_of_weald(file) {
        Whose::Weald
    } else if matches!(first, "std" | "core" | "alloc") {
        Whose::Std
    } else {
        Whose::Program
    }
}

/// The file is one of weald's.
fn is_of_weald(file: &str) -> bool {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let below = beside
        .and_then(Path::to_str)
        .and_then(|root| file.strip_prefix(root));
    let Some(below) = below.and_then(|below| below.strip_prefix(MAIN_SEPARATOR)) else {
        return false;
    };
    let folder = below.split(MAIN_SEPARATOR).next().unwrap_or_default();
    FOLDERS.contains(&folder) || folder.starts_with("weald-")
}

/// A place without what is the same for all files of a library.
fn short(place: &str) -> &str {
    static FOLDER: OnceLock<Option<String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::current_dir().ok()?;
        Some(format!("{}{MAIN_SEPARATOR}", folder.to_str()?))
    });
    if let Some((_, place)) = place.split_once("/registry/src/") {
        // The name of the registry comes first.
        return place.split_once('/').map_or(place, |(_, place)| place);
    }
    if let Some((_, place)) = place.split_once("/rustc/") {
        return place.split_once('/').map_or(place, |(_, place)| place);
    }
    let inside = folder
        .as_ref()
        .and_then(|folder| place.strip_prefix(folder.as_str()));
    inside.unwrap_or(place)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::{Call, Whose, from_outside, short, whose};

    #[test]
    fn calls_inside_of_weald_are_left_out_but_not_the_one_that_the_program_calls() {
        let root = env!("CARGO_MANIFEST_DIR").strip_suffix("/console");
        // A packaged crate is not in the workspace's folder.
        let Some(root) = root else { return };
        let calls = [
            (
                "switch_out",
                format!("{root}/scheduler/src/green/switch_out.rs"),
            ),
            ("take", format!("{root}/sync/src/raw_mutex.rs")),
            ("weald_sync::mutex::Mutex<T>::lock", String::new()),
            (
                "server::main::{{closure}}",
                String::from("/home/me/server/src/main.rs"),
            ),
            (
                "<core::ops::FnOnce as server>::call",
                String::from("/rustc/0a1b/library/core/src/ops.rs"),
            ),
            ("weald_sync::once::call", String::from("once.rs")),
        ];
        let calls = calls.map(|(function, file)| Call {
            whose: whose(function, &file),
            function: function.to_owned(),
            place: file,
        });
        let found: Vec<_> = calls.iter().map(|call| call.whose).collect();
        let (weald, program) = (Whose::Weald, Whose::Program);
        assert_eq!(found, [weald, weald, weald, program, Whose::Std, weald]);
        let shown = from_outside(calls.into());
        assert_eq!(shown.len(), 4);
        assert_eq!(shown[0].function, "weald_sync::mutex::Mutex<T>::lock");
        assert!(from_outside(Vec::new()).is_empty());
    }

    #[test]
    fn places_are_short() {
        let here = std::env::current_dir().unwrap();
        for (place, shown) in [
            (
                "/home/me/.cargo/registry/src/index.crates.io-1949/log-0.4.1/src/lib.rs:5",
                "log-0.4.1/src/lib.rs:5",
            ),
            (
                "/rustc/0a1b/library/core/src/ops.rs:250",
                "library/core/src/ops.rs:250",
            ),
            (
                &format!("{}/src/main.rs:1", here.display()),
                "src/main.rs:1",
            ),
            ("/elsewhere/main.rs:1", "/elsewhere/main.rs:1"),
            ("", ""),
        ] {
            assert_eq!(short(place), shown);
        }
    }
}
