//! One connection of rustls: it takes records in and gives plaintext out, and the reverse. It does no IO and does not
//! wait.
//!
//! It uses rustls' unbuffered interface: records lie in buffers of weald's. So one system call brings as many records
//! as fit (`Connection::read_tls` asks for 4 KiB at a time), and an idle connection holds no buffer. rustls 0.24 has
//! this form throughout.
//!
//! Invariant 1: records leave in the order in which they were encrypted, as each has a number. So everything that
//! encrypts appends to `out`, or to a buffer that `out` was moved to before.
//! Invariant 2: rustls keeps positions in the records that it was given and has not finished. So every call is given
//! `records`, also a call that only sends. `lend` and `refill` add bytes behind those that are there, and move none
//! of these.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::buffer::{Buffer, SMALL};

/// The most that TLS adds to a record, in bytes: a header of 5, an explicit nonce of 8, padding and type of 17, a tag
/// of 16, rounded up.
const OVERHEAD: usize = 64;

/// The most plaintext in a record, in bytes; RFC 8446, 5.1.
const FRAGMENT: usize = 16 * 1024;

pub(super) struct Machine {
    connection: Connection,
    /// Bytes from the peer that are not finished.
    records: Buffer,
    /// Plaintext that no reader had room for.
    plain: Buffer,
    /// Records to send that no call waits for: those of the handshake, and answers.
    out: Buffer,
    failed: Option<rustls::Error>,
    /// The peer has sent `close_notify`.
    got_close: bool,
    /// This side has sent `close_notify`.
    sent_close: bool,
}

#[allow(
    clippy::large_enum_variant,
    reason = "there is one a connection, behind an `Arc`"
)]
enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// The result of one turn of the state machine.
enum Step {
    /// It did something; there may be more to do.
    Moved,
    /// It handed over plaintext, and the receiver is full.
    Full,
    /// It needs more records.
    Blocked,
    /// It may send, and did the job if there was one.
    Ready,
}

/// What to do as soon as it may send.
#[derive(Clone, Copy)]
enum Job<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

impl Machine {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        UnbufferedClientConnection::new(config, name)
            .map(|client| Self::new(Connection::Client(client)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        UnbufferedServerConnection::new(config).map(|server| Self::new(Connection::Server(server)))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            records: Buffer::new(),
            plain: Buffer::new(),
            out: Buffer::new(),
            failed: None,
            got_close: false,
            sent_close: false,
        }
    }

    pub(super) fn state(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    pub(super) fn sent_close(&self) -> bool {
        self.sent_close
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Tells if the peer has closed. Returns the error that has ended the connection, if there was one.
    pub(super) fn has_ended(&self) -> Result<bool, rustls::Error> {
        match &self.failed {
            None => Ok(self.got_close),
            Some(failed) => Err(failed.clone()),
        }
    }

    /// Makes `fresh`, which is empty, ready for a read of at least `size` bytes behind the unfinished records.
    /// `fresh` then holds a copy of these records.
    pub(super) fn lend(&mut self, fresh: &mut Buffer, size: usize) {
        if self.records.is_empty() {
            // One buffer is enough while nothing is left over. Only a caller that asks for a large one gets it.
            if fresh.size() < self.records.size() {
                std::mem::swap(&mut self.records, fresh);
            }
            self.records.release();
            if fresh.size() > size {
                fresh.release();
            }
        }
        fresh.reserve(size.max(self.records.len() + SMALL));
        fresh.push(self.records.filled());
    }

    /// Takes back `fresh`, which `lend` has prepared and a read has filled.
    pub(super) fn refill(&mut self, fresh: &mut Buffer) {
        debug_assert!(
            fresh.filled().starts_with(self.records.filled()),
            "they are as they were copied: no whole record was among them"
        );
        std::mem::swap(&mut self.records, fresh);
        fresh.clear();
    }

    /// Continues the handshake as far as the records reach. After an error, which stays, the output holds the alert
    /// for the peer.
    pub(super) fn advance(&mut self) -> Result<(), rustls::Error> {
        self.work(&mut []);
        self.has_ended().map(drop)
    }

    /// Decrypts into the buffer, until it is full or no whole record is left. Returns the number of bytes.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        if !self.plain.is_empty() {
            let count = self.plain.take(buffer);
            self.plain.release();
            return count;
        }
        if self.records.is_empty() {
            return 0;
        }
        self.work(buffer)
    }

    fn work(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while self.failed.is_none() {
            match self.step(buffer, &mut filled, Job::Nothing) {
                // Without records there is nothing more.
                Ok(Step::Moved) if filled > 0 && self.records.is_empty() => break,
                Ok(Step::Moved) => {}
                Ok(Step::Full | Step::Blocked | Step::Ready) => break,
                Err(error) => self.fail(error),
            }
        }
        filled
    }

    /// Encrypts the plaintext and appends it to `to`. What was in `out` goes there first.
    pub(super) fn encrypt(&mut self, plain: &[u8], to: &mut Buffer) -> Result<(), rustls::Error> {
        let room = plain.len() + (plain.len() / FRAGMENT + 1) * OVERHEAD;
        self.send(Job::Encrypt(plain), room, to)
    }

    /// Encrypts `close_notify` and appends it to `to`. What was in `out` goes there first.
    pub(super) fn close(&mut self, to: &mut Buffer) -> Result<(), rustls::Error> {
        self.sent_close = true;
        self.send(Job::Close, 2 * OVERHEAD, to)
    }

    fn send(&mut self, job: Job<'_>, room: usize, to: &mut Buffer) -> Result<(), rustls::Error> {
        self.move_out(to);
        // During this call everything is written to `to`.
        std::mem::swap(&mut self.out, to);
        self.out.reserve(room);
        let result = loop {
            if let Some(failed) = &self.failed {
                break Err(failed.clone());
            }
            match self.step(&mut [], &mut 0, job) {
                Ok(Step::Ready) => break Ok(()),
                // Plaintext that came first is kept for the next reader.
                Ok(Step::Moved | Step::Full) => {}
                // It may not send: the handshake has not ended, or both sides have closed.
                Ok(Step::Blocked) => break Err(rustls::Error::HandshakeNotComplete),
                Err(error) => self.fail(error),
            }
        };
        std::mem::swap(&mut self.out, to);
        result
    }

    /// Moves the bytes of `out` to the end of `to`.
    pub(super) fn move_out(&mut self, to: &mut Buffer) {
        if self.out.is_empty() {
            return;
        }
        if to.is_empty() {
            std::mem::swap(to, &mut self.out);
        } else {
            to.push(self.out.filled());
            self.out.clear();
        }
        self.out.release();
    }

    /// Notes that the connection has failed; it stays so. What TLS has to send about that goes to `out`.
    fn fail(&mut self, error: rustls::Error) {
        self.failed = Some(error);
        // Bytes to send come before bytes that were received, and no more of the latter may be touched.
        while self.state().wants_write() {
            if self.step(&mut [], &mut 0, Job::Nothing).is_err() {
                break;
            }
        }
    }

    /// Makes one turn. Plaintext goes to `buffer` from `filled` on; what does not fit there goes to `plain`.
    fn step(
        &mut self,
        buffer: &mut [u8],
        filled: &mut usize,
        job: Job<'_>,
    ) -> Result<Step, rustls::Error> {
        let Self {
            connection,
            records,
            plain,
            out,
            got_close,
            ..
        } = self;
        let mut sink = |bytes: &[u8]| {
            let count = bytes.len().min(buffer.len() - *filled);
            buffer[*filled..*filled + count].copy_from_slice(&bytes[..count]);
            *filled += count;
            if count < bytes.len() {
                plain.push(&bytes[count..]);
            }
            *filled < buffer.len()
        };
        let bytes = records.filled();
        let (discard, step) = match connection {
            Connection::Client(client) => take_step(
                client.process_tls_records(bytes),
                out,
                &mut sink,
                got_close,
                job,
            ),
            Connection::Server(server) => take_step(
                server.process_tls_records(bytes),
                out,
                &mut sink,
                got_close,
                job,
            ),
        };
        records.consume(discard);
        step
    }
}

/// Acts on a state that rustls has reached. Returns how many bytes of the records are finished.
fn take_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Buffer,
    plain: &mut dyn FnMut(&[u8]) -> bool,
    got_close: &mut bool,
    job: Job<'_>,
) -> (usize, Result<Step, rustls::Error>) {
    let mut discard = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            let mut room = true;
            loop {
                match traffic.next_record() {
                    None if room => break Ok(Step::Moved),
                    None => break Ok(Step::Full),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        room = plain(record.payload);
                    }
                }
            }
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let mut encoded = data.encode(out.spare());
            if let Err(EncodeError::InsufficientSize(needs)) = encoded {
                out.reserve(needs.required_size);
                encoded = data.encode(out.spare());
            }
            match encoded {
                Ok(count) => {
                    out.commit(count);
                    Ok(Step::Moved)
                }
                Err(error) => Err(rustls::Error::General(error.to_string())),
            }
        }
        // Encoded bytes are in `out`, before all that will be encrypted, so they count as sent.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Moved)
        }
        ConnectionState::PeerClosed => {
            *got_close = true;
            Ok(Step::Moved)
        }
        ConnectionState::WriteTraffic(mut traffic) => {
            let mut attempt = |out: &mut Buffer| match job {
                Job::Nothing => Ok(0),
                Job::Encrypt(plain) => traffic.encrypt(plain, out.spare()),
                Job::Close => traffic.queue_close_notify(out.spare()),
            };
            let mut sent = attempt(out);
            if let Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) =
                sent
            {
                out.reserve(required_size);
                sent = attempt(out);
            }
            match sent {
                Ok(count) => {
                    out.commit(count);
                    Ok(Step::Ready)
                }
                Err(error) => Err(rustls::Error::General(error.to_string())),
            }
        }
        // No setting asks for early data. The other states need more records, or mean that both sides have closed.
        _ => Ok(Step::Blocked),
    };
    (discard, step)
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}
