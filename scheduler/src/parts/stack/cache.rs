//! Keeps the stacks that nobody runs on: a few with each worker, the rest in one depot.
//!
//! | where             | whose           | a slot there is   | leaves by                          |
//! |-------------------|-----------------|-------------------|------------------------------------|
//! | hot list          | one worker's    | guarded, resident | `get`, or in a batch to the depot  |
//! | depot, `resident` | the process's   | guarded, resident | in a batch to a hot list or `trim` |
//! | depot, `clean`    | the process's   | guarded, no pages | in a batch to a hot list           |
//! | depot, `bare`     | the process's   | without a guard   | in a batch, guarded on the way     |
//! | depot, `fresh`    | the process's   | never handed out  | in a batch, guarded on the way     |
//!
//! 1. Hot lists are last in, first out: the next green thread runs on the stack whose pages are
//!    likeliest to be in the processor's cache.
//! 2. A hot list has room for two batches and never grows. When it is full the colder batch goes to
//!    the depot, when it is empty one batch comes from there: workers that only free or only take
//!    meet the depot's lock once in a batch, and no worker hoards. A worker that sleeps for long
//!    leaves all to the depot.
//! 3. No class's lock is held while a system call guards slots or gives pages back; it is held for
//!    `mmap`, so that one worker grows a class and the others use what it got.
//!
//! The depot gives memory back as follows. `low` is the number of resident stacks that nobody has
//! needed since the last *mark*; at each mark, once in a [`WINDOW`], that many become `excess`. Workers
//! that are about to sleep give the pages of the excess back, the coldest first and a little at a
//! time ([`trim`]). So a process keeps what it has used within the last window, and one that has
//! become idle keeps nothing after two windows.
#![allow(unsafe_code, reason = "tests touch the stacks they get")]

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::count::{count_in, count_out};
use super::region::{self, Fresh};
use super::slot::{
    CLASSES, DEFAULT_GUARD, Guard, MAX_STACK, MIN_STACK, Stack, class_of, round_up_to_class,
};
use crate::parts::errno::KeepErrno;
use crate::shim::plain::{Mutex, MutexGuard};

/// Stacks that go between a cache and the depot at a time, unless they are large.
const BATCH: usize = 16;

/// Bytes that such a batch may have; one stack is always allowed.
const BATCH_BYTES: usize = 4 << 20;

/// Stacks that nobody has needed for so long are given back. Long beside the pauses between the
/// bursts of a server, as a page that is given back and needed again costs some 0.5 us; short for
/// whoever watches the process's memory.
const WINDOW: Duration = Duration::from_millis(500);

/// Between two steps of [`trim`].
const PAUSE: Duration = Duration::from_millis(4);

/// Stacks in the depot whose pages have not been given back.
static RESIDENT: AtomicUsize = AtomicUsize::new(0);

/// Caches that live.
static CACHES: AtomicUsize = AtomicUsize::new(0);

/// Why there is no stack.
#[derive(Debug)]
pub(crate) struct NoStack {
    /// Names the bound and what raises it.
    pub(crate) error: io::Error,
    /// Others have stacks that would do, and may give them back.
    pub(crate) may_come: bool,
}

/// Stacks in a batch of this class.
const fn batch(class: usize) -> usize {
    let fit = (BATCH_BYTES / MIN_STACK) >> class;
    match fit {
        0 => 1,
        1..BATCH => fit,
        _ => BATCH,
    }
}

/// A worker's own stacks. Only its owner touches it, so it needs no lock.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Per class, the hottest last. Without room until the class is first used.
    hot: [Vec<Stack>; CLASSES],
    /// That of all its stacks.
    guard: Guard,
}

impl Cache {
    /// A cache without stacks, which will have the ordinary guard; it allocates nothing.
    pub(crate) fn new() -> Self {
        Self::with_guard(Guard::of(DEFAULT_GUARD))
    }

    /// The same with another guard.
    pub(crate) fn with_guard(guard: Guard) -> Self {
        CACHES.fetch_add(1, Ordering::Relaxed);
        Self {
            hot: [const { Vec::new() }; CLASSES],
            guard,
        }
    }

    /// Takes a stack of at least this many usable bytes; of exactly this many, if they are what
    /// [`round_up_to_class`] gives.
    ///
    /// # Errors
    /// `InvalidInput` above [`MAX_STACK`]; `OutOfMemory` if the system refuses memory or, where
    /// guards are counted, another one. The message names the limit.
    #[inline]
    pub(crate) fn get(&mut self, size: usize) -> Result<Stack, NoStack> {
        // A size that is too large has no class.
        if let Some(stack) = self.hot.get_mut(class_of(size)).and_then(Vec::pop) {
            return Ok(stack);
        }
        self.refill_and_get(size)
    }

    #[cold]
    fn refill_and_get(&mut self, size: usize) -> Result<Stack, NoStack> {
        let size = round_up_to_class(size);
        if size > MAX_STACK {
            let text = format!("a stack of {size} bytes is above the bound of {MAX_STACK}");
            return Err(NoStack {
                error: io::Error::new(io::ErrorKind::InvalidInput, text),
                may_come: false,
            });
        }
        let class = class_of(size);
        let hot = &mut self.hot[class];
        if hot.is_empty() {
            let _errno = KeepErrno::new();
            hot.reserve_exact(2 * batch(class));
            withdraw(class, self.guard, hot)?;
        }
        Ok(hot.pop().expect("a withdrawal gives at least one stack"))
    }

    /// Takes back a stack that nobody runs on any more.
    #[inline]
    pub(crate) fn put(&mut self, stack: Stack) {
        debug_assert_eq!(stack.guard(), self.guard, "it is another runtime's");
        let class = stack.class();
        let hot = &mut self.hot[class];
        if hot.len() == hot.capacity() {
            Self::make_room(class, hot);
        }
        hot.push(stack);
    }

    #[cold]
    fn make_room(class: usize, hot: &mut Vec<Stack>) {
        if hot.is_empty() {
            hot.reserve_exact(2 * batch(class));
        } else {
            deposit(class, hot.drain(..batch(class)));
        }
    }

    /// Leaves all stacks to the depot; for a worker that will sleep for long, or that others wait
    /// for.
    pub(crate) fn flush(&mut self) {
        for (class, hot) in self.hot.iter_mut().enumerate() {
            if !hot.is_empty() {
                deposit(class, hot.drain(..));
            }
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
        if CACHES.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The last worker is gone, and nobody is left to do this later.
            give_back_all();
        }
    }
}

/// Gives a stack back where there is no cache at hand.
pub(crate) fn release(stack: Stack) {
    deposit(stack.class(), std::iter::once(stack));
}

/// Stacks of one class and guard in the depot. The table at the head of this file says what the lists
/// hold.
#[derive(Debug)]
struct Shelf {
    guard: Guard,
    /// The hottest last.
    resident: VecDeque<Stack>,
    /// How many of these nobody has needed since the last mark, and how many of those before it.
    low: usize,
    excess: usize,
    clean: Vec<Stack>,
    bare: Vec<Stack>,
    fresh: Fresh,
    /// Bytes in all regions of this class and guard.
    mapped: usize,
    /// Stacks that are outside the depot.
    out: usize,
}

/// One class of the depot: a shelf for each guard that a runtime had.
static DEPOT: [Mutex<Vec<Shelf>>; CLASSES] = [const { Mutex::new(Vec::new()) }; CLASSES];

fn lock(class: usize) -> MutexGuard<'static, Vec<Shelf>> {
    // A panic while it is held (an allocation that failed) may leak slots, but never doubles one.
    DEPOT[class].lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shelf of a guard, which is mostly the first.
fn shelf(shelves: &mut Vec<Shelf>, guard: Guard) -> &mut Shelf {
    let found = shelves.iter().position(|shelf| shelf.guard == guard);
    let index = found.unwrap_or_else(|| {
        shelves.push(Shelf::new(guard));
        shelves.len() - 1
    });
    &mut shelves[index]
}

/// Moves up to a batch of stacks, at least one, from the depot to an empty hot list.
fn withdraw(class: usize, guard: Guard, hot: &mut Vec<Stack>) -> Result<(), NoStack> {
    debug_assert!(hot.is_empty(), "what is in the list would be guarded again");
    let want = batch(class);
    let mut shelves = lock(class);
    let depot = shelf(&mut shelves, guard);
    depot.take_resident(want, hot);
    if hot.is_empty() {
        let clean = depot.clean.len().saturating_sub(want);
        hot.extend(depot.clean.drain(clean..));
    }
    let guarded = !hot.is_empty();
    if !guarded {
        // Only slots without a guard are left.
        depot.take_bare(MIN_STACK << class, want, hot)?;
    }
    depot.out += hot.len();
    drop(shelves);
    if guarded {
        count_out(class, hot.len());
        return Ok(());
    }
    let result = match region::guard(hot) {
        // Others may have guards that they do not need.
        Err(error) => match take_guards(want).then(|| region::guard(hot)) {
            Some(result) => result,
            None => Err(error),
        },
        result => result,
    };
    let guarded = *result.as_ref().unwrap_or(&0);
    if guarded < hot.len() {
        let mut shelves = lock(class);
        let depot = shelf(&mut shelves, guard);
        depot.out -= hot.len() - guarded;
        depot.bare.extend(hot.drain(guarded..));
    }
    count_out(class, hot.len());
    if let Err(error) = result {
        // Not by `live`: another worker may be just here, with stacks that it has not counted.
        let may_come = (0..CLASSES).any(|class| lock(class).iter().any(|shelf| shelf.out > 0));
        return Err(NoStack { error, may_come });
    }
    hot.iter().for_each(Stack::register_with_valgrind);
    // The lowest address comes out first.
    hot.reverse();
    Ok(())
}

/// Takes the guards, where they are counted, of up to so many stacks that nobody uses. False: of none.
#[cold]
fn take_guards(most: usize) -> bool {
    for class in 0..CLASSES {
        let mut idle = Vec::new();
        let mut guard = None;
        for shelf in lock(class).iter_mut() {
            let clean = shelf.clean.len().saturating_sub(most);
            idle.extend(shelf.clean.drain(clean..));
            if idle.is_empty() {
                shelf.take_resident(most, &mut idle);
            }
            if !idle.is_empty() {
                guard = Some(shelf.guard);
                break;
            }
        }
        let Some(guard) = guard else { continue };
        region::discard(&mut idle);
        let bare = region::unprotect(&idle);
        let mut shelves = lock(class);
        let shelf = shelf(&mut shelves, guard);
        shelf.bare.extend(idle.drain(..bare));
        shelf.clean.append(&mut idle);
        if bare > 0 {
            return true;
        }
    }
    false
}

impl Shelf {
    const fn new(guard: Guard) -> Self {
        Self {
            guard,
            resident: VecDeque::new(),
            low: 0,
            excess: 0,
            clean: Vec::new(),
            bare: Vec::new(),
            fresh: Fresh::EMPTY,
            mapped: 0,
            out: 0,
        }
    }

    /// Takes up to so many resident ones, the hottest last.
    fn take_resident(&mut self, want: usize, into: &mut Vec<Stack>) {
        let rest = self.resident.len().saturating_sub(want);
        RESIDENT.fetch_sub(self.resident.len() - rest, Ordering::Relaxed);
        into.extend(self.resident.drain(rest..));
        self.low = self.low.min(rest);
        self.excess = self.excess.min(rest);
    }

    fn take_bare(&mut self, size: usize, want: usize, hot: &mut Vec<Stack>) -> Result<(), NoStack> {
        let bare = self.bare.len().saturating_sub(want);
        hot.extend(self.bare.drain(bare..));
        if !hot.is_empty() {
            return Ok(());
        }
        let guard = self.guard;
        hot.extend(std::iter::from_fn(|| self.fresh.take(size, guard)).take(want));
        if !hot.is_empty() {
            return Ok(());
        }
        let (fresh, bytes) = region::map(size, guard, self.mapped).map_err(|error| NoStack {
            error,
            may_come: self.out > 0,
        })?;
        self.fresh = fresh;
        self.mapped += bytes;
        hot.extend(std::iter::from_fn(|| self.fresh.take(size, guard)).take(want));
        Ok(())
    }

    /// What nobody has needed since the last mark is too much.
    fn mark(&mut self) {
        self.excess = self.low;
        self.low = self.resident.len();
    }
}

/// Puts stacks of a class and one guard, the coldest first, into the depot.
fn deposit(class: usize, mut stacks: impl ExactSizeIterator<Item = Stack>) {
    let count = stacks.len();
    let Some(first) = stacks.next() else { return };
    count_in(class, count);
    RESIDENT.fetch_add(count, Ordering::Relaxed);
    let mut shelves = lock(class);
    let shelf = shelf(&mut shelves, first.guard());
    shelf.out -= count;
    shelf.resident.push_back(first);
    shelf.resident.extend(stacks);
}

/// When the next mark is, and what is left of the last one's excess.
struct Excess {
    next_mark: Option<Instant>,
    /// The first class that may have some.
    class: usize,
    /// All is too much, whatever was marked.
    all: bool,
}

static EXCESS: Mutex<Excess> = Mutex::new(Excess {
    next_mark: None,
    class: CLASSES,
    all: false,
});

impl Excess {
    /// Whatever is resident.
    fn all() -> Self {
        Self {
            next_mark: None,
            class: 0,
            all: true,
        }
    }

    fn mark(&mut self, now: Instant) {
        for class in 0..CLASSES {
            lock(class).iter_mut().for_each(Shelf::mark);
        }
        self.class = 0;
        self.next_mark = Some(now + WINDOW);
    }
}

/// For a worker that is about to sleep: gives the pages of stacks back that nobody has needed for a
/// while, until `stop` says so. Returns after how long to come again; `None`: there is nothing
/// to give back any more.
///
/// Without a stack that could be given back it costs one load.
pub(crate) fn trim(now: Instant, stop: impl Fn() -> bool) -> Option<Duration> {
    if RESIDENT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let Ok(mut excess) = EXCESS.try_lock() else {
        // Another worker is at it, but it may have something else to do next.
        return Some(WINDOW);
    };
    let due = excess.next_mark.is_none_or(|mark| mark <= now);
    if excess.class == CLASSES && due {
        excess.mark(now);
    }
    if !give_back(&mut excess, stop) {
        return Some(PAUSE);
    }
    if RESIDENT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mark = excess.next_mark.unwrap_or(now);
    Some(mark.saturating_duration_since(now).max(PAUSE))
}

/// Gives the pages of all stacks back that are in the depot.
pub(crate) fn give_back_all() {
    give_back(&mut Excess::all(), || false);
}

/// Gives the excess back, until `stop` says so. True: nothing is left of it.
fn give_back(excess: &mut Excess, stop: impl Fn() -> bool) -> bool {
    let mut cold = Vec::with_capacity(BATCH);
    while excess.class < CLASSES {
        let class = excess.class;
        let mut shelves = lock(class);
        let found = shelves.iter_mut().find_map(|shelf| {
            let excess = if excess.all {
                shelf.resident.len()
            } else {
                shelf.excess
            };
            let count = excess.min(BATCH);
            cold.extend(shelf.resident.drain(..count));
            shelf.excess = shelf.excess.saturating_sub(count);
            shelf.low = shelf.low.saturating_sub(count);
            if shelf.resident.is_empty() {
                shelf.resident.shrink_to(2 * BATCH);
            }
            (count > 0).then_some(shelf.guard)
        });
        drop(shelves);
        let Some(guard) = found else {
            excess.class += 1;
            continue;
        };
        RESIDENT.fetch_sub(cold.len(), Ordering::Relaxed);
        region::discard(&mut cold);
        // The lowest address comes out first: what is in use stays close together.
        let mut shelves = lock(class);
        shelf(&mut shelves, guard)
            .clean
            .extend(cold.drain(..).rev());
        drop(shelves);
        if stop() {
            return false;
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::io::ErrorKind;
    use std::num::NonZeroUsize;
    use std::ptr;
    use std::sync::mpsc;

    use super::super::page::page_size;
    use super::super::tests::check_child;
    use super::super::{DEFAULT_STACK, MIN_GUARD, region, stack_bytes};
    use super::*;

    // The depot is the process's: a test that counts what is in it has a process of its own.

    fn bytes_at(address: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(address)
    }

    fn top_word(stack: &Stack) -> *mut usize {
        ptr::with_exposed_provenance_mut(stack.top() - size_of::<usize>())
    }

    fn touch_top(stack: &Stack, value: usize) {
        // SAFETY: the test owns the stack, and its topmost word is aligned and usable.
        unsafe { top_word(stack).write_volatile(value) };
    }

    fn read_top(stack: &Stack) -> usize {
        // SAFETY: as above.
        unsafe { top_word(stack).read_volatile() }
    }

    /// Whether the topmost page has memory behind it.
    #[cfg(target_os = "linux")]
    fn is_resident(stack: &Stack) -> bool {
        let page = page_size();
        let mut resident = 0_u8;
        let top = bytes_at(stack.top() - page).cast();
        // SAFETY: asks about one mapped page, so writes one byte.
        assert_eq!(unsafe { libc::mincore(top, page, &raw mut resident) }, 0);
        resident & 1 == 1
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn the_stack_put_last_is_got_first() {
        let mut cache = Cache::new();
        let (first, second) = (cache.get(32 << 10).unwrap(), cache.get(32 << 10).unwrap());
        assert_ne!(first, second);
        let (low, high) = (first.top(), second.top());
        cache.put(first);
        cache.put(second);
        let again = cache.get(32 << 10).unwrap();
        assert_eq!(again.top(), high);
        let other = cache.get(32 << 10).unwrap();
        assert_eq!(other.top(), low);
        cache.put(again);
        cache.put(other);
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn a_stack_that_cannot_go_back_keeps_no_other_one() {
        let mut cache = Cache::new();
        let mut stacks: Vec<_> = (0..40).map(|_| cache.get(32 << 10).unwrap()).collect();
        stacks.sort_unstable_by_key(Stack::top);
        for stack in &stacks {
            touch_top(stack, 7);
        }
        let page = page_size();
        let locked = bytes_at(stacks[1].top() - page);
        // The kernel's own call: a sanitizer's `mlock` does nothing and says that it has.
        // SAFETY: it changes no byte of the test's own stack.
        if unsafe { libc::syscall(libc::SYS_mlock, locked, page) } != 0 {
            return; // No memory may be locked here.
        }
        region::discard(&mut stacks);
        let left: Vec<_> = stacks.iter().map(read_top).collect();
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_munlock, locked, page) };
        assert_eq!(left.iter().sum::<usize>(), 7);
        assert_eq!(left[1], 7);
        for stack in stacks {
            cache.put(stack);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn every_byte_that_was_asked_for_can_be_used() {
        let mut cache = Cache::new();
        for size in [1, MIN_STACK, 20_000, 100_000, DEFAULT_STACK, 3 << 20] {
            let stack = cache.get(size).unwrap();
            assert!(stack.size() >= size);
            assert_eq!(stack.size(), round_up_to_class(size));
            // SAFETY: the test owns the stack.
            unsafe { ptr::write_bytes(bytes_at(stack.bottom()), 0xa5, stack.size()) };
            cache.put(stack);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn the_largest_stack_works_and_a_larger_one_is_refused() {
        let mut cache = Cache::new();
        let stack = cache.get(MAX_STACK).unwrap();
        touch_top(&stack, 1);
        cache.put(stack);
        for size in [MAX_STACK + 1, usize::MAX] {
            let error = cache.get(size).unwrap_err().error;
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1073741824"), "{error}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn what_lies_below_a_stack_is_a_guard() {
        use std::os::unix::process::ExitStatusExt;
        for guard in ["", "mprotect"] {
            let variables = [("WEALD_STACK_GUARD", guard)];
            let variables = if guard.is_empty() {
                &[][..]
            } else {
                &variables
            };
            let test = "cache::tests::what_lies_below_a_stack_is_a_guard";
            let child = check_child(test, variables, || {
                let guards = [MIN_GUARD, DEFAULT_GUARD, 1 << 20];
                let mut caches = guards.map(|guard| Cache::with_guard(Guard::of(guard)));
                let mut stacks = (0..42)
                    .map(|index| caches[index % 3].get(MIN_STACK).unwrap())
                    .collect::<Vec<_>>();
                for (index, stack) in stacks.iter().enumerate() {
                    assert!(stack.guard().bytes() >= guards[index % 3]);
                }
                // Giving pages back does not take guards away.
                region::discard(&mut stacks);
                for stack in &stacks {
                    let middle = stack.slot() + stack.guard().bytes() / 2;
                    assert_eq!(region::guard_at(stack.slot()), Some(MIN_STACK));
                    assert_eq!(region::guard_at(middle), Some(MIN_STACK));
                    assert_eq!(region::guard_at(stack.bottom() - 1), Some(MIN_STACK));
                    assert_eq!(region::guard_at(stack.bottom()), None);
                    // The kernel is asked to write there: it says EFAULT for a guard.
                    let mut ends = [0; 2];
                    // SAFETY: the array has room for both ends; a pipe's buffer takes the bytes.
                    // Whether the kernel can read a byte is all that is asked.
                    unsafe {
                        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
                        assert_eq!(libc::write(ends[1], bytes_at(stack.bottom()).cast(), 1), 1);
                        for below in [stack.slot(), middle, stack.bottom() - 1] {
                            assert_eq!(libc::write(ends[1], bytes_at(below).cast(), 1), -1);
                            assert_eq!(
                                io::Error::last_os_error().raw_os_error(),
                                Some(libc::EFAULT)
                            );
                        }
                        libc::close(ends[0]);
                        libc::close(ends[1]);
                    }
                }
                let below = bytes_at(stacks[20].bottom() - 1);
                eprintln!("now the guard");
                // SAFETY: none; the fault is what the test is about.
                unsafe { below.write_volatile(1) };
                eprintln!("not reached");
            });
            let Some(child) = child else { return };
            assert!(matches!(
                child.status.signal(),
                Some(libc::SIGSEGV | libc::SIGBUS)
            ));
            assert!(child.stderr.contains("now the guard"), "{child:?}");
            assert!(!child.stderr.contains("not reached"), "{child:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn past_the_bound_of_mprotect_the_error_says_what_to_do() {
        let child = check_child(
            "cache::tests::past_the_bound_of_mprotect_the_error_says_what_to_do",
            &[("WEALD_STACK_GUARD", "mprotect:100")],
            || {
                let mut cache = Cache::new();
                let mut stacks = (0..100).map(|_| cache.get(1).unwrap()).collect::<Vec<_>>();
                for _ in 0..2 {
                    let refused = cache.get(1).unwrap_err();
                    assert!(refused.may_come);
                    assert_eq!(refused.error.kind(), ErrorKind::OutOfMemory);
                    let text = refused.error.to_string();
                    assert!(text.contains("100 are in use"), "{text}");
                    assert!(text.contains("sysctl -w vm.max_map_count"), "{text}");
                }
                // One that is given back can be had again.
                cache.put(stacks.pop().unwrap());
                let _leak = cache.get(1).unwrap();
                drop(Cache::new());
                stacks.into_iter().for_each(release);
                assert!(cache.get(1).is_ok());
            },
        );
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn guards_of_stacks_that_nobody_uses_go_to_those_of_another_size() {
        let child = check_child(
            "cache::tests::guards_of_stacks_that_nobody_uses_go_to_those_of_another_size",
            &[("WEALD_STACK_GUARD", "mprotect:100")],
            || {
                let mut cache = Cache::new();
                for size in [MIN_STACK, 1 << 20, DEFAULT_STACK, MIN_STACK] {
                    let stacks = (0..100)
                        .map(|_| cache.get(size).unwrap())
                        .collect::<Vec<_>>();
                    assert!(cache.get(size).is_err());
                    for stack in stacks {
                        touch_top(&stack, 1);
                        assert_eq!(region::guard_at(stack.slot()), Some(size));
                        cache.put(stack);
                    }
                    cache.flush();
                }
            },
        );
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn a_guard_setting_that_means_nothing_is_an_error() {
        let child = check_child(
            "cache::tests::a_guard_setting_that_means_nothing_is_an_error",
            &[("WEALD_STACK_GUARD", "none")],
            || {
                let error = Cache::new().get(1).unwrap_err().error;
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("WEALD_STACK_GUARD"), "{error}");
            },
        );
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn without_address_space_the_error_names_the_limits() {
        let child = check_child(
            "cache::tests::without_address_space_the_error_names_the_limits",
            &[],
            || {
                let limit = libc::rlimit {
                    rlim_cur: 300 << 20,
                    rlim_max: 300 << 20,
                };
                // SAFETY: the structure is valid.
                let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
                assert_eq!(set, 0);
                let mut cache = Cache::new();
                let mut stacks = Vec::new();
                let error = loop {
                    match cache.get(4 << 20) {
                        Ok(stack) => stacks.push(stack),
                        Err(refused) => break refused,
                    }
                };
                assert!(error.may_come);
                let error = error.error;
                // Regions were made smaller until the last slot that fits.
                assert!(stacks.len() > 30, "{}", stacks.len());
                assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                let text = format!("{} stacks are in use; look at RLIMIT_AS", stacks.len());
                assert!(error.to_string().contains(&text), "{error}");
            },
        );
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    #[cfg(target_os = "linux")]
    fn a_hundred_thousand_stacks_fit_and_trim_gives_their_memory_back() {
        const SIZE: usize = DEFAULT_STACK;
        let test = "cache::tests::a_hundred_thousand_stacks_fit_and_trim_gives_their_memory_back";
        let child = check_child(test, &[], || {
            let mut cache = Cache::new();
            let stacks = (0..100_000)
                .map(|_| cache.get(SIZE).unwrap())
                .collect::<Vec<_>>();
            for (index, stack) in stacks.iter().enumerate() {
                touch_top(stack, index);
            }
            assert!(
                stacks
                    .iter()
                    .enumerate()
                    .all(|(index, stack)| read_top(stack) == index)
            );
            assert!(stack_bytes() >= 100_000 * SIZE as u64);
            let maps = std::fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .count();
            assert!(maps < 10_000, "{maps} mappings");

            let names = stacks
                .iter()
                .map(|stack| NonZeroUsize::new(stack.top()).unwrap())
                .collect::<Vec<_>>();
            for stack in stacks {
                cache.put(stack);
            }
            cache.flush();
            // Nobody has needed them between the first mark and the next.
            let mut now = Instant::now();
            while let Some(pause) = trim(now, || false) {
                now += pause;
            }
            let guard = Guard::of(DEFAULT_GUARD);
            let resident = names.iter().filter(|base| {
                // SAFETY: not used as a stack, only asked about; the slot stays mapped.
                is_resident(&unsafe { Stack::from_slot(**base, SIZE, guard) })
            });
            assert_eq!(resident.count(), 0);
            // And they can be had again.
            let stack = cache.get(SIZE).unwrap();
            touch_top(&stack, 5);
            cache.put(stack);
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn no_two_threads_get_the_same_stack() {
        const SIZE: usize = 64 << 10;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..4).map(|_| mpsc::channel::<(Stack, usize)>()).unzip();
        std::thread::scope(|scope| {
            for (me, receiver) in receivers.into_iter().enumerate() {
                let senders = senders.clone();
                scope.spawn(move || {
                    let mut cache = Cache::new();
                    for round in 0..5000_usize {
                        let stack = cache.get(SIZE).unwrap();
                        let tag = round * 4 + me;
                        touch_top(&stack, tag);
                        // Most end on another worker than they began on.
                        senders[(me + round) % 4].send((stack, tag)).unwrap();
                        if round % 64 == 0 {
                            cache.flush();
                            trim(
                                Instant::now() + u32::try_from(round).unwrap() * WINDOW,
                                || true,
                            );
                        }
                        for (stack, tag) in receiver.try_iter().take(round % 3) {
                            assert_eq!(read_top(&stack), tag);
                            cache.put(stack);
                        }
                    }
                    drop(senders);
                    for (stack, tag) in receiver {
                        assert_eq!(read_top(&stack), tag);
                        cache.put(stack);
                    }
                });
            }
            drop(senders);
        });
        // All are in the depot now: nothing is lost, nothing is there twice.
        let mut shelves = lock(class_of(SIZE));
        let depot = shelf(&mut shelves, Guard::of(DEFAULT_GUARD));
        let mut tops = depot
            .resident
            .iter()
            .chain(&depot.clean)
            .map(Stack::top)
            .collect::<Vec<_>>();
        let all = tops.len();
        tops.sort_unstable();
        tops.dedup();
        assert_eq!(tops.len(), all);
        assert!(all <= 20_000 + 4 * BATCH, "{all} slots");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn caches_do_not_hoard_and_leave_everything_to_the_depot() {
        const SIZE: usize = 512 << 10;
        let test = "cache::tests::caches_do_not_hoard_and_leave_everything_to_the_depot";
        let child = check_child(test, &[], || {
            let class = class_of(SIZE);
            let mut cache = Cache::new();
            let stacks = (0..200)
                .map(|_| cache.get(SIZE).unwrap())
                .collect::<Vec<_>>();
            for stack in stacks {
                cache.put(stack);
                assert!(cache.hot[class].len() <= 2 * batch(class));
            }
            let mut other = Cache::new();
            drop(cache);
            let kept = || {
                shelf(&mut lock(class), Guard::of(DEFAULT_GUARD))
                    .resident
                    .len()
            };
            assert_eq!(kept(), 200);
            // Another worker gets the ones that are there.
            let _ = other.get(SIZE).map(release);
            assert_eq!(kept() + other.hot[class].len(), 200);
            // When the last worker has gone nobody could give them back later.
            drop(other);
            assert_eq!(kept(), 0);
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }
}
