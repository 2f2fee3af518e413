//! What a worker sleeps in and hears of descriptors from: one per worker, over mio.
//!
//! Descriptors are registered once, edge-triggered, for both directions; an event names an
//! [`EventSlot`] by address and generation, so one that is handled late, when the slot belongs to
//! another descriptor, is dropped by the slot. `Poll` and the event buffer lie behind a try-lock
//! that the owner's sleep holds; anybody else may drain the poller of a worker that is late (an
//! *adopter*, with a small buffer of its own).
//!
//! | wake word | meaning                     | leaves by                                   |
//! |-----------|-----------------------------|---------------------------------------------|
//! | EMPTY     | awake, nothing to tell      | `unpark` -> NOTIFIED, `sleep` -> ASLEEP     |
//! | NOTIFIED  | something to look at        | `sleep`, which then only polls -> EMPTY     |
//! | ASLEEP    | in the poller or on the way | `unpark` -> NOTIFIED and writes; waking up  |
//!
//! Invariant 1: a wake-up is never lost: `unpark` swaps NOTIFIED in after what it announces was
//! written; the sleeper takes it out by a swap, before it looks.
//! Invariant 2: at most one write per sleep: only the swap that finds ASLEEP writes.
//! Invariant 3: an adopter that meets the wake-up event writes it again: it was for the owner.
//!
//! mio waits in whole milliseconds, rounded up. A sleep whose deadline is under [`FINE`] away is
//! ended by a timerfd instead, one per poller, if the system gives one.
//! Checked by `loom-tests/tests/parker.rs` with a double of the waiting.
#![allow(
    unsafe_code,
    reason = "event slots by address, a try-lock around mio's poll, timerfd"
)]

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

#[cfg(not(loom))]
use crate::shim::atomic::AtomicUsize;
use crate::shim::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::sync::Mutex;

const EMPTY: u64 = 0;
const NOTIFIED: u64 = 1;
const ASLEEP: u64 = 2;

/// Sleeps that end sooner than this are timed by the timerfd: mio may be a millisecond late, and
/// beyond this that is less than a quarter of the sleep.
const FINE: Duration = Duration::from_millis(4);

/// Events that the owner takes at once; Go takes 128, tokio 1024. No more than what is touched in handing
/// them on stays in the cache until the last of the woken threads runs.
const BATCH: usize = 64;
/// Events that an adopter takes at once: what it holds nobody else can ready.
const ADOPTED_BATCH: usize = 16;

/// Room for so many registered descriptors is kept.
const LEAST_ROOM: usize = 1024;

const WAKE: usize = 0;
const TIMER: usize = 1;

/// What was told of a descriptor: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness(pub u8);

impl Readiness {
    /// Reading may succeed.
    pub const READABLE: u8 = 1;
    /// Writing may succeed.
    pub const WRITABLE: u8 = 2;
    /// The peer will send no more.
    pub const READ_CLOSED: u8 = 4;
    /// The peer takes no more.
    pub const WRITE_CLOSED: u8 = 8;
    /// An error is pending.
    pub const ERROR: u8 = 16;
    /// Out-of-band data.
    pub const PRIORITY: u8 = 32;
    /// The poller closes: register with another.
    pub const CLOSED: u8 = 64;
    /// Everything: look yourself. What a poller that closes says.
    pub const ALL: u8 = 127;
}

/// Where the events of a descriptor go. Slots live for ever; their generation tells their users
/// apart.
#[derive(Debug)]
#[repr(C, align(8))]
pub struct EventSlot {
    /// Called with the slot, the generation at registration, and what was told.
    pub on_event: fn(&'static EventSlot, u16, Readiness),
}

/// Counts tokens: the kernel hands one on only after it was given it, which ThreadSanitizer does not see.
#[cfg(all(weald_sanitizer = "thread", not(loom)))]
static TOKENS: AtomicUsize = AtomicUsize::new(0);

/// The token of a slot and its generation: an address has 48 bits here.
fn token(slot: &'static EventSlot, generation: u16) -> usize {
    let address = std::ptr::from_ref(slot) as usize;
    debug_assert_eq!(address >> 48, 0, "user addresses have 48 bits");
    // Pairs with the load in `dispatch`.
    #[cfg(all(weald_sanitizer = "thread", not(loom)))]
    TOKENS.fetch_add(1, Ordering::Release);
    address | (usize::from(generation) << 48)
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("weald needs 64-bit pointers: a token is an address and a generation");

/// Hands one event on.
///
/// # Safety
/// The token was made by `token`.
unsafe fn dispatch(token: usize, readiness: Readiness) {
    #[cfg(all(weald_sanitizer = "thread", not(loom)))]
    TOKENS.load(Ordering::Acquire);
    let generation = u16::try_from(token >> 48).expect("16 bits are left");
    let address = token & ((1 << 48) - 1);
    // SAFETY: by contract the address is that of a slot, which lives for ever.
    let slot: &'static EventSlot = unsafe { &*(address as *const EventSlot) };
    (slot.on_event)(slot, generation, readiness);
}

/// A worker's poller.
#[derive(Debug)]
pub(crate) struct Poller {
    wake_word: AtomicU64,
    /// Set while somebody is inside `turn`.
    locked: AtomicBool,
    turn: UnsafeCell<sys::Turn>,
    waker: sys::Waker,
    registry: sys::Registry,
    /// What is registered, so that a poller that closes can tell those who wait.
    registered: Mutex<Registered>,
    #[cfg(not(loom))]
    id: u32,
}

/// The last poller's `id`.
#[cfg(not(loom))]
static LAST_ID: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Default)]
struct Registered {
    tokens: HashMap<RawFd, usize>,
    /// Told of each descriptor that `arm` had and `register` has taken.
    lost: Option<fn(RawFd)>,
    closed: bool,
}

// SAFETY: `turn` is touched only by who has set `locked`.
unsafe impl Sync for Poller {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Poller {}

struct Unlock<'a>(&'a AtomicBool);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let (turn, waker, registry) = sys::new()?;
        Ok(Self {
            wake_word: AtomicU64::new(EMPTY),
            locked: AtomicBool::new(false),
            turn: UnsafeCell::new(turn),
            waker,
            registry,
            registered: Mutex::new(Registered::default()),
            #[cfg(not(loom))]
            id: u32::try_from(LAST_ID.fetch_add(1, Ordering::Relaxed) + 1)
                .map_err(io::Error::other)?,
        })
    }

    fn try_lock(&self) -> Option<Unlock<'_>> {
        let acquire = if cfg!(weald_fault = "poller_relaxed_lock") {
            Ordering::Relaxed
        } else {
            Ordering::Acquire
        };
        let free = self
            .locked
            .compare_exchange(false, true, acquire, Ordering::Relaxed)
            .is_ok();
        free.then(|| Unlock(&self.locked))
    }

    /// Hands on what has happened, without waiting. Returns the number of events.
    pub(crate) fn poll(&self) -> usize {
        let Some(_unlock) = self.try_lock() else {
            return 0;
        };
        // SAFETY: `locked` is ours.
        self.turn
            .with_mut(|turn| unsafe { (*turn).wait(Some(Duration::ZERO), false) })
    }

    /// As `poll`, by somebody else's worker. Returns the number of events.
    pub(crate) fn adopt(&self) -> usize {
        let Some(_unlock) = self.try_lock() else {
            return 0;
        };
        // SAFETY: `locked` is ours.
        let (events, woken) = self.turn.with_mut(|turn| unsafe { (*turn).adopt() });
        if woken && !cfg!(weald_fault = "poller_adopter_keeps_the_wake_up") {
            self.waker.wake();
        }
        events
    }

    /// Something has happened that nobody was told of yet; a hint, takes nothing away.
    pub(crate) fn has_events(&self) -> bool {
        self.registry.has_events()
    }

    /// Sleeps until something happens, `unpark` or the limit; the owner's.
    pub(crate) fn sleep(&self, limit: Option<Duration>) -> usize {
        let asleep = self
            .wake_word
            .compare_exchange(EMPTY, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        let limit = if asleep { limit } else { Some(Duration::ZERO) };
        // An adopter that has the lock is quick; the owner must not sleep elsewhere.
        let unlock = loop {
            match self.try_lock() {
                Some(unlock) => break unlock,
                None => crate::shim::thread::yield_now(),
            }
        };
        // SAFETY: `locked` is ours.
        let events = self
            .turn
            .with_mut(|turn| unsafe { (*turn).wait(limit, true) });
        drop(unlock);
        if cfg!(weald_fault = "poller_wakes_relaxed") {
            self.wake_word.swap(EMPTY, Ordering::Relaxed);
        } else {
            self.wake_word.swap(EMPTY, Ordering::AcqRel);
        }
        events
    }

    /// The owner's next sleep will be none, as things stand.
    pub(crate) fn is_notified(&self) -> bool {
        self.wake_word.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Ends the owner's sleep, or keeps it from the next one.
    pub(crate) fn unpark(&self) {
        let before = if cfg!(weald_fault = "poller_store_for_swap") {
            let before = self.wake_word.load(Ordering::Relaxed);
            self.wake_word.store(NOTIFIED, Ordering::Release);
            before
        } else {
            self.wake_word.swap(NOTIFIED, Ordering::AcqRel)
        };
        if before == ASLEEP {
            self.waker.wake();
        }
    }

    /// Registers a descriptor for all that can be told of it. If `arm` has it, whoever waits there
    /// hears nothing from here any more, and is told so.
    ///
    /// # Errors
    /// The system's, so `AlreadyExists` if it is registered; `NotConnected` if the poller has closed.
    pub(crate) fn register(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        generation: u16,
    ) -> io::Result<()> {
        let token = token(slot, generation);
        let mut registered = self.registered.lock();
        if registered.closed && !cfg!(weald_fault = "poller_registers_after_its_end") {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let may_be_armed = !registered.tokens.contains_key(&fd);
        let was_armed = self.registry.register(fd, token, may_be_armed)?;
        registered.tokens.insert(fd, token);
        let lost = registered.lost;
        drop(registered);
        if was_armed && let Some(lost) = lost {
            lost(fd);
        }
        Ok(())
    }

    /// Has the slot told what the descriptor is ready for, now and whenever that changes. Nobody need
    /// undo it: the system forgets the descriptor when it is closed.
    ///
    /// `interest` says which of [`Readiness::READABLE`] and [`Readiness::WRITABLE`] is waited for. It is
    /// asked under the lock, so of several that arm one descriptor the last one asks for all of them;
    /// `armed` is told under the lock what it is armed for. `lost` is called if `register` takes the descriptor.
    ///
    /// # Errors
    /// The system's; `AlreadyExists` for a descriptor that is somebody's by `register`, who would
    /// hear nothing any more.
    #[cfg(not(loom))]
    pub(crate) fn arm(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        interest: impl FnOnce() -> u8,
        armed: impl FnOnce(u8),
        lost: fn(RawFd),
    ) -> io::Result<()> {
        let mut registered = self.registered.lock();
        if registered.tokens.contains_key(&fd) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        registered.lost = Some(lost);
        let interest = interest();
        self.registry.arm(fd, token(slot, 0), interest)?;
        armed(interest);
        Ok(())
    }

    /// No other poller of this process has it, before or after. Never 0.
    #[cfg(not(loom))]
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Undoes `register`; of a descriptor that is still open. If somebody has closed it, its number
    /// may be another's, who has registered it since: that stays.
    pub(crate) fn deregister(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        generation: u16,
    ) -> io::Result<()> {
        let mut registered = self.registered.lock();
        if registered.tokens.get(&fd) != Some(&token(slot, generation)) {
            return Ok(());
        }
        registered.tokens.remove(&fd);
        // A burst of descriptors is over: amortised over those that went.
        let (len, room) = (registered.tokens.len(), registered.tokens.capacity());
        if room > LEAST_ROOM && len < room / 8 {
            registered.tokens.shrink_to(LEAST_ROOM.max(2 * len));
        }
        self.registry.deregister(fd)
    }

    /// Takes no more descriptors and tells all who wait here to look again, elsewhere.
    pub(crate) fn close(&self) {
        let tokens = {
            let mut registered = self.registered.lock();
            registered.closed = true;
            std::mem::take(&mut registered.tokens)
        };
        for (fd, token) in tokens {
            let _ = self.registry.deregister(fd);
            // SAFETY: it was made by `token`.
            unsafe { dispatch(token, Readiness(Readiness::ALL)) };
        }
    }
}

#[cfg(not(loom))]
mod sys {
    use std::io;
    use std::os::fd::{AsRawFd, RawFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::{ADOPTED_BATCH, BATCH, FINE, Readiness, TIMER, WAKE, dispatch};

    #[derive(Debug)]
    pub(super) struct Turn {
        poll: Poll,
        events: Events,
        adopted: Events,
        timer: Option<timerfd::TimerFd>,
    }

    #[derive(Debug)]
    pub(super) struct Waker(mio::Waker);

    impl Waker {
        pub(super) fn wake(&self) {
            let _bypass = crate::shim::bypass::Bypass::enter();
            // A counter that is full is a wake-up that is on its way already.
            let _ = self.0.wake();
        }
    }

    #[derive(Debug)]
    pub(super) struct Registry(mio::Registry, RawFd);

    impl Registry {
        fn interest() -> Interest {
            let interest = Interest::READABLE | Interest::WRITABLE;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            let interest = interest | Interest::PRIORITY;
            interest
        }

        /// `may_be_armed`: if it is in there already, `arm` has put it there. Returns whether it had.
        pub(super) fn register(
            &self,
            fd: RawFd,
            token: usize,
            may_be_armed: bool,
        ) -> io::Result<bool> {
            let interest = Self::interest();
            match self.add(fd, token, interest) {
                Err(error) if may_be_armed && error.kind() == io::ErrorKind::AlreadyExists => {
                    self.again(fd, token, interest).map(|()| true)
                }
                result => result.map(|()| false),
            }
        }

        pub(super) fn arm(&self, fd: RawFd, token: usize, interest: u8) -> io::Result<()> {
            let has = |bit| interest & bit != 0;
            let interest = match (has(Readiness::READABLE), has(Readiness::WRITABLE)) {
                (true, true) => Interest::READABLE | Interest::WRITABLE,
                (false, true) => Interest::WRITABLE,
                _ => Interest::READABLE,
            };
            match self.again(fd, token, interest) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.add(fd, token, interest)
                }
                result => result,
            }
        }

        fn add(&self, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
            self.0.register(&mut SourceFd(&fd), Token(token), interest)
        }

        fn again(&self, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
            self.0
                .reregister(&mut SourceFd(&fd), Token(token), interest)
        }

        pub(super) fn deregister(&self, fd: RawFd) -> io::Result<()> {
            self.0.deregister(&mut SourceFd(&fd))
        }

        /// A poller's descriptor is readable while events lie in it: epoll(7), kqueue(2).
        pub(super) fn has_events(&self) -> bool {
            let mut fd = libc::pollfd {
                fd: self.1,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid entry; it does not wait.
            unsafe { libc::poll(&raw mut fd, 1, 0) > 0 }
        }
    }

    pub(super) fn new() -> io::Result<(Turn, Waker, Registry)> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), Token(WAKE))?;
        let registry = Registry(poll.registry().try_clone()?, poll.as_raw_fd());
        // Without one, short sleeps end up to a millisecond late.
        let timer = timerfd::TimerFd::new(poll.registry(), Token(TIMER));
        let turn = Turn {
            poll,
            events: Events::with_capacity(BATCH),
            adopted: Events::with_capacity(ADOPTED_BATCH),
            timer,
        };
        Ok((turn, Waker(waker), registry))
    }

    impl Turn {
        /// Waits and hands the events on. Returns how many there were.
        pub(super) fn wait(&mut self, limit: Option<Duration>, sleep: bool) -> usize {
            let mut limit = limit;
            if sleep
                && let Some(left) = limit
                && left < FINE
                && !left.is_zero()
                && let Some(timer) = &self.timer
                && timer.arm(left)
            {
                // It is not disarmed if something else ends the sleep: that costs a system call, and
                // its later event at most a look in vain.
                limit = None;
            }
            // Interrupted by a signal, or an error that only a broken program gets: look again.
            if self.poll.poll(&mut self.events, limit).is_err() {
                return 0;
            }
            hand_on(&self.events).0
        }

        pub(super) fn adopt(&mut self) -> (usize, bool) {
            if self
                .poll
                .poll(&mut self.adopted, Some(Duration::ZERO))
                .is_err()
            {
                return (0, false);
            }
            hand_on(&self.adopted)
        }
    }

    /// Returns how many events were handed on, and whether the wake-up event was among them.
    fn hand_on(events: &Events) -> (usize, bool) {
        let mut count = 0;
        let mut woken = false;
        for event in events {
            match event.token() {
                Token(WAKE) => woken = true,
                Token(TIMER) => {}
                Token(token) => {
                    count += 1;
                    // SAFETY: all other tokens were made by `token`.
                    unsafe { dispatch(token, readiness(event)) };
                }
            }
        }
        (count, woken)
    }

    fn readiness(event: &mio::event::Event) -> Readiness {
        let mut bits = 0;
        let told = [
            (event.is_readable(), Readiness::READABLE),
            (event.is_writable(), Readiness::WRITABLE),
            (event.is_read_closed(), Readiness::READ_CLOSED),
            (event.is_write_closed(), Readiness::WRITE_CLOSED),
            (event.is_error(), Readiness::ERROR),
            (event.is_priority(), Readiness::PRIORITY),
        ];
        for (is, bit) in told {
            if is {
                bits |= bit;
            }
        }
        Readiness(bits)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    mod timerfd {
        use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
        use std::time::Duration;

        use mio::unix::SourceFd;
        use mio::{Interest, Registry, Token};

        /// Ends sleeps that are shorter than mio can tell; timerfd_create(2).
        #[derive(Debug)]
        pub(super) struct TimerFd(OwnedFd);

        impl TimerFd {
            /// `None` if the system gives none, for whatever reason.
            pub(super) fn new(registry: &Registry, token: Token) -> Option<Self> {
                let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
                // SAFETY: no pointers.
                let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
                if fd < 0 {
                    return None;
                }
                // SAFETY: the descriptor is new and ours.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                let raw = fd.as_raw_fd();
                let registered = registry.register(&mut SourceFd(&raw), token, Interest::READABLE);
                registered.is_ok().then_some(Self(fd))
            }

            /// Makes the timer readable after the duration, which is below a second and not zero.
            pub(super) fn arm(&self, after: Duration) -> bool {
                let value = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: after.subsec_nanos().into(),
                };
                let zero = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                let spec = libc::itimerspec {
                    it_interval: zero,
                    it_value: value,
                };
                // SAFETY: the descriptor is a timer of ours, the pointer is to a local.
                let result = unsafe {
                    libc::timerfd_settime(
                        self.0.as_raw_fd(),
                        0,
                        &raw const spec,
                        std::ptr::null_mut(),
                    )
                };
                result == 0
            }
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    mod timerfd {
        use std::time::Duration;

        /// kqueue takes time-outs in nanoseconds: nothing to add.
        #[derive(Debug)]
        pub(super) enum TimerFd {}

        impl TimerFd {
            pub(super) fn new(_: &mio::Registry, _: mio::Token) -> Option<Self> {
                None
            }

            pub(super) fn arm(&self, _: Duration) -> bool {
                match *self {}
            }
        }
    }
}

#[cfg(loom)]
mod sys {
    //! The double of a model: events come from the model itself, and a sleep with a limit lets the
    //! others run and then finds its limit passed, unless it was ended before.
    use std::io;
    use std::os::fd::RawFd;
    use std::time::Duration;

    use super::{Readiness, dispatch};
    use crate::shim::sync::{Arc, Condvar, Mutex, wait};

    #[derive(Debug, Default)]
    struct Shared {
        woken: bool,
        events: Vec<(usize, Readiness)>,
    }

    #[derive(Debug)]
    struct Kernel {
        shared: Mutex<Shared>,
        condvar: Condvar,
    }

    #[derive(Debug)]
    pub(super) struct Turn(Arc<Kernel>);
    #[derive(Debug)]
    pub(super) struct Waker(Arc<Kernel>);
    #[derive(Debug)]
    pub(super) struct Registry(Arc<Kernel>);

    pub(super) fn new() -> io::Result<(Turn, Waker, Registry)> {
        let kernel = Arc::new(Kernel {
            shared: Mutex::new(Shared::default()),
            condvar: Condvar::new(),
        });
        Ok((
            Turn(kernel.clone()),
            Waker(kernel.clone()),
            Registry(kernel),
        ))
    }

    impl Waker {
        pub(super) fn wake(&self) {
            self.0.shared.lock().woken = true;
            self.0.condvar.notify_one();
        }
    }

    impl Registry {
        pub(super) fn register(
            &self,
            _fd: RawFd,
            _token: usize,
            _may_be_armed: bool,
        ) -> io::Result<bool> {
            Ok(false)
        }

        pub(super) fn deregister(&self, _fd: RawFd) -> io::Result<()> {
            Ok(())
        }

        pub(super) fn has_events(&self) -> bool {
            !self.0.shared.lock().events.is_empty()
        }
    }

    impl Turn {
        pub(super) fn wait(&mut self, limit: Option<Duration>, _sleep: bool) -> usize {
            let mut shared = self.0.shared.lock();
            match limit {
                None => {
                    while !shared.woken && shared.events.is_empty() {
                        shared = wait(&self.0.condvar, shared);
                    }
                }
                Some(Duration::ZERO) => {}
                Some(limit) => {
                    drop(shared);
                    crate::shim::thread::yield_now();
                    shared = self.0.shared.lock();
                    if !shared.woken && shared.events.is_empty() {
                        crate::shim::clock::advance(limit);
                    }
                }
            }
            shared.woken = false;
            let events = std::mem::take(&mut shared.events);
            drop(shared);
            for &(token, readiness) in &events {
                // SAFETY: the model made it by `token`.
                unsafe { dispatch(token, readiness) };
            }
            events.len()
        }

        pub(super) fn adopt(&mut self) -> (usize, bool) {
            let mut shared = self.0.shared.lock();
            let woken = std::mem::take(&mut shared.woken);
            let events = std::mem::take(&mut shared.events);
            drop(shared);
            for &(token, readiness) in &events {
                // SAFETY: the model made it by `token`.
                unsafe { dispatch(token, readiness) };
            }
            (events.len(), woken)
        }
    }
}
