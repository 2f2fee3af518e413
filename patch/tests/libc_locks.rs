//! libc's locks, which C++ uses too, between green threads and OS threads.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "small numbers; closures that are kept"
)]

mod support;

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::{at_once, in_green, runtime};

/// Records of libc's, as their static initialisers make them.
struct Locks {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    condition: UnsafeCell<libc::pthread_cond_t>,
    rwlock: UnsafeCell<libc::pthread_rwlock_t>,
    semaphore: UnsafeCell<libc::sem_t>,
    /// Guarded by the mutex.
    value: UnsafeCell<usize>,
}

// SAFETY: libc's functions may be called on them by any thread; `value` has its mutex.
unsafe impl Sync for Locks {}
// SAFETY: as above.
unsafe impl Send for Locks {}

impl Locks {
    fn new(up: u32) -> Arc<Self> {
        // SAFETY: all zeros is a valid semaphore to be made anew.
        let semaphore = unsafe { std::mem::zeroed() };
        let locks = Arc::new(Self {
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            condition: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            rwlock: UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER),
            semaphore: UnsafeCell::new(semaphore),
            value: UnsafeCell::new(0),
        });
        // SAFETY: it is where it stays.
        assert_eq!(unsafe { libc::sem_init(locks.semaphore.get(), 0, up) }, 0);
        locks
    }

    fn locked<T>(&self, body: impl FnOnce(&mut usize) -> T) -> T {
        // SAFETY: an initialised mutex, which guards the value.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.mutex.get()), 0);
            let result = body(&mut *self.value.get());
            assert_eq!(libc::pthread_mutex_unlock(self.mutex.get()), 0);
            result
        }
    }

    /// Waits until the value has reached `least`.
    fn wait_for(&self, least: usize) {
        // SAFETY: initialised, and the mutex is held while the value is read.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.mutex.get()), 0);
            while *self.value.get() < least {
                assert_eq!(
                    libc::pthread_cond_wait(self.condition.get(), self.mutex.get()),
                    0
                );
            }
            assert_eq!(libc::pthread_mutex_unlock(self.mutex.get()), 0);
        }
    }

    /// Makes the read-write lock, which no thread has, of this kind.
    fn prefer(&self, kind: libc::c_int) {
        // SAFETY: attributes of our own, and the lock is where it stays.
        unsafe {
            let mut attributes = std::mem::zeroed();
            assert_eq!(libc::pthread_rwlockattr_init(&raw mut attributes), 0);
            assert_eq!(pthread_rwlockattr_setkind_np(&raw mut attributes, kind), 0);
            let made = libc::pthread_rwlock_init(self.rwlock.get(), &raw const attributes);
            assert_eq!(made, 0);
        }
    }

    fn read(&self) {
        // SAFETY: initialised.
        assert_eq!(unsafe { libc::pthread_rwlock_rdlock(self.rwlock.get()) }, 0);
    }

    fn unlock(&self) {
        // SAFETY: initialised, and the caller has it.
        assert_eq!(unsafe { libc::pthread_rwlock_unlock(self.rwlock.get()) }, 0);
    }

    fn broadcast(&self) {
        // SAFETY: initialised.
        let result = unsafe { libc::pthread_cond_broadcast(self.condition.get()) };
        assert_eq!(result, 0);
    }
}

/// Allocators that are linked in take mutexes in the middle of the scheduler.
#[test]
fn mutexes_are_left_to_libc() {
    for name in [
        c"pthread_mutex_lock",
        c"pthread_mutex_trylock",
        c"pthread_mutex_timedlock",
        c"pthread_mutex_clocklock",
        c"pthread_mutex_unlock",
    ] {
        // SAFETY: names that end by zero.
        let (first, next) = unsafe {
            (
                libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()),
                libc::dlsym(libc::RTLD_NEXT, name.as_ptr()),
            )
        };
        assert!(!first.is_null(), "{name:?}");
        assert_eq!(first, next, "{name:?}");
    }
}

/// Runs the body in many green threads. Each may keep an OS thread, as a thread that waits for a mutex does.
fn with_an_os_thread_for_each(many: usize, body: impl Fn() + Send + Sync + 'static) {
    let rt = runtime(many);
    let body = Arc::new(body);
    let threads: Vec<_> = (0..many)
        .map(|_| {
            let body = body.clone();
            rt.spawn(move || body())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_mutex_that_is_held_over_a_sleep_is_waited_for() {
    let locks = Locks::new(0);
    let (shared, inside) = (locks.clone(), Arc::new(AtomicUsize::new(0)));
    with_an_os_thread_for_each(20, move || {
        shared.locked(|value| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            thread::sleep(Duration::from_micros(200));
            *value += 1;
            inside.fetch_sub(1, Ordering::SeqCst);
        });
    });
    assert_eq!(locks.locked(|value| *value), 20);
}

#[test]
fn green_threads_and_os_threads_share_a_mutex_and_a_condition() {
    const EACH: usize = 8;
    const ROUNDS: usize = 50;
    let locks = Locks::new(0);
    let rt = runtime(4);
    let body = |locks: Arc<Locks>| {
        move || {
            for round in 0..ROUNDS {
                let is_last = locks.locked(|value| {
                    *value += 1;
                    value.is_multiple_of(2 * EACH)
                });
                if is_last {
                    locks.broadcast();
                }
                locks.wait_for((round + 1) * 2 * EACH);
            }
        }
    };
    let green: Vec<_> = (0..EACH).map(|_| rt.spawn(body(locks.clone()))).collect();
    let os: Vec<_> = (0..EACH)
        .map(|_| thread::spawn(body(locks.clone())))
        .collect();
    for thread in green {
        thread.join().unwrap();
    }
    for thread in os {
        thread.join().unwrap();
    }
    assert_eq!(locks.locked(|value| *value), 2 * EACH * ROUNDS);
}

#[test]
fn all_who_wait_for_a_condition_go_on_after_a_broadcast() {
    let locks = Locks::new(0);
    let shared = locks.clone();
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    at_once(81, move |n| {
        if n == 80 {
            thread::sleep(Duration::from_millis(5));
            shared.locked(|value| *value = 1);
            shared.broadcast();
        } else {
            shared.wait_for(1);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 80);
}

#[test]
fn a_condition_ends_by_its_limit_with_the_mutex_held() {
    in_green(|| {
        let locks = Locks::new(0);
        // SAFETY: initialised; a pointer to a local.
        unsafe {
            let mut limit: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut limit);
            limit.tv_sec += i64::from(limit.tv_nsec >= 990_000_000);
            limit.tv_nsec = (limit.tv_nsec + 10_000_000) % 1_000_000_000;
            let (mutex, condition) = (locks.mutex.get(), locks.condition.get());
            assert_eq!(libc::pthread_mutex_lock(mutex), 0);
            let ended = libc::pthread_cond_timedwait(condition, mutex, &raw const limit);
            assert_eq!(ended, libc::ETIMEDOUT);
            assert_eq!(libc::pthread_mutex_trylock(mutex), libc::EBUSY);
            assert_eq!(libc::pthread_mutex_unlock(mutex), 0);
        }
    });
}

#[test]
fn readers_share_a_lock_and_a_writer_waits_for_them() {
    let locks = Locks::new(0);
    let shared = locks.clone();
    let readers = Arc::new(AtomicUsize::new(0));
    at_once(40, move |n| {
        let lock = shared.rwlock.get();
        // SAFETY: an initialised lock.
        unsafe {
            if n % 8 == 0 {
                assert_eq!(libc::pthread_rwlock_wrlock(lock), 0);
                assert_eq!(readers.load(Ordering::SeqCst), 0);
                thread::sleep(Duration::from_micros(300));
                assert_eq!(readers.load(Ordering::SeqCst), 0);
            } else {
                assert_eq!(libc::pthread_rwlock_rdlock(lock), 0);
                readers.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_micros(300));
                readers.fetch_sub(1, Ordering::SeqCst);
            }
            assert_eq!(libc::pthread_rwlock_unlock(lock), 0);
        }
    });
}

#[test]
fn a_semaphore_lets_as_many_through_as_it_was_posted() {
    let locks = Locks::new(3);
    let shared = locks.clone();
    let inside = Arc::new(AtomicUsize::new(0));
    at_once(50, move |_| {
        let semaphore = shared.semaphore.get();
        // SAFETY: an initialised semaphore.
        unsafe {
            assert_eq!(libc::sem_wait(semaphore), 0);
            assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
            thread::sleep(Duration::from_micros(200));
            inside.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(libc::sem_post(semaphore), 0);
        }
    });
}

#[test]
fn an_os_thread_posts_for_green_ones() {
    let locks = Locks::new(0);
    let rt = runtime(1);
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let locks = locks.clone();
            // SAFETY: an initialised semaphore.
            rt.spawn(move || unsafe { assert_eq!(libc::sem_wait(locks.semaphore.get()), 0) })
        })
        .collect();
    for _ in 0..20 {
        thread::sleep(Duration::from_micros(300));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sem_post(locks.semaphore.get()) }, 0);
    }
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

#[test]
fn a_recursive_mutex_is_its_green_threads() {
    let locks = Locks::new(0);
    // SAFETY: attributes and mutex are made as POSIX says, before anybody else has them.
    unsafe {
        let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut attributes);
        libc::pthread_mutexattr_settype(&raw mut attributes, libc::PTHREAD_MUTEX_RECURSIVE);
        libc::pthread_mutex_init(locks.mutex.get(), &raw const attributes);
    }
    let shared = locks.clone();
    let inside = Arc::new(AtomicUsize::new(0));
    with_an_os_thread_for_each(20, move || {
        // SAFETY: an initialised mutex.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(shared.mutex.get()), 0);
            assert_eq!(libc::pthread_mutex_lock(shared.mutex.get()), 0);
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            thread::sleep(Duration::from_micros(200));
            inside.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(libc::pthread_mutex_unlock(shared.mutex.get()), 0);
            assert_eq!(libc::pthread_mutex_unlock(shared.mutex.get()), 0);
        }
    });
}

type OfRwLock = unsafe extern "C" fn(*mut libc::pthread_rwlock_t) -> libc::c_int;

/// An OS thread locks and unlocks all the time, and has the lock again before a green thread that is told can try.
/// libc lets waiters in its own queue in at once.
fn check_that_who_is_always_beaten_gets_in(
    kind: libc::c_int,
    beats: OfRwLock,
    waits: impl Fn(*mut libc::pthread_rwlock_t) -> libc::c_int + Send + Sync,
) {
    let locks = Locks::new(0);
    locks.prefer(kind);
    let rounds = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::SeqCst) == 0 {
                // SAFETY: an initialised lock.
                assert_eq!(unsafe { beats(locks.rwlock.get()) }, 0);
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(200) {
                    std::hint::spin_loop();
                }
                rounds.fetch_add(1, Ordering::SeqCst);
                locks.unlock();
            }
        });
        runtime(8).run(|| {
            while rounds.load(Ordering::SeqCst) == 0 {
                weald::yield_now();
            }
            weald::scope(|green| {
                for _ in 0..4 {
                    green.spawn(|| {
                        assert_eq!(waits(locks.rwlock.get()), 0);
                        locks.unlock();
                    });
                }
            });
        });
        done.store(1, Ordering::SeqCst);
    });
}

unsafe extern "C" {
    fn pthread_rwlockattr_setkind_np(
        attributes: *mut libc::pthread_rwlockattr_t,
        kind: libc::c_int,
    ) -> libc::c_int;
    fn pthread_rwlock_timedwrlock(
        lock: *mut libc::pthread_rwlock_t,
        limit: *const libc::timespec,
    ) -> libc::c_int;
}

/// `PTHREAD_RWLOCK_PREFER_READER_NP`, the default, and `PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP`.
const PREFER: [libc::c_int; 2] = [0, 2];

#[test]
fn a_writer_gets_a_lock_that_an_os_thread_reads_all_the_time() {
    for kind in PREFER {
        // SAFETY: an initialised lock.
        let waits = |lock| unsafe { libc::pthread_rwlock_wrlock(lock) };
        check_that_who_is_always_beaten_gets_in(kind, libc::pthread_rwlock_rdlock, waits);
    }
}

#[test]
fn a_reader_gets_a_lock_that_an_os_thread_writes_all_the_time() {
    // SAFETY: an initialised lock.
    let waits = |lock| unsafe { libc::pthread_rwlock_rdlock(lock) };
    check_that_who_is_always_beaten_gets_in(PREFER[0], libc::pthread_rwlock_wrlock, waits);
}

#[test]
fn a_writer_that_is_always_beaten_gets_in_before_its_limit() {
    let waits = |lock| {
        let mut limit = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a pointer to a local, and an initialised lock.
        unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut limit);
            limit.tv_sec += 60;
            pthread_rwlock_timedwrlock(lock, &raw const limit)
        }
    };
    check_that_who_is_always_beaten_gets_in(PREFER[0], libc::pthread_rwlock_rdlock, waits);
}

/// Two OS threads read in turns, so that one of them always has the lock, until a waiting writer keeps the next
/// reader out.
#[test]
fn a_writer_that_is_preferred_keeps_new_readers_out() {
    let locks = Locks::new(0);
    locks.prefer(PREFER[1]);
    let (to_first, first) = mpsc::channel();
    let (to_second, second) = mpsc::channel();
    let done = AtomicBool::new(false);
    let (locks, done) = (&*locks, &done);
    let reads = |told: mpsc::Receiver<()>, other: mpsc::Sender<()>, is_second: bool| {
        move || {
            if is_second {
                told.recv().unwrap();
            }
            while !done.load(Ordering::SeqCst) {
                locks.read();
                let _ = other.send(());
                // It goes on until the other thread has the lock too, or waits behind the writer.
                let _ = told.recv_timeout(Duration::from_millis(50));
                locks.unlock();
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(reads(first, to_second, false));
        scope.spawn(reads(second, to_first, true));
        runtime(8).run(|| {
            weald::sleep(Duration::from_millis(5));
            // SAFETY: an initialised lock.
            let locked = unsafe { libc::pthread_rwlock_wrlock(locks.rwlock.get()) };
            assert_eq!(locked, 0);
            done.store(true, Ordering::SeqCst);
            locks.unlock();
        });
    });
}

#[test]
fn a_writer_gets_a_lock_of_std_that_os_threads_read_all_the_time() {
    let (lock, done) = (std::sync::RwLock::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(Ordering::SeqCst) == 0 {
                    let guard = lock.read().unwrap();
                    thread::yield_now();
                    drop(guard);
                }
            });
        }
        in_green(|| (0..20).for_each(|_| *lock.write().unwrap() += 1));
        done.store(1, Ordering::SeqCst);
    });
    assert_eq!(*lock.read().unwrap(), 20);
}
