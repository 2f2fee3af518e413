//! A connection from its first byte to its last, in its own green thread.
//!
//! 1. The connection makes TLS's handshake, if there is one. Then it waits for the first bytes, without anything of
//!    hyper's, which would be 17 KiB.
//! 2. The first bytes tell HTTP/1 from HTTP/2, unless TLS has agreed on one of them. If the bytes begin neither, they
//!    are taken as HTTP/1 and answered 400. That also happens to a client that means HTTP/2 and begins wrong: nothing
//!    tells such a client from others (RFC 9113, 3.4, asks for no GOAWAY where the peer does not speak HTTP/2).
//! 3. hyper's connection is made, and driven (`drive.rs`). If an HTTP/1 connection has had no request for a second,
//!    it drops hyper's part and begins again with step 1.
//! 4. At its end the client may get a last answer (408). The client can read all that was sent to it: bytes that the
//!    server has not read do not reset the connection. Requests that still run are killed.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;

use crate::drive::{End, Protocol, drive};
use crate::handlers::Handlers;
use crate::io::{Io, Link};
use crate::registry::Registration;
use crate::second::Second;
use crate::service::{Busy, Handler, Requests, Service};
use crate::shared::Shared;
use crate::stream::{Stream, is_timeout};
use crate::upgrade::Upgraded;

/// The first bytes of an HTTP/2 client; RFC 9113, 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client that still sends may not be ready to read its answer. So after the answer up to `LINGER` bytes are read
/// and thrown away, for up to `LINGER_TIME`. If a socket is closed with unread bytes, the connection is reset and the
/// answer may be lost: RFC 9112, 9.6.
const LINGER: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Serves a connection. Returns when it is over.
pub(crate) fn serve(
    stream: Stream,
    peer: Option<SocketAddr>,
    shared: &Arc<Shared>,
    handler: &Handler,
) {
    let address = peer.map(|peer| peer.ip());
    let bound = shared.limits.connections_per_address;
    let registration = match shared.registry.enter(stream, address, bound) {
        Ok(registration) => registration,
        Err(stream) => return refuse(&stream, shared),
    };
    // The call fails only if the connection is gone.
    let _ = registration.member.stream.set_nodelay();
    if let Err(error) = shake_hands(&registration) {
        // Strangers can cause as many of these lines as they like, so the level is debug.
        log::debug!("weald-http: a handshake failed: {error}");
        return;
    }
    // The handlers are dropped last but one: the drop ends the requests' threads. Then the registration closes the stream.
    let handlers = Rc::new(Handlers::default());
    let requests = Rc::new(Requests {
        shared: Arc::clone(shared),
        handler: Arc::clone(handler),
        handlers,
        peer,
        is_encrypted: registration.member.stream.is_encrypted(),
        busy: Busy::new(&registration.member.woke),
        count: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        moved_at: Cell::new(Instant::now()),
        serve: RefCell::new(None),
        is_unread: Cell::new(false),
    });
    let first = match first_bytes(&registration, shared.limits.head_time) {
        Ok(first) => first,
        Err(end) => return finish(&registration, &requests, end),
    };
    let is_second = match registration.member.stream.protocol() {
        Some(name) => name == b"h2",
        // If the bytes begin like this and go on otherwise, hyper's HTTP/2 refuses them.
        None => first.starts_with(b"PRI * HTTP/2"),
    };
    let end = if is_second {
        speak_second(&registration, &requests, first)
    } else {
        speak_first(&registration, &requests, first)
    };
    if !is_second && requests.busy.held.is_cut_short() {
        requests.is_unread.set(true);
    }
    finish(&registration, &requests, end);
}

/// Makes TLS's handshake within the time that the acceptor allows. The connection is idle meanwhile, as there is no
/// request.
fn shake_hands(registration: &Registration<'_>) -> io::Result<()> {
    let stream = &registration.member.stream;
    if !stream.is_encrypted() {
        return Ok(());
    }
    registration.member.begin_idle();
    let done = if registration.is_closing() {
        Err(io::Error::other("the server closes"))
    } else {
        stream.handshake()
    };
    registration.member.end_idle();
    done
}

/// Waits for bytes: for the first one at most as long as the limit, and for as many as tell the protocol.
fn first_bytes(registration: &Registration<'_>, limit: Duration) -> Result<Bytes, End> {
    let stream = &registration.member.stream;
    let started = Instant::now();
    let mut bytes = [0; PREFACE.len()];
    let mut count = 0;
    while count < bytes.len() && bytes[..count] == PREFACE[..count] {
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(if count == 0 { End::Idle } else { End::LateHead });
        }
        if count == 0 {
            registration.member.begin_idle();
            if registration.is_closing() {
                registration.member.end_idle();
                return Err(End::Idle);
            }
        }
        stream.wait(Some(left));
        let got = stream.read(&mut bytes[count..]);
        registration.member.end_idle();
        match got {
            Ok(0) => return Err(End::Done(Ok(()))),
            Ok(more) => count += more,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(End::Interrupted(error)),
        }
    }
    Ok(Bytes::copy_from_slice(&bytes[..count]))
}

/// HTTP/1.0 and 1.1.
struct First(http1::Connection<Io, Service>);

impl Protocol for First {
    const IS_FIRST: bool = true;

    // `date.rs` tells why.
    #[inline(never)]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        // `poll_without_shutdown` may leave the last bytes of an answer in hyper's buffer.
        Pin::new(&mut self.0).poll(context)
    }

    fn close(&mut self) {
        Pin::new(&mut self.0).graceful_shutdown();
    }
}

fn speak_first(registration: &Registration<'_>, requests: &Rc<Requests>, first: Bytes) -> End {
    let limits = &requests.shared.limits;
    let mut builder = http1::Builder::new();
    builder
        // A client that has closed its sending side still waits for its answer.
        .half_close(true)
        // The answers have a `Date` already (`date.rs`).
        .auto_date_header(false)
        .max_headers(limits.head_fields)
        .max_buf_size(limits.head_size)
        // `drive.rs` has a limit of its own for that.
        .header_read_timeout(None);
    let busy = Rc::clone(&requests.busy);
    let link = Link::new(Arc::clone(&registration.member), first, true, busy);
    loop {
        let service = Service(Rc::clone(requests));
        let io = Io(Rc::clone(&link));
        let mut protocol = First(builder.serve_connection(io, service));
        let begun = Some(Instant::now());
        let end = drive(&mut protocol, &link, registration, requests, begun);
        match end {
            End::Parks => {}
            // If the head has not gone out, the client does not know of the upgrade.
            End::Done(Ok(())) if requests.serve.borrow().is_some() && !link.wants_write.get() => {
                let early = protocol.0.into_parts().read_buf;
                upgrade(registration, requests, early);
                return End::Done(Ok(()));
            }
            end => return end,
        }
        let early = protocol.0.into_parts().read_buf;
        let early = if early.is_empty() {
            weald_scheduler::io::release_stack();
            let waited = requests.idle_since.get().elapsed();
            let left = limits.keep_alive.saturating_sub(waited);
            match first_bytes(registration, left) {
                Ok(early) => early,
                Err(end) => return end,
            }
        } else {
            // A part of a head came right after the last request.
            early
        };
        link.put_back(early);
    }
}

/// Hands the rest of the connection to the program.
fn upgrade(registration: &Registration<'_>, requests: &Requests, early: Bytes) {
    let Some(serve) = requests.serve.borrow_mut().take() else {
        return;
    };
    serve(Upgraded::new(Arc::clone(&registration.member), early));
}

fn speak_second(registration: &Registration<'_>, requests: &Rc<Requests>, first: Bytes) -> End {
    let busy = Rc::clone(&requests.busy);
    let link = Link::new(Arc::clone(&registration.member), first, false, busy);
    let mut protocol = Second::new(Io(Rc::clone(&link)), requests);
    drive(&mut protocol, &link, registration, requests, None)
}

/// Ends the connection towards the client.
fn finish(registration: &Registration<'_>, requests: &Requests, end: End) {
    let shared = &requests.shared;
    let stream = &registration.member.stream;
    let mut lingers = requests.is_unread.get();
    stream.never_wait();
    match end {
        End::Interrupted(error) => {
            log::debug!("weald-http: a connection: {error}");
            return;
        }
        End::Parks => return,
        End::Left => {
            log::debug!("weald-http: a client has gone before its answer");
            return;
        }
        End::Done(Ok(())) | End::Idle => {}
        End::Done(Err(error)) => {
            log::debug!("weald-http: a connection: {error:?}");
            if error.is_parse_too_large() {
                shared.complain("a request's head was too long");
            }
            if error.is_user() && stream.is_encrypted() {
                // An answer was broken off. The regular end of TLS would tell the client that the answer is complete.
                return;
            }
            // hyper has sent an answer about a parse error.
            lingers |= error.is_parse();
        }
        End::LateHead => {
            shared.complain("a request's head did not come in time");
            let text =
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            // The text is short, and nothing was sent before it. A client that does not take it at once does not get
            // it. HTTP/2 has no answer without a request.
            if stream.protocol().is_none_or(|name| name != b"h2") {
                let _ = stream.write(text);
            }
            lingers = true;
        }
        End::Stalled => {
            shared.complain("a client took nothing of its answer for too long");
            return;
        }
    }
    let _ = stream.flush();
    // The call fails if the client has closed first.
    let _ = stream.shutdown(Shutdown::Write);
    if lingers {
        linger(stream);
    }
}

/// Reads and drops what the client still sends.
fn linger(stream: &Stream) {
    let until = Instant::now() + LINGER_TIME;
    let mut bytes = [0; 4096];
    let mut count = 0;
    while count < LINGER {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        stream.wait(Some(left));
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(more) => count += more,
        }
    }
}

/// Refuses a connection whose address has as many connections as it may have.
fn refuse(stream: &Stream, shared: &Shared) {
    shared.complain("an address has as many connections as it may");
    if !stream.is_encrypted() {
        stream.never_wait();
        let text =
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let _: io::Result<usize> = stream.write(text);
        let _ = stream.shutdown(Shutdown::Write);
    }
}
