//! The operations: each takes what it needs from the world, may be interrupted anywhere, and counts what it has done.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use weald::net::TcpStream;
use weald::net::unix::UnixStream;
use weald::sync::{MutexGuard, Promise, TryLockError, oneshot};

use super::actor::{Actor, Mark, spin};
use super::counted::{Account, Message, Ticket, UnderWay};
use super::random::Random;
use super::world::World;

const MAILBOX: usize = 100;
const UNBOUNDED: usize = 1000;

/// Undoes something, also when an exception unwinds.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(crate) fn permit(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let permits = actor.random.pick(&world.permits);
    let permit = match actor.random.below(3) {
        0 => Some(permits.semaphore.acquire()),
        1 => permits.semaphore.acquire_timeout(actor.random.micros(3000)),
        _ => permits.semaphore.try_acquire(),
    };
    if permit.is_none() {
        return;
    }
    if permits.held.fetch_add(1, SeqCst) >= permits.size {
        world.fault(format!("more than {} permits are held", permits.size));
    }
    let _given_back = OnDrop(|| {
        permits.held.fetch_sub(1, SeqCst);
    });
    actor.hold();
}

/// Locks an account, if that was possible in time.
fn locked<'a>(actor: &mut Actor, account: &'a Account) -> Option<MutexGuard<'a, i64>> {
    let guard = match actor.random.below(3) {
        0 => account.money.try_lock_for(actor.random.micros(3000)),
        1 => account.money.try_lock(),
        _ => Ok(account.money.lock().unwrap_or_else(PoisonError::into_inner)),
    };
    let guard = match guard {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    if account.taken.swap(true, SeqCst) {
        actor.world.fault("two hold one mutex".to_owned());
    }
    Some(guard)
}

fn gives_back(taken: &AtomicBool) -> OnDrop<impl FnMut()> {
    OnDrop(|| taken.store(false, SeqCst))
}

pub(crate) fn transfer(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let (a, b) = (
        actor.random.index(world.accounts.len()),
        actor.random.index(world.accounts.len()),
    );
    // Locks are taken in the order of their numbers, so that two transfers never wait for each other.
    let (first, second) = (&world.accounts[a.min(b)], &world.accounts[a.max(b)]);
    let Some(mut from) = locked(actor, first) else {
        return;
    };
    let _first = gives_back(&first.taken);
    actor.hold();
    if a == b {
        return;
    }
    let Some(mut to) = locked(actor, second) else {
        return;
    };
    let _second = gives_back(&second.taken);
    actor.hold();
    let amount = i64::try_from(actor.random.below(100)).unwrap_or(0);
    *from -= amount;
    *to += amount;
}

pub(crate) fn table(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    if !actor.random.one_in(4) {
        let table = if actor.random.one_in(2) {
            Ok(world.table.read().unwrap_or_else(PoisonError::into_inner))
        } else {
            world.table.try_read_for(actor.random.micros(3000))
        };
        let table = match table {
            Ok(table) => table,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if world.inside_table.fetch_add(1, SeqCst) < 0 || table.0 != table.1 {
            world.fault("a reader is beside a writer".to_owned());
        }
        let _left = OnDrop(|| {
            world.inside_table.fetch_sub(1, SeqCst);
        });
        actor.hold();
        return;
    }
    let mut table = world.table.write().unwrap_or_else(PoisonError::into_inner);
    if world.inside_table.swap(-1, SeqCst) != 0 {
        world.fault("a writer is beside others".to_owned());
    }
    let _left = OnDrop(|| world.inside_table.store(0, SeqCst));
    table.0 += 1;
    table.1 += 1;
    actor.hold();
}

pub(crate) fn send(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let (sender, _) = actor.random.pick(&world.channels);
    if sender.capacity().is_none() && sender.len() > UNBOUNDED {
        return;
    }
    let message = Message::new(&world);
    let limit = actor.random.micros(5000);
    let was_sent = match actor.random.below(3) {
        0 => sender.try_send(message).is_ok(),
        1 => sender.send_timeout(message, limit).is_ok(),
        _ => {
            let (other, _) = actor.random.pick(&world.channels[..5]);
            weald::select! {
                send(sender, message) -> sent => sent.is_ok(),
                send(other, Message::new(&world)) -> sent => sent.is_ok(),
                default(limit) => false,
            }
        }
    };
    if was_sent {
        world.counts.sent.fetch_add(1, SeqCst);
    }
}

pub(crate) fn receive(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let (_, receiver) = actor.random.pick(&world.channels);
    let limit = actor.random.micros(5000);
    let message = match actor.random.below(3) {
        0 => receiver.try_recv().ok(),
        1 => receiver.recv_timeout(limit).ok(),
        _ => {
            let (_, other) = actor.random.pick(&world.channels);
            let (sender, _) = actor.random.pick(&world.channels[..2]);
            weald::select! {
                recv(receiver) -> message => message.ok(),
                recv(other) -> message => message.ok(),
                send(sender, Message::new(&world)) -> sent => {
                    if sent.is_ok() {
                        world.counts.sent.fetch_add(1, SeqCst);
                    }
                    None
                }
                default(limit) => None,
            }
        }
    };
    if message.is_some() {
        world.counts.received.fetch_add(1, SeqCst);
    }
}

pub(crate) fn mailbox(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let (letters, filled) = &world.mailbox;
    let mut letters = letters.lock().unwrap_or_else(PoisonError::into_inner);
    if actor.random.one_in(2) {
        if letters.len() < MAILBOX {
            letters.push_back(Message::new(&world));
            drop(letters);
            filled.notify_one();
        }
        return;
    }
    let limit = actor.random.micros(5000);
    let waited = filled.wait_timeout_while(letters, limit, |letters| letters.is_empty());
    let (mut letters, _) = waited.unwrap_or_else(PoisonError::into_inner);
    drop(letters.pop_front());
}

/// A child that does something of its own; the operation lasts until it has ended.
fn child(world: &Arc<World>, body: impl FnOnce() + Send + 'static) -> weald::JoinHandle<()> {
    let kept: (Ticket, UnderWay) = (Ticket::new(world, None), world.begin());
    weald::spawn(move || {
        let _kept = kept;
        body();
    })
}

/// Waits without a limit for a child that answers, unless it is killed.
pub(crate) fn exchange(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let pause = actor.random.micros(2000);
    let message = Message::new(&world);
    let (sender, receiver) = oneshot::channel();
    let promise = Arc::new(Promise::new());
    let kept = Arc::clone(&promise);
    // Dropped with the closure, also if the child is killed before it starts, so nobody waits in vain.
    let fails = OnDrop(move || {
        kept.fail("the child was killed");
    });
    let sets = Arc::clone(&promise);
    let by_promise = actor.random.one_in(2);
    let thread = child(&world, move || {
        let _fails = fails;
        if pause > Duration::from_millis(1) {
            weald::sleep(pause);
        }
        if by_promise {
            let _first = sets.set(Arc::new(message));
        } else {
            let _heard = sender.send(message);
        }
    });
    if actor.random.one_in(8) {
        thread.thread().kill();
    }
    if actor.random.one_in(4) {
        weald::select! { join(&thread) -> _ => {} }
    } else if by_promise {
        drop(promise.wait());
    } else {
        drop(receiver.recv());
    }
    if !actor.random.one_in(4) {
        world.bury(Some(thread));
    }
}

/// A call later, cancelled or not.
pub(crate) fn call_later(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let cancelled = Arc::new(AtomicBool::new(false));
    let call = Call {
        world: Arc::clone(&world),
        _under_way: world.begin(),
        has_run: false,
        cancelled: Arc::clone(&cancelled),
    };
    world.counts.timers_set.fetch_add(1, SeqCst);
    let delay = actor.random.micros(10_000);
    let timer = if actor.random.one_in(4) {
        weald::call_after_local(delay, move || call.run())
    } else {
        weald::call_after(delay, move || call.run())
    };
    actor.hold();
    if actor.random.one_in(2) && timer.cancel() {
        cancelled.store(true, SeqCst);
    }
}

/// The closure of a later call. It counts whether it ran.
struct Call {
    world: Arc<World>,
    _under_way: UnderWay,
    has_run: bool,
    cancelled: Arc<AtomicBool>,
}

impl Call {
    fn run(mut self) {
        self.has_run = true;
        self.world.counts.timers_fired.fetch_add(1, SeqCst);
        weald::yield_now();
        if self.cancelled.load(SeqCst) {
            self.world.fault("a call that was cancelled ran".to_owned());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.has_run {
            self.world.counts.timers_cancelled.fetch_add(1, SeqCst);
        }
    }
}

/// A scope or a pool of children that borrow, count themselves and do something plain.
pub(crate) fn family(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let ended = AtomicUsize::new(0);
    let seeds: Vec<u64> = (0..4).map(|_| actor.random.next()).collect();
    // Nobody kills these children. What interrupts the parent waits until they have ended.
    weald::scope(|scope| {
        for seed in &seeds {
            let (world, ended) = (&world, &ended);
            let ticket = Ticket::new(world, None);
            scope.spawn(move || {
                let _ticket = ticket;
                let mut helper = Actor {
                    world: Arc::clone(world),
                    random: Random::new(*seed),
                };
                helper.hold();
                permit(&mut helper);
                ended.fetch_add(1, SeqCst);
            });
        }
    });
    if ended.load(SeqCst) != seeds.len() {
        world.fault("a scope ended before its children".to_owned());
    }
}

/// A child whose destructor waits, mostly while a kill or an exception unwinds.
pub(crate) fn leave_will(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let (seed, pause) = (actor.random.next(), actor.random.micros(2000));
    let heir = Arc::clone(&world);
    let thread = child(&world, move || {
        let _will = OnDrop(move || {
            heir.counts.wills.fetch_add(1, SeqCst);
            // If nothing unwinds, an exception may cut it short.
            let _done = OnDrop(|| {
                heir.counts.wills_done.fetch_add(1, SeqCst);
            });
            let unwinds = std::thread::panicking();
            let mut helper = Actor {
                world: Arc::clone(&heir),
                random: Random::new(seed),
            };
            helper.hold();
            permit(&mut helper);
            transfer(&mut helper);
            weald::sleep(helper.random.micros(1000));
            if std::thread::panicking() != unwinds {
                let what = "a thread that waited has lost or found a panic";
                heir.fault(what.to_owned());
            }
        });
        weald::sleep(pause);
    });
    match actor.random.below(4) {
        0 => {}
        1 => thread.thread().throw(Mark(0)),
        _ => thread.thread().kill(),
    }
    if !actor.random.one_in(4) {
        world.bury(Some(thread));
    }
}

/// Starts a crew of hundreds of threads that block their OS threads without saying so; a few of them compute. There
/// is one crew at a time, and not often, as each of its threads needs an OS thread.
pub(crate) fn raise_hogs(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    if !actor.random.one_in(20) || world.has_hogs.swap(true, SeqCst) {
        return;
    }
    let there = Arc::clone(&world);
    let last = Arc::new(OnDrop(move || there.has_hogs.store(false, SeqCst)));
    for _ in 0..100 + actor.random.below(200) {
        world.counts.hogs.fetch_add(1, SeqCst);
        let (last, leaves) = (Arc::clone(&last), Arc::clone(&world));
        // This belongs to the closure, also if the hog is killed before it starts.
        let gone = OnDrop(move || {
            leaves.counts.hogs_gone.fetch_add(1, SeqCst);
        });
        let (blocks, time) = (!actor.random.one_in(50), actor.random.micros(20_000));
        let hog = child(&world, move || {
            let _counted = (last, gone);
            if blocks {
                std::thread::sleep(time);
            } else {
                spin(time);
            }
        });
        if actor.random.one_in(8) {
            hog.thread().kill();
        }
    }
}

/// Sends bytes to the echo server and compares what comes back.
pub(crate) fn talk_tcp(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let Some(_line) = world.lines.acquire_timeout(actor.random.micros(5000)) else {
        return;
    };
    let limit = actor.random.micros(20_000);
    // An error, a limit and an exception all mean the same here: the connection is over.
    let _talked = weald::timeout(limit, || talk(actor));
}

fn talk(actor: &mut Actor) -> io::Result<()> {
    let mut stream = TcpStream::connect(actor.world.echo_at)?;
    for _ in 0..actor.random.below(4) {
        let sent = bytes(&mut actor.random, 4096);
        let mut came = vec![0; sent.len()];
        stream.write_all(&sent)?;
        actor.hold();
        stream.read_exact(&mut came)?;
        if sent != came {
            actor.world.fault("the echo differs".to_owned());
        }
        actor
            .world
            .counts
            .echoed
            .fetch_add(sent.len() as u64, SeqCst);
    }
    if actor.random.one_in(2) {
        stream.shutdown(Shutdown::Both)?;
    }
    Ok(())
}

fn bytes(random: &mut Random, most: usize) -> Vec<u8> {
    let len = random.index(most);
    (0..len).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// A child writes, the parent reads; one of them may shut the socket under the other.
pub(crate) fn talk_unix(actor: &mut Actor) {
    let world = Arc::clone(&actor.world);
    let Some(line) = world.lines.acquire_timeout(actor.random.micros(5000)) else {
        return;
    };
    let Ok((mut near, mut far)) = UnixStream::pair() else {
        return world.fault("there are no descriptors".to_owned());
    };
    let sent = Arc::new(bytes(&mut actor.random, 100_000));
    let (whole, shuts) = (Arc::clone(&sent), actor.random.one_in(4));
    let writer = child(&world, move || {
        let half = whole.len() / 2;
        let written = far.write_all(&whole[..half]);
        if shuts {
            let _ = far.shutdown(Shutdown::Both);
        } else if written.is_ok() {
            let _ = far.write_all(&whole[half..]);
        }
    });
    let mut came = Vec::new();
    let outcome = near.read_to_end(&mut came);
    drop(line);
    if !sent.starts_with(&came) {
        world.fault("what was read is not what was written".to_owned());
    }
    if outcome.is_err() {
        writer.thread().kill();
    }
    world.counts.echoed.fetch_add(came.len() as u64, SeqCst);
    drop(near);
    world.bury(Some(writer));
}
