//! Settings from variables of the environment. They count if the program has made no such setting.

use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locals {
    Own,
    Pinned,
    Shared,
}

/// The setting of `WEALD_THREAD_LOCALS`, for runtimes without a setting of their own.
pub(super) fn locals_variable() -> io::Result<Option<Locals>> {
    let Some(value) = std::env::var_os("WEALD_THREAD_LOCALS") else {
        return Ok(None);
    };
    match value.to_str() {
        Some("own") => Ok(Some(Locals::Own)),
        Some("pinned") => Ok(Some(Locals::Pinned)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "WEALD_THREAD_LOCALS must be \"own\" or \"pinned\", not {:?}",
                value.to_string_lossy()
            ),
        )),
    }
}

/// Whether `WEALD_DUMP_ON` says that `SIGQUIT` dumps.
pub(super) fn dump_variable() -> io::Result<bool> {
    match std::env::var_os("WEALD_DUMP_ON") {
        None => Ok(false),
        Some(value) if value.is_empty() => Ok(false),
        Some(value) if value == "quit" => Ok(true),
        Some(value) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "WEALD_DUMP_ON must be \"quit\", not {:?}",
                value.to_string_lossy()
            ),
        )),
    }
}

/// A number from the environment.
pub(super) fn variable(
    name: &str,
    range: &std::ops::RangeInclusive<usize>,
) -> io::Result<Option<usize>> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    match text.trim().parse::<usize>() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{name} must be a number between {} and {}, not {text:?}",
                range.start(),
                range.end()
            ),
        )),
    }
}
