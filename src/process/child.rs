//! A child process.

use std::io::{self, Read};
use std::process::{self, ExitStatus, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ended::{Ended, pause_quietly};
use super::pipes::{ChildStderr, ChildStdin, ChildStdout};

/// As much as a pipe holds by default: pipe(7).
const PIECE: usize = 64 << 10;

/// How long a drop waits for the end of a child that it has killed. Most children are gone in less than a
/// millisecond, on a busy machine in some tenths of a second. A child that waits for a disk may take as long as the
/// disk.
const LONGEST_DROP: Duration = Duration::from_secs(5);

/// Children that run on without a handle. Each one that has ended is waited for when another child is started or
/// dropped, so that few stay as zombies.
static LEFT: Mutex<Vec<process::Child>> = Mutex::new(Vec::new());

/// A child process; from [`Command::spawn`](super::Command::spawn). The interface is that of [`std::process::Child`].
///
/// Dropping it neither ends the child nor waits for it, unless [`kill_on_drop`](super::Command::kill_on_drop) was
/// set. When the parent next starts or drops a child, it waits for the dropped children that have ended. So they do
/// not stay zombies for long.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// use weald::process::{Command, Stdio};
///
/// let mut child = Command::new("cat")
///     .stdin(Stdio::piped())
///     .stdout(Stdio::piped())
///     .spawn()?;
/// let mut stdin = child.stdin.take().expect("it is piped");
/// let mut stdout = child.stdout.take().expect("it is piped");
/// let writer = weald::spawn(move || stdin.write_all(b"there and back"));
/// let mut text = String::new();
/// stdout.read_to_string(&mut text)?;
/// assert_eq!(text, "there and back");
/// assert!(child.wait()?.success());
/// # writer.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Child {
    /// The child's standard input, if it was [piped](super::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The child's standard output, if it was piped.
    pub stdout: Option<ChildStdout>,
    /// The child's standard error, if it was piped.
    pub stderr: Option<ChildStderr>,
    handle: Handle,
}

/// What a drop of a `Child` may end.
#[derive(Debug)]
struct Handle {
    /// `None` only while it is being dropped.
    child: Option<process::Child>,
    ended: Ended,
    kill_on_drop: bool,
}

impl Child {
    pub(super) fn new(mut child: process::Child, kill_on_drop: bool) -> Self {
        Self {
            stdin: child.stdin.take().map(ChildStdin::new),
            stdout: child.stdout.take().map(ChildStdout::new),
            stderr: child.stderr.take().map(ChildStderr::new),
            handle: Handle {
                child: Some(child),
                ended: Ended::default(),
                kill_on_drop,
            },
        }
    }

    /// Returns the system's number of the process.
    pub fn id(&self) -> u32 {
        self.handle.child().id()
    }

    /// Asks the system to end the child at once (`SIGKILL`). Returns before the child has ended; [`wait`](Self::wait)
    /// waits for that. Returns `Ok` for a child that was waited for already.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&mut self) -> io::Result<()> {
        self.handle.child_mut().kill()
    }

    /// Waits until the child has ended. Closes its standard input first, if the handle still has it.
    ///
    /// A blocking call. An exception leaves the child as it was.
    ///
    /// # Errors
    /// The system's; an exception.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            // Without a deadline the wait ends with a status.
            if let Some(status) = self.handle.wait(None)? {
                return Ok(status);
            }
        }
    }

    /// Waits as [`wait`](Self::wait) does, at most for `limit`. `None`: the child still runs, and its standard input
    /// is closed.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use weald::process::Command;
    ///
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// assert_eq!(child.wait_timeout(Duration::from_millis(5))?, None);
    /// child.kill()?;
    /// assert!(!child.wait()?.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        self.handle.wait(weald_scheduler::io::deadline(limit))
    }

    /// Returns how the child has ended, or `None` while it runs. Never waits.
    ///
    /// # Errors
    /// The system's.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.handle.child_mut().try_wait()
    }

    /// Closes the child's standard input, reads its output and its errors at the same time, and waits until it has
    /// ended.
    ///
    /// A blocking call. After an exception the output that was read is lost, and the child is dropped.
    ///
    /// # Errors
    /// The system's; an exception.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        match (self.stdout.take(), self.stderr.take()) {
            (None, None) => {}
            (Some(mut pipe), None) => drop(pipe.read_to_end(&mut stdout)?),
            (None, Some(mut pipe)) => drop(pipe.read_to_end(&mut stderr)?),
            (Some(out), Some(err)) => read_both(out, &mut stdout, err, &mut stderr)?,
        }
        let status = self.wait()?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }
}

/// Reads two pipes to their ends, each when it has something. Reading one pipe to its end first could wait for ever,
/// while the child waits because the other pipe is full.
fn read_both(
    out: ChildStdout,
    stdout: &mut Vec<u8>,
    err: ChildStderr,
    stderr: &mut Vec<u8>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let (mut out, mut err) = (Some(out), Some(err));
    while let (Some(first), Some(second)) = (&out, &err) {
        let ready = weald_net::select(&[first, second], &[], &[], None)?.read;
        if ready.contains(&0) && !read_some(first, &mut piece, stdout)? {
            out = None;
        }
        if ready.contains(&1)
            && let Some(second) = &err
            && !read_some(second, &mut piece, stderr)?
        {
            err = None;
        }
    }
    if let Some(mut out) = out {
        out.read_to_end(stdout)?;
    }
    if let Some(mut err) = err {
        err.read_to_end(stderr)?;
    }
    Ok(())
}

/// Returns false if the pipe has ended.
fn read_some(mut pipe: impl Read, piece: &mut [u8], read: &mut Vec<u8>) -> io::Result<bool> {
    let count = pipe.read(piece)?;
    read.extend_from_slice(&piece[..count]);
    Ok(count > 0)
}

impl Handle {
    fn child(&self) -> &process::Child {
        self.child
            .as_ref()
            .expect("it is there until it is dropped")
    }

    fn child_mut(&mut self) -> &mut process::Child {
        self.child
            .as_mut()
            .expect("it is there until it is dropped")
    }

    /// Waits for the end of the child. Returns `None` if the deadline has passed.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        weald_scheduler::io::enter()?;
        let mut asked = 0;
        loop {
            if let Some(status) = self.child_mut().try_wait()? {
                if asked == 0 {
                    weald_scheduler::io::spend();
                }
                return Ok(Some(status));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            let id = self.child().id();
            self.ended.wait(id, deadline, asked)?;
            asked += 1;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // An error means that somebody else has waited for the child.
        let has_ended = |child: &mut process::Child| !matches!(child.try_wait(), Ok(None));
        if has_ended(&mut child) {
            return;
        }
        if self.kill_on_drop {
            // The child may have ended at this moment.
            let _ = child.kill();
            let end = Instant::now() + LONGEST_DROP;
            let mut pause = Duration::from_micros(50);
            while Instant::now() < end {
                pause_quietly(pause);
                if has_ended(&mut child) {
                    return;
                }
                pause = (pause * 2).min(Duration::from_millis(5));
            }
        }
        sweep(Some(child));
    }
}

/// Waits for those children without a handle that have ended, and adds one.
pub(super) fn sweep(more: Option<process::Child>) {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.extend(more);
    left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}
