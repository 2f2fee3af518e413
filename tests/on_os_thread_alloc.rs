//! `OnOsThread`: whatever allocates, the allocator sees only OS threads. It is the allocator of this program.

#![allow(unsafe_code, reason = "a global allocator")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![cfg(target_os = "linux")]

#[path = "it/support.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use support::{MODES, each_mode, in_child, runtime, wait_until};
use weald::OnOsThread;

thread_local! {
    /// Stands for the data that an allocator keeps for each thread.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Notes the thread-locals that it is called on.
struct Notes;

/// The addresses of `CALLS` that were seen.
static SEEN: [AtomicUsize; 4096] = [const { AtomicUsize::new(0) }; 4096];

impl Notes {
    fn note() {
        let place = CALLS.with(|calls| {
            calls.set(calls.get() + 1);
            std::ptr::from_ref(calls) as usize
        });
        for slot in &SEEN {
            let known = slot.load(SeqCst);
            if known == place {
                return;
            }
            if known == 0 && slot.compare_exchange(0, place, SeqCst, SeqCst).is_ok() {
                return;
            }
        }
        std::process::abort();
    }

    fn seen() -> HashSet<usize> {
        let all = SEEN.iter().map(|slot| slot.load(SeqCst));
        all.take_while(|&place| place != 0).collect()
    }
}

// SAFETY: the system's does the work.
unsafe impl GlobalAlloc for Notes {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: by contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: by contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::note();
        // SAFETY: by contract.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::note();
        // SAFETY: by contract.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: OnOsThread<Notes> = OnOsThread::new(Notes);

static BEFORE_MAIN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn before_main() {
    let words: Vec<usize> = (1..4).collect();
    BEFORE_MAIN.store(words.iter().sum(), SeqCst);
}

#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = before_main;

/// Allocates when a thread's destructors run.
struct Late(Vec<u32>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.extend(0..1000);
        assert_eq!(vec![5_u8; 3000].len(), 3000);
    }
}

thread_local! { static LATE: Cell<Option<Late>> = const { Cell::new(None) } }

fn request() {
    let headers: Vec<String> = (0..50).map(|n| "x".repeat(10 + n * 7)).collect();
    let map: BTreeMap<usize, String> = headers.iter().cloned().enumerate().collect();
    let zeros = vec![0_u8; 5000];
    assert_eq!((headers.len(), map.len(), zeros[4999]), (50, 50, 0));
    LATE.set(Some(Late(vec![1])));
}

#[test]
fn it_allocates_before_main_and_without_a_runtime() {
    assert_eq!(BEFORE_MAIN.load(SeqCst), 6);
    std::thread::spawn(request).join().unwrap();
}

#[test]
fn the_allocator_sees_os_threads_only() {
    let test = "the_allocator_sees_os_threads_only";
    for (index, mode) in MODES.iter().enumerate() {
        let number = index.to_string();
        let child = in_child(test, &[("MODE_OF_THE_TEST", &*number)], || {
            let number = std::env::var("MODE_OF_THE_TEST").unwrap();
            let mode = MODES[number.parse::<usize>().unwrap()];
            // The self-test of `Own` runs on two blocks of its own.
            drop(runtime(1, mode));
            let before = Notes::seen();
            let rt = runtime(2, mode);
            let body = || {
                request();
                weald::yield_now();
                weald::park();
                request();
            };
            let all: Vec<_> = (0..500).map(|_| rt.spawn(body)).collect();
            wait_until(|| rt.metrics().parked == 500);
            for thread in &all {
                thread.thread().unpark();
            }
            for thread in all {
                thread.join().unwrap();
            }
            let carriers = rt.metrics().carriers;
            drop(rt);
            let new = Notes::seen().difference(&before).count();
            // These are the thread-locals of the carriers and of the monitor.
            assert!(new <= carriers + 3, "{new} with {carriers} carriers");
        });
        assert!(child.success, "{mode:?}: {child:?}");
    }
}

#[test]
fn what_is_allocated_is_whole_wherever_it_is_freed() {
    each_mode(|rt| {
        let (send, receive) = weald::sync::channel::unbounded::<(u8, Vec<u8>)>();
        let makes = |n: u8| {
            let send = send.clone();
            rt.spawn(move || {
                for size in (1..4000).step_by(37) {
                    let mut buffer = vec![n; size];
                    buffer.reserve_exact(size);
                    buffer.resize(2 * size, n);
                    send.send((n, buffer)).unwrap();
                    weald::yield_now();
                }
            })
        };
        let all: Vec<_> = (1..20).map(makes).collect();
        drop(send);
        let check = rt.spawn(move || {
            let whole = |(n, buffer): (u8, Vec<u8>)| buffer.iter().all(|&byte| byte == n);
            receive.into_iter().map(whole).filter(|&it| it).count()
        });
        for thread in all {
            thread.join().unwrap();
        }
        assert_eq!(check.join().unwrap(), 19 * (1..4000).step_by(37).count());
    });
}

#[test]
fn an_allocation_that_is_refused_is_null_as_without_it() {
    each_mode(|rt| {
        rt.run(|| {
            let mut buffer = Vec::<u8>::new();
            assert!(buffer.try_reserve(isize::MAX.cast_unsigned() / 2).is_err());
        });
    });
}
