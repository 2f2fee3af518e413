//! How a file is opened.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{File, long};

/// How a file is opened: std's [`OpenOptions`](std::fs::OpenOptions), whose `open` gives a [`File`] of weald's.
///
/// # Examples
/// ```
/// use std::io::Write;
/// use weald::fs::OpenOptions;
///
/// let path = std::env::temp_dir().join(format!("weald-options-{}", std::process::id()));
/// let mut log = OpenOptions::new().append(true).create(true).open(&path)?;
/// writeln!(log, "one more line")?;
/// # weald::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions(std::fs::OpenOptions);

impl OpenOptions {
    /// Returns options that are all off.
    #[allow(
        clippy::new_without_default,
        reason = "std's namesake has no Default either"
    )]
    pub fn new() -> Self {
        Self(std::fs::OpenOptions::new())
    }

    /// Opens for reading.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.0.read(read);
        self
    }

    /// Opens for writing.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.0.write(write);
        self
    }

    /// Opens for writing at the end.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.0.append(append);
        self
    }

    /// Removes what is in the file.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.0.truncate(truncate);
        self
    }

    /// Makes the file if it is not there.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.0.create(create);
        self
    }

    /// Makes the file, and fails if it is there.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.0.create_new(create_new);
        self
    }

    /// Sets the permissions of a file that is made; see
    /// [`OpenOptionsExt::mode`](std::os::unix::fs::OpenOptionsExt::mode).
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }

    /// Sets further flags of open(2); see
    /// [`OpenOptionsExt::custom_flags`](std::os::unix::fs::OpenOptionsExt::custom_flags).
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.0.custom_flags(flags);
        self
    }

    /// Opens the file. A blocking call, also where a named pipe waits for its other end.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for options that do not fit together; an exception.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        long(|| self.0.open(path).map(File::of))
    }
}

impl From<std::fs::OpenOptions> for OpenOptions {
    fn from(options: std::fs::OpenOptions) -> Self {
        Self(options)
    }
}
