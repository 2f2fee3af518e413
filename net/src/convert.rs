//! Descriptors that become an `Fd`, and back.

use std::os::fd::{AsFd, OwnedFd};

use crate::fd::Fd;

/// Makes anything that has a descriptor green, as [`Fd::new`] does: an `OwnedFd`, a pipe, a borrowed descriptor.
impl<T: AsFd> From<T> for Fd<T> {
    fn from(inner: T) -> Self {
        Self::new(inner)
    }
}

impl<T: AsFd + Into<OwnedFd>> From<Fd<T>> for OwnedFd {
    fn from(fd: Fd<T>) -> Self {
        fd.into_inner().into()
    }
}
