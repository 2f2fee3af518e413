//! The connections of a server: how many an address has, and how they are told that the server closes.
//!
//! | phase | the connection                             | what closing does                     |
//! |-------|--------------------------------------------|---------------------------------------|
//! | BUSY  | has a request, or a part of one            | wakes it; it looks at `is_closing`    |
//! | IDLE  | waits in a read for a request's first byte | -> SHUT, and ends the read            |
//! | SHUT  | its read has been ended, or is about to be | nothing more                          |
//!
//! Invariant 1: `close` sets `closing` before it looks at the phases, and a connection steps to IDLE before it looks
//! at `closing`. Both steps are read-modify-writes with `SeqCst`, so one of the two sees the other. So no connection
//! goes on waiting.
//! Invariant 2: `close` ends the read of a connection only if the connection steps from IDLE to SHUT. A request that
//! arrives in the same moment is still answered if it came whole. Otherwise the client has met a connection that was
//! about to close, as can happen with any server.

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

/// The part of a connection that other threads use.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) stream: Stream,
    pub(crate) woke: Arc<Woke>,
    phase: AtomicU8,
}

/// A connection in the registry. Dropping this removes the connection.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    registry: &'a Registry,
    number: u64,
    address: Option<IpAddr>,
    pub(crate) member: Arc<Member>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. Gives the stream back if its address has as many connections as it may have.
    pub(crate) fn enter(
        &self,
        stream: Stream,
        address: Option<IpAddr>,
        bound: usize,
    ) -> Result<Registration<'_>, Stream> {
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
        Ok(Registration {
            registry: self,
            number,
            address,
            member,
        })
    }

    /// Tells all connections that the server closes. Those that wait for a request end now, the others after their
    /// requests.
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

    /// Returns how many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.lock().members.len()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

impl Member {
    /// Notes that the connection is about to wait for a request. Afterwards the connection must look if the server
    /// closes.
    pub(crate) fn begin_idle(&self) {
        // Invariant 1.
        self.phase.swap(IDLE, Ordering::SeqCst);
    }

    /// Notes that the wait has ended.
    pub(crate) fn end_idle(&self) {
        self.phase.swap(BUSY, Ordering::SeqCst);
    }
}

impl Registration<'_> {
    pub(crate) fn is_closing(&self) -> bool {
        self.registry.is_closing()
    }
}

impl Drop for Registration<'_> {
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
        // This is after the lock, as the member may be the last owner of the stream.
        drop(member);
    }
}
