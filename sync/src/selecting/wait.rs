//! Waiting for several things until one of them happens: the loop below `select!` and `Select`.
//!
//! 1. The quick pass: a look without locks finds the arms that seem to be ready. They are tried one after the other
//!    in a random order, each as a `try_recv` or `try_send` would be, under its own lock alone. The first one that is
//!    ready commits, and the selection ends.
//! 2. If none was ready, the locks of all channels are taken, in the order of their addresses. One of the channels'
//!    arms that are ready now, chosen at random, commits, and the selection ends.
//! 3. If none is ready, the selection is registered with every channel, in a random order, and the locks are
//!    released. It enters the queues of the events.
//! 4. It looks at the events (threads, sockets, timers) once more, and takes nothing. If one is ready, it gives up
//!    waiting: from here on no partner can choose.
//! 5. If none is ready, it waits. A partner chooses an arm (`selection.rs`), or an event, the clock or an exception
//!    ends the wait.
//! 6. It takes itself out of all queues, whatever ended the wait. If an event's wake-up is not used, it is passed on.
//!    If a partner has chosen, that arm is settled, and the selection ends. Otherwise it begins again with 1.
//!
//! | the selection      | who may do an arm's part                          | leaves by                    |
//! |--------------------|---------------------------------------------------|------------------------------|
//! | chooses (1, 2)     | itself: it is registered nowhere, so nobody finds it | an arm committed; or 3    |
//! | waits (3 to 5)     | a partner, by its claim; itself must not          | a claim, or it gives up      |
//! | was claimed        | the partner, for the arm that it has chosen       | 6, and the arm is settled    |
//! | has given up       | nobody                                            | 6, and it chooses again      |
//!
//! Invariant 1: while it chooses it is registered nowhere. So nobody can choose it meanwhile, and it never meets
//! itself.
//! Invariant 2: an arm that was not chosen has no effect: a registered arm does nothing by itself, and after one arm
//! has committed no other is tried.
//! Invariant 3: no lock is released between the look that found no channel ready and the registering. So a thread
//! that makes an arm ready has seen the selection that waits. The quick pass is not such a look, nor does it decide
//! for a `default` that none is ready, because an arm that it has passed may be ready by the end of the pass.
//! Invariant 4: while it waits it takes nothing, as a partner may have chosen another arm already. The message of a
//! timer, which has no partner, is taken only while the selection chooses. So if a partner has claimed the selection,
//! the message is still there.
//!
//! Checked by `loom-tests/tests/select.rs`, and events by `loom-tests/tests/select_pairs.rs`.
#![allow(unsafe_code, reason = "locks of several channels at once")]

use weald_scheduler::io::{self, Selected, Selection};

use super::arm::{Arm, Limit};
use super::locks::Locks;
use super::order::{choose, visit_all};

/// Waits until one of the arms has committed, and returns which one. `None`: the limit came first.
pub fn run(arms: &mut [&mut dyn Arm], limit: Limit) -> Option<usize> {
    io::enter_and_spend();
    select(arms, limit, false)
}

#[inline]
pub(crate) fn select(arms: &mut [&mut dyn Arm], limit: Limit, biased: bool) -> Option<usize> {
    match quick_pass(arms, biased) {
        Some(chosen) if arms[chosen].settle() => Some(chosen),
        Some(_) => select_slow(arms, limit, biased, true),
        None => select_slow(arms, limit, biased, false),
    }
}

#[inline]
fn quick_pass(arms: &mut [&mut dyn Arm], biased: bool) -> Option<usize> {
    let mut pass = || choose(arms, biased, |arm| arm.seems_ready(), |arm| arm.try_alone());
    let mut chosen = pass();
    if fault!("select_goes_on_after_its_choice") {
        chosen = chosen.max(pass());
    }
    chosen
}

/// Does what follows the quick pass. `again`: another pass is needed, because the last one came to nothing.
#[inline(never)]
fn select_slow(
    arms: &mut [&mut dyn Arm],
    limit: Limit,
    biased: bool,
    mut again: bool,
) -> Option<usize> {
    loop {
        if std::mem::replace(&mut again, true)
            && let Some(chosen) = quick_pass(arms, biased)
        {
            if arms[chosen].settle() {
                return Some(chosen);
            }
            continue;
        }
        if matches!(limit, Limit::Now) && channels(arms) < 2 {
            // Nothing could have changed between the looks at two of the arms.
            return None;
        }
        let mut locks = Locks::new();
        // SAFETY: the arms outlive the locks, and do not change their channels.
        unsafe { locks.take(arms) };
        // The events are looked at again after their wake-ups can reach the selection.
        let worth = |arm: &dyn Arm| {
            arm.mutex().is_some() && !fault!("select_registers_after_its_quick_pass")
        };
        // SAFETY: the locks are held.
        let chosen = choose(arms, biased, worth, |arm| unsafe { arm.try_commit() });
        if let Some(chosen) = chosen {
            drop(locks);
            if arms[chosen].settle() {
                return Some(chosen);
            }
            continue;
        }
        if limit.is_over() {
            return None;
        }
        if fault!("select_lets_go_to_register") {
            drop(locks);
            locks = Locks::new();
            // SAFETY: as above.
            unsafe { locks.take(arms) };
        }
        let selection = Selection::begin();
        // If two arms have the same channel, a partner takes the first one that it finds.
        visit_all(arms, biased, |arm, index| {
            // SAFETY: the locks are held.
            unsafe { arm.register(&selection, index) };
            false
        });
        drop(locks);
        match wait(arms, &selection, limit) {
            Ended::Chosen(chosen) => {
                if arms[chosen].settle() {
                    return Some(chosen);
                }
            }
            Ended::Again => {}
        }
    }
}

/// Returns how many of the arms are channels'.
fn channels(arms: &[&mut dyn Arm]) -> usize {
    arms.iter().filter(|arm| arm.mutex().is_some()).count()
}

/// Waits until one of the arms is ready, and returns which one. `None`: the limit came first.
pub(crate) fn ready(arms: &mut [&mut dyn Arm], limit: Limit, biased: bool) -> Option<usize> {
    loop {
        let mut locks = Locks::new();
        // SAFETY: the arms outlive the locks, and do not change their channels.
        unsafe { locks.take(arms) };
        // SAFETY: the locks are held.
        let found = visit_all(arms, biased, |arm, _| unsafe { arm.is_ready() });
        if found.is_some() {
            return found;
        }
        if limit.is_over() {
            return None;
        }
        let selection = Selection::begin();
        for (index, arm) in arms.iter_mut().enumerate() {
            if fault!("select_readies_by_channels_alone") && arm.mutex().is_none() {
                continue;
            }
            // SAFETY: the locks are held.
            unsafe { arm.watch(&selection, index) };
        }
        drop(locks);
        // The thread that told the arm has done nothing for it, so the selection looks again.
        wait(arms, &selection, limit);
    }
}

enum Ended {
    Chosen(usize),
    Again,
}

/// Waits with a registered selection, and takes it out of all queues. An event that is ready is only looked at
/// (invariant 4): the next look takes what it brings.
fn wait(arms: &mut [&mut dyn Arm], selection: &Selection, limit: Limit) -> Ended {
    let takes = fault!("select_takes_in_its_second_look");
    let event = arms.iter_mut().position(|arm| {
        // SAFETY: an event has no lock.
        arm.mutex().is_none()
            && !fault!("select_waits_without_a_second_look")
            && unsafe {
                if takes {
                    arm.try_commit()
                } else {
                    arm.is_ready()
                }
            }
    });
    let ended = if event.is_some() {
        selection.end().map_or(Selected::Again, Selected::Arm)
    } else {
        selection.park(limit.first(arms))
    };
    let chosen = match ended {
        Selected::Arm(_) if event.is_some() && fault!("select_prefers_its_event") => None,
        Selected::Arm(_) if fault!("select_leaves_over_its_choice") && limit.is_over() => None,
        Selected::Arm(arm) | Selected::Done(arm) => Some(arm),
        _ => event.filter(|_| takes),
    };
    {
        let mut locks = Locks::new();
        // SAFETY: the arms outlive the locks, and do not change their channels.
        unsafe { locks.take(arms) };
        for arm in arms.iter_mut() {
            // SAFETY: the locks are held.
            unsafe { arm.forget() };
        }
    }
    if ended == Selected::Pending || fault!("select_raises_over_its_choice") {
        io::enter_unwinding();
    }
    chosen.map_or(Ended::Again, Ended::Chosen)
}
