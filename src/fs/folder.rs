//! Reading and making folders.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{FileType, Metadata};
use std::io;
use std::iter::FusedIterator;
use std::os::unix::fs::{DirBuilderExt as _, DirEntryExt as _};
use std::path::{Path, PathBuf};

use super::call::brief;

/// How many entries are asked for in one call. The kernel hands them out by the buffer, so most calls of std's
/// iterator wait for nothing.
const BATCH: usize = 64;

/// The entries of a folder; from [`read_dir`](super::read_dir()). Their order is the file system's.
///
/// `next` is sometimes a blocking call: it asks for several entries at once.
///
/// # Examples
/// See [`read_dir`](super::read_dir()).
#[derive(Debug)]
pub struct ReadDir {
    folder: std::fs::ReadDir,
    /// Entries that were asked for and not yet handed out.
    next: VecDeque<io::Result<std::fs::DirEntry>>,
    ended: bool,
}

impl ReadDir {
    pub(super) fn new(folder: std::fs::ReadDir) -> Self {
        Self {
            folder,
            next: VecDeque::new(),
            ended: false,
        }
    }

    fn ask(&mut self) {
        for _ in 0..BATCH {
            let Some(entry) = self.folder.next() else {
                self.ended = true;
                return;
            };
            let is_error = entry.is_err();
            self.next.push_back(entry);
            if is_error {
                return;
            }
        }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next.is_empty() && !self.ended {
            let asked = brief(|| {
                self.ask();
                Ok(())
            });
            if let Err(exception) = asked {
                return Some(Err(exception));
            }
        }
        Some(self.next.pop_front()?.map(DirEntry))
    }
}

impl FusedIterator for ReadDir {}

/// An entry of a folder; std's [`DirEntry`](std::fs::DirEntry).
///
/// # Examples
/// ```
/// for entry in weald::fs::read_dir(".")? {
///     let entry = entry?;
///     println!("{:?}: {} bytes", entry.file_name(), entry.metadata()?.len());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DirEntry(std::fs::DirEntry);

impl DirEntry {
    /// Returns the folder's path and the name.
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }

    /// Returns the name.
    pub fn file_name(&self) -> OsString {
        self.0.file_name()
    }

    /// Returns the properties of the entry; for a symbolic link, those of the link itself. A blocking call.
    pub fn metadata(&self) -> io::Result<Metadata> {
        brief(|| self.0.metadata())
    }

    /// Returns the type of the entry. A blocking call: most file systems have told the type already, others must be
    /// asked.
    pub fn file_type(&self) -> io::Result<FileType> {
        brief(|| self.0.file_type())
    }

    /// Returns the entry's number in the file system.
    pub fn ino(&self) -> u64 {
        self.0.ino()
    }
}

/// Makes folders; std's [`DirBuilder`](std::fs::DirBuilder).
///
/// # Examples
/// ```
/// let path = std::env::temp_dir().join(format!("weald-dir-{}", std::process::id()));
/// weald::fs::DirBuilder::new().recursive(true).mode(0o700).create(path.join("below"))?;
/// # weald::fs::remove_dir_all(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DirBuilder(std::fs::DirBuilder);

impl DirBuilder {
    /// Returns a builder that makes one folder, with all permissions that the process's mask leaves.
    #[allow(
        clippy::new_without_default,
        reason = "std's namesake has no Default either"
    )]
    pub fn new() -> Self {
        Self(std::fs::DirBuilder::new())
    }

    /// Sets if the folders above are made as well. If so, folders that are there already are no error.
    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.0.recursive(recursive);
        self
    }

    /// Sets the permissions of new folders.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }

    /// Makes the folder. A blocking call.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        brief(|| self.0.create(path))
    }
}
