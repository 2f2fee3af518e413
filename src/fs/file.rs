//! An open file.

use std::fmt;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use weald_net::Fd;

use super::call::{brief, long};

/// An open file: std's [`File`](std::fs::File), whose calls block only their own green thread.
///
/// A method that is not described here does what std's does. Named pipes, terminals and other things that are opened
/// by name but are not files on a disk wait as [`net::Fd`](crate::net::Fd) does: a limit and a `kill` end the wait.
///
/// # Examples
/// ```
/// use std::io::{Read, Seek, SeekFrom, Write};
/// use weald::fs::File;
///
/// # let path = std::env::temp_dir().join(format!("weald-file-{}", std::process::id()));
/// let mut file = File::create(&path)?;
/// file.write_all(b"first second")?;
/// file.sync_all()?;
///
/// let mut file = File::open(&path)?;
/// file.seek(SeekFrom::Start(6))?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!(text, "second");
/// # weald::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct File {
    file: Fd<std::fs::File>,
    /// It is a file on a disk. Its calls are made inside `blocking` and end by themselves.
    is_ordinary: bool,
}

impl File {
    /// Asks the system what the file is. Called where that may block.
    pub(super) fn of(file: std::fs::File) -> Self {
        let is_ordinary = is_ordinary(&file);
        let file = Fd::new(file);
        Self { file, is_ordinary }
    }

    fn std(&self) -> &std::fs::File {
        self.file.get_ref()
    }

    /// Makes a call about the open file, again if a signal has ended it.
    fn call<T>(&self, mut f: impl FnMut(&std::fs::File) -> io::Result<T>) -> io::Result<T> {
        let file = self.std();
        let calm = || {
            loop {
                match f(file) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return done,
                }
            }
        };
        if self.is_ordinary {
            brief(calm)
        } else {
            long(calm)
        }
    }

    /// Opens a file for reading; see [`std::fs::File::open`].
    ///
    /// # Examples
    /// ```
    /// let error = weald::fs::File::open("no such file").unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    /// ```
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        long(|| std::fs::File::open(path).map(Self::of))
    }

    /// Opens a file for writing. Makes the file if it is not there, and empties it if it is; see
    /// [`std::fs::File::create`].
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        long(|| std::fs::File::create(path).map(Self::of))
    }

    /// Makes a file for reading and writing, and fails if it is there; see [`std::fs::File::create_new`].
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        long(|| std::fs::File::create_new(path).map(Self::of))
    }

    /// Waits until the disk has the file's bytes and properties; see [`std::fs::File::sync_all`].
    pub fn sync_all(&self) -> io::Result<()> {
        self.call(std::fs::File::sync_all)
    }

    /// Waits until the disk has the file's bytes; see [`std::fs::File::sync_data`].
    pub fn sync_data(&self) -> io::Result<()> {
        self.call(std::fs::File::sync_data)
    }

    /// Sets the length of the file; see [`std::fs::File::set_len`].
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        self.call(|file| file.set_len(size))
    }

    /// Returns the properties of the file.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.call(std::fs::File::metadata)
    }

    /// Returns a second handle to the open file. Both share one position.
    pub fn try_clone(&self) -> io::Result<Self> {
        // dup(2) does not wait.
        let file = Fd::new(self.std().try_clone()?);
        let is_ordinary = self.is_ordinary;
        Ok(Self { file, is_ordinary })
    }

    /// Sets the permissions of the file.
    #[allow(clippy::needless_pass_by_value, reason = "as std's")]
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.call(|file| file.set_permissions(permissions.clone()))
    }

    /// Sets when the file was last read and changed.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.call(|file| file.set_times(times))
    }

    /// Sets when the file was last changed.
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.call(|file| file.set_modified(time))
    }

    /// Reads at an offset and leaves the position of the file as it is; see
    /// [`FileExt::read_at`](std::os::unix::fs::FileExt::read_at).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(read) = self.read_from_memory(buffer, Some(offset))? {
            return Ok(read);
        }
        self.call(|file| file.read_at(buffer, offset))
    }

    /// Reads as [`read_at`](Self::read_at) does, until the buffer is full.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before the buffer is full.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes at an offset and leaves the position of the file as it is; see
    /// [`FileExt::write_at`](std::os::unix::fs::FileExt::write_at).
    pub fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.call(|file| file.write_at(buffer, offset))
    }

    /// Writes as [`write_at`](Self::write_at) does, until all is written.
    pub fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.call(|file| file.write_all_at(buffer, offset))
    }

    /// Turns the file into std's type.
    pub fn into_std(self) -> std::fs::File {
        self.file.into_inner()
    }

    /// Reads what the kernel has in memory. `None`: only an ordinary read can tell.
    #[cfg(target_os = "linux")]
    fn read_from_memory(
        &self,
        buffer: &mut [u8],
        offset: Option<u64>,
    ) -> io::Result<Option<usize>> {
        if !self.is_ordinary || buffer.is_empty() {
            return Ok(None);
        }
        weald_scheduler::io::enter()?;
        let read = super::nowait::read(self.std().as_fd(), buffer, offset);
        if read.is_some() {
            weald_scheduler::io::spend();
        }
        Ok(read)
    }

    /// On this system nothing tells what is in memory.
    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as on Linux")]
    fn read_from_memory(&self, _: &mut [u8], _: Option<u64>) -> io::Result<Option<usize>> {
        Ok(None)
    }
}

fn is_ordinary(file: &std::fs::File) -> bool {
    file.metadata()
        .is_ok_and(|known| known.is_file() || known.is_dir())
}

impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_ordinary {
            return (&self.file).read(buffer);
        }
        if let Some(read) = self.read_from_memory(buffer, None)? {
            return Ok(read);
        }
        self.call(|mut file| file.read(buffer))
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if !self.is_ordinary {
            return (&self.file).read_vectored(buffers);
        }
        self.call(|mut file| file.read_vectored(buffers))
    }

    /// Reads what is left in one call: std knows how long a file is.
    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if !self.is_ordinary {
            return (&self.file).read_to_end(buffer);
        }
        self.call(|mut file| file.read_to_end(buffer))
    }

    fn read_to_string(&mut self, buffer: &mut String) -> io::Result<usize> {
        if !self.is_ordinary {
            return (&self.file).read_to_string(buffer);
        }
        self.call(|mut file| file.read_to_string(buffer))
    }
}

impl Write for &File {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if !self.is_ordinary {
            return (&self.file).write(buffer);
        }
        self.call(|mut file| file.write(buffer))
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.is_ordinary {
            return (&self.file).write_vectored(buffers);
        }
        self.call(|mut file| file.write_vectored(buffers))
    }

    /// Does nothing: written bytes are with the system already. [`File::sync_all`] brings them to the disk.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.call(|mut file| file.seek(to))
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        self.call(|mut file| file.stream_position())
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buffer)
    }

    fn read_to_string(&mut self, buffer: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buffer)
    }
}

impl Write for File {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        (&*self).stream_position()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std().fmt(f)
    }
}

/// Asks the system if it is a file on a disk, so that it waits for nothing else.
impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        Self::of(file)
    }
}

impl From<File> for std::fs::File {
    fn from(file: File) -> Self {
        file.into_std()
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> Self {
        std::fs::File::from(fd).into()
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        file.into_std().into()
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        file.into_std().into()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.std().as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.std().as_raw_fd()
    }
}

impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        self.into_std().into_raw_fd()
    }
}

#[allow(unsafe_code, reason = "as std's")]
impl FromRawFd for File {
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        // SAFETY: the caller's contract is that of std's function.
        unsafe { std::fs::File::from_raw_fd(fd) }.into()
    }
}
