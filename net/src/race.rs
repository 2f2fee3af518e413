//! Connecting to a name that has several addresses: RFC 8305, "happy eyeballs".
//!
//! The addresses of both families take turns. An attempt begins when the one before it has failed or has taken
//! [`ATTEMPT_DELAY`]. The first attempt that succeeds wins and ends the others. Attempts are green threads; the
//! caller waits for their results.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::shim::sync::{Mutex, MutexGuard};
use weald_scheduler::GreenThread;
use weald_scheduler::io::{WaitQueue, Woken};

/// RFC 8305, section 8.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to the address that answers first.
pub(crate) fn race<T: Send + 'static>(
    addrs: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> io::Result<T> + Copy + Send + 'static,
) -> io::Result<T> {
    if let [addr] = addrs {
        return connect(*addr);
    }
    let race = Arc::new(Race {
        standing: Mutex::new(Standing {
            winner: None,
            failed: 0,
            error: None,
        }),
        news: WaitQueue::new(),
    });
    let mut attempts = Attempts(Vec::new());
    for addr in take_turns(addrs) {
        let attempt = Attempt {
            race: Some(Arc::clone(&race)),
        };
        let thread = weald_scheduler::spawn(move || attempt.report(connect(addr)));
        attempts.0.push(thread.thread().clone());
        let next = Instant::now() + ATTEMPT_DELAY;
        if let Some(winner) = race.wait(attempts.0.len(), Some(next))? {
            return Ok(winner);
        }
    }
    match race.wait(attempts.0.len(), None)? {
        Some(winner) => Ok(winner),
        None => Err(race
            .standing()
            .error
            .take()
            .unwrap_or_else(|| io::ErrorKind::InvalidInput.into())),
    }
}

struct Race<T> {
    standing: Mutex<Standing<T>>,
    news: WaitQueue,
}

struct Standing<T> {
    winner: Option<T>,
    failed: usize,
    /// The last error.
    error: Option<io::Error>,
}

impl<T> Race<T> {
    fn standing(&self) -> MutexGuard<'_, Standing<T>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the winner, until all attempts have failed, or until the deadline.
    fn wait(&self, attempts: usize, deadline: Option<Instant>) -> io::Result<Option<T>> {
        loop {
            {
                let mut standing = self.standing();
                if standing.winner.is_some() || standing.failed == attempts {
                    return Ok(standing.winner.take());
                }
            }
            let is_new = || {
                let standing = self.standing();
                standing.winner.is_some() || standing.failed == attempts
            };
            match self.news.wait(is_new, deadline, true) {
                Woken::TimedOut => return Ok(self.standing().winner.take()),
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
                Woken::Notified | Woken::Ready | Woken::Again => {}
            }
        }
    }
}

/// The attempts. They end when the race does.
struct Attempts(Vec<GreenThread>);

impl Drop for Attempts {
    fn drop(&mut self) {
        for attempt in &self.0 {
            attempt.kill();
        }
    }
}

/// An attempt. It reports once, also if its thread never runs or unwinds.
struct Attempt<T> {
    race: Option<Arc<Race<T>>>,
}

impl<T> Attempt<T> {
    fn report(mut self, result: io::Result<T>) {
        if let Some(race) = self.race.take() {
            race.add(result);
        }
    }
}

impl<T> Race<T> {
    fn add(&self, result: io::Result<T>) {
        let late = {
            let mut standing = self.standing();
            match result {
                Ok(connected) if standing.winner.is_none() => {
                    standing.winner = Some(connected);
                    None
                }
                Ok(connected) => Some(connected),
                Err(error) => {
                    standing.failed += 1;
                    standing.error = Some(error);
                    None
                }
            }
        };
        drop(late);
        self.news.wake_all();
    }
}

impl<T> Drop for Attempt<T> {
    fn drop(&mut self) {
        if let Some(race) = self.race.take() {
            race.add(Err(io::Error::other("the runtime has been shut down")));
        }
    }
}

/// Returns the addresses so that the families alternate, beginning with the first address's family. Each family keeps
/// its order. RFC 8305, section 4.
fn take_turns(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addrs.iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::with_capacity(addrs.len());
    while turns.len() < addrs.len() {
        turns.extend(first.next());
        turns.extend(second.next());
    }
    turns
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    use weald_scheduler::Runtime;

    use super::{ATTEMPT_DELAY, race, take_turns};

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 1))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 1))
    }

    fn on_runtime(check: impl FnOnce() + Send) {
        Runtime::builder().workers(1).build().unwrap().run(check);
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let mixed = [v6(1), v6(2), v6(3), v4(1), v4(2)];
        assert_eq!(take_turns(&mixed), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(take_turns(&[v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
        assert_eq!(take_turns(&[v4(1), v4(2)]), [v4(1), v4(2)]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn a_silent_address_is_overtaken_after_the_delay() {
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        struct Ends;
        impl Drop for Ends {
            fn drop(&mut self) {
                ENDED.fetch_add(1, SeqCst);
            }
        }
        on_runtime(|| {
            let begun = Instant::now();
            let winner = race(&[v6(1), v4(1)], |addr| {
                if addr.is_ipv6() {
                    let _ends = Ends;
                    weald_scheduler::sleep(Duration::MAX);
                }
                Ok(addr)
            });
            assert_eq!(winner.unwrap(), v4(1));
            assert!(begun.elapsed() >= ATTEMPT_DELAY);
            // The loser does not stay.
            while ENDED.load(SeqCst) == 0 {
                weald_scheduler::sleep(Duration::from_millis(1));
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn a_refusal_begins_the_next_attempt_at_once_and_the_last_error_is_told() {
        on_runtime(|| {
            let begun = Instant::now();
            let refuse = |addr: SocketAddr| match addr {
                SocketAddr::V4(_) => Ok(addr),
                SocketAddr::V6(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            };
            assert_eq!(race(&[v6(1), v4(1)], refuse).unwrap(), v4(1));
            assert!(begun.elapsed() < ATTEMPT_DELAY);
            let fail = |addr: SocketAddr| {
                let kind = if addr == v4(2) {
                    io::ErrorKind::HostUnreachable
                } else {
                    io::ErrorKind::ConnectionRefused
                };
                Err::<(), _>(kind.into())
            };
            let error = race(&[v4(1), v6(1), v4(2)], fail).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn an_interrupted_race_leaves_no_attempt_behind() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        struct Runs;
        impl Drop for Runs {
            fn drop(&mut self) {
                RUNNING.fetch_sub(1, SeqCst);
            }
        }
        on_runtime(|| {
            let limit = Duration::from_millis(20);
            let outcome = weald_scheduler::timeout(limit, || {
                race(&[v4(1), v6(1)], |_| {
                    RUNNING.fetch_add(1, SeqCst);
                    let _runs = Runs;
                    weald_scheduler::sleep(Duration::MAX);
                    Ok(())
                })
            });
            assert!(outcome.is_err());
            while RUNNING.load(SeqCst) > 0 {
                weald_scheduler::sleep(Duration::from_millis(1));
            }
        });
    }
}
