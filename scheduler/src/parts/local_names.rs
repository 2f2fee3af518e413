//! Names that the system knows by itself: `localhost`, and those of the hosts file (hosts(5)).
//!
//! This file only finds out whether a name is one of those. The resolver finds the addresses: it has an order of its
//! own for them, and the system may tell it to ask other sources first (nsswitch.conf(5)).

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, PoisonError};

use crate::parts::offload::Lane;
use crate::shim::bypass::Bypass;
use crate::shim::plain::Mutex;

const HOSTS: &str = "/etc/hosts";

/// What was last read of the file.
#[derive(Debug)]
struct Hosts {
    stamp: Stamp,
    names: HashSet<String>,
}

/// What changes when the file changes. `None`: there is no file.
type Stamp = Option<[i64; 5]>;

fn stamp(meta: &Metadata) -> [i64; 5] {
    [
        meta.dev().cast_signed(),
        meta.ino().cast_signed(),
        meta.size().cast_signed(),
        meta.mtime(),
        meta.mtime_nsec(),
    ]
}

/// The normal form of a name: without the dot at its end, in small letters.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// `localhost` and the names below it always mean the loopback address (RFC 6761, 6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = plain(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether the hosts file has a line for the name.
pub fn is_in_hosts_file(name: &str) -> bool {
    // The few calls here are short, and a patched thread must not suspend in them.
    let _bypass = Bypass::enter();
    hosts().names.contains(&plain(name))
}

/// The pool that must look the name up.
pub fn lane_of(name: &str) -> Lane {
    if is_localhost(name) || is_in_hosts_file(name) {
        Lane::Local
    } else {
        Lane::Remote
    }
}

/// The file as it is now; it is read again when it has changed.
fn hosts() -> Arc<Hosts> {
    static READ: Mutex<Option<Arc<Hosts>>> = Mutex::new(None);
    let stamp = std::fs::metadata(HOSTS).ok().as_ref().map(stamp);
    let last = READ.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(last) = last
        && last.stamp == stamp
    {
        return last;
    }
    // A name in another encoding than ASCII is no host's.
    let text = std::fs::read(HOSTS).unwrap_or_default();
    let new = Arc::new(Hosts {
        stamp,
        names: names_of(&String::from_utf8_lossy(&text)),
    });
    let mut place = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let old = place.replace(Arc::clone(&new));
    drop((place, old));
    new
}

/// Each line has an address and its names, up to a `#`.
fn names_of(text: &str) -> HashSet<String> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    let names = lines.flat_map(|line| line.split_whitespace().skip(1));
    names.map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_localhost, names_of};

    #[test]
    fn localhost_is_known_however_it_is_written() {
        for name in ["localhost", "LocalHost", "localhost.", "a.b.localhost"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["notlocalhost", "localhost.example", ""] {
            assert!(!is_localhost(name), "{name}");
        }
    }

    #[test]
    fn the_names_of_a_hosts_file_are_found() {
        let names = names_of(
            "# 192.0.2.9 no.example\n192.0.2.1\tone.example  ONE # two\n\n::1 six.example.\n192.0.2.3",
        );
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        assert_eq!(names, ["one", "one.example", "six.example"]);
    }
}
