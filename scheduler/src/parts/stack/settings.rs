//! What the environment says about guards, and how many mappings the process may have.

use std::io;
use std::sync::OnceLock;

pub(super) struct Settings {
    /// Whether guards are protections even where markers could be had.
    pub(super) protect: bool,
    /// Most slots that `mprotect` may guard.
    pub(super) bound: usize,
}

pub(super) fn settings() -> io::Result<&'static Settings> {
    static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
    SETTINGS.get_or_init(read_settings).as_ref().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "WEALD_STACK_GUARD is neither \"mprotect\" nor \"mprotect:N\" with a number N",
        )
    })
}

fn read_settings() -> Option<Settings> {
    // Each guard splits its mapping in two, so half the limit; of that one part in sixteen is left
    // to the rest of the program, at least 512 mappings.
    let half = max_map_count() / 2;
    let bound = half.saturating_sub((half / 16).max(256));
    let Some(value) = std::env::var_os("WEALD_STACK_GUARD") else {
        return Some(Settings {
            protect: false,
            bound,
        });
    };
    let bound = match value.to_str()?.strip_prefix("mprotect")? {
        "" => bound,
        number => number.strip_prefix(':')?.parse().ok()?,
    };
    Some(Settings {
        protect: true,
        bound,
    })
}

/// Most mappings the process may have; no limit where there is no such setting.
pub(super) fn max_map_count() -> usize {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(65_530) // The kernel's default, for where /proc is hidden.
    } else {
        usize::MAX
    }
}
