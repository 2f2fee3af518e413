//! What the crowd competes for, and the counters that must agree when no operation is under way.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use weald::net::ServerHandle;
use weald::sync::channel::{bounded, unbounded};
use weald::sync::{Condvar, Mutex, RwLock, Semaphore};
use weald::{Exception, JoinHandle, Killed, Runtime};

use super::Options;
use super::actor::{self, Mark};
use super::counted::{Account, Counts, Ends, Gate, Handler, Message, Permits, Ticket, UnderWay};
use super::random::Random;

/// Everything that an actor begins ends much sooner. If nothing at all has ended or happened for this long, something
/// hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// In that time there must also have been this many looks, so that it was not the machine that stood still.
const LOOKS: u32 = 10_000;
/// An operation that still goes on after this time never ends.
const LONGEST: Duration = Duration::from_secs(1200);
/// What each account holds at first.
pub(crate) const BALANCE: i64 = 1000;
const GARDENERS: usize = 2;

pub(crate) struct World {
    pub(crate) counts: Counts,
    pub(crate) gate: Gate,
    pub(crate) permits: Vec<Permits>,
    /// This never has a permit.
    pub(crate) no_permits: Semaphore,
    pub(crate) accounts: Vec<Account>,
    /// Two numbers that are always equal, and who is inside: the number of readers, or -1 for a writer.
    pub(crate) table: RwLock<(u64, u64)>,
    pub(crate) inside_table: AtomicI64,
    pub(crate) channels: Vec<Ends>,
    pub(crate) mailbox: (Mutex<VecDeque<Message>>, Condvar),
    /// Permits for connections.
    pub(crate) lines: Semaphore,
    pub(crate) echo_at: SocketAddr,
    pub(crate) ends: AtomicBool,
    /// A crew of hogs is under way.
    pub(crate) has_hogs: AtomicBool,
    pub(crate) seats: Vec<StdMutex<Option<JoinHandle<()>>>>,
    /// For each seat, the operation that its thread is in.
    pub(crate) doing: Vec<AtomicUsize>,
    pub(crate) mean_pause: Duration,
    seed: u64,
    pub(crate) free: StdMutex<Vec<usize>>,
    faults: StdMutex<Vec<String>>,
    server: StdMutex<Option<ServerHandle>>,
    gardeners: StdMutex<Vec<JoinHandle<()>>>,
}

/// A lock that is held for a few instructions and never over a blocking call.
pub(crate) fn lock<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(options: &Options) -> io::Result<Arc<Self>> {
        let listener = weald::tcp_listener("127.0.0.1:0")?;
        let echo_at = listener.local_addr()?;
        let permits = [1, 3, 16, 500].map(|size| Permits {
            semaphore: Semaphore::new(size),
            size,
            held: AtomicUsize::new(0),
        });
        let account = |_| Account {
            money: Mutex::new(BALANCE),
            taken: AtomicBool::new(false),
        };
        let mut channels: Vec<Ends> = [0, 0, 1, 1, 4, 64].map(bounded).into();
        channels.push(unbounded());
        let mean_pause = options.threads as u64 * 1_000_000 / options.rate;
        let world = Arc::new(Self {
            counts: Counts::default(),
            gate: Gate::default(),
            permits: permits.into(),
            no_permits: Semaphore::new(0),
            accounts: (0..32).map(account).collect(),
            table: RwLock::default(),
            inside_table: AtomicI64::new(0),
            channels,
            mailbox: Default::default(),
            lines: Semaphore::new(200),
            echo_at,
            ends: AtomicBool::new(false),
            has_hogs: AtomicBool::new(false),
            seats: (0..options.threads).map(|_| StdMutex::new(None)).collect(),
            doing: (0..options.threads).map(|_| AtomicUsize::new(0)).collect(),
            mean_pause: Duration::from_micros(mean_pause),
            seed: options.seed,
            free: StdMutex::new((0..options.threads).collect()),
            faults: StdMutex::default(),
            server: StdMutex::new(None),
            gardeners: StdMutex::default(),
        });
        // The handlers hold only a weak reference to the world, or the server and the world would keep each other
        // alive.
        let knows = Arc::downgrade(&world);
        let server = weald::tcp_server(listener, move |mut stream, _| {
            let Some(world) = knows.upgrade() else { return };
            let _counted = Handler::new(&world);
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
        *lock(&world.server) = Some(server);
        Ok(world)
    }

    /// Begins an operation, as soon as the gate is open; a blocking call.
    pub(crate) fn enter(self: &Arc<Self>) -> UnderWay {
        loop {
            let entered = self.begin();
            if !self.gate.shut.load(SeqCst) {
                return entered;
            }
            drop(entered);
            self.gate.opened.wait();
        }
    }

    /// Begins a part of an operation that is under way. The part may outlive the operation.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.gate.under_way.fetch_add(1, SeqCst);
        UnderWay(Arc::clone(self))
    }

    /// Fills the seats, and keeps them filled.
    pub(crate) fn populate(self: &Arc<Self>) {
        self.fill_seats();
        let gardener = |_| {
            let ticket = Ticket::new(self, None);
            weald::spawn(move || {
                while !ticket.world.ends.load(SeqCst) {
                    weald::sleep(Duration::from_millis(5));
                    let _under_way = ticket.world.enter();
                    ticket.world.fill_seats();
                }
            })
        };
        *lock(&self.gardeners) = (0..GARDENERS).map(gardener).collect();
    }

    fn fill_seats(self: &Arc<Self>) {
        while !self.ends.load(SeqCst) {
            let Some(slot) = lock(&self.free).pop() else {
                return;
            };
            let last = lock(&self.seats[slot]).take();
            self.bury(last);
            self.doing[slot].store(0, SeqCst);
            let random =
                Random::new(self.seed ^ Random::new(self.counts.spawned.load(SeqCst)).next());
            let ticket = Ticket::new(self, Some(slot));
            let thread = weald::spawn(move || actor::live(&ticket, slot, random));
            *lock(&self.seats[slot]) = Some(thread);
        }
    }

    /// Counts how a thread has ended.
    pub(crate) fn bury(&self, thread: Option<JoinHandle<()>>) {
        let Some(thread) = thread else { return };
        let counter = match thread.join() {
            Ok(()) => &self.counts.returned,
            Err(payload) => match payload.downcast_ref::<Exception>() {
                Some(exception) if exception.downcast_ref::<Killed>().is_some() => {
                    &self.counts.killed
                }
                Some(exception) if exception.downcast_ref::<Mark>().is_some() => {
                    &self.counts.marked
                }
                Some(exception) => return self.fault(format!("a thread ended by {exception:?}")),
                None => {
                    let text = payload.downcast_ref::<String>().cloned();
                    let text =
                        text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
                    return self.fault(format!("a thread panicked: {text:?}"));
                }
            },
        };
        counter.fetch_add(1, SeqCst);
    }

    /// Notes a fault. The next count reports it.
    pub(crate) fn fault(&self, what: String) {
        lock(&self.faults).push(what);
    }

    /// Ends all actors. An OS thread must call it, as nobody can kill an OS thread.
    pub(crate) fn end(self: &Arc<Self>) {
        self.ends.store(true, SeqCst);
        self.gate.open();
        for gardener in lock(&self.gardeners).drain(..) {
            self.bury(Some(gardener));
        }
        for seat in &self.seats {
            let last = lock(seat).take();
            if let Some(thread) = &last {
                thread.thread().kill();
            }
            self.bury(last);
        }
    }

    /// Takes the messages that are left in the channels, and stops the server. Call it when all clients have ended.
    pub(crate) fn close(&self, rt: &Runtime) -> Result<(), String> {
        for (_, receiver) in &self.channels {
            while receiver.try_recv().is_ok() {
                self.counts.received.fetch_add(1, SeqCst);
            }
        }
        self.mailbox
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let no_handlers = || self.counts.handlers.load(SeqCst) == 0;
        let server = lock(&self.server).take();
        if !self.eventually(rt, no_handlers) || !server.is_none_or(|it| it.shutdown(PATIENCE)) {
            return Err("a connection outlived its client".to_owned());
        }
        Ok(())
    }

    pub(crate) fn channels_left(&self) -> usize {
        self.channels
            .iter()
            .map(|(_, receiver)| receiver.len())
            .sum()
    }

    /// Waits until all that was begun has ended, then compares.
    pub(crate) fn count(&self, rt: &Runtime) -> Result<(), String> {
        if !self.eventually(rt, || self.gate.is_quiet()) {
            return Err(self.tell_who_is_stuck());
        }
        let counts = &self.counts;
        let of = |counter: &AtomicU64| counter.load(SeqCst);
        let mut wrong = String::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                let _ = writeln!(wrong, "does not hold: {what}");
            }
        };
        for permits in &self.permits {
            check(
                permits.semaphore.available_permits() == permits.size,
                "all permits are back",
            );
        }
        check(
            self.lines.available_permits() == 200,
            "all permits for connections are back",
        );
        let moneys = self
            .accounts
            .iter()
            .map(|account| match account.money.try_lock() {
                Ok(money) => *money,
                Err(weald::sync::TryLockError::Poisoned(money)) => *money.into_inner(),
                Err(weald::sync::TryLockError::WouldBlock) => i64::MIN / 64,
            });
        check(
            moneys.sum::<i64>() == BALANCE * 32,
            "no mutex is locked and no money is lost",
        );
        let table = self.table.try_write().map(|table| *table);
        check(
            !matches!(table, Err(weald::sync::TryLockError::WouldBlock)),
            "the table is unlocked",
        );
        let in_box = match self.mailbox.0.try_lock() {
            Ok(letters) => letters.len(),
            Err(weald::sync::TryLockError::Poisoned(letters)) => letters.into_inner().len(),
            Err(weald::sync::TryLockError::WouldBlock) => usize::MAX / 2,
        };
        let waiting = self.channels_left() as u64;
        check(
            of(&counts.sent) == of(&counts.received) + waiting,
            "sent = received + waiting",
        );
        check(
            of(&counts.made) == of(&counts.dropped) + waiting + in_box as u64,
            "made = dropped + waiting",
        );
        check(
            of(&counts.timers_set) == of(&counts.timers_fired) + of(&counts.timers_cancelled),
            "timers set = fired + cancelled",
        );
        check(
            of(&counts.wills) == of(&counts.wills_done),
            "destructors that wait: begun = ended",
        );
        check(
            of(&counts.hogs) == of(&counts.hogs_gone),
            "hogs: raised = gone",
        );
        // Besides the crowd there are the server and the counting thread. The last steps of a thread's end belong to
        // the scheduler.
        let besides = 2;
        let all_known = || {
            let live = of(&counts.spawned) - of(&counts.ended) + of(&counts.handlers) + besides;
            rt.metrics().live as u64 == live
        };
        check(self.eventually(rt, all_known), "spawned = ended + live");
        if !wrong.is_empty() {
            let _ = writeln!(wrong, "{counts:#?}\n{:#?}", rt.metrics());
        }
        for fault in lock(&self.faults).drain(..) {
            let _ = writeln!(wrong, "{fault}");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Waits until `holds` returns true. Returns false if that does not happen.
    fn eventually(&self, rt: &Runtime, holds: impl Fn() -> bool) -> bool {
        let progress = || {
            let (sum, live) = (self.counts.sum(), rt.metrics().live);
            (sum, live, self.gate.under_way.load(SeqCst))
        };
        let begun = Instant::now();
        let (mut seen, mut since, mut looks) = (progress(), begun, 0);
        while !holds() {
            weald::sleep(Duration::from_millis(1));
            looks += 1;
            let now = progress();
            if now != seen {
                (seen, since, looks) = (now, Instant::now(), 0);
            }
            let stands_still = looks >= LOOKS && since.elapsed() > PATIENCE;
            if stands_still || begun.elapsed() > LONGEST {
                return false;
            }
        }
        true
    }

    fn tell_who_is_stuck(&self) -> String {
        let mut text = String::from("these do not end:\n");
        let dump = weald::dump();
        let mut told = 0;
        for (slot, doing) in self.doing.iter().enumerate() {
            let what = doing.load(SeqCst);
            let id = lock(&self.seats[slot])
                .as_ref()
                .map(|seat| seat.thread().id());
            if what == 0 || told == 20 {
                continue;
            }
            told += 1;
            let _ = writeln!(text, "{}", actor::NAMES[what - 1]);
            for thread in dump.threads.iter().filter(|thread| Some(thread.id) == id) {
                let _ = writeln!(
                    text,
                    "{:?} {} {:?}\n{}",
                    thread.id, thread.doing, thread.waited, thread.trace
                );
            }
        }
        // Those that have no seat, too.
        let _ = writeln!(text, "{dump}");
        let _ = writeln!(text, "{:#?}", self.counts);
        text
    }

    pub(crate) fn summary(&self) -> String {
        let counts = &self.counts;
        let of = |counter: &AtomicU64| counter.load(SeqCst);
        format!(
            "{} spawned, {} killed, {} by exceptions, {} returned, {} messages, {} timers, {} bytes echoed, \
             {} destructors that wait, {} hogs",
            of(&counts.spawned),
            of(&counts.killed),
            of(&counts.marked),
            of(&counts.returned),
            of(&counts.received),
            of(&counts.timers_set),
            of(&counts.echoed),
            of(&counts.wills),
            of(&counts.hogs),
        )
    }
}
