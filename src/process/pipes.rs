//! The pipes between a process and its child.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::{self, Stdio};

use weald_net::Fd;

macro_rules! pipe {
    ($name:ident, $text:literal) => {
        #[doc = $text]
        ///
        /// # Examples
        /// See [`Child`](super::Child).
        pub struct $name(pub(super) Fd<process::$name>);

        impl $name {
            pub(super) fn new(pipe: process::$name) -> Self {
                Self(Fd::new(pipe))
            }

            /// Turns the pipe into std's type.
            pub fn into_std(self) -> process::$name {
                self.0.into_inner()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.get_ref().fmt(f)
            }
        }

        impl From<process::$name> for $name {
            fn from(pipe: process::$name) -> Self {
                Self::new(pipe)
            }
        }

        impl From<$name> for Stdio {
            /// Lets the output of one child be the input of the next.
            fn from(pipe: $name) -> Self {
                pipe.into_std().into()
            }
        }

        impl From<$name> for OwnedFd {
            fn from(pipe: $name) -> Self {
                pipe.into_std().into()
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                self.into_std().into_raw_fd()
            }
        }
    };
}

macro_rules! reads {
    ($name:ident) => {
        impl Read for $name {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }
        }

        impl Read for &$name {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                (&self.0).read(buffer)
            }
        }
    };
}

pipe!(
    ChildStdin,
    "The end of a pipe that a child reads as its standard input. Dropping it closes it: the child's input ends."
);
pipe!(
    ChildStdout,
    "The end of a pipe that a child writes to as its standard output."
);
pipe!(
    ChildStderr,
    "The end of a pipe that a child writes to as its standard error."
);
reads!(ChildStdout);
reads!(ChildStderr);

impl Write for ChildStdin {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &ChildStdin {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&self.0).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
