//! Descriptors in states that the kernel reports again and again: what their tests share.
//!
//! Nothing here depends on how busy the machine is: the kernel and the runtime are asked if a call waits.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use weald::{Doing, GreenThreadId, JoinHandle, Runtime};

/// Calls `f` for all of them at once, as filling a socket takes a while.
pub(crate) fn at_once<A: Send, B: Send>(all: Vec<A>, f: impl Fn(A) -> B + Sync) -> Vec<B> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|one| scope.spawn(|| f(one))).collect();
        let made = threads.into_iter().map(|thread| thread.join().unwrap());
        made.collect()
    })
}

/// A path for one use.
pub(crate) fn place() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let name = format!("weald-quiet-{}-{number}", std::process::id());
    std::env::temp_dir().join(name)
}

pub(crate) fn told(result: io::Result<usize>) -> String {
    match result {
        Ok(count) => format!("{count}"),
        Err(error) => error.to_string(),
    }
}

/// A call on an OS thread. A call that waits is left behind.
pub(crate) struct OnThread {
    id: libc::pid_t,
    answer: Receiver<String>,
}

impl OnThread {
    /// Begins the call.
    pub(crate) fn begin(call: impl FnOnce() -> io::Result<usize> + Send + 'static) -> Self {
        let (says, hears) = channel();
        let (answers, answer) = channel();
        std::thread::spawn(move || {
            // SAFETY: no pointers.
            says.send(unsafe { libc::gettid() }).unwrap();
            let _ = answers.send(told(call()));
        });
        Self {
            id: hears.recv().unwrap(),
            answer,
        }
    }

    /// Returns what the call has returned; `None` if it waits.
    pub(crate) fn answer(&self) -> Option<String> {
        let mut looks = 0;
        loop {
            match self.answer.try_recv() {
                Ok(answer) => return Some(answer),
                Err(TryRecvError::Disconnected) => panic!("the call panicked"),
                Err(TryRecvError::Empty) if looks == 3 => return None,
                Err(TryRecvError::Empty) => {}
            }
            looks = if self.stands() { looks + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells if the thread is inside a system call, and not for a lock of the allocator's: proc_pid_syscall(5).
    fn stands(&self) -> bool {
        let task = format!("/proc/self/task/{}", self.id);
        if let Ok(text) = std::fs::read_to_string(format!("{task}/syscall")) {
            let number = text
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
            return number.is_some_and(|number: libc::c_long| number != libc::SYS_futex);
        }
        // Not every user may look there.
        std::fs::read_to_string(format!("{task}/stat")).is_ok_and(|text| text.contains(") S "))
    }
}

/// Waits until each of these threads has ended or was seen to wait again and again.
pub(crate) fn settle<T>(rt: &Runtime, calls: &[JoinHandle<T>]) {
    let mut looks: HashMap<GreenThreadId, u32> = HashMap::new();
    let mut is_settled = false;
    while !is_settled {
        std::thread::sleep(Duration::from_millis(20));
        for thread in rt.dump().threads {
            if thread.doing == Doing::Waits {
                *looks.entry(thread.id).or_default() += 1;
            }
        }
        is_settled = calls.iter().all(|call| {
            call.is_finished()
                || looks
                    .get(&call.thread().id())
                    .is_some_and(|&looks| looks >= 3)
        });
    }
}

/// Returns what each call has returned; `None` if it waits. Calls that wait are killed.
pub(crate) fn answers(rt: &Runtime, calls: Vec<JoinHandle<String>>) -> Vec<Option<String>> {
    settle(rt, &calls);
    let answer = |call: JoinHandle<String>| {
        if call.is_finished() {
            return Some(call.join().unwrap());
        }
        call.thread().kill();
        // What a killed call says is of no interest here.
        drop(call.join());
        None
    };
    calls.into_iter().map(answer).collect()
}

fn processor_time() -> Duration {
    // SAFETY: all zeroes is a valid rusage, and the pointer is to a live one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let time = |t: libc::timeval| {
        let micros = u32::try_from(t.tv_usec).unwrap();
        Duration::new(u64::try_from(t.tv_sec).unwrap(), micros * 1000)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The part of a core, in percent, that this process uses while nothing happens. The best of some rounds: what was begun may not
/// have come to rest yet, and other programs of the machine make this one use more.
pub(crate) fn use_of_processor(bound: f64) -> f64 {
    const ROUND: Duration = Duration::from_millis(400);
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let (before, begun) = (processor_time(), Instant::now());
        std::thread::sleep(ROUND);
        let used = processor_time().saturating_sub(before);
        best = best.min(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64());
        if best < bound {
            break;
        }
    }
    best
}
