//! What is in a folder, and how one is made.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{FileType, Metadata};
use std::io;
use std::iter::FusedIterator;
use std::os::unix::fs::{DirBuilderExt as _, DirEntryExt as _};
use std::path::{Path, PathBuf};

use super::brief;

/// So many entries are asked for in one call: the kernel hands them out by the buffer, and most calls wait for
/// nothing.
const BATCH: usize = 64;

/// What is in a folder; from [`read_dir`](super::read_dir()). The order is the file system's.
///
/// `next` is a blocking call, some of the time: it asks for several entries at once.
///
/// # Examples
/// See [`read_dir`](super::read_dir()).
#[derive(Debug)]
pub struct ReadDir {
    folder: std::fs::ReadDir,
    /// Entries that were asked for and not handed out yet.
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

/// One of the things in a folder; std's [`DirEntry`](std::fs::DirEntry).
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

    /// Returns what is known of it, of a symbolic link itself. A blocking call.
    pub fn metadata(&self) -> io::Result<Metadata> {
        brief(|| self.0.metadata())
    }

    /// Tells what it is. A blocking call: most file systems have said so already, some must be asked.
    pub fn file_type(&self) -> io::Result<FileType> {
        brief(|| self.0.file_type())
    }

    /// Returns its number in the file system.
    pub fn ino(&self) -> u64 {
        self.0.ino()
    }
}

/// How a folder is made; std's [`DirBuilder`](std::fs::DirBuilder).
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
    /// Returns what makes one folder, with all permissions that the process's mask leaves.
    #[allow(
        clippy::new_without_default,
        reason = "std's namesake has no Default either"
    )]
    pub fn new() -> Self {
        Self(std::fs::DirBuilder::new())
    }

    /// Makes the folders above as well, and does not mind if they are there.
    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.0.recursive(recursive);
        self
    }

    /// Sets the permissions.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }

    /// Makes the folder. A blocking call.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        brief(|| self.0.create(path))
    }
}
