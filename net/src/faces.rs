//! What green sockets have in common with their namesakes of std: descriptors, timeouts, reading and writing. Each
//! part is a macro.

/// The parts of descriptors and of std that all green sockets have. `true`: the socket's calls need `O_NONBLOCK`.
macro_rules! descriptor {
    ($green:ident, $std:ty, $nonblocking:literal) => {
        impl ::std::panic::UnwindSafe for $green {}
        impl ::std::panic::RefUnwindSafe for $green {}

        impl ::std::os::fd::AsFd for $green {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                ::std::os::fd::AsFd::as_fd(self.0.show())
            }
        }

        impl ::std::os::fd::AsRawFd for $green {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                ::std::os::fd::AsRawFd::as_raw_fd(self.0.show())
            }
        }

        impl ::std::os::fd::IntoRawFd for $green {
            fn into_raw_fd(self) -> ::std::os::fd::RawFd {
                ::std::os::fd::IntoRawFd::into_raw_fd(::std::os::fd::OwnedFd::from(self))
            }
        }

        impl ::std::os::fd::FromRawFd for $green {
            unsafe fn from_raw_fd(fd: ::std::os::fd::RawFd) -> Self {
                // SAFETY: the caller's contract is that of std's function.
                unsafe { <::std::os::fd::OwnedFd as ::std::os::fd::FromRawFd>::from_raw_fd(fd) }
                    .into()
            }
        }

        impl From<$green> for ::std::os::fd::OwnedFd {
            /// Gives the descriptor away, in blocking mode, with the timeouts that were set last.
            fn from(green: $green) -> Self {
                green.0.into_socket().into()
            }
        }

        impl From<::std::os::fd::OwnedFd> for $green {
            /// Takes over the timeouts `SO_RCVTIMEO` and `SO_SNDTIMEO`.
            fn from(fd: ::std::os::fd::OwnedFd) -> Self {
                Self($crate::socket::Green::adopt(fd, $nonblocking))
            }
        }

        impl From<$std> for $green {
            /// Takes over the timeouts `SO_RCVTIMEO` and `SO_SNDTIMEO`.
            fn from(socket: $std) -> Self {
                ::std::os::fd::OwnedFd::from(socket).into()
            }
        }

        #[allow(
            clippy::missing_errors_doc,
            reason = "the errors are those of the std namesakes"
        )]
        impl $green {
            /// Returns std's socket, in blocking mode and with the timeouts that were set last. Clones stay green.
            pub fn into_std(self) -> $std {
                ::std::os::fd::OwnedFd::from(self).into()
            }

            /// Returns and clears `SO_ERROR`.
            pub fn take_error(&self) -> ::std::io::Result<Option<::std::io::Error>> {
                self.0.socket().take_error()
            }

            /// With `true`, a call that would wait returns `WouldBlock`. The flag is weald's own and shared by the
            /// clones. The `O_NONBLOCK` of the open file stays as it is.
            #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
            pub fn set_nonblocking(&self, nonblocking: bool) -> ::std::io::Result<()> {
                self.0.set_nonblocking(nonblocking);
                Ok(())
            }
        }

        impl $crate::WrapSocket for $std {
            type Green = $green;

            fn wrap(self) -> $green {
                self.into()
            }
        }
    };
}
pub(crate) use descriptor;

/// The timeouts of streams and datagram sockets.
macro_rules! timeouts {
    ($green:ident) => {
        #[allow(
            clippy::missing_errors_doc,
            reason = "the errors are those of the std namesakes"
        )]
        impl $green {
            /// Sets how long a read waits at most; `None` sets no bound. Zero is `InvalidInput`.
            pub fn set_read_timeout(
                &self,
                timeout: Option<::std::time::Duration>,
            ) -> ::std::io::Result<()> {
                self.0.set_timeout($crate::source::Direction::Read, timeout)
            }

            /// Sets how long a write waits at most; `None` sets no bound. Zero is `InvalidInput`.
            pub fn set_write_timeout(
                &self,
                timeout: Option<::std::time::Duration>,
            ) -> ::std::io::Result<()> {
                self.0
                    .set_timeout($crate::source::Direction::Write, timeout)
            }

            /// Returns the bound, exactly as it was set.
            #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
            pub fn read_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
                Ok(self.0.get_timeout($crate::source::Direction::Read))
            }

            /// Returns the bound, exactly as it was set.
            #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
            pub fn write_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
                Ok(self.0.get_timeout($crate::source::Direction::Write))
            }
        }
    };
}
pub(crate) use timeouts;

/// `Read` and `Write` of a stream, by value and by reference.
macro_rules! stream {
    ($green:ident) => {
        impl ::std::io::Read for &$green {
            fn read(&mut self, buffer: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.read(buffer, 0)
            }

            fn read_vectored(
                &mut self,
                buffers: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.read_vectored(buffers)
            }
        }

        impl ::std::io::Write for &$green {
            fn write(&mut self, buffer: &[u8]) -> ::std::io::Result<usize> {
                self.0.send(buffer)
            }

            fn write_vectored(
                &mut self,
                buffers: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.send_vectored(buffers)
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                Ok(())
            }
        }

        impl ::std::io::Read for $green {
            fn read(&mut self, buffer: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.read(buffer, 0)
            }

            fn read_vectored(
                &mut self,
                buffers: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.read_vectored(buffers)
            }
        }

        impl ::std::io::Write for $green {
            fn write(&mut self, buffer: &[u8]) -> ::std::io::Result<usize> {
                self.0.send(buffer)
            }

            fn write_vectored(
                &mut self,
                buffers: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.send_vectored(buffers)
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                Ok(())
            }
        }
    };
}
pub(crate) use stream;
