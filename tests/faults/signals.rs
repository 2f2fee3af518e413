//! Signals and fork while green threads run. Each test runs in a process of its own.

use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use weald::{Builder, Runtime};

use crate::support::{
    HOUR, LIMIT, MODES, MS, each_mode, green_pair, in_child, runtime, v4, wait_until, with_deadline,
};

/// The handler of a signal; without SA_RESTART, so that calls which are interrupted say so.
fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int), flags: libc::c_int) {
    // SAFETY: all zeroes is a valid sigaction, and the pointers are to live ones.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        let outcome = libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        assert_eq!(outcome, 0);
    }
}

static ALARMS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_alarm(_: libc::c_int) {
    ALARMS.fetch_add(1, SeqCst);
}

/// Raises a thousand alarms a second, on whichever OS thread the kernel takes.
struct Alarms;

impl Alarms {
    fn start(flags: libc::c_int) -> Self {
        handle(libc::SIGALRM, count_alarm, flags);
        Self::each(1000);
        Self
    }

    fn each(micros: libc::suseconds_t) {
        let every = libc::timeval {
            tv_sec: 0,
            tv_usec: micros,
        };
        let timer = libc::itimerval {
            it_interval: every,
            it_value: every,
        };
        // SAFETY: the pointers are to live values, or null.
        let outcome =
            unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
        assert_eq!(outcome, 0);
    }
}

/// Stops the alarms before the process ends: if another thread calls std's `exit`, it unmaps the stack on which the
/// main thread handles signals, and the main thread runs on.
impl Drop for Alarms {
    fn drop(&mut self) {
        Self::each(0);
        // SAFETY: it is not needed any more.
        unsafe { libc::signal(libc::SIGALRM, libc::SIG_IGN) };
    }
}

fn sleep_and_echo() {
    for round in 0..50 {
        let pause = Duration::from_micros(100 + 150 * round);
        let start = Instant::now();
        weald::sleep(pause);
        assert!(start.elapsed() >= pause, "early");
        let semaphore = weald::sync::Semaphore::new(0);
        assert!(semaphore.acquire_timeout(pause).is_none());
        let (mut near, mut far) = green_pair(v4());
        let echoes = weald::spawn(move || {
            let mut buffer = vec![0; 50_000];
            far.read_exact(&mut buffer)?;
            far.write_all(&buffer)
        });
        near.write_all(&vec![7; 50_000]).unwrap();
        near.read_exact(&mut vec![0; 50_000]).unwrap();
        echoes.join().unwrap().unwrap();
    }
}

#[test]
fn eintr_a_thousand_alarms_a_second_end_no_wait_early_and_disturb_no_call() {
    let test = "signals::eintr_a_thousand_alarms_a_second_end_no_wait_early_and_disturb_no_call";
    let child = in_child(test, &[], || {
        let _alarms = Alarms::start(0);
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(sleep_and_echo);
        // On an OS thread too.
        sleep_and_echo();
        wait_until(|| ALARMS.load(SeqCst) > 100);
        println!("{} alarms", ALARMS.load(SeqCst));
    });
    assert!(
        child.success && child.stdout.contains("alarms"),
        "{child:?}"
    );
}

static HANDLERS_PLACE: AtomicUsize = AtomicUsize::new(0);

/// Where its own stack is; it uses some of it.
extern "C" fn tell_place(_: libc::c_int) {
    let block = std::hint::black_box([1_u8; 1000]);
    HANDLERS_PLACE.store(block.as_ptr() as usize, SeqCst);
}

/// How far the handler's stack lies from the caller's.
fn distance(signal: libc::c_int) -> usize {
    // All tests share the place.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap();
    let here = std::hint::black_box(0_u8);
    // SAFETY: the signal has a handler.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
    (&raw const here as usize).abs_diff(HANDLERS_PLACE.load(SeqCst))
}

const STACK: usize = 64 << 10;

#[test]
fn a_handler_runs_on_the_green_stack_or_on_the_one_for_signals_as_it_asked() {
    let test = "signals::a_handler_runs_on_the_green_stack_or_on_the_one_for_signals_as_it_asked";
    let child = in_child(test, &[], || {
        handle(libc::SIGUSR1, tell_place, 0);
        handle(libc::SIGUSR2, tell_place, libc::SA_ONSTACK);
        for mode in MODES {
            let rt = runtime(2, mode);
            let threads: Vec<_> = (0..10)
                .map(|_| {
                    let builder = Builder::new().stack_size(STACK);
                    let body = || {
                        for _ in 0..20 {
                            assert!(distance(libc::SIGUSR1) < STACK);
                            weald::yield_now();
                            assert!(distance(libc::SIGUSR2) >= STACK);
                            weald::yield_now();
                        }
                    };
                    rt.run(|| builder.spawn(body).unwrap())
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }
    });
    assert!(child.success, "{child:?}");
}

/// Alarms come while small stacks are in full use, and each finds the thread's values as it left them.
#[test]
fn a_storm_of_alarms_on_small_stacks_overwrites_nothing() {
    let test = "signals::a_storm_of_alarms_on_small_stacks_overwrites_nothing";
    let child = in_child(test, &[], || {
        let _alarms = Alarms::start(libc::SA_ONSTACK);
        for mode in MODES {
            let rt = runtime(2, mode);
            let before = ALARMS.load(SeqCst);
            let body = move |number: u8| {
                move || {
                    while ALARMS.load(SeqCst) < before + 200 {
                        let block = std::hint::black_box([number; 2000]);
                        weald::yield_now();
                        assert!(block.iter().all(|&byte| byte == number));
                    }
                }
            };
            let spawn = |number| {
                rt.run(|| {
                    Builder::new()
                        .stack_size(STACK)
                        .spawn(body(number))
                        .unwrap()
                })
            };
            for thread in (0..10).map(spawn).collect::<Vec<_>>() {
                thread.join().unwrap();
            }
        }
    });
    assert!(child.success, "{child:?}");
}

#[test]
fn fork_in_a_green_thread_leaves_the_parent_as_it_was() {
    each_mode(|rt| {
        let status = rt.run(|| {
            let others: Vec<_> = (0..4).map(|_| weald::spawn(weald::park)).collect();
            weald::yield_now();
            // SAFETY: the child calls what may be called after a fork, and leaves at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let code = if weald::is_green() { 42 } else { 43 };
                // SAFETY: as above.
                unsafe { libc::_exit(code) };
            }
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: the place is valid.
            weald::blocking(|| unsafe { libc::waitpid(child, &raw mut status, 0) });
            for other in others {
                other.thread().unpark();
                other.join().unwrap();
            }
            status
        });
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 42);
    });
}

/// Shuts the runtime down in a child of this process and returns if it was clean. `None`: the child does not come
/// back.
fn shut_down_in_a_child(rt: &Runtime) -> Option<bool> {
    // SAFETY: the child has a runtime of its own here, a copy of the parent's memory, and leaves without
    // destructors.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(30);
            libc::_exit(i32::from(std::ptr::read(rt).shutdown(HOUR)));
        }
        assert!(child > 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        libc::WIFEXITED(status).then_some(libc::WEXITSTATUS(status) == 1)
    }
}

#[test]
fn fork_a_child_can_let_go_of_the_runtimes_of_its_parent() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                // These need more OS threads than the first ones.
                rt.run(|| {
                    let block = || weald::blocking(|| std::thread::sleep(MS));
                    let all: Vec<_> = (0..5).map(|_| weald::spawn(block)).collect();
                    for one in all {
                        one.join().unwrap();
                    }
                });
                let case = format!("in mode {mode:?} with {workers} workers");
                assert_eq!(shut_down_in_a_child(&rt), Some(false), "idle, {case}");
                let waits = rt.spawn(weald::park);
                wait_until(|| rt.metrics().parked == 1);
                assert_eq!(shut_down_in_a_child(&rt), Some(false), "not idle, {case}");
                // The parent's runtime is as before.
                waits.thread().unpark();
                waits.join().unwrap();
                assert!(rt.shutdown(HOUR));
            });
        }
    }
}
