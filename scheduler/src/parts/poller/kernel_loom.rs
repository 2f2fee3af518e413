//! The kernel's part in a model. Events come from the model itself. A sleep with a limit lets the
//! others run; then its limit has passed, unless something has ended it before.
#![allow(unsafe_code, reason = "tokens that are addresses of slots")]

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::event::{Readiness, tell};
use crate::shim::sync::{Arc, Condvar, Mutex, wait};

#[derive(Debug, Default)]
struct Shared {
    woken: bool,
    events: Vec<(usize, Readiness)>,
    registered: Vec<RawFd>,
}

#[derive(Debug)]
struct Kernel {
    shared: Mutex<Shared>,
    condvar: Condvar,
}

#[derive(Debug)]
pub(super) struct Polling(Arc<Kernel>);
#[derive(Debug)]
pub(super) struct Waker(Arc<Kernel>);
#[derive(Debug)]
pub(super) struct Registry(Arc<Kernel>);

pub(super) fn new() -> io::Result<(Polling, Waker, Registry)> {
    let kernel = Arc::new(Kernel {
        shared: Mutex::new(Shared::default()),
        condvar: Condvar::new(),
    });
    Ok((
        Polling(kernel.clone()),
        Waker(kernel.clone()),
        Registry(kernel),
    ))
}

impl Waker {
    pub(super) fn wake(&self) {
        self.0.shared.lock().woken = true;
        self.0.condvar.notify_one();
    }
}

impl Registry {
    pub(super) fn register(
        &self,
        fd: RawFd,
        _token: usize,
        _may_be_armed: bool,
    ) -> io::Result<bool> {
        self.0.shared.lock().registered.push(fd);
        Ok(false)
    }

    pub(super) fn deregister(&self, fd: RawFd) -> io::Result<()> {
        self.0.shared.lock().registered.retain(|other| *other != fd);
        Ok(())
    }

    pub(super) fn has(&self, fd: RawFd) -> bool {
        self.0.shared.lock().registered.contains(&fd)
    }

    pub(super) fn has_events(&self) -> bool {
        !self.0.shared.lock().events.is_empty()
    }
}

impl Polling {
    pub(super) fn wait(&mut self, limit: Option<Duration>, _sleep: bool) -> usize {
        let mut shared = self.0.shared.lock();
        match limit {
            None => {
                while !shared.woken && shared.events.is_empty() {
                    shared = wait(&self.0.condvar, shared);
                }
            }
            Some(Duration::ZERO) => {}
            Some(limit) => {
                drop(shared);
                crate::shim::thread::yield_now();
                shared = self.0.shared.lock();
                if !shared.woken && shared.events.is_empty() {
                    crate::shim::clock::advance(limit);
                }
            }
        }
        shared.woken = false;
        let events = std::mem::take(&mut shared.events);
        drop(shared);
        for &(token, readiness) in &events {
            // SAFETY: the model made it by `token`.
            unsafe { tell(token, readiness) };
        }
        events.len()
    }

    pub(super) fn adopt(&mut self) -> (usize, bool) {
        let mut shared = self.0.shared.lock();
        let woken = std::mem::take(&mut shared.woken);
        let events = std::mem::take(&mut shared.events);
        drop(shared);
        for &(token, readiness) in &events {
            // SAFETY: the model made it by `token`.
            unsafe { tell(token, readiness) };
        }
        (events.len(), woken)
    }
}
