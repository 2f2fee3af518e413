//! Epoll instances of our own, for waits that one registration does not do.
#![allow(unsafe_code, reason = "system calls")]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::Mutex;

use libc::epoll_event;
use weald_scheduler::patch::Bypass;

use crate::raw::{error_of, sys};

/// Empty epoll instances for the next waits.
static SPARE: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
/// So many are kept.
const SPARES: usize = 64;

/// An epoll instance that is empty at both ends of its use.
pub(crate) struct Set {
    epoll: RawFd,
    members: Vec<RawFd>,
}

impl Set {
    pub(crate) fn new() -> Option<Self> {
        let spare = {
            let _bypass = Bypass::enter();
            SPARE.lock().ok().and_then(|mut spare| spare.pop())
        };
        let epoll = if let Some(epoll) = spare {
            epoll
        } else {
            // SAFETY: no pointers.
            let made = unsafe { sys!(SYS_epoll_create1, libc::EPOLL_CLOEXEC) };
            if error_of(made).is_some() {
                return None;
            }
            RawFd::try_from(made).ok()?
        };
        Some(Self {
            epoll,
            members: Vec::new(),
        })
    }

    /// Its own descriptor, readable when a member is ready.
    pub(crate) fn fd(&self) -> RawFd {
        self.epoll
    }

    /// False: it cannot be in an epoll instance.
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
            // Closed meanwhile: a duplicate may be left in it.
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
        crate::wait::close_own(self.epoll);
    }
}
