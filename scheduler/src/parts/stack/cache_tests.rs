//! Tests of caches and the depot.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(unsafe_code, reason = "tests touch the stacks they get")]

use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::mpsc;
use std::time::Instant;

use super::super::depot::{BATCH, lock, shelf};
use super::super::excess::{WINDOW, trim};
use super::super::page::page_size;
use super::super::tests::check_child;
use super::super::{DEFAULT_STACK, MIN_GUARD, MIN_STACK, region, stack_bytes};
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
