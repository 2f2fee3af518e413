//! A selection whose arms are made at run time; crossbeam-channel's `Select`.
//!
//! A `Select` may go to another thread, as crossbeam's may, also with ends of channels whose messages must
//! stay where they are.
//!
//! Invariant: a selection moves messages and looks into none. A caller gets a message by
//! [`SelectedOperation::recv`], for which it needs a reference to the receiver. Otherwise the message is dropped
//! with the operation. That may be done only on the thread that has added the receiver; on another thread
//! the message is leaked.
#![allow(unsafe_code, reason = "ends and arms whose type is forgotten")]

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use weald_scheduler::{GreenThreadId, io};

use super::arm::{RecvArm, SendArm};
use super::error::{
    ReadyTimeoutError, RecvError, SelectTimeoutError, SendError, TryReadyError, TrySelectError,
};
use super::receiver::Receiver;
use super::sender::Sender;
use crate::selecting::{self, Arm, Limit};

/// Waits for one of several operations, of a number that is known only at run time.
///
/// [`select`](Self::select) and its kin commit to one operation, which must then be completed;
/// [`ready`](Self::ready) and its kin only say which could be tried.
///
/// # Examples
/// ```
/// use weald::sync::channel::{Select, unbounded};
/// let channels: Vec<_> = (0..3).map(|_| unbounded()).collect();
/// channels[2].0.send("here").unwrap();
/// let mut select = Select::new();
/// for (_, receiver) in &channels {
///     select.recv(receiver);
/// }
/// let operation = select.select();
/// let index = operation.index();
/// assert_eq!((index, operation.recv(&channels[index].1)), (2, Ok("here")));
/// ```
#[derive(Clone, Default)]
pub struct Select<'a> {
    ends: Vec<Option<End<'a>>>,
    biased: bool,
}

/// One end of a channel, and how to make an arm of it.
#[derive(Clone, Copy)]
struct End<'a> {
    address: *const (),
    sends: bool,
    make: unsafe fn(*const ()) -> Box<dyn AnyArm + 'a>,
    /// The thread that has added a receive, if messages of its type need `drop`.
    added_by: Option<GreenThreadId>,
    _borrows: PhantomData<&'a ()>,
}

// SAFETY: the ends are borrowed for `'a`, and they are used only under their channels' locks. For messages the
// invariant above holds.
unsafe impl Send for Select<'_> {}
// SAFETY: a shared `Select` can only be cloned and shown by `Debug`, which reads `ends`.
unsafe impl Sync for Select<'_> {}

/// A receive or a send, without the type of its messages.
trait AnyArm: Arm {
    fn arm(&mut self) -> &mut dyn Arm;
    fn address(&mut self) -> *mut ();
    /// Forgets a message that it has received.
    fn leak(&mut self);
}

impl<T> AnyArm for RecvArm<'_, T> {
    fn arm(&mut self) -> &mut dyn Arm {
        self
    }

    fn address(&mut self) -> *mut () {
        std::ptr::from_mut(self).cast()
    }

    fn leak(&mut self) {
        std::mem::forget(self.finish());
    }
}

impl<T> AnyArm for SendArm<'_, T> {
    fn arm(&mut self) -> &mut dyn Arm {
        self
    }

    fn address(&mut self) -> *mut () {
        std::ptr::from_mut(self).cast()
    }

    fn leak(&mut self) {}
}

/// # Safety
/// The address is that of a `Receiver<T>` that lives for `'a`.
unsafe fn make_recv<'a, T: 'a>(address: *const ()) -> Box<dyn AnyArm + 'a> {
    // SAFETY: by contract.
    Box::new(RecvArm::new(unsafe { &*address.cast::<Receiver<T>>() }))
}

/// # Safety
/// The address is that of a `Sender<T>` that lives for `'a`.
unsafe fn make_send<'a, T: 'a>(address: *const ()) -> Box<dyn AnyArm + 'a> {
    // SAFETY: by contract.
    Box::new(SendArm::new(unsafe { &*address.cast::<Sender<T>>() }))
}

/// An operation that a [`Select`] has committed to. It must be completed, with the end that it was made of.
///
/// # Panics
/// If it is dropped and was not completed.
///
/// # Examples
/// See [`Select`].
#[must_use = "the operation must be completed"]
pub struct SelectedOperation<'a> {
    arm: Box<dyn AnyArm + 'a>,
    end: (*const (), bool),
    added_by: Option<GreenThreadId>,
    index: usize,
    done: bool,
}

impl<'a> Select<'a> {
    /// A selection without operations. It would wait for ever.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), but of several operations that are ready it takes the one with the lowest index.
    pub fn new_biased() -> Self {
        Self {
            ends: Vec::new(),
            biased: true,
        }
    }

    fn add(&mut self, end: End<'a>) -> usize {
        self.ends.push(Some(end));
        self.ends.len() - 1
    }

    /// Adds a receive, and returns its index.
    pub fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        self.add(End {
            address: std::ptr::from_ref(receiver).cast(),
            sends: false,
            make: make_recv::<T>,
            added_by: std::mem::needs_drop::<T>().then(|| weald_scheduler::current().id()),
            _borrows: PhantomData,
        })
    }

    /// Adds a send, and returns its index.
    pub fn send<T>(&mut self, sender: &'a Sender<T>) -> usize {
        self.add(End {
            address: std::ptr::from_ref(sender).cast(),
            sends: true,
            make: make_send::<T>,
            added_by: None,
            _borrows: PhantomData,
        })
    }

    /// Removes an operation. The others keep their indices.
    ///
    /// # Panics
    /// If there is no operation with that index, or if it was removed already.
    #[track_caller]
    pub fn remove(&mut self, index: usize) {
        let removed = self.ends.get_mut(index).and_then(Option::take);
        assert!(removed.is_some(), "no operation has the index {index}");
    }

    /// New arms for the operations that were not removed, with their indices.
    fn arms(&self) -> Vec<(usize, End<'a>, Box<dyn AnyArm + 'a>)> {
        let left = self.ends.iter().enumerate();
        left.filter_map(|(index, end)| end.map(|end| (index, end)))
            // SAFETY: the end is borrowed for `'a`, and `make` was chosen by its type.
            .map(|(index, end)| (index, end, unsafe { (end.make)(end.address) }))
            .collect()
    }

    fn select_within(&mut self, limit: Limit) -> Option<SelectedOperation<'a>> {
        let mut all = self.arms();
        let position = {
            let mut arms: Vec<&mut dyn Arm> = all.iter_mut().map(|(_, _, arm)| arm.arm()).collect();
            selecting::select(&mut arms, limit, self.biased)?
        };
        let (index, end, arm) = all.swap_remove(position);
        Some(SelectedOperation {
            arm,
            end: (end.address, end.sends),
            added_by: end.added_by,
            index,
            done: false,
        })
    }

    /// Commits to one of the operations that are ready, at random. Waits until one is. A blocking call.
    pub fn select(&mut self) -> SelectedOperation<'a> {
        io::enter_and_spend();
        self.select_within(Limit::Until(None))
            .unwrap_or_else(|| unreachable!("it waits for ever"))
    }

    /// Commits to an operation if one is ready. Not a blocking call.
    ///
    /// # Errors
    /// If none is.
    ///
    /// # Examples
    /// ```
    /// let never = weald::sync::channel::never::<u8>();
    /// let mut select = weald::sync::channel::Select::new();
    /// select.recv(&never);
    /// assert!(select.try_select().is_err());
    /// ```
    pub fn try_select(&mut self) -> Result<SelectedOperation<'a>, TrySelectError> {
        self.select_within(Limit::Now).ok_or(TrySelectError)
    }

    /// As [`select`](Self::select), and waits at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// If none was ready in time.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let never = weald::sync::channel::never::<u8>();
    /// let mut select = weald::sync::channel::Select::new();
    /// select.recv(&never);
    /// assert!(select.select_timeout(Duration::from_millis(1)).is_err());
    /// ```
    pub fn select_timeout(
        &mut self,
        limit: Duration,
    ) -> Result<SelectedOperation<'a>, SelectTimeoutError> {
        let limit = Limit::within(limit);
        io::enter_and_spend();
        self.select_within(limit).ok_or(SelectTimeoutError)
    }

    /// As [`select`](Self::select), and waits until the clock shows the deadline.
    ///
    /// # Errors
    /// If none was ready in time.
    pub fn select_deadline(
        &mut self,
        deadline: Instant,
    ) -> Result<SelectedOperation<'a>, SelectTimeoutError> {
        io::enter_and_spend();
        self.select_within(Limit::Until(Some(deadline)))
            .ok_or(SelectTimeoutError)
    }

    fn ready_within(&mut self, limit: Limit) -> Option<usize> {
        let mut all = self.arms();
        let mut arms: Vec<&mut dyn Arm> = all.iter_mut().map(|(_, _, arm)| arm.arm()).collect();
        let position = selecting::ready(&mut arms, limit, self.biased)?;
        all.get(position).map(|(index, _, _)| *index)
    }

    /// Waits until an operation is ready, and returns its index. Another thread may be quicker to do the operation. A
    /// blocking call.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = weald::sync::channel::unbounded();
    /// let mut select = weald::sync::channel::Select::new();
    /// let index = select.recv(&receiver);
    /// sender.send(1).unwrap();
    /// assert_eq!(select.ready(), index);
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// ```
    pub fn ready(&mut self) -> usize {
        io::enter_and_spend();
        self.ready_within(Limit::Until(None))
            .unwrap_or_else(|| unreachable!("it waits for ever"))
    }

    /// Returns the index of an operation that is ready, if one is. Not a blocking call.
    ///
    /// # Errors
    /// If none is.
    ///
    /// # Examples
    /// See [`try_select`](Self::try_select).
    pub fn try_ready(&mut self) -> Result<usize, TryReadyError> {
        self.ready_within(Limit::Now).ok_or(TryReadyError)
    }

    /// As [`ready`](Self::ready), and waits at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// If none was ready in time.
    ///
    /// # Examples
    /// See [`select_timeout`](Self::select_timeout).
    pub fn ready_timeout(&mut self, limit: Duration) -> Result<usize, ReadyTimeoutError> {
        let limit = Limit::within(limit);
        io::enter_and_spend();
        self.ready_within(limit).ok_or(ReadyTimeoutError)
    }

    /// As [`ready`](Self::ready), and waits until the clock shows the deadline.
    ///
    /// # Errors
    /// If none was ready in time.
    pub fn ready_deadline(&mut self, deadline: Instant) -> Result<usize, ReadyTimeoutError> {
        io::enter_and_spend();
        self.ready_within(Limit::Until(Some(deadline)))
            .ok_or(ReadyTimeoutError)
    }
}

impl SelectedOperation<'_> {
    /// The index of the operation.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Completes a send.
    ///
    /// # Errors
    /// The message, if no receiver is left.
    ///
    /// # Panics
    /// If the operation is not a send by that sender.
    #[track_caller]
    pub fn send<T>(mut self, sender: &Sender<T>, message: T) -> Result<(), SendError<T>> {
        let end = (std::ptr::from_ref(sender).cast(), true);
        assert!(
            self.end == end,
            "the operation is not a send by this sender"
        );
        self.done = true;
        // SAFETY: the arm was made of this sender, so its type is the sender's.
        let arm = unsafe { &mut *self.arm.address().cast::<SendArm<'_, T>>() };
        arm.finish().send(message)
    }

    /// Completes a receive.
    ///
    /// # Errors
    /// If there was no message and no sender is left.
    ///
    /// # Panics
    /// If the operation is not a receive by that receiver.
    #[track_caller]
    pub fn recv<T>(mut self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        let end = (std::ptr::from_ref(receiver).cast(), false);
        assert!(
            self.end == end,
            "the operation is not a receive by this receiver"
        );
        self.done = true;
        // SAFETY: the arm was made of this receiver, so its type is the receiver's.
        let arm = unsafe { &mut *self.arm.address().cast::<RecvArm<'_, T>>() };
        arm.finish()
    }
}

impl Drop for SelectedOperation<'_> {
    fn drop(&mut self) {
        let is_elsewhere = |id| id != weald_scheduler::current().id();
        if !self.done && self.added_by.is_some_and(is_elsewhere) {
            self.arm.leak();
        }
        assert!(
            self.done || io::is_unwinding(),
            "dropped a selected operation without completing it"
        );
    }
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").finish_non_exhaustive()
    }
}

impl fmt::Debug for SelectedOperation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectedOperation")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
