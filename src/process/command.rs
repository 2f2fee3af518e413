//! Starting a child.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::Child;
use super::child::sweep;

/// A program to start as a child process. The interface is that of [`std::process::Command`], and a method that is
/// not described here does what std's does.
///
/// # Examples
/// ```
/// use weald::process::Command;
///
/// let status = Command::new("sh").args(["-c", "exit 3"]).status()?;
/// assert_eq!(status.code(), Some(3));
///
/// let error = Command::new("no such program").spawn().unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Command {
    std: process::Command,
    /// For standard input, output and error: whether the program has set it.
    said: [bool; 3],
    kill_on_drop: Option<bool>,
}

impl Command {
    /// Returns a command that starts a program, given by its name or its path, without arguments.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Self {
        Self {
            std: process::Command::new(program),
            said: [false; 3],
            kill_on_drop: None,
        }
    }

    /// Adds an argument.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Self {
        self.std.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(&mut self, args: I) -> &mut Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.std.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, value: V) -> &mut Self {
        self.std.env(key, value);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.std.envs(vars);
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Self {
        self.std.env_remove(key);
        self
    }

    /// Removes all variables from the child's environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.std.env_clear();
        self
    }

    /// Sets the child's working folder.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Self {
        self.std.current_dir(dir);
        self
    }

    /// Sets the child's standard input.
    pub fn stdin<T: Into<Stdio>>(&mut self, stdin: T) -> &mut Self {
        self.std.stdin(stdin);
        self.said[0] = true;
        self
    }

    /// Sets the child's standard output.
    pub fn stdout<T: Into<Stdio>>(&mut self, stdout: T) -> &mut Self {
        self.std.stdout(stdout);
        self.said[1] = true;
        self
    }

    /// Sets the child's standard error.
    pub fn stderr<T: Into<Stdio>>(&mut self, stderr: T) -> &mut Self {
        self.std.stderr(stderr);
        self.said[2] = true;
        self
    }

    /// Sets if the child is killed when its [`Child`] is dropped before the child has ended. That also happens when a
    /// green thread with a `Child` on its stack is killed, or when a limit unwinds it. The drop waits for the end of
    /// the child, five seconds at most (a child that waits for a disk cannot end before the disk has answered).
    ///
    /// The default for [`spawn`](Self::spawn) is false, as with std. The default for [`output`](Self::output) and
    /// [`status`](Self::status), which have the only handle to the child, is true.
    ///
    /// # Examples
    /// ```
    /// use weald::process::Command;
    ///
    /// let child = Command::new("sleep").arg("1000").kill_on_drop(true).spawn()?;
    /// drop(child); // The process is gone.
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = Some(kill);
        self
    }

    /// Sets the user of the child; see [`CommandExt::uid`](std::os::unix::process::CommandExt::uid).
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.std.uid(id);
        self
    }

    /// Sets the group of the child's user; see [`CommandExt::gid`](std::os::unix::process::CommandExt::gid).
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.std.gid(id);
        self
    }

    /// Sets the name of the program as the child sees it; see
    /// [`CommandExt::arg0`](std::os::unix::process::CommandExt::arg0).
    pub fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Self {
        self.std.arg0(arg);
        self
    }

    /// Sets the child's process group; 0 makes a new group. See
    /// [`CommandExt::process_group`](std::os::unix::process::CommandExt::process_group).
    pub fn process_group(&mut self, pgroup: i32) -> &mut Self {
        self.std.process_group(pgroup);
        self
    }

    /// Runs a closure in the child before the program; see
    /// [`CommandExt::pre_exec`](std::os::unix::process::CommandExt::pre_exec).
    ///
    /// # Safety
    /// Those of std's function: the child is a copy of a process with several threads, and only one of them lives on.
    /// The closure may call only what is safe in a signal handler, and nothing of weald's.
    #[allow(unsafe_code, reason = "as std's")]
    pub unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Self
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        // SAFETY: the caller's contract is that of std's function.
        unsafe { self.std.pre_exec(f) };
        self
    }

    /// Starts the child. By default it has the parent's standard input, output and error.
    ///
    /// A blocking call: it returns once the system has loaded the program or has refused it.
    ///
    /// # Errors
    /// The system's, also about the program: `NotFound`, `PermissionDenied`. An exception; then no child was started.
    pub fn spawn(&mut self) -> io::Result<Child> {
        self.start(false, false)
    }

    /// Starts the child, waits until it has ended, and returns its status. By default it has the parent's standard
    /// input, output and error.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn). An exception; then the child has been killed.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.start(true, false)?.wait()
    }

    /// Starts the child, reads its output and waits until it has ended. By default its standard output and standard
    /// error are read, and its standard input is empty.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn). An exception; then the child has been killed.
    pub fn output(&mut self) -> io::Result<Output> {
        self.start(true, true)?.wait_with_output()
    }

    /// Replaces the process by the program; all threads of the process, green or not, are gone. Returns only if that
    /// has failed. See [`CommandExt::exec`](std::os::unix::process::CommandExt::exec).
    pub fn exec(&mut self) -> io::Error {
        self.std.exec()
    }

    /// Returns the program.
    pub fn get_program(&self) -> &OsStr {
        self.std.get_program()
    }

    /// Returns the arguments.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.std.get_args()
    }

    /// Returns the variables that were set (`Some`) or removed (`None`).
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.std.get_envs()
    }

    /// Returns the folder, if one was set.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.std.get_current_dir()
    }

    /// Starts the child. With `reads`, its output and its errors are read unless the program has set them otherwise.
    fn start(&mut self, kills: bool, reads: bool) -> io::Result<Child> {
        let (std, said) = (&mut self.std, self.said);
        let child = weald_scheduler::io::blocking(true, || {
            // No exception can come between setting these and setting them back. The next child may be one whose
            // output is not read.
            if reads {
                preset(std, said, [Stdio::null(), Stdio::piped(), Stdio::piped()]);
            }
            let child = std.spawn();
            if reads {
                preset(std, said, [(); 3].map(|()| Stdio::inherit()));
            }
            child
        })?;
        sweep(None);
        Ok(Child::new(child, self.kill_on_drop.unwrap_or(kills)))
    }
}

/// Sets those of standard input, output and error that the program has not set.
fn preset(std: &mut std::process::Command, said: [bool; 3], streams: [Stdio; 3]) {
    let [stdin, stdout, stderr] = streams;
    if !said[0] {
        std.stdin(stdin);
    }
    if !said[1] {
        std.stdout(stdout);
    }
    if !said[2] {
        std.stderr(stderr);
    }
}
