//! Messages one after the other.

use std::fmt;
use std::iter::FusedIterator;

use super::receiver::Receiver;

/// All messages until no sender is left. It waits for each. From [`Receiver::iter`].
///
/// # Examples
/// See [`Receiver::iter`].
pub struct Iter<'a, T>(&'a Receiver<T>);

/// The messages that are there. From [`Receiver::try_iter`].
///
/// # Examples
/// See [`Receiver::try_iter`].
pub struct TryIter<'a, T>(&'a Receiver<T>);

/// All messages until no sender is left. It waits for each. From `into_iter` of a [`Receiver`].
///
/// # Examples
/// ```
/// let (sender, receiver) = weald::sync::channel::unbounded();
/// sender.send(1).unwrap();
/// drop(sender);
/// assert!(receiver.into_iter().eq([1]));
/// ```
pub struct IntoIter<T>(Receiver<T>);

impl<T> Receiver<T> {
    /// All messages until no sender is left. Taking one is a blocking call.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = weald::sync::channel::unbounded();
    /// (0..3).for_each(|n| sender.send(n).unwrap());
    /// drop(sender);
    /// assert!(receiver.iter().eq([0, 1, 2]));
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// The messages that are there. The iterator ends where it would have to wait.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = weald::sync::channel::unbounded();
    /// sender.send('a').unwrap();
    /// assert!(receiver.try_iter().eq(['a']));
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> FusedIterator for Iter<'_, T> {}
impl<T> FusedIterator for IntoIter<T> {}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Iter { .. }")
    }
}

impl<T> fmt::Debug for TryIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("TryIter { .. }")
    }
}

impl<T> fmt::Debug for IntoIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("IntoIter { .. }")
    }
}
