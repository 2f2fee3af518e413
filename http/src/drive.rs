//! The connection's green thread: polls hyper, and waits for what hyper waits for.
//!
//! | hyper's connection                      | the thread waits                                    |
//! |-----------------------------------------|-----------------------------------------------------|
//! | HTTP/1, no request open, nothing to send | inside of the next read, which hyper makes          |
//! | it wants to read or to write            | for the socket, or to be woken                      |
//! | it wants neither                        | to be woken: by a request's thread, or by the server |

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use weald_sync::select_parts::{Arm, Limit, PollArm, run};

use crate::io::{Link, Reads};
use crate::registry::Registration;
use crate::service::Requests;

/// An HTTP/1 connection without a request drops hyper's part after this time.
const PARK: Duration = Duration::from_secs(1);

/// How long a client of HTTP/2 may take to end a connection after the server has asked for the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// While a request of HTTP/1 is open, the connection looks this often if the client has gone. (With HTTP/2 hyper
/// reads meanwhile and sees it.) One poll(2) a second showed no cost in measurements.
const GONE: Duration = Duration::from_secs(1);

/// Longer than any connection: a year.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection of hyper's.
pub(crate) trait Protocol {
    const IS_FIRST: bool;
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>>;
    /// Makes the requests that are open the last ones.
    fn close(&mut self);
}

/// Why the thread no longer polls.
#[derive(Debug)]
pub(crate) enum End {
    /// hyper has finished.
    Done(hyper::Result<()>),
    /// There was no request, nor a part of one, for some time: hyper's part can be dropped.
    Parks,
    /// There was no request for too long.
    Idle,
    /// A head does not arrive completely.
    LateHead,
    /// The client takes no more of its answer.
    Stalled,
    /// The client has gone before its answer.
    Left,
    /// An exception has ended a wait, or the stream is broken.
    Interrupted(std::io::Error),
}

/// Polls until there is an end. `begun` is the time when the head began whose bytes hyper finds first.
pub(crate) fn drive<P: Protocol>(
    protocol: &mut P,
    link: &Rc<Link>,
    registration: &Registration<'_>,
    requests: &Requests,
    begun: Option<Instant>,
) -> End {
    let woke = &registration.member.woke;
    let waker = Waker::from(Arc::clone(woke));
    let mut context = Context::from_waker(&waker);
    let mut clocks = Clocks {
        begun,
        ..Clocks::default()
    };
    let mut reads = Reads::Auto;
    loop {
        // This poll sees all that happened before this line.
        woke.take();
        if registration.is_closing() && clocks.asked.is_none() {
            clocks.asked = Some(Instant::now());
            protocol.close();
        }
        let count = requests.count.get();
        link.reads.set(reads);
        let polled = protocol.poll(&mut context);
        if matches!(reads, Reads::Wait(_)) {
            // hyper may have made no read.
            registration.member.end_idle();
        }
        reads = Reads::Auto;
        if let Poll::Ready(result) = polled {
            return End::Done(result);
        }
        let is_idle = requests.busy.is_idle();
        let has_read = link.has_read.replace(false);
        if requests.count.get() != count || !is_idle {
            clocks.begun = None;
        } else if has_read {
            clocks.begun.get_or_insert(link.read_at.get());
        }
        let wants_read = link.wants_read.take();
        let wants_write = link.wants_write.take();
        if woke.take() {
            weald_scheduler::io::spend();
            continue;
        }
        let deadline = match clocks.look::<P>(link, requests, wants_write) {
            Look::Until(deadline) => deadline,
            Look::Ask => {
                clocks.asked = Some(Instant::now());
                protocol.close();
                continue;
            }
            Look::End(end) => return end,
        };
        if P::IS_FIRST && is_idle && wants_read && !wants_write {
            // Only a request or the end of the server can happen now.
            if clocks.begun.is_none() {
                registration.member.begin_idle();
                if registration.is_closing() {
                    registration.member.end_idle();
                    continue;
                }
            }
            reads = Reads::Wait(deadline);
            continue;
        }
        if let Err(error) = wait(link, registration, wants_read, wants_write, deadline) {
            return End::Interrupted(error);
        }
        if wants_read {
            reads = Reads::Try;
        }
    }
}

/// Since when each state has lasted.
#[derive(Debug, Default)]
struct Clocks {
    /// A part of a head has come.
    begun: Option<Instant>,
    /// hyper could not write.
    stuck: Option<Instant>,
    /// Only the client can make progress with the open streams.
    waits_for_client: Option<Instant>,
    /// The connection was asked to end.
    asked: Option<Instant>,
    /// When to look next if the client has gone.
    due: Option<Instant>,
    /// The last request has its answer, but its body is still being read.
    is_reading: bool,
}

/// What the clocks say.
enum Look {
    Until(Instant),
    /// Ask the connection to end.
    Ask,
    End(End),
}

impl Clocks {
    fn look<P: Protocol>(&mut self, link: &Link, requests: &Requests, wants_write: bool) -> Look {
        let limits = &requests.shared.limits;
        let now = Instant::now();
        // A time so far away that it means never.
        let at = |from: Instant, limit: Duration| from.checked_add(limit).unwrap_or(now + NEVER);
        let is_idle = requests.busy.is_idle();
        // If a body is being read, its reader has limits of its own.
        let waits = !P::IS_FIRST
            && requests.busy.open.get() > 0
            && requests.handlers.live() == 0
            && !requests.busy.held.is_some();
        self.stuck = wants_write.then(|| self.stuck.unwrap_or(now));
        self.waits_for_client = waits.then(|| self.waits_for_client.unwrap_or(now));
        let mut deadline = now + NEVER;
        let stuck = self.stuck.map(|since| since.max(link.wrote_at.get()));
        // Not every write counts: the answer to a ping moves no stream.
        let waits = self
            .waits_for_client
            .map(|since| since.max(requests.moved_at.get()));
        for since in stuck.into_iter().chain(waits) {
            let until = at(since, limits.write_time);
            if now >= until {
                return Look::End(End::Stalled);
            }
            deadline = deadline.min(until);
        }
        if !is_idle {
            if requests.busy.open.get() == 0 {
                // A body that is being read counts as its request.
                self.is_reading = true;
            }
            if P::IS_FIRST {
                let due = *self.due.get_or_insert(now + GONE);
                if now >= due {
                    match link.member.stream.has_left(requests.shared.half_close) {
                        Ok(false) => self.due = Some(now + GONE),
                        Ok(true) => return Look::End(End::Left),
                        Err(error) => return Look::End(End::Interrupted(error)),
                    }
                }
                deadline = deadline.min(self.due.unwrap_or(deadline));
            }
            return Look::Until(deadline);
        }
        if std::mem::take(&mut self.is_reading) {
            requests.idle_since.set(now);
        }
        if wants_write {
            // The client still takes its answer, so the connection is neither idle nor late.
            if P::IS_FIRST {
                requests.idle_since.set(now);
                self.begun = self.begun.map(|_| now);
            }
            return Look::Until(deadline);
        }
        let since = requests.idle_since.get();
        let until = match (self.asked, self.begun) {
            (Some(asked), _) if !P::IS_FIRST => {
                // The last bytes of the last answers may still be on their way. Pings do not prolong the connection.
                let since = asked.max(since);
                let progress = since.max(link.wrote_at.get());
                at(progress, FAREWELL).min(at(since, limits.write_time.max(FAREWELL)))
            }
            (_, Some(begun)) if P::IS_FIRST => at(begun, limits.head_time),
            _ => at(since, limits.keep_alive),
        };
        if now >= until {
            return match (P::IS_FIRST, self.begun) {
                (true, Some(_)) => Look::End(End::LateHead),
                // hyper may have read a part of a head together with the request before. That shows when hyper's part
                // is dropped.
                (true, None) if self.asked.is_none() => Look::End(End::Parks),
                (false, _) if self.asked.is_none() => Look::Ask,
                _ => Look::End(End::Idle),
            };
        }
        deadline = deadline.min(until);
        if P::IS_FIRST && self.begun.is_none() {
            let parks = at(since, PARK);
            if now >= parks {
                return Look::End(End::Parks);
            }
            deadline = deadline.min(parks);
        }
        Look::Until(deadline)
    }
}

/// Waits until hyper is worth another poll, or until the deadline.
fn wait(
    link: &Link,
    registration: &Registration<'_>,
    wants_read: bool,
    wants_write: bool,
    deadline: Instant,
) -> std::io::Result<()> {
    let woke = &*registration.member.woke;
    if !wants_read && !wants_write {
        return woke.wait(Some(deadline)).map(drop);
    }
    let socket = link.member.stream.pollable();
    let mut woken = PollArm::new(woke, false);
    let mut readable = PollArm::new(socket, false);
    let mut writable = PollArm::new(socket, true);
    let mut arms: [&mut dyn Arm; 3] = [&mut woken, &mut readable, &mut writable];
    let limit = Limit::Until(Some(deadline));
    match (wants_read, wants_write) {
        (true, true) => run(&mut arms, limit),
        (true, false) => run(&mut arms[..2], limit),
        (false, _) => {
            arms.swap(1, 2);
            run(&mut arms[..2], limit)
        }
    };
    Ok(())
}
