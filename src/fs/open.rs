//! Options to open a file with.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::call::long;
use super::file::File;

/// Options to open a file with: std's [`OpenOptions`](std::fs::OpenOptions), whose `open` returns a [`File`] of
/// weald's.
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

    /// Sets if the file is opened for reading.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.0.read(read);
        self
    }

    /// Sets if the file is opened for writing.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.0.write(write);
        self
    }

    /// Sets if the file is opened for writing at its end.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.0.append(append);
        self
    }

    /// Sets if the contents of the file are removed.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.0.truncate(truncate);
        self
    }

    /// Sets if the file is made when it is not there.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.0.create(create);
        self
    }

    /// Sets if the file must be new: opening it fails if it is there.
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

    /// Opens the file. A blocking call; opening a named pipe waits for its other end.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for options that contradict each other; an exception.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        long(|| self.0.open(path).map(File::of))
    }
}

impl File {
    /// Returns options to open a file with.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }
}

impl From<std::fs::OpenOptions> for OpenOptions {
    fn from(options: std::fs::OpenOptions) -> Self {
        Self(options)
    }
}
