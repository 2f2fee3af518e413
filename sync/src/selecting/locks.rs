//! Takes the locks of several channels, in the order of their addresses.
#![allow(unsafe_code, reason = "guards that lie in places of their own")]

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::PoisonError;

use super::arm::Arm;
use crate::shim::sync::{Mutex, MutexGuard};

/// How many locks fit on the stack.
pub(super) const INLINE: usize = 16;

/// The locks of all arms, each of them once.
pub(super) struct Locks<'a> {
    inline: [MaybeUninit<MutexGuard<'a, ()>>; INLINE],
    /// How many places of `inline` are used.
    count: usize,
    more: Vec<MutexGuard<'a, ()>>,
}

impl Locks<'_> {
    /// Returns a value without locks.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            inline: [const { MaybeUninit::uninit() }; INLINE],
            count: 0,
            more: Vec::new(),
        }
    }

    /// Takes all locks, in the order of their addresses.
    ///
    /// # Safety
    /// The mutexes outlive the value.
    pub(super) unsafe fn take(&mut self, arms: &[&mut dyn Arm]) {
        let mut inline = [ptr::null(); INLINE];
        let mut more = Vec::new();
        let order: &mut [*const Mutex<()>] = if arms.len() <= INLINE {
            &mut inline
        } else {
            more.resize(arms.len(), ptr::null());
            &mut more
        };
        let mut count = 0;
        for arm in arms {
            let Some(mutex) = arm.mutex().map(ptr::from_ref) else {
                continue;
            };
            // This is an insertion sort: the locks are few.
            let mut place = count;
            while place > 0
                && order[place - 1] > mutex
                && !fault!("select_locks_in_the_order_of_its_arms")
            {
                order[place] = order[place - 1];
                place -= 1;
            }
            order[place] = mutex;
            count += 1;
        }
        let mut last: *const Mutex<()> = ptr::null();
        for &mutex in &order[..count] {
            if mutex != last {
                // SAFETY: by contract.
                self.keep(unsafe { lock(mutex) });
                last = mutex;
            }
        }
    }
}

impl<'a> Locks<'a> {
    fn keep(&mut self, guard: MutexGuard<'a, ()>) {
        match self.inline.get_mut(self.count) {
            Some(place) => {
                place.write(guard);
                self.count += 1;
            }
            None => self.more.push(guard),
        }
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        for guard in &mut self.inline[..self.count] {
            // SAFETY: `keep` has written that many guards, and they are dropped once.
            unsafe { guard.assume_init_drop() };
        }
    }
}

/// # Safety
/// The mutex outlives the guard.
unsafe fn lock<'a>(mutex: *const Mutex<()>) -> MutexGuard<'a, ()> {
    // SAFETY: by contract.
    let mutex = unsafe { &*mutex };
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
