//! Files and folders: the functions and types of `std::fs`. A call that waits for the disk blocks only its own green
//! thread.
//!
//! Names, arguments and results are those of [`std::fs`]. Each call is a blocking call of weald: it runs in place,
//! inside [`blocking`](crate::blocking()), and the other green threads go on meanwhile. A read of an ordinary file
//! first asks for what the kernel has in memory (`RWF_NOWAIT` of preadv2(2)). Only what must come from the disk is
//! such a call. On a plain OS thread the calls are std's.
//!
//! | file        | holds                                                  |
//! |-------------|--------------------------------------------------------|
//! | `mod.rs`    | the functions                                          |
//! | `file.rs`   | `File`                                                 |
//! | `open.rs`   | `OpenOptions`, `File::options`                         |
//! | `folder.rs` | `ReadDir`, `DirEntry`, `DirBuilder`                    |
//! | `nowait.rs` | reads that do not wait                                 |
//! | `call.rs`   | how a call of std's is made                            |
//!
//! # Errors
//! Those of std's namesakes. A call that an exception ends (`kill`, `throw`, a limit) returns the exception as an
//! error: [`TimedOut`](std::io::ErrorKind::TimedOut) for a limit, otherwise [`Other`](std::io::ErrorKind::Other). The
//! exception is raised before a call begins and never in the middle of it: a read from the disk that has begun is not
//! given up. Named pipes, terminals and other things that are not files on a disk differ: there an exception ends a
//! read or a write that waits. No call returns [`Interrupted`](std::io::ErrorKind::Interrupted).
//!
//! # What is not here
//! `File::lock` and similar methods, which Rust 1.88 does not have. Use `weald::blocking(|| ..)` around a file lock.
//! A file that is dropped is closed in place. On the few file systems whose close(2) is slow, that blocks the OS
//! thread for as long.
//!
//! # Examples
//! ```
//! use weald::fs;
//!
//! # let folder = std::env::temp_dir().join(format!("weald-fs-{}", std::process::id()));
//! # fs::create_dir_all(&folder)?;
//! let path = folder.join("greeting.txt");
//! fs::write(&path, "hello")?;
//! assert_eq!(fs::read_to_string(&path)?, "hello");
//! assert_eq!(fs::metadata(&path)?.len(), 5);
//! for entry in fs::read_dir(&folder)? {
//!     println!("{}", entry?.path().display());
//! }
//! # fs::remove_dir_all(&folder)?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes, and of the module's comment"
)]

mod call;
mod file;
mod folder;
#[cfg(target_os = "linux")]
mod nowait;
mod open;

use std::io;
use std::path::{Path, PathBuf};

pub use std::fs::{FileTimes, FileType, Metadata, Permissions};

pub use self::file::File;
pub use self::folder::{DirBuilder, DirEntry, ReadDir};
pub use self::open::OpenOptions;

use self::call::{brief, long};

/// Reads a whole file; see [`std::fs::read`].
///
/// # Examples
/// ```
/// let bytes = weald::fs::read("Cargo.toml")?;
/// assert!(bytes.starts_with(b"[workspace]"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    long(|| std::fs::read(path))
}

/// Reads a whole file of text in UTF-8; see [`std::fs::read_to_string`].
///
/// # Examples
/// ```
/// let text = weald::fs::read_to_string("Cargo.toml")?;
/// assert!(text.contains("weald"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    long(|| std::fs::read_to_string(path))
}

/// Writes a whole file. Makes the file if it is not there, and replaces it if it is; see [`std::fs::write`].
///
/// # Examples
/// ```
/// let path = std::env::temp_dir().join(format!("weald-write-{}", std::process::id()));
/// weald::fs::write(&path, b"bytes")?;
/// assert_eq!(weald::fs::read(&path)?, b"bytes");
/// # weald::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    long(|| std::fs::write(path, contents))
}

/// Copies a file and its permissions. Returns the number of bytes; see [`std::fs::copy`].
///
/// # Examples
/// ```
/// let copy = std::env::temp_dir().join(format!("weald-copy-{}", std::process::id()));
/// let bytes = weald::fs::copy("Cargo.toml", &copy)?;
/// assert_eq!(bytes, weald::fs::metadata("Cargo.toml")?.len());
/// # weald::fs::remove_file(&copy)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    long(|| std::fs::copy(from, to))
}

/// Returns the properties of the file that the path leads to; see [`std::fs::metadata`].
///
/// # Examples
/// ```
/// assert!(weald::fs::metadata("Cargo.toml")?.is_file());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    brief(|| std::fs::metadata(path))
}

/// Returns the properties of the file; for a symbolic link, those of the link itself. See
/// [`std::fs::symlink_metadata`].
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    brief(|| std::fs::symlink_metadata(path))
}

/// Tells if the path leads to something; see [`std::fs::exists`].
///
/// # Examples
/// ```
/// assert!(weald::fs::exists("Cargo.toml")?);
/// assert!(!weald::fs::exists("no such file")?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn exists<P: AsRef<Path>>(path: P) -> io::Result<bool> {
    brief(|| std::fs::exists(path))
}

/// Returns the path without links and dots; see [`std::fs::canonicalize`].
pub fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    brief(|| std::fs::canonicalize(path))
}

/// Returns the target of a symbolic link; see [`std::fs::read_link`].
pub fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    brief(|| std::fs::read_link(path))
}

/// Returns the entries of a folder; see [`std::fs::read_dir`].
///
/// # Examples
/// ```
/// let names: Result<Vec<_>, _> = weald::fs::read_dir(".")?
///     .map(|entry| entry.map(|entry| entry.file_name()))
///     .collect();
/// assert!(names?.iter().any(|name| name == "Cargo.toml"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    brief(|| std::fs::read_dir(path)).map(ReadDir::new)
}

/// Makes a folder; see [`std::fs::create_dir`].
pub fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    brief(|| std::fs::create_dir(path))
}

/// Makes a folder and the missing folders above it; see [`std::fs::create_dir_all`].
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    brief(|| std::fs::create_dir_all(path))
}

/// Removes an empty folder; see [`std::fs::remove_dir`].
pub fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    brief(|| std::fs::remove_dir(path))
}

/// Removes a folder with all its contents; see [`std::fs::remove_dir_all`].
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    brief(|| std::fs::remove_dir_all(path))
}

/// Removes a file; see [`std::fs::remove_file`].
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    brief(|| std::fs::remove_file(path))
}

/// Gives a file another name; see [`std::fs::rename`].
pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    brief(|| std::fs::rename(from, to))
}

/// Gives a file another name beside its own; see [`std::fs::hard_link`].
pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    brief(|| std::fs::hard_link(original, link))
}

/// Makes a symbolic link; see [`std::os::unix::fs::symlink`].
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    brief(|| std::os::unix::fs::symlink(original, link))
}

/// Sets the permissions of a file; see [`std::fs::set_permissions`].
pub fn set_permissions<P: AsRef<Path>>(path: P, permissions: Permissions) -> io::Result<()> {
    brief(|| std::fs::set_permissions(path, permissions))
}
