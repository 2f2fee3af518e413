//! A channel for one message.
//!
//! The methods that send and receive use the ends up, so the compiler makes sure that there is only one message.
//! Below it is a channel of capacity 1. Checked by `loom-tests/tests/oneshot.rs`.
//!
//! # Examples
//! ```
//! let (sender, receiver) = weald::sync::oneshot::channel();
//! weald::spawn(move || sender.send(42));
//! assert_eq!(receiver.recv(), Ok(42));
//! ```

use std::fmt;
use std::time::Duration;

use crate::channel::{self, RecvError, RecvTimeoutError, TryRecvError};

/// The sending end.
///
/// # Examples
/// See the [module](self).
pub struct Sender<T>(channel::Sender<T>);

/// The receiving end.
///
/// # Examples
/// See the [module](self).
pub struct Receiver<T>(channel::Receiver<T>);

/// Returns the two ends of a channel for one message.
///
/// # Examples
/// See the [module](self).
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(1);
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// Sends the message. Never waits.
    ///
    /// # Errors
    /// If the receiver is gone. The error is the message.
    pub fn send(self, message: T) -> Result<(), T> {
        self.0
            .try_send(message)
            .map_err(channel::TrySendError::into_inner)
    }
}

impl<T> Receiver<T> {
    /// Waits for the message. A blocking call; an exception unwinds.
    ///
    /// # Errors
    /// If the sender is gone without having sent a message.
    pub fn recv(self) -> Result<T, RecvError> {
        self.0.recv()
    }

    /// Returns the message, if it is there. Not a blocking call.
    ///
    /// # Errors
    /// If the message is not there. The error tells if it may still come.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = weald::sync::oneshot::channel();
    /// assert!(receiver.try_recv().is_err());
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// ```
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.try_recv()
    }

    /// Waits as [`recv`](Self::recv) does, at most for `limit`. [`Duration::MAX`] means for ever. The receiver can be
    /// used again after that.
    ///
    /// # Errors
    /// If the time has passed, or the sender is gone without having sent a message.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let (_sender, receiver) = weald::sync::oneshot::channel::<u8>();
    /// assert!(receiver.recv_timeout(Duration::from_millis(1)).is_err());
    /// ```
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.0.recv_timeout(limit)
    }

    /// Returns the receiver as an end that `select!` takes.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = weald::sync::oneshot::channel();
    /// sender.send(1).unwrap();
    /// let got = weald::select! {
    ///     recv(receiver.end()) -> message => message,
    /// };
    /// assert_eq!(got, Ok(1));
    /// ```
    pub fn end(&self) -> &channel::Receiver<T> {
        &self.0
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender { .. }")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Receiver { .. }")
    }
}
