//! Epoll instances of weald's own, for waits that need more than one registration.
#![allow(unsafe_code, reason = "system calls")]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::epoll_event;
use weald_scheduler::patch::Bypass;

use crate::raw::sys;
use crate::slot::close_own;

/// Empty epoll instances for the next waits.
static SPARE: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
/// How many of them are kept.
const SPARES: usize = 64;

/// How many instances there are, with the spare ones.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// One in this many of the process's possible descriptors can be an instance, so that waits never use up what
/// connections and files need. It is a guess: a program that has more such waits has more connections than
/// descriptors, or raises the limit.
const PART: u64 = 8;

/// Counts one more instance, if there may be one more.
fn take_a_place() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a pointer to a local.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return false;
    }
    let most = usize::try_from(limit.rlim_cur / PART).unwrap_or(usize::MAX);
    let one_more = |count| (count < most).then_some(count + 1);
    // This is only a count: nothing else depends on its order.
    COUNT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .is_ok()
}

fn give_place_back() {
    COUNT.fetch_sub(1, Ordering::Relaxed);
}

/// An epoll instance that is empty at the beginning and at the end of its use.
pub(crate) struct Set {
    epoll: RawFd,
    members: Vec<RawFd>,
}

impl Set {
    /// Returns a set. `None`: there are as many sets as there may be, or no descriptor is left.
    pub(crate) fn new() -> Option<Self> {
        let spare = {
            let _bypass = Bypass::enter();
            SPARE.lock().ok().and_then(|mut spare| spare.pop())
        };
        let epoll = if let Some(epoll) = spare {
            epoll
        } else {
            if !take_a_place() {
                return None;
            }
            // SAFETY: no pointers.
            let made = unsafe { sys!(SYS_epoll_create1, libc::EPOLL_CLOEXEC) };
            match RawFd::try_from(made) {
                Ok(epoll) if epoll >= 0 => epoll,
                _ => {
                    give_place_back();
                    return None;
                }
            }
        };
        Some(Self {
            epoll,
            members: Vec::new(),
        })
    }

    /// Returns the set's own descriptor. It is readable when a member is ready.
    pub(crate) fn fd(&self) -> RawFd {
        self.epoll
    }

    /// Adds a member. Returns false if the descriptor cannot be in an epoll instance.
    pub(crate) fn add(&mut self, fd: RawFd, events: u32) -> bool {
        let mut event = epoll_event { events, u64: 0 };
        // SAFETY: a pointer to a local.
        let added = unsafe {
            sys!(
                SYS_epoll_ctl,
                self.epoll,
                libc::EPOLL_CTL_ADD,
                fd,
                &raw mut event
            )
        };
        if added == 0 {
            self.members.push(fd);
        }
        added == 0
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let mut clean = true;
        for &fd in &self.members {
            // SAFETY: no memory is touched.
            let removed = unsafe {
                sys!(
                    SYS_epoll_ctl,
                    self.epoll,
                    libc::EPOLL_CTL_DEL,
                    fd,
                    ptr::null_mut::<epoll_event>()
                )
            };
            // The descriptor was closed meanwhile, and a duplicate may be left in the instance.
            clean &= removed == 0;
        }
        let _bypass = Bypass::enter();
        if clean
            && let Ok(mut spare) = SPARE.lock()
            && spare.len() < SPARES
        {
            spare.push(self.epoll);
            return;
        }
        close_own(self.epoll);
        give_place_back();
    }
}
