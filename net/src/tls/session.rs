//! A TLS connection over a transport: which thread may read, which may write, and what happens to an interrupted
//! call.
//!
//! | lock       | guards                                  | held while                               |
//! |------------|-----------------------------------------|------------------------------------------|
//! | `incoming` | the buffer that is read into            | one reader waits for the transport       |
//! | `outgoing` | records that go to the transport        | one writer waits for the transport       |
//! | `machine`  | TLS's state; what came and is not read  | it computes; never while anything waits  |
//!
//! They are taken in this order, and a reader only tries to take `outgoing`. So a reader never waits for a writer:
//! when both directions are full and both ends write, both ends still read.
//!
//! Invariant 1: records reach the transport in the order of their numbers. Encrypted bytes are moved to `outgoing`
//! under both locks, and only the holder of `outgoing` sends.
//! Invariant 2: before anything can be raised, bytes from the transport are in `machine`, and plaintext from the
//! caller is in `outgoing`. So an interrupted call loses neither, and the next call continues there. What a write has
//! reported as written is sent as long as the peer takes it, also if the stream is dropped then.
//! Invariant 3: the holder of `incoming` runs the handshake. `established` is set once the handshake has ended and
//! all of its records were sent.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use weald_scheduler::io::{defer, enter, is_deferred, is_unwinding, spend};

use super::buffer::{Buffer, LARGE, SMALL};
use super::errors::{error, timed_out};
use super::machine::Machine;
use super::permits::Permits;
use super::transport::{SslTransport, discard};
use super::turn::Turn;

/// How many bytes of plaintext a write takes at once: four records, one system call.
const CHUNK: usize = 64 * 1024;

/// A read that brought this many bytes shows that more are on their way: a full record.
const BUSY: usize = 16 * 1024;

/// The limits of a handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    pub(super) limit: Option<Duration>,
    pub(super) permits: Option<Arc<Permits>>,
}

#[derive(Debug)]
pub(super) struct Session<S: SslTransport> {
    pub(super) transport: S,
    incoming: Turn<Incoming>,
    outgoing: Turn<Outgoing>,
    machine: Turn<Machine>,
    established: AtomicBool,
    /// `machine` may have records to send. It is a hint, read without the lock. It is set under the lock, and the
    /// thread that takes the lock to get the records clears it.
    has_output: AtomicBool,
    /// The reading direction was shut down.
    read_is_shut: AtomicBool,
    bounds: Bounds,
    /// When the handshake must have ended. Set when it begins.
    deadline: OnceLock<Option<Instant>>,
}

#[derive(Debug)]
struct Outgoing {
    records: Buffer,
    /// Bytes that a write has handed to TLS and has not reported as written, because its time ran out. A write that
    /// begins with the same bytes is taken as the same write.
    owed: Vec<u8>,
}

impl Outgoing {
    /// Begins a write while something is owed, which has been sent by now. Returns how many bytes of `plain` are the
    /// owed ones; 0 means that this is another write, whose bytes follow. Nobody can tell which thread owes which
    /// bytes, as other threads write too. The stream cannot fail until the owed bytes are repeated either: a writer
    /// may give up, and that would end the stream for all.
    fn settle(&mut self, plain: &[u8]) -> usize {
        let mut count = plain.len().min(self.owed.len());
        if plain[..count] == self.owed[..count] {
            self.owed.drain(..count);
        } else {
            self.owed.clear();
            count = 0;
        }
        if self.owed.is_empty() {
            self.owed = Vec::new();
        }
        count
    }
}

#[derive(Debug)]
struct Incoming {
    /// Empty except while a call reads. Then it holds what `machine` has not finished, and the bytes that follow.
    fresh: Buffer,
    /// The next read asks for much: the last one showed that more is on its way.
    busy: bool,
}

impl Incoming {
    /// Prepares to receive.
    fn prepare(&mut self, machine: &mut Machine) {
        // The buffer may hold bytes of a call that was interrupted.
        self.fresh.clear();
        let size = if self.busy { LARGE } else { SMALL };
        machine.lend(&mut self.fresh, size);
    }

    /// Waits for bytes from the transport. Returns how many; 0 at the end.
    fn receive(&mut self, transport: &impl SslTransport) -> io::Result<usize> {
        let room = self.fresh.spare().len();
        let count = transport.receive(self.fresh.spare())?;
        self.fresh.commit(count);
        self.busy = count == room || count >= BUSY;
        Ok(count)
    }
}

impl<S: SslTransport> Session<S> {
    pub(super) fn new(transport: S, machine: Machine, bounds: Bounds) -> Self {
        Self {
            transport,
            incoming: Turn::new(Incoming {
                fresh: Buffer::new(),
                busy: false,
            }),
            outgoing: Turn::new(Outgoing {
                records: Buffer::new(),
                owed: Vec::new(),
            }),
            machine: Turn::new(machine),
            established: AtomicBool::new(false),
            has_output: AtomicBool::new(false),
            read_is_shut: AtomicBool::new(false),
            bounds,
            deadline: OnceLock::new(),
        }
    }

    /// Asks TLS about itself.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Machine) -> T) -> T {
        question(&self.machine.lock())
    }

    fn is_established(&self) -> bool {
        // Pairs with the store at the end of the handshake.
        self.established.load(Ordering::Acquire)
    }

    /// Runs the handshake, or waits for the thread that runs it, unless it has ended.
    ///
    /// `limit`: how long the call may wait for another thread that runs the handshake.
    #[inline]
    pub(super) fn establish(&self, limit: Option<Duration>) -> io::Result<()> {
        if self.is_established() {
            return Ok(());
        }
        self.establish_in_time(limit)
    }

    #[cold]
    fn establish_in_time(&self, limit: Option<Duration>) -> io::Result<()> {
        let ends = || self.bounds.limit.and_then(weald_scheduler::io::deadline);
        if let Some(deadline) = *self.deadline.get_or_init(ends) {
            let left = deadline.saturating_duration_since(Instant::now());
            weald_scheduler::timeout(left, || self.shake_hands(limit))
                .unwrap_or_else(|_elapsed| Err(timed_out("the TLS handshake took too long")))?;
        } else {
            self.shake_hands(limit)?;
        }
        // Nothing that follows uses as much stack as the handshake has.
        weald_scheduler::io::release_stack();
        Ok(())
    }

    fn shake_hands(&self, limit: Option<Duration>) -> io::Result<()> {
        enter()?;
        let mut incoming = self.incoming.lock_io(limit)?;
        let incoming = &mut *incoming;
        while !self.is_established() {
            let (result, has_ended) = {
                let _permit = match &self.bounds.permits {
                    None => None,
                    Some(permits) => Some(permits.take(limit)?),
                };
                let mut machine = self.machine.lock();
                let result = machine.advance();
                incoming.prepare(&mut machine);
                self.note_output(&machine);
                (result, !machine.is_handshaking())
            };
            if let Err(failed) = result {
                self.push_at_once();
                return Err(error(failed));
            }
            let mut outgoing = self.outgoing.lock_io(self.transport.send_limit())?;
            self.push(&mut outgoing.records)?;
            drop(outgoing);
            if has_ended {
                incoming.fresh.clear();
                // Pairs with the load in `is_established`.
                self.established.store(true, Ordering::Release);
            } else if incoming.receive(&self.transport)? == 0 {
                return Err(cut("the connection ended in the TLS handshake"));
            } else {
                self.machine.lock().refill(&mut incoming.fresh);
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        enter()?;
        let got = self.take_plain(buffer);
        spend_for_nothing(&got);
        got
    }

    fn take_plain(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let limit = self.transport.receive_limit();
        self.establish(limit)?;
        let mut incoming = self.incoming.lock_io(limit)?;
        let incoming = &mut *incoming;
        let mut has_waited = false;
        loop {
            let (count, has_ended) = {
                let mut machine = self.machine.lock();
                if has_waited {
                    machine.refill(&mut incoming.fresh);
                }
                let count = machine.read(buffer);
                if count == 0 {
                    incoming.prepare(&mut machine);
                }
                self.note_output(&machine);
                (count, machine.has_ended())
            };
            if self.has_output.load(Ordering::Relaxed) {
                self.push_at_once();
            }
            if self.read_is_shut() {
                incoming.fresh.clear();
                return Ok(0);
            }
            if count > 0 {
                if !has_waited {
                    spend();
                }
                return Ok(count);
            }
            if has_ended.map_err(error)? {
                return Ok(0);
            }
            has_waited = true;
            if incoming.receive(&self.transport)? == 0 {
                if self.read_is_shut() {
                    return Ok(0);
                }
                return Err(cut("the connection ended without TLS's close_notify"));
            }
        }
    }

    /// Called under the lock of `machine`: notes if it has records to send, for the thread that can send.
    fn note_output(&self, machine: &Machine) {
        if machine.has_output() {
            self.has_output.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, plain: &[u8]) -> io::Result<usize> {
        enter()?;
        let taken = self.hand_over(plain);
        spend_for_nothing(&taken);
        taken
    }

    fn hand_over(&self, plain: &[u8]) -> io::Result<usize> {
        let limit = self.transport.send_limit();
        self.establish(limit)?;
        let mut outgoing = self.outgoing.lock_io(limit)?;
        // These are the bytes that earlier calls have left. Nothing of this call has been taken over yet.
        self.push(&mut outgoing.records)?;
        if plain.is_empty() {
            return Ok(0);
        }
        let settled = outgoing.settle(plain);
        if settled > 0 {
            return Ok(settled);
        }
        let taken = plain.len().min(CHUNK);
        {
            let mut machine = self.machine.lock();
            if machine.sent_close() {
                return Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the TLS stream was shut down for writing",
                ));
            }
            machine
                .encrypt(&plain[..taken], &mut outgoing.records)
                .map_err(error)?;
        }
        // TLS has the bytes now, whatever is raised (invariant 2).
        match defer(|| self.push(&mut outgoing.records)) {
            // The bytes are not reported as written. Otherwise a caller that makes no further call would never know.
            Err(failed) if failed.kind() == io::ErrorKind::TimedOut && !is_deferred(&failed) => {
                outgoing.owed = plain[..taken].to_vec();
                Err(failed)
            }
            Err(failed) if !may_go_on(&failed) => Err(failed),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    /// Waits until the transport has all that was written.
    pub(super) fn flush(&self) -> io::Result<()> {
        enter()?;
        if !self.is_established() {
            // Nothing can have been written.
            spend();
            return Ok(());
        }
        let outgoing = self.outgoing.lock_io(self.transport.send_limit());
        let pushed = outgoing.and_then(|mut outgoing| self.push(&mut outgoing.records));
        spend();
        pushed
    }

    /// Sends all bytes of `outgoing` and of TLS.
    fn push(&self, outgoing: &mut Buffer) -> io::Result<()> {
        loop {
            while !outgoing.is_empty() {
                let sent = self.transport.send(outgoing.filled())?;
                if sent == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                outgoing.consume(sent);
            }
            if !self.has_output.swap(false, Ordering::Relaxed) {
                outgoing.release();
                return Ok(());
            }
            self.machine.lock().move_out(outgoing);
        }
    }

    /// Sends what can be sent without waiting, neither for another thread nor for the transport.
    fn push_at_once(&self) {
        // The thread that holds the lock will find TLS's bytes, at the end of this call or in the next.
        let Some(mut outgoing) = self.outgoing.try_lock() else {
            return;
        };
        self.has_output.store(false, Ordering::Relaxed);
        self.machine.lock().move_out(&mut outgoing.records);
        send_at_once(&self.transport, &mut outgoing.records);
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        enter()?;
        if how != Shutdown::Write {
            self.read_is_shut.store(true, Ordering::Relaxed);
        }
        let said = if how == Shutdown::Read || !self.is_established() {
            Ok(())
        } else if how == Shutdown::Write {
            let mut outgoing = self.outgoing.lock_io(self.transport.send_limit())?;
            self.say_close(&mut outgoing.records)
        } else {
            // A thread that waits there for the transport is woken by the end, in the middle of a record.
            let outgoing = self.outgoing.try_lock();
            outgoing.map_or(Ok(()), |mut outgoing| self.say_close(&mut outgoing.records))
        };
        match said {
            // The call was interrupted, so the next call continues from here.
            Err(failed) if may_go_on(&failed) || failed.kind() == io::ErrorKind::Other => {
                Err(failed)
            }
            said => self.transport.close(how).and(said),
        }
    }

    fn say_close(&self, outgoing: &mut Buffer) -> io::Result<()> {
        {
            let mut machine = self.machine.lock();
            if !machine.sent_close() && machine.has_ended().is_ok() {
                machine.close(outgoing).map_err(error)?;
            }
        }
        self.push(outgoing)
    }

    fn read_is_shut(&self) -> bool {
        self.read_is_shut.load(Ordering::Relaxed)
    }
}

/// A call that has moved nothing may not have waited either. A caller that repeats it must not keep the worker.
fn spend_for_nothing(got: &io::Result<usize>) {
    if !matches!(got, Ok(1..)) {
        spend();
    }
}

fn cut(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// Tells if the call may be made again: it waited too long, would have waited, or was interrupted.
fn may_go_on(failed: &io::Error) -> bool {
    matches!(
        failed.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) || is_deferred(failed)
}

fn send_at_once(transport: &impl SslTransport, outgoing: &mut Buffer) {
    while !outgoing.is_empty() {
        match transport.try_send(outgoing.filled()) {
            Ok(sent) if sent > 0 => outgoing.consume(sent),
            // Bytes that cannot be sent now go with the next call.
            Ok(_) | Err(_) => return,
        }
    }
    outgoing.release();
}

impl<S: SslTransport> Drop for Session<S> {
    /// Sends what was reported as written. Then sends `close_notify` if that is true: not when the thread unwinds in
    /// the middle of its work, and not after a write that has failed.
    fn drop(&mut self) {
        let machine = self.machine.get_mut();
        let Outgoing { records, owed } = self.outgoing.get_mut();
        if *self.established.get_mut() && owed.is_empty() && machine.has_ended().is_ok() {
            let may_close = !machine.sent_close() && !is_unwinding();
            if !may_close || machine.close(records).is_ok() {
                send_at_once(&self.transport, records);
            }
            if !records.is_empty() && !self.transport.send_later(records.filled()) {
                log::debug!("weald: a TLS stream was dropped before its last bytes were sent");
            }
        }
        // Unread bytes, a server's tickets in particular, would make the kernel reset the connection, and the peer
        // would lose what it has not read yet. After its `close_notify` the peer has nothing more to say.
        if machine.has_ended() != Ok(true) {
            discard(|| self.transport.try_discard());
        }
    }
}

/// How many bytes are gathered for one write: a record.
const GATHERED: usize = 16 * 1024;

/// Writes slices as one: a header and a short body make one record and not two.
pub(super) fn write_gathered<S: SslTransport>(
    session: &Session<S>,
    buffers: &[IoSlice<'_>],
) -> io::Result<usize> {
    let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
    let first = filled.next().map_or(&[][..], |buffer| &buffer[..]);
    if first.len() >= GATHERED || filled.next().is_none() {
        return session.write(first);
    }
    let mut gathered = Buffer::new();
    for buffer in buffers {
        let room = GATHERED - gathered.len();
        gathered.push(&buffer[..buffer.len().min(room)]);
    }
    session.write(gathered.filled())
}
