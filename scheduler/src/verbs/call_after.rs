//! `call_after`: a function in the future.

use std::time::{Duration, Instant};

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::engine::worker::RemoteTimer;
use crate::green::call::Call;
use crate::green::green_thread::Task;
#[cfg(loom)]
use crate::green::request::Request;
use crate::parts::timer_place::TimerPlace;
use crate::shim::atomic::Ordering;
use crate::shim::sync::{Arc, downgrade};
use crate::verbs::default_runtime::with_runtime_arc;
use crate::verbs::sleep;
use crate::verbs::timer::Timer;
use crate::wait::os_header;

fn start(delay: Duration, owner: Option<Task>, body: Box<dyn FnOnce() + Send>) -> Timer {
    with_runtime_arc(|inner| start_in(inner, delay, owner, body))
}

fn start_in(
    inner: &Arc<Inner>,
    delay: Duration,
    owner: Option<Task>,
    body: Box<dyn FnOnce() + Send>,
) -> Timer {
    let deadline = sleep::deadline(delay);
    let place = deadline.map_or_else(TimerPlace::nowhere, |_| TimerPlace::on_the_way());
    let call = Arc::new(Call::new(owner, body, place));
    // If a call is never due, only its `Timer` keeps it.
    if let Some(deadline) = deadline {
        arm(inner, deadline, &call);
    }
    Timer::call(call, downgrade(inner))
}

fn arm(inner: &Arc<Inner>, deadline: Instant, call: &Arc<Call>) {
    #[cfg(loom)]
    if crate::thin::is_active() {
        // A thread that sleeps takes the place of the wheel.
        call.place.withdraw();
        let call = call.clone();
        let request = Request {
            name: Some("a call in the future".into()),
            ..Request::default()
        };
        let body = move || {
            sleep::sleep_until(deadline);
            call.run_here();
        };
        #[allow(unsafe_code, reason = "the closure is `'static`")]
        // SAFETY: the closure is `'static`.
        drop(unsafe { crate::thin::start(request, body) });
        return;
    }
    let here = carrier::with_core(Inner::address(inner), |worker, core| {
        let key = core.arm_call(worker, inner.start, deadline, Arc::clone(call));
        call.place.settle_first(worker.index, key.to_bits());
    });
    if here.is_none() {
        // The wheel counts the timer. Until the timer is in the wheel, `alarms` counts it.
        inner.alarms.fetch_add(1, Ordering::Relaxed);
        inner.any_worker().post_timer(RemoteTimer {
            deadline,
            call: Arc::clone(call),
        });
    }
}

/// Runs `f` in a green thread of its own after `delay`. `f` may block. Returns at once.
///
/// `f` is never called early; [`Duration::MAX`] means never. It is called even if the caller has ended by then; see
/// [`call_after_local`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald::{call_after, current, park};
/// let me = current();
/// call_after(Duration::from_millis(1), move || me.unpark());
/// park();
/// ```
pub fn call_after(delay: Duration, f: impl FnOnce() + Send + 'static) -> Timer {
    start(delay, None, Box::new(f))
}

/// Like [`call_after`], but `f` is not called if the calling thread, green or not, has ended by then. In that case a
/// green thread of its own drops `f`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let timer = weald::spawn(|| {
///     weald::call_after_local(Duration::from_millis(1), || unreachable!())
/// });
/// let timer = timer.join().unwrap();
/// weald::sleep(Duration::from_millis(3));
/// # drop(timer);
/// ```
pub fn call_after_local(delay: Duration, f: impl FnOnce() + Send + 'static) -> Timer {
    start(delay, Some(os_header::current().0), Box::new(f))
}
