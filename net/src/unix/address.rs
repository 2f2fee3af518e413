//! Addresses of Unix sockets: from std's type to socket2's, and back.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt as _;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::SockAddr;

/// Returns the address of a path, with std's errors: the path is too long, or has a zero in it.
pub(super) fn from_path(path: &Path) -> io::Result<SockAddr> {
    from_unix(&SocketAddr::from_pathname(path)?)
}

pub(super) fn from_unix(addr: &SocketAddr) -> io::Result<SockAddr> {
    if let Some(path) = addr.as_pathname() {
        return SockAddr::unix(path);
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = addr.as_abstract_name() {
        let mut path = vec![0];
        path.extend_from_slice(name);
        return SockAddr::unix(OsStr::from_bytes(&path));
    }
    // This is the unnamed address. Binding to it lets the kernel choose a name.
    SockAddr::unix(OsStr::from_bytes(&[]))
}

/// Returns std's address. The kernel allows a path that fills all the room, without a zero behind it. std has no
/// address for such a path, so it is unnamed here: a peer chooses its path and must not make a call fail.
pub(super) fn to_unix(addr: &SockAddr) -> io::Result<SocketAddr> {
    let unnamed = || SocketAddr::from_pathname("");
    if let Some(path) = addr.as_pathname() {
        return SocketAddr::from_pathname(path).or_else(|_| unnamed());
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = addr.as_abstract_namespace() {
        return SocketAddr::from_abstract_name(name).or_else(|_| unnamed());
    }
    if addr.len() > 0 && !addr.is_unix() {
        let text = "file descriptor did not correspond to a Unix socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    unnamed()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::*;

    fn check_there_and_back(addr: &SocketAddr) -> SocketAddr {
        let back = to_unix(&from_unix(addr).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{addr:?}"));
        back
    }

    #[test]
    fn every_kind_of_address_goes_there_and_back() {
        let path = SocketAddr::from_pathname("/tmp/some where").unwrap();
        assert!(check_there_and_back(&path).as_pathname().is_some());
        let longest = format!("/{}", "x".repeat(106));
        check_there_and_back(&SocketAddr::from_pathname(longest).unwrap());
        let unnamed = SocketAddr::from_pathname("").unwrap();
        assert!(check_there_and_back(&unnamed).is_unnamed());
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn abstract_names_keep_their_zeros() {
        for name in [&b"plain"[..], b"with\0zeros\0", b"\0", &[7; 107]] {
            let addr = SocketAddr::from_abstract_name(name).unwrap();
            assert_eq!(check_there_and_back(&addr).as_abstract_name(), Some(name));
        }
    }

    #[test]
    fn a_path_that_does_not_fit_is_an_error() {
        for path in [String::from("zero\0inside"), "x".repeat(200)] {
            let error = from_path(Path::new(&path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
