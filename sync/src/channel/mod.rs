//! Channels: many senders, many receivers, each message to one of them; the interface of
//! crossbeam-channel.
//!
//! | made by      | holds                  | a send waits                                     |
//! |--------------|------------------------|--------------------------------------------------|
//! | [`bounded`]  | so many messages       | while it is full; with 0 until a receiver takes it |
//! | [`unbounded`]| any number             | never                                            |
//! | [`after`]    | one, at its time       | -                                                |
//! | [`tick`]     | one, again and again   | -                                                |
//! | [`never`](never()) | none                   | -                                                |
//!
//! The ends can be cloned, shared and used by green threads and OS threads in any mix. Who waits
//! blocks the green thread and not the worker, and costs nothing meanwhile. Messages of one sender
//! arrive in their order. An exception that ends a wait loses no message: an interrupted `recv` has
//! taken none, an interrupted `send` has sent none and drops its own.
//!
//! # Examples
//! ```
//! use weald_sync::channel::bounded;
//!
//! let (sender, receiver) = bounded(2);
//! let numbers = weald_scheduler::spawn(move || receiver.iter().sum::<u32>());
//! for n in 1..=10 {
//!     sender.send(n).unwrap();
//! }
//! drop(sender); // ends the iterator
//! assert_eq!(numbers.join().unwrap(), 55);
//! ```

pub(crate) mod arm;
pub(crate) mod core;
mod error;
mod iter;
mod select;
mod timer;
mod waiters;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Selected, Selection};

use self::core::{Channel, Locked, Packet, Receive, Send, Stage, State, wait_until_filled};
use self::timer::{After, Tick};
use crate::shim::clock;

pub use self::error::{
    ReadyTimeoutError, RecvError, RecvTimeoutError, SelectTimeoutError, SendError,
    SendTimeoutError, TryReadyError, TryRecvError, TrySelectError, TrySendError,
};
pub use self::iter::{IntoIter, Iter, TryIter};
pub use self::select::{Select, SelectedOperation};

/// The sending end of a channel.
///
/// # Examples
/// See [`bounded`].
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The receiving end of a channel.
///
/// # Examples
/// See [`bounded`].
pub struct Receiver<T> {
    flavor: Flavor<T>,
}

enum Flavor<T> {
    Channel(Arc<Channel<T>>),
    After(Arc<After>, fn(Instant) -> T),
    Tick(Arc<Tick>, fn(Instant) -> T),
    Never,
}

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

fn channel<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel::new(capacity));
    let sender = Sender {
        channel: Arc::clone(&channel),
    };
    let receiver = Receiver {
        flavor: Flavor::Channel(channel),
    };
    (sender, receiver)
}

/// A channel that holds at most so many messages. With 0 a message goes from hand to hand: `send`
/// waits until a receiver takes it.
///
/// # Examples
/// ```
/// use weald_sync::channel::bounded;
/// let (sender, receiver) = bounded(0);
/// weald_scheduler::spawn(move || sender.send("here"));
/// assert_eq!(receiver.recv(), Ok("here"));
/// ```
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel(Some(capacity))
}

/// A channel that holds any number of messages.
///
/// # Examples
/// ```
/// use weald_sync::channel::unbounded;
/// let (sender, receiver) = unbounded();
/// (0..1000).for_each(|n| sender.send(n).unwrap());
/// assert_eq!(receiver.len(), 1000);
/// ```
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(None)
}

/// A channel with one message, the time, after so long; for `select!` most of all. Never early;
/// [`Duration::MAX`] means never.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let time = weald_sync::channel::after(Duration::from_millis(2)).recv().unwrap();
/// assert!(time >= start + Duration::from_millis(2));
/// ```
pub fn after(duration: Duration) -> Receiver<Instant> {
    Receiver {
        flavor: Flavor::After(Arc::new(After::new(io::deadline(duration))), |time| time),
    }
}

/// A channel with a message, the time, each time that this has passed. One that nobody takes in time
/// delays the next: at most one waits.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// let (start, ticks) = (Instant::now(), weald_sync::channel::tick(Duration::from_millis(1)));
/// (0..3).for_each(|_| drop(ticks.recv()));
/// assert!(start.elapsed() >= Duration::from_millis(3));
/// ```
pub fn tick(period: Duration) -> Receiver<Instant> {
    Receiver {
        flavor: Flavor::Tick(Arc::new(Tick::new(period)), |time| time),
    }
}

/// A channel without a message, ever; for an arm of a `select!` that is switched off.
///
/// # Examples
/// ```
/// assert!(weald_sync::channel::never::<u8>().try_recv().unwrap_err().is_empty());
/// ```
pub fn never<T>() -> Receiver<T> {
    Receiver {
        flavor: Flavor::Never,
    }
}

impl<T> Sender<T> {
    /// Sends a message; waits while the channel is full. A blocking call.
    ///
    /// # Errors
    /// The message, if no receiver is left.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.send_within(message, Limit::Never)
            .map_err(|error| SendError(error.into_inner()))
    }

    /// Sends a message if it can be done at once. Not a blocking call.
    ///
    /// # Errors
    /// The message, if there is no room (with capacity 0: no receiver waits) or no receiver is left.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut state = self.channel.lock();
        match begin_send(&mut state, self.channel.capacity(), message) {
            Ok(()) => Ok(()),
            Err((Stage::Closed, message)) => Err(TrySendError::Disconnected(message)),
            Err((_, message)) => Err(TrySendError::Full(message)),
        }
    }

    /// As [`send`](Self::send), and waits at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// The message, if the time has passed or no receiver is left.
    pub fn send_timeout(&self, message: T, limit: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_within(message, Limit::Within(limit))
    }

    /// As [`send`](Self::send), and waits until the clock shows the deadline.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.send_within(message, Limit::At(deadline))
    }

    #[inline]
    fn send_within(&self, message: T, mut limit: Limit) -> Result<(), SendTimeoutError<T>> {
        io::enter_and_spend_after(|| limit.start());
        let mut state = self.channel.lock();
        if state.takes_more(self.channel.capacity()) {
            state.push(message);
            return Ok(());
        }
        self.send_slow(state, message, limit)
    }

    /// There is no room, or somebody to hand it to.
    #[inline(never)]
    fn send_slow<'a>(
        &'a self,
        mut state: Locked<'a, T>,
        mut message: T,
        mut limit: Limit,
    ) -> Result<(), SendTimeoutError<T>> {
        loop {
            match begin_send(&mut state, self.channel.capacity(), message) {
                Ok(()) => return Ok(()),
                Err((Stage::Closed, back)) => return Err(SendTimeoutError::Disconnected(back)),
                Err((_, back)) => message = back,
            }
            if limit.is_over() {
                return Err(SendTimeoutError::Timeout(message));
            }
            let mut packet = Packet::new(Some(message), false);
            if cfg!(weald_fault = "channel_sender_lets_go_to_wait") {
                drop(state);
                state = self.channel.lock();
            }
            let selection = Selection::begin();
            state.wait_to_send(&selection, 0, &packet);
            drop(state);
            let ended = selection.park(limit.deadline());
            let early = cfg!(weald_fault = "channel_sender_looks_without_the_lock")
                .then(|| State::stage(&packet));
            if !matches!(ended, Selected::Done(_)) {
                self.channel.lock().forget(&packet);
            }
            let reached = early.unwrap_or_else(|| State::stage(&packet));
            if reached == Stage::Taken {
                return Ok(());
            }
            let back = packet.take_value();
            match (ended, back) {
                (Selected::TimedOut, Some(back)) => return Err(SendTimeoutError::Timeout(back)),
                (_, Some(back)) => message = back,
                (_, None) => unreachable!("only a receiver takes the message"),
            }
            if ended == Selected::Pending {
                io::enter_unwinding();
            }
            state = self.channel.lock();
        }
    }

    /// True if it holds no message. With capacity 0 always.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room. With capacity 0 always.
    pub fn is_full(&self) -> bool {
        self.channel.lock().is_full(self.channel.capacity())
    }

    /// The number of messages that it holds.
    pub fn len(&self) -> usize {
        self.channel.lock().len()
    }

    /// The number of messages that it can hold; `None`: any.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.channel.capacity()).filter(|&capacity| capacity != usize::MAX)
    }

    /// True if both are ends of the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel)
    }

    pub(crate) fn channel(&self) -> &Channel<T> {
        &self.channel
    }
}

/// Sends at once, or gives the message back: `Closed`, or `Empty` for full.
fn begin_send<T>(state: &mut State<T>, capacity: usize, message: T) -> Result<(), (Stage, T)> {
    match state.send(capacity) {
        Send::Partner(packet) => {
            #[allow(unsafe_code, reason = "a packet that was claimed")]
            // SAFETY: the packet was claimed in this hold of the lock.
            unsafe {
                state.fill(packet, message);
            }
            Ok(())
        }
        Send::Place => {
            state.push(message);
            Ok(())
        }
        Send::Full => Err((Stage::Empty, message)),
        Send::Closed => Err((Stage::Closed, message)),
    }
}

/// Receives without waiting for a sender.
fn try_recv<T>(channel: &Channel<T>) -> Result<T, TryRecvError> {
    loop {
        let mut state = channel.lock();
        if let Some(message) = state.pop() {
            return Ok(message);
        }
        let mut packet = Packet::new(None, false);
        let began = state.receive(&packet);
        drop(state);
        match began {
            Receive::Value(message) => return Ok(message),
            Receive::Closed => return Err(TryRecvError::Disconnected),
            Receive::Empty => return Err(TryRecvError::Empty),
            Receive::Comes => wait_until_filled(channel, &packet),
        }
        if let Some(message) = packet.take_value() {
            return Ok(message);
        }
        // Its sender has made no message after all; there may be others.
    }
}

/// The buffer is empty.
#[inline(never)]
fn wait_to_receive<'a, T>(
    channel: &'a Channel<T>,
    mut state: Locked<'a, T>,
    mut limit: Limit,
) -> Result<T, RecvTimeoutError> {
    loop {
        let mut packet = Packet::new(None, false);
        match state.receive(&packet) {
            Receive::Value(message) => return Ok(message),
            Receive::Closed => return Err(RecvTimeoutError::Disconnected),
            Receive::Comes => {
                drop(state);
                limit.start();
                wait_until_filled(channel, &packet);
            }
            Receive::Empty => {
                if limit.is_over() {
                    return Err(RecvTimeoutError::Timeout);
                }
                if cfg!(weald_fault = "channel_receiver_lets_go_to_wait") {
                    drop(state);
                    state = channel.lock();
                }
                let selection = Selection::begin();
                state.wait_to_receive(&selection, 0, &packet);
                drop(state);
                match selection.park(limit.deadline()) {
                    Selected::Done(_) => {}
                    Selected::Arm(_) => wait_until_filled(channel, &packet),
                    ended => {
                        channel.lock().forget(&packet);
                        if ended == Selected::TimedOut {
                            return Err(RecvTimeoutError::Timeout);
                        }
                        if ended == Selected::Pending {
                            io::enter_unwinding();
                        }
                    }
                }
            }
        }
        if State::stage(&packet) == Stage::Closed {
            return Err(RecvTimeoutError::Disconnected);
        }
        if let Some(message) = packet.take_value() {
            return Ok(message);
        }
        state = channel.lock();
    }
}

/// How long an operation waits. The clock is read only where it waits for the first time, be it for its
/// turn to run.
#[derive(Clone, Copy)]
enum Limit {
    Never,
    At(Instant),
    /// From now on; nothing was waited for yet.
    Within(Duration),
}

impl Limit {
    /// There is no time to wait.
    fn is_over(self) -> bool {
        match self {
            Self::Never => false,
            Self::At(deadline) => clock::now() >= deadline,
            Self::Within(limit) => limit.is_zero(),
        }
    }

    /// The time begins to count.
    fn start(&mut self) {
        if let Self::Within(limit) = *self {
            *self = io::deadline(limit).map_or(Self::Never, Self::At);
        }
    }

    /// When a wait that begins now must end.
    fn deadline(&mut self) -> Option<Instant> {
        self.start();
        match *self {
            Self::At(deadline) => Some(deadline),
            Self::Never | Self::Within(_) => None,
        }
    }
}

impl<T> Receiver<T> {
    /// Receives a message; waits until there is one. A blocking call.
    ///
    /// # Errors
    /// If there is none and no sender is left.
    pub fn recv(&self) -> Result<T, RecvError> {
        match self.recv_within(Limit::Never) {
            Ok(message) => Ok(message),
            Err(_) => Err(RecvError),
        }
    }

    /// Receives a message if there is one. Not a blocking call: it raises no exception.
    ///
    /// A `select!` that waits to send has not made its message yet. As in crossbeam it is chosen all the
    /// same, and this waits until the message is made.
    ///
    /// # Errors
    /// If there is none, and whether a sender is left.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match &self.flavor {
            Flavor::Channel(channel) => try_recv(channel),
            Flavor::After(after, make) => after.take().map(make).ok_or(TryRecvError::Empty),
            Flavor::Tick(tick, make) => tick.take().map(make).ok_or(TryRecvError::Empty),
            Flavor::Never => Err(TryRecvError::Empty),
        }
    }

    /// As [`recv`](Self::recv), and waits at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// If the time has passed, or there is no message and no sender is left.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_within(Limit::Within(limit))
    }

    /// As [`recv`](Self::recv), and waits until the clock shows the deadline.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_within(Limit::At(deadline))
    }

    #[inline]
    fn recv_within(&self, mut limit: Limit) -> Result<T, RecvTimeoutError> {
        io::enter_and_spend_after(|| limit.start());
        let Flavor::Channel(channel) = &self.flavor else {
            return self.wait_for_time(limit);
        };
        let mut state = channel.lock();
        match state.pop() {
            Some(message) => Ok(message),
            None => wait_to_receive(channel, state, limit),
        }
    }

    /// Receives from a channel whose messages come by the clock.
    #[cold]
    fn wait_for_time(&self, mut limit: Limit) -> Result<T, RecvTimeoutError> {
        loop {
            if let Ok(message) = self.try_recv() {
                return Ok(message);
            }
            if limit.is_over() {
                return Err(RecvTimeoutError::Timeout);
            }
            let until = match (limit.deadline(), self.next_time()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if Selection::begin().park(until) == Selected::Pending {
                io::enter_unwinding();
            }
        }
    }

    /// When its next message comes, if that is a matter of the clock.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        match &self.flavor {
            Flavor::Channel(_) | Flavor::Never => None,
            Flavor::After(after, _) => after.next(),
            Flavor::Tick(tick, _) => tick.next(),
        }
    }

    pub(crate) fn channel(&self) -> Option<&Channel<T>> {
        match &self.flavor {
            Flavor::Channel(channel) => Some(channel),
            _ => None,
        }
    }

    /// True if it holds no message. With capacity 0 always.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room. With capacity 0 always.
    pub fn is_full(&self) -> bool {
        match &self.flavor {
            Flavor::Channel(channel) => channel.lock().is_full(channel.capacity()),
            Flavor::Never => true,
            Flavor::After(..) | Flavor::Tick(..) => !self.is_empty(),
        }
    }

    /// The number of messages that it holds.
    pub fn len(&self) -> usize {
        match &self.flavor {
            Flavor::Channel(channel) => channel.lock().len(),
            Flavor::Never => 0,
            Flavor::After(..) | Flavor::Tick(..) => {
                usize::from(self.next_time().is_some_and(|time| time <= clock::now()))
            }
        }
    }

    /// The number of messages that it can hold; `None`: any.
    pub fn capacity(&self) -> Option<usize> {
        match &self.flavor {
            Flavor::Channel(channel) => {
                Some(channel.capacity()).filter(|&capacity| capacity != usize::MAX)
            }
            Flavor::Never => Some(0),
            Flavor::After(..) | Flavor::Tick(..) => Some(1),
        }
    }

    /// True if both are ends of the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.flavor, &other.flavor) {
            (Flavor::Channel(a), Flavor::Channel(b)) => Arc::ptr_eq(a, b),
            (Flavor::After(a, _), Flavor::After(b, _)) => Arc::ptr_eq(a, b),
            (Flavor::Tick(a, _), Flavor::Tick(b, _)) => Arc::ptr_eq(a, b),
            (Flavor::Never, Flavor::Never) => true,
            _ => false,
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.count_sender();
        Self {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.drop_sender();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let flavor = match &self.flavor {
            Flavor::Channel(channel) => {
                channel.count_receiver();
                Flavor::Channel(Arc::clone(channel))
            }
            Flavor::After(after, make) => Flavor::After(Arc::clone(after), *make),
            Flavor::Tick(tick, make) => Flavor::Tick(Arc::clone(tick), *make),
            Flavor::Never => Flavor::Never,
        };
        Self { flavor }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Flavor::Channel(channel) = &self.flavor {
            channel.drop_receiver();
        }
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
