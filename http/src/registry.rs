//! The connections of a server: how many an address has, and how they hear that the server closes.
//!
//! | phase | the connection                             | what closing does                     |
//! |-------|--------------------------------------------|---------------------------------------|
//! | BUSY  | has a request, or a part of one            | wakes it; it looks at `is_closing`    |
//! | IDLE  | waits in a read for a request's first byte | -> SHUT, and ends the read            |
//! | SHUT  | its read has been ended, or is about to be | nothing more                          |
//!
//! Invariant 1: `close` sets `closing` before it looks at the phases; a connection steps to IDLE before it
//! looks at `closing`. Both steps are read-modify-writes with `SeqCst`, so one of the two sees the other: no
//! connection goes on waiting.
//! Invariant 2: reads are ended only of a connection that steps from IDLE to SHUT. A request that arrives in
//! the same moment is still answered if it came whole; else the client has met a connection that was
//! about to close, as with any server.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stream::Stream;
use crate::woke::Woke;

const BUSY: u8 = 0;
const IDLE: u8 = 1;
const SHUT: u8 = 2;

/// All connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    closing: AtomicBool,
    inner: Mutex<Inner>,
    /// Gives each connection a number.
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    members: HashMap<u64, Arc<Member>>,
    by_address: HashMap<IpAddr, usize>,
}

/// What others may do with a connection.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) stream: Stream,
    pub(crate) woke: Arc<Woke>,
    phase: AtomicU8,
}

/// A connection's place; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    registry: &'a Registry,
    number: u64,
    address: Option<IpAddr>,
    pub(crate) member: Arc<Member>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection in. `Err`: its address has as many as it may.
    pub(crate) fn enter(
        &self,
        stream: Stream,
        address: Option<IpAddr>,
        bound: usize,
    ) -> Result<Place<'_>, Stream> {
        let mut inner = self.lock();
        if let Some(address) = address {
            let count = inner.by_address.entry(address).or_default();
            if *count >= bound {
                return Err(stream);
            }
            *count += 1;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member {
            stream,
            woke: Arc::default(),
            phase: AtomicU8::new(BUSY),
        });
        inner.members.insert(number, Arc::clone(&member));
        drop(inner);
        Ok(Place {
            registry: self,
            number,
            address,
            member,
        })
    }

    /// Tells all connections that the server closes: those that wait for a request end, the others
    /// after their requests.
    pub(crate) fn close(&self) {
        // Invariant 1.
        self.closing.swap(true, Ordering::SeqCst);
        let members: Vec<_> = self.lock().members.values().cloned().collect();
        for member in members {
            let step =
                member
                    .phase
                    .compare_exchange(IDLE, SHUT, Ordering::SeqCst, Ordering::SeqCst);
            if step.is_ok() {
                member.stream.end_reads();
            }
            member.woke.set();
        }
    }

    /// How many there are.
    pub(crate) fn connections(&self) -> usize {
        self.lock().members.len()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

impl Member {
    /// The connection is about to wait for a request; afterwards it must look whether the server closes.
    pub(crate) fn begin_idle(&self) {
        // Invariant 1.
        self.phase.swap(IDLE, Ordering::SeqCst);
    }

    /// It has ended to wait.
    pub(crate) fn end_idle(&self) {
        self.phase.swap(BUSY, Ordering::SeqCst);
    }
}

impl Place<'_> {
    pub(crate) fn is_closing(&self) -> bool {
        self.registry.is_closing()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        let member = inner.members.remove(&self.number);
        if let Some(address) = self.address
            && let Some(count) = inner.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                inner.by_address.remove(&address);
            }
        }
        drop(inner);
        // After the lock: it may be the last that has the stream.
        drop(member);
    }
}
