//! Publishes a thread as parked, after its stack was left.
#![allow(unsafe_code, reason = "the running references of threads")]

use crate::engine::worker::{Worker, count};
use crate::green::green_thread::Task;
use crate::parts::state::WaitKind;

/// Publishes a thread as parked, unless something has ended its wait already. The caller has left its stack, and holds
/// the worker's seat.
#[inline(always)]
pub(super) fn park_seated(
    worker: &Worker,
    task: Task,
    epoch: u32,
    kind: WaitKind,
) -> Result<(), Task> {
    count(&worker.counters.parks);
    // SAFETY: the seat is held; ends with the statement.
    task.left_at.set_time(unsafe { worker.core() }.looked_at);
    publish(task, epoch, kind)
}

/// The step to PARKED. The thread may run elsewhere when this returns.
#[inline(always)]
pub(super) fn publish(task: Task, epoch: u32, kind: WaitKind) -> Result<(), Task> {
    let header = task.into_raw();
    // SAFETY: it came from `into_raw`. From the step to PARKED on the state word owns the reference, and until then
    // it is ours.
    let parked = fault!("carrier_parks_before_the_switch")
        || unsafe { (*header).state.park(epoch, kind) }.is_ok();
    if parked {
        return Ok(());
    }
    // SAFETY: it did not park, so the reference is still ours.
    Err(unsafe { Task::from_raw(header) })
}
