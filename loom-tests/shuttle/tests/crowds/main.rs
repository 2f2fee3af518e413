//! Crowds of green threads do one kind of thing to each other; then all that was begun has ended, and
//! every message, permit, coin and thread is counted. A deadlock is a lost wake-up.
#![cfg(loom)]
#![allow(
    unsafe_code,
    reason = "migration shares thread-locals; the crowds keep nothing in them"
)]

mod exceptions;
mod locks;
mod messages;
mod support;
mod threads;
