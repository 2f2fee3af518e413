//! `GreenPool` and `GreenPile`: a bounded number of green threads at a time.
//!
//! A *permit* is the right to run one of the pool's threads. It is taken before a thread is spawned. A guard in the
//! thread's closure gives it back, so that happens also if the body unwinds or never runs.
//!
//! A thread of the pool that spawns into the full pool must not simply wait for a permit, as the others may be waiting
//! for it. It *lends* its permit to the new thread, and waits until the new thread has ended and brings the permit back.
//!
//! | loan      | meaning                                  | leaves by                              |
//! |-----------|------------------------------------------|----------------------------------------|
//! | OUT       | the new thread has it, the lender waits  | its end -> RETURNED; an exception in   |
//! |           |                                          | the lender -> ABANDONED                |
//! | RETURNED  | the lender has it again                  | never                                  |
//! | ABANDONED | the new thread gives it back, where the  | never                                  |
//! |           | lender would have given it back          |                                        |
//!
//! Invariant 1: the step out of OUT is one exchange; its winner decides where the permit goes.
//! Invariant 2: a permit is in one place: with the semaphore, with a thread (`MemberRecord::permit`), or in a loan.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use weald_scheduler::JoinHandle;
use weald_scheduler::io::{self, WaitQueue, Woken};
use weald_sync::{Event, Semaphore};

weald_scheduler::green_local! {
    /// The record of the running thread, if it is a thread of a pool.
    static OWN: RefCell<Option<Arc<MemberRecord>>> = RefCell::new(None);
}

/// A pool that runs a bounded number of green threads: [`spawn`](Self::spawn) waits while the pool is full.
///
/// Clones are the same pool. It is eventlet's `GreenPool`.
///
/// # Examples
/// ```
/// let pool = weald::GreenPool::new(10);
/// let squares: Vec<u64> = pool.imap(1..=100_u64, |n| n * n).map(Result::unwrap).collect();
/// assert_eq!(squares.iter().sum::<u64>(), 338_350);
/// ```
#[derive(Clone)]
pub struct GreenPool {
    shared: Arc<Shared>,
}

struct Shared {
    size: usize,
    permits: Semaphore,
    /// How many threads were spawned and have not ended.
    running: AtomicUsize,
    /// How many of them are in `wait_all`. No thread waits for these.
    waiting: AtomicUsize,
    /// Those that wait for the others to end.
    ended: WaitQueue,
}

/// The record of a thread of a pool.
struct MemberRecord {
    shared: Arc<Shared>,
    /// `None`: the thread has lent its permit.
    permit: Mutex<Option<Permit>>,
}

/// Where a permit goes back to.
enum Permit {
    Pool,
    Lender(Arc<Loan>),
}

struct Loan {
    state: AtomicUsize,
    /// The lender's permit, while it is out.
    permit: Mutex<Option<Permit>>,
    over: Event,
}

const OUT: usize = 0;
const RETURNED: usize = 1;
const ABANDONED: usize = 2;

impl Loan {
    /// Ends the loan in this state, if nobody has ended it before.
    fn ends_as(&self, state: usize) -> bool {
        self.state
            .compare_exchange(OUT, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // It is held only for single statements that do not unwind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Gives a permit back.
    fn give_back(&self, mut permit: Option<Permit>) {
        while let Some(given) = permit.take() {
            match given {
                Permit::Pool => self.permits.add_permits(1),
                Permit::Lender(loan) => {
                    if loan.ends_as(RETURNED) {
                        loan.over.set();
                    } else {
                        permit = lock(&loan.permit).take();
                    }
                }
            }
        }
    }

    /// Tells if all threads have ended. With `inside`, threads that are in `wait_all` do not count.
    fn all_ended(&self, inside: bool) -> bool {
        let running = self.running.load(Ordering::Acquire);
        running == 0 || (inside && running <= self.waiting.load(Ordering::Acquire))
    }
}

/// A part of the closure of each thread of a pool. It is dropped when the body has ended or will never run.
struct Member(Arc<MemberRecord>);

impl Member {
    fn new(shared: &Arc<Shared>, permit: Permit) -> Self {
        shared.running.fetch_add(1, Ordering::AcqRel);
        Self(Arc::new(MemberRecord {
            shared: Arc::clone(shared),
            permit: Mutex::new(Some(permit)),
        }))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        let permit = lock(&self.0.permit).take();
        shared.give_back(permit);
        shared.running.fetch_sub(1, Ordering::AcqRel);
        shared.ended.wake_all();
    }
}

/// Ends a loan for the lender, also if the lender's wait unwinds.
struct LentPermit<'a> {
    own: &'a MemberRecord,
    loan: Arc<Loan>,
}

impl Drop for LentPermit<'_> {
    fn drop(&mut self) {
        if !self.loan.ends_as(ABANDONED) {
            *lock(&self.own.permit) = lock(&self.loan.permit).take();
        }
    }
}

impl GreenPool {
    /// Returns a pool with `size` permits.
    ///
    /// # Panics
    /// If `size` is 0.
    #[track_caller]
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a pool needs at least 1 permit, not 0");
        Self {
            shared: Arc::new(Shared {
                size,
                permits: Semaphore::new(size),
                running: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                ended: WaitQueue::of("a pool"),
            }),
        }
    }

    /// Returns the number of permits.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Returns how many threads of the pool have not ended.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Returns how many permits are free now.
    pub fn free(&self) -> usize {
        self.shared.permits.available_permits()
    }

    /// Starts a green thread of the pool. Waits while the pool is full. A blocking call: an exception ends the wait,
    /// and then nothing was started.
    ///
    /// A thread of the pool that calls this does not wait for a permit. If the pool is full, the new thread starts at
    /// once on the caller's permit, and the caller waits until the new thread has ended. An exception that ends this
    /// wait leaves the new thread running.
    ///
    /// # Examples
    /// ```
    /// let pool = weald::GreenPool::new(2);
    /// let handle = pool.spawn(|| 6 * 7);
    /// assert_eq!(handle.join().unwrap(), 42);
    /// ```
    ///
    /// # Panics
    /// Those of [`weald::spawn`](crate::spawn()).
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        io::enter_unwinding();
        if let Some(own) = self.own()
            && !self.try_take_seat()
        {
            return self.spawn_on_own_permit(&own, f);
        }
        if self.own().is_none() {
            self.shared.permits.acquire().forget();
        }
        self.start(Permit::Pool, f)
    }

    fn try_take_seat(&self) -> bool {
        match self.shared.permits.try_acquire() {
            Some(permit) => {
                permit.forget();
                true
            }
            None => false,
        }
    }

    /// Returns the running thread's record, if the thread is of this pool.
    fn own(&self) -> Option<Arc<MemberRecord>> {
        let own = OWN.with(|own| own.borrow().clone());
        own.filter(|own| Arc::ptr_eq(&own.shared, &self.shared))
    }

    fn start<F, T>(&self, permit: Permit, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let member = Member::new(&self.shared, permit);
        weald_scheduler::spawn(move || {
            let member = member;
            OWN.with(|own| *own.borrow_mut() = Some(Arc::clone(&member.0)));
            f()
        })
    }

    fn spawn_on_own_permit<F, T>(&self, own: &MemberRecord, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let permit = lock(&own.permit).take();
        if permit.is_none() {
            // An exception has ended an earlier wait, and the permit does not come back. So the thread waits for a permit
            // as any other thread does.
            self.shared.permits.acquire().forget();
            return self.start(Permit::Pool, f);
        }
        let loan = Arc::new(Loan {
            state: AtomicUsize::new(OUT),
            permit: Mutex::new(permit),
            over: Event::new(),
        });
        let lent = LentPermit {
            own,
            loan: Arc::clone(&loan),
        };
        let handle = self.start(Permit::Lender(Arc::clone(&loan)), f);
        loan.over.wait();
        drop(lent);
        handle
    }

    /// Waits until all threads of the pool have ended. A thread of the pool waits until all others have ended, except
    /// those that are in this call too. A blocking call: an exception unwinds.
    ///
    /// # Examples
    /// ```
    /// let pool = weald::GreenPool::new(2);
    /// for _ in 0..10 {
    ///     pool.spawn(|| weald::yield_now());
    /// }
    /// pool.wait_all();
    /// assert_eq!(pool.running(), 0);
    /// ```
    pub fn wait_all(&self) {
        io::enter_unwinding();
        let shared = &*self.shared;
        let inside = self.own().map(|_| Inside::enter(shared));
        let ended = || shared.all_ended(inside.is_some());
        while !ended() {
            if let Woken::Interrupted(interrupt) = shared.ended.wait(ended, None, true) {
                interrupt.unwind();
            }
        }
    }

    /// Calls `f` with each item in a thread of the pool, and yields the results in the order of the items. The
    /// iterator is lazy: it starts nothing before the first result is asked for, and then never runs ahead by more
    /// than the pool's size. Taking an item is a blocking call.
    ///
    /// If the thread of an item unwinds, its result is an `Err`, as from `join`. Dropping the iterator leaves its
    /// threads running.
    ///
    /// # Examples
    /// ```
    /// let pool = weald::GreenPool::new(3);
    /// let words = ["oak", "ash", "elm"];
    /// let upper: Vec<_> = pool.imap(words, str::to_uppercase).map(Result::unwrap).collect();
    /// assert_eq!(upper, ["OAK", "ASH", "ELM"]);
    /// ```
    pub fn imap<I, F, T>(&self, items: I, f: F) -> Imap<I::IntoIter, F, T>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        Imap {
            pool: self.clone(),
            items: items.into_iter(),
            f: Arc::new(f),
            started: VecDeque::new(),
        }
    }
}

/// A thread of the pool that is in `wait_all`.
struct Inside<'a>(&'a Shared);

impl<'a> Inside<'a> {
    fn enter(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::AcqRel);
        // Others that wait need not wait for this thread any more.
        shared.ended.wake_all();
        Self(shared)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for GreenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenPool")
            .field("size", &self.size())
            .field("running", &self.running())
            .finish()
    }
}

/// The results of a pool's threads, in order; from [`GreenPool::imap`].
///
/// # Examples
/// See [`GreenPool::imap`].
#[must_use = "it starts nothing before it is asked"]
pub struct Imap<I, F, T> {
    pool: GreenPool,
    items: I,
    f: Arc<F>,
    started: VecDeque<JoinHandle<T>>,
}

impl<I, F, T> Iterator for Imap<I, F, T>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = thread::Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        io::enter_unwinding();
        while self.started.len() < self.pool.size() {
            // If there are results to give, it need not wait for a permit.
            if !self.started.is_empty() && self.pool.free() == 0 {
                break;
            }
            let Some(item) = self.items.next() else {
                break;
            };
            let f = Arc::clone(&self.f);
            self.started.push_back(self.pool.spawn(move || f(item)));
        }
        first(&mut self.started)
    }
}

/// Waits for the first thread and returns its result. An exception that ends the wait leaves the thread in the queue.
fn first<T>(started: &mut VecDeque<JoinHandle<T>>) -> Option<thread::Result<T>> {
    if let Err(interrupt) = io::wait_for_end(started.front()?) {
        interrupt.unwind();
    }
    started.pop_front().map(io::take_result)
}

impl<I, F, T> fmt::Debug for Imap<I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("started", &self.started.len())
            .finish_non_exhaustive()
    }
}

/// Threads of a pool whose results are taken in the order in which the threads were spawned. It is eventlet's
/// `GreenPile`.
///
/// # Examples
/// ```
/// let mut pile = weald::GreenPile::new(&weald::GreenPool::new(4));
/// for word in ["one", "three", "eleven"] {
///     pile.spawn(move || word.len());
/// }
/// let lengths: Vec<_> = pile.map(Result::unwrap).collect();
/// assert_eq!(lengths, [3, 5, 6]);
/// ```
#[derive(Debug)]
pub struct GreenPile<T> {
    pool: GreenPool,
    started: VecDeque<JoinHandle<T>>,
}

impl<T: Send + 'static> GreenPile<T> {
    /// Returns a pile whose threads run in that pool.
    pub fn new(pool: &GreenPool) -> Self {
        Self {
            pool: pool.clone(),
            started: VecDeque::new(),
        }
    }

    /// Starts a thread as [`GreenPool::spawn`] does.
    pub fn spawn(&mut self, f: impl FnOnce() -> T + Send + 'static) {
        self.started.push_back(self.pool.spawn(f));
    }
}

/// Taking an item is a blocking call: it waits until the oldest thread has ended.
impl<T> Iterator for GreenPile<T> {
    type Item = thread::Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        io::enter_unwinding();
        first(&mut self.started)
    }
}
