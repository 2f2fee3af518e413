//! How channels are made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io;

use super::core::Channel;
use super::receiver::{Flavor, Receiver};
use super::sender::Sender;
use super::timer::{After, Tick};

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

/// A channel that holds at most so many messages. With 0 it holds none: `send` waits until a receiver takes the
/// message.
///
/// # Examples
/// ```
/// use weald::sync::channel::bounded;
/// let (sender, receiver) = bounded(0);
/// weald::spawn(move || sender.send("here"));
/// assert_eq!(receiver.recv(), Ok("here"));
/// ```
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel(Some(capacity))
}

/// A channel that holds any number of messages.
///
/// # Examples
/// ```
/// use weald::sync::channel::unbounded;
/// let (sender, receiver) = unbounded();
/// (0..1000).for_each(|n| sender.send(n).unwrap());
/// assert_eq!(receiver.len(), 1000);
/// ```
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(None)
}

/// A channel that gets one message after this time: the time at which it is due. It is meant for `select!`. The
/// message never comes early. [`Duration::MAX`] means that it never comes.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let time = weald::sync::channel::after(Duration::from_millis(2)).recv().unwrap();
/// assert!(time >= start + Duration::from_millis(2));
/// ```
pub fn after(duration: Duration) -> Receiver<Instant> {
    Receiver {
        flavor: Flavor::After(Arc::new(After::new(io::deadline(duration))), |time| time),
    }
}

/// A channel that gets a message each time that the period has passed: the time at which it was due. At most one
/// message waits. If it is taken late, the next one comes a period after that.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// let (start, ticks) = (Instant::now(), weald::sync::channel::tick(Duration::from_millis(1)));
/// (0..3).for_each(|_| drop(ticks.recv()));
/// assert!(start.elapsed() >= Duration::from_millis(3));
/// ```
pub fn tick(period: Duration) -> Receiver<Instant> {
    Receiver {
        flavor: Flavor::Tick(Arc::new(Tick::new(period)), |time| time),
    }
}

/// A channel that never gets a message. It is meant for an arm of a `select!` that is switched off.
///
/// # Examples
/// ```
/// assert!(weald::sync::channel::never::<u8>().try_recv().unwrap_err().is_empty());
/// ```
pub fn never<T>() -> Receiver<T> {
    Receiver {
        flavor: Flavor::Never,
    }
}
