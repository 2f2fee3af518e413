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
//!    meet the depot's lock once in a batch, and no worker hoards.
//! 3. No class's lock is held while a system call guards slots or gives pages back; it is held for
//!    `mmap`, so that one worker grows a class and the others use what it got.
#![allow(unsafe_code, reason = "tests touch the stacks they get")]

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::region::{self, Fresh};
use super::{CLASSES, MAX_STACK, MIN_STACK, Stack, class_of, round_up_to_class};
use crate::shim::plain::{Mutex, MutexGuard};

/// Stacks that go between a cache and the depot at a time, unless they are large.
const BATCH: usize = 16;

/// Bytes that such a batch may have; one stack is always allowed.
const BATCH_BYTES: usize = 4 << 20;

/// Stacks of each class that [`Cache::trim`] leaves as they are, for the next few green threads.
const KEEP_HOT: usize = 4;

/// Stacks of each class in the depot whose pages one [`Cache::trim`] gives back. At 0.6 to 1 us
/// each an idle worker spends half a millisecond on it.
const TRIM: usize = 512;

/// Stacks outside the depot: run on, or in a hot list.
static OUT: AtomicUsize = AtomicUsize::new(0);

/// Usable bytes of those stacks.
static OUT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of address space of all stacks that green threads have or that workers keep at hand (at
/// most 32 each), guard pages left aside. Only touched pages of it cost memory. It counts the whole
/// process, is exact at any quiet moment, and costs nothing to keep: it changes once in a batch.
pub(crate) fn stack_bytes() -> u64 {
    OUT_BYTES.load(Ordering::Relaxed)
}

/// The number of stacks that [`stack_bytes`] counts, for error messages.
pub(super) fn live() -> usize {
    OUT.load(Ordering::Relaxed)
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
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// Per class, the hottest last. Without room until the class is first used.
    hot: [Vec<Stack>; CLASSES],
}

impl Cache {
    /// A cache without stacks; it allocates nothing.
    pub(crate) const fn new() -> Self {
        Self {
            hot: [const { Vec::new() }; CLASSES],
        }
    }

    /// Takes a stack of at least this many usable bytes; of exactly this many, if they are what
    /// [`round_up_to_class`] gives.
    ///
    /// # Errors
    /// `InvalidInput` above [`MAX_STACK`]; `OutOfMemory` if the system refuses memory or, on a
    /// kernel where guard pages count, another one. The message names the limit.
    #[inline]
    pub(crate) fn get(&mut self, size: usize) -> io::Result<Stack> {
        // A size that is too large has no class.
        if let Some(stack) = self.hot.get_mut(class_of(size)).and_then(Vec::pop) {
            return Ok(stack);
        }
        self.refill_and_get(size)
    }

    #[cold]
    fn refill_and_get(&mut self, size: usize) -> io::Result<Stack> {
        let size = round_up_to_class(size);
        if size > MAX_STACK {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a stack of {size} bytes is above the bound of {MAX_STACK}"),
            ));
        }
        let class = class_of(size);
        let hot = &mut self.hot[class];
        if hot.is_empty() {
            hot.reserve_exact(2 * batch(class));
            withdraw(class, hot)?;
        }
        Ok(hot.pop().expect("a withdrawal gives at least one stack"))
    }

    /// Takes back a stack that nobody runs on any more.
    #[inline]
    pub(crate) fn put(&mut self, stack: Stack) {
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

    /// For an idle worker: gives memory back to the system, a little each time. Of each class the
    /// hottest four stay; what else this worker has goes to the depot without its pages, and so do
    /// up to 512 of the depot's own. Returns whether the depot has more to give back.
    ///
    /// It takes up to a millisecond when there is much to do, so it is for workers that have had
    /// nothing to do for a while, not for every short sleep.
    pub(crate) fn trim(&mut self) -> bool {
        let mut more = false;
        for (class, hot) in self.hot.iter_mut().enumerate() {
            let mut cold = hot
                .drain(..hot.len().saturating_sub(KEEP_HOT))
                .collect::<Vec<_>>();
            let mine = cold.len();
            {
                let mut depot = lock(class);
                let theirs = depot.resident.len().min(TRIM);
                cold.extend(depot.resident.drain(..theirs));
                more |= !depot.resident.is_empty();
            }
            if cold.is_empty() {
                continue;
            }
            count_in(class, mine);
            region::discard(&mut cold);
            // The lowest address comes out first: what is in use stays close together.
            lock(class).clean.extend(cold.into_iter().rev());
        }
        more
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        for (class, hot) in self.hot.iter_mut().enumerate() {
            if !hot.is_empty() {
                deposit(class, hot.drain(..));
            }
        }
    }
}

/// Gives a stack back where there is no cache at hand.
pub(crate) fn release(stack: Stack) {
    deposit(stack.class(), std::iter::once(stack));
}

/// One class of the depot. The table at the head of this file says what the lists hold.
#[derive(Debug)]
struct Class {
    /// The hottest last.
    resident: VecDeque<Stack>,
    clean: Vec<Stack>,
    bare: Vec<Stack>,
    fresh: Fresh,
    /// Bytes in all regions of this class.
    mapped: usize,
}

static DEPOT: [Mutex<Class>; CLASSES] = [const {
    Mutex::new(Class {
        resident: VecDeque::new(),
        clean: Vec::new(),
        bare: Vec::new(),
        fresh: Fresh::EMPTY,
        mapped: 0,
    })
}; CLASSES];

fn lock(class: usize) -> MutexGuard<'static, Class> {
    // A panic while it is held (an allocation that failed) may leak slots, but never doubles one.
    DEPOT[class].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves up to a batch of stacks, at least one, from the depot to an empty hot list.
fn withdraw(class: usize, hot: &mut Vec<Stack>) -> io::Result<()> {
    debug_assert!(hot.is_empty(), "what is in the list would be guarded again");
    let want = batch(class);
    let mut depot = lock(class);
    let resident = depot.resident.len().saturating_sub(want);
    hot.extend(depot.resident.drain(resident..));
    if hot.is_empty() {
        let clean = depot.clean.len().saturating_sub(want);
        hot.extend(depot.clean.drain(clean..));
    }
    if !hot.is_empty() {
        drop(depot);
        count_out(class, hot.len());
        return Ok(());
    }
    // Only slots without a guard are left.
    depot.take_bare(MIN_STACK << class, want, hot)?;
    drop(depot);
    let guarded = region::guard(hot);
    let (guarded, error) = match guarded {
        Ok(guarded) => (guarded, None),
        Err(error) => (0, Some(error)),
    };
    if guarded < hot.len() {
        lock(class).bare.extend(hot.drain(guarded..));
    }
    if let Some(error) = error {
        return Err(error);
    }
    hot.iter().for_each(Stack::register_with_valgrind);
    // The lowest address comes out first.
    hot.reverse();
    count_out(class, hot.len());
    Ok(())
}

impl Class {
    fn take_bare(&mut self, size: usize, want: usize, hot: &mut Vec<Stack>) -> io::Result<()> {
        let bare = self.bare.len().saturating_sub(want);
        hot.extend(self.bare.drain(bare..));
        if !hot.is_empty() {
            return Ok(());
        }
        hot.extend(std::iter::from_fn(|| self.fresh.take(size)).take(want));
        if !hot.is_empty() {
            return Ok(());
        }
        let (fresh, bytes) = region::map(size, self.mapped)?;
        self.fresh = fresh;
        self.mapped += bytes;
        hot.extend(std::iter::from_fn(|| self.fresh.take(size)).take(want));
        Ok(())
    }
}

/// Puts stacks, the coldest first, into the depot.
fn deposit(class: usize, stacks: impl ExactSizeIterator<Item = Stack>) {
    count_in(class, stacks.len());
    lock(class).resident.extend(stacks);
}

fn count_out(class: usize, stacks: usize) {
    OUT.fetch_add(stacks, Ordering::Relaxed);
    OUT_BYTES.fetch_add(bytes_of(class, stacks), Ordering::Relaxed);
}

fn count_in(class: usize, stacks: usize) {
    OUT.fetch_sub(stacks, Ordering::Relaxed);
    OUT_BYTES.fetch_sub(bytes_of(class, stacks), Ordering::Relaxed);
}

fn bytes_of(class: usize, stacks: usize) -> u64 {
    (stacks * (MIN_STACK << class)) as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::io::ErrorKind;
    use std::num::NonZeroUsize;
    use std::ptr;
    use std::sync::mpsc;

    use super::super::tests::check_child;
    use super::super::{DEFAULT_STACK, region};
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
        let page = region::page_size();
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
            let error = cache.get(size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1073741824"), "{error}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no guard pages")]
    fn the_page_below_a_stack_is_a_guard() {
        use std::os::unix::process::ExitStatusExt;
        for guard in ["", "mprotect"] {
            let variables = [("WEALD_STACK_GUARD", guard)];
            let variables = if guard.is_empty() {
                &[][..]
            } else {
                &variables
            };
            let test = "cache::tests::the_page_below_a_stack_is_a_guard";
            let child = check_child(test, variables, || {
                let mut cache = Cache::new();
                let mut stacks = (0..40)
                    .map(|_| cache.get(MIN_STACK).unwrap())
                    .collect::<Vec<_>>();
                // Giving pages back does not take guards away.
                region::discard(&mut stacks);
                for stack in &stacks {
                    assert_eq!(region::guard_at(stack.slot()), Some(MIN_STACK));
                    assert_eq!(region::guard_at(stack.bottom() - 1), Some(MIN_STACK));
                    assert_eq!(region::guard_at(stack.bottom()), None);
                    // The kernel is asked to write there: it says EFAULT for a guard.
                    let mut ends = [0; 2];
                    // SAFETY: the array has room for both ends; a pipe's buffer takes the bytes.
                    // Whether the kernel can read a byte is all that is asked.
                    unsafe {
                        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
                        assert_eq!(libc::write(ends[1], bytes_at(stack.bottom()).cast(), 1), 1);
                        assert_eq!(libc::write(ends[1], bytes_at(stack.slot()).cast(), 1), -1);
                        assert_eq!(
                            io::Error::last_os_error().raw_os_error(),
                            Some(libc::EFAULT)
                        );
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
                    let error = cache.get(1).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                    let text = error.to_string();
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
    fn a_guard_setting_that_means_nothing_is_an_error() {
        let child = check_child(
            "cache::tests::a_guard_setting_that_means_nothing_is_an_error",
            &[("WEALD_STACK_GUARD", "none")],
            || {
                let error = Cache::new().get(1).unwrap_err();
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
                        Err(error) => break error,
                    }
                };
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
            while cache.trim() {}
            let resident = names.iter().filter(|base| {
                // SAFETY: not used as a stack, only asked about; the slot stays mapped.
                is_resident(&unsafe { Stack::from_slot(**base, SIZE) })
            });
            assert_eq!(resident.count(), KEEP_HOT);
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
                            cache.trim();
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
        let depot = lock(class_of(SIZE));
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
            drop(cache);
            let kept = lock(class).resident.len();
            assert_eq!(kept, 200);
            // A later worker gets the ones that are there.
            let mut other = Cache::new();
            let _ = other.get(SIZE).map(release);
            assert_eq!(lock(class).resident.len() + other.hot[class].len(), 200);
        });
        let Some(child) = child else { return };
        assert!(child.status.success(), "{child:?}");
    }
}
