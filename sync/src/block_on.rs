//! Runs a future on the calling thread.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use weald_scheduler::io::{self, WaitQueue, Woken};

use crate::shim::atomic::{AtomicBool, Ordering};

/// The thread that a future's wakers wake.
#[derive(Default)]
struct Woke {
    flag: AtomicBool,
    queue: WaitQueue,
}

impl Wake for Woke {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        self.queue.wake_one();
    }
}

/// Runs a future to its end on the calling thread, green or not. The thread waits while the future is not ready.
///
/// It is for futures that need no runtime of their own: channels, combinators, protocols over green sockets. It is a
/// blocking call whenever the future is not ready: an exception unwinds, and the future is dropped. It does not use
/// up a wake-up of [`unpark`](weald_scheduler::GreenThread::unpark).
///
/// # Examples
/// ```
/// let answer = weald::block_on(async { 6 * 7 });
/// assert_eq!(answer, 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    io::enter_unwinding();
    let mut future = pin!(future);
    let woke = Arc::new(Woke::default());
    let waker = Waker::from(Arc::clone(&woke));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        if woke.flag.swap(false, Ordering::Acquire) {
            io::spend();
            continue;
        }
        loop {
            let is_woken = || woke.flag.load(Ordering::Acquire);
            if let Woken::Interrupted(interrupt) = woke.queue.wait(is_woken, None, true) {
                interrupt.unwind();
            }
            if woke.flag.swap(false, Ordering::Acquire) {
                break;
            }
        }
    }
}
