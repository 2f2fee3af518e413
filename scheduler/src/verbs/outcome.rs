//! Whether the value that a green thread returns is a failure. [`Group::cancel_on_error`](crate::Group::cancel_on_error)
//! needs to know.
//!
//! Rust has no way to ask a value of any type whether it is a `Result`, so the type must say it. Rejected: a second
//! method for closures that return a `Result`. If a user forgot it, the group would go on after an error.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
    UdpSocket,
};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use crate::green::handle::GreenThread;
use crate::green::id::GreenThreadId;
use crate::verbs::join::JoinHandle;

/// What a thread of a [`Group`](crate::Group) may return.
///
/// A `Result`, also one in an `Option`, says whether it is an error. The other types of the standard library that
/// implement the trait are never an error.
/// For a type of your own, `impl weald::Outcome for MyType {}` is enough.
///
/// # Examples
/// ```
/// use weald::Outcome;
///
/// enum Answer {
///     Found(u64),
///     Refused,
/// }
///
/// impl Outcome for Answer {
///     fn is_failure(&self) -> bool {
///         matches!(self, Answer::Refused)
///     }
/// }
///
/// assert!(!Answer::Found(42).is_failure());
/// assert!(Err::<(), _>("no").is_failure());
/// ```
#[diagnostic::on_unimplemented(
    message = "a thread of a group cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "a group asks whether a thread has failed: write `impl Outcome for {Self} {{}}`, or return a `Result`"
)]
pub trait Outcome {
    /// Whether the thread has failed. The default is false.
    fn is_failure(&self) -> bool {
        false
    }
}

impl<T, E> Outcome for Result<T, E> {
    fn is_failure(&self) -> bool {
        self.is_err()
    }
}

impl<T: Outcome> Outcome for Option<T> {
    fn is_failure(&self) -> bool {
        self.as_ref().is_some_and(Outcome::is_failure)
    }
}

/// Implements [`Outcome`] for types, each with its parameters. Their values are never a failure.
macro_rules! never_fail {
    ($($t:ty $(, $p:ident)*;)*) => { $(impl<$($p),*> Outcome for $t {})* };
}

never_fail! {
    (); bool; char; f32; f64;
    i8; i16; i32; i64; i128; isize;
    u8; u16; u32; u64; u128; usize;
    NonZero<u8>; NonZero<u16>; NonZero<u32>; NonZero<u64>; NonZero<usize>;
    AtomicBool; AtomicU64; AtomicUsize;
    String; CString; OsString; PathBuf;
    Duration; Instant; SystemTime;
    IpAddr; Ipv4Addr; Ipv6Addr; SocketAddr; SocketAddrV4; SocketAddrV6;
    TcpListener; TcpStream; UdpSocket; File;
    io::Error; Ordering;
    GreenThread; GreenThreadId;
    JoinHandle<T>, T;
    Cell<T>, T; RefCell<T>, T; Mutex<T>, T; RwLock<T>, T;
    Vec<T>, T; VecDeque<T>, T; LinkedList<T>, T; BinaryHeap<T>, T;
    BTreeSet<T>, T; HashSet<T, S>, T, S;
    BTreeMap<K, V>, K, V; HashMap<K, V, S>, K, V, S;
    (A,), A; (A, B), A, B; (A, B, C), A, B, C; (A, B, C, D), A, B, C, D;
    (A, B, C, D, E), A, B, C, D, E; (A, B, C, D, E, F), A, B, C, D, E, F;
}

impl<T: ?Sized> Outcome for &T {}
impl<T: ?Sized> Outcome for &mut T {}
impl<T: ?Sized> Outcome for Box<T> {}
impl<T: ?Sized> Outcome for Arc<T> {}
impl<T: ?Sized + ToOwned> Outcome for Cow<'_, T> {}
impl<T, const N: usize> Outcome for [T; N] {}

/// What [`Group::spawn`](crate::Group::spawn) takes: a closure that returns an [`Outcome`], or one that never returns.
///
/// The parameter tells the two apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "a group cannot run `{Self}`",
    note = "it must be a closure without arguments whose value is an `Outcome`: for a type of your own write `impl Outcome for ..`"
)]
pub trait Body<Ends>: Sized {
    /// What it returns.
    type Value;

    /// Runs the body. True: it has failed.
    #[doc(hidden)]
    fn run(self) -> (Self::Value, bool);
}

/// The parameter of a [`Body`] that returns.
#[derive(Debug)]
pub enum Returns {}

/// The parameter of a [`Body`] that never returns.
#[derive(Debug)]
pub enum NeverReturns {}

impl<F, T> Body<Returns> for F
where
    F: FnOnce() -> T,
    T: Outcome,
{
    type Value = T;

    fn run(self) -> (T, bool) {
        let value = self();
        let has_failed = value.is_failure();
        (value, has_failed)
    }
}

/// Names the type of what never returns, for which stable Rust has no name outside of function types.
type Never = <fn() -> ! as Function>::Value;

/// See [`Never`].
trait Function {
    type Value;
}

impl<T> Function for fn() -> T {
    type Value = T;
}

// There is no way to implement a trait for `!`, so that a closure that panics or loops for ever needs an implementation
// of its own.
impl<F> Body<NeverReturns> for F
where
    F: FnOnce() -> Never,
{
    type Value = Infallible;

    fn run(self) -> (Infallible, bool) {
        self()
    }
}
