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
//! The ends can be cloned, and be shared and used by green threads and OS threads in any mix. A call that waits
//! blocks the green thread and not the worker, and costs nothing meanwhile. Messages of one sender
//! arrive in their order. An exception that ends a wait loses no message of another thread: an interrupted `recv` has
//! taken none, and an interrupted `send` has sent none and drops its own message.
//!
//! # Examples
//! ```
//! use weald::sync::channel::bounded;
//!
//! let (sender, receiver) = bounded(2);
//! let numbers = weald::spawn(move || receiver.iter().sum::<u32>());
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
mod limit;
mod make;
mod messages;
mod receiver;
mod ring;
mod select;
mod sender;
mod state;
mod timer;
mod waiters;

pub use self::error::{
    ReadyTimeoutError, RecvError, RecvTimeoutError, SelectTimeoutError, SendError,
    SendTimeoutError, TryReadyError, TryRecvError, TrySelectError, TrySendError,
};
pub use self::iter::{IntoIter, Iter, TryIter};
pub use self::make::{after, bounded, never, tick, unbounded};
pub use self::receiver::Receiver;
pub use self::select::{Select, SelectedOperation};
pub use self::sender::Sender;
