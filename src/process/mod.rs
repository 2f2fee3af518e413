//! Child processes: the types of `std::process`, whose waits suspend the green thread.
//!
//! Names, arguments and results are those of [`std::process`]. Starting a child runs inside
//! [`blocking`](crate::blocking()); waiting for its end and talking to it by pipes holds no OS thread. On a plain OS
//! thread the calls block that thread.
//!
//! | file         | holds                                        |
//! |--------------|----------------------------------------------|
//! | `command.rs` | `Command`                                    |
//! | `child.rs`   | `Child`, and what is left of dropped ones    |
//! | `ended.rs`   | waiting for the end of a process             |
//! | `pipes.rs`   | `ChildStdin`, `ChildStdout`, `ChildStderr`   |
//!
//! # Limits, and children that outlive their parent
//! An exception (`kill`, `throw`, a [`timeout`](crate::timeout())) ends a wait. The call returns it as an error, and
//! the [`Child`] is still there, to be killed or waited for. A child whose `Child` is dropped runs on, as with std,
//! unless [`Command::kill_on_drop`] was set. [`Command::output`] and [`Command::status`] have the only handle to
//! their child, so they kill the child if they are interrupted.
//!
//! # Errors
//! Those of std's namesakes, and exceptions. If a child cannot be started, `spawn` returns the error, as with std:
//! `NotFound` if the program does not exist.
//!
//! # Platform-specific behavior
//! On Linux a descriptor tells a wait of the end (pidfd_open(2), Linux 5.3). Without such a descriptor the wait asks
//! after pauses that grow to 20 ms. No signal handler is installed.
//!
//! # Examples
//! ```
//! use std::time::Duration;
//! use weald::process::Command;
//!
//! let output = Command::new("echo").arg("hello").output()?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"hello\n");
//!
//! // A limit: the child is killed.
//! let limit = Duration::from_millis(10);
//! let late = weald::timeout(limit, || Command::new("sleep").arg("1000").status());
//! assert!(late.is_err());
//! # Ok::<(), std::io::Error>(())
//! ```
#![allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes, and of the module's comment"
)]

mod child;
mod command;
mod ended;
mod pipes;

pub use std::process::{ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id};

pub use self::child::Child;
pub use self::command::Command;
pub use self::pipes::{ChildStderr, ChildStdin, ChildStdout};
