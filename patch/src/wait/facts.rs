//! What a call relies on: what is known of its descriptor, or what the kernel says.

use std::time::Instant;

use weald_scheduler::patch::Home;

use super::{Trust, Wait};
use crate::ask::{has_true_events, is_nonblocking, socket_limit};
use crate::known::{BLOCKS, READS_WITHOUT_LIMIT, Stamp, WRITES_WITHOUT_LIMIT};
use crate::slot::{Direction, FdSlot, SETTINGS};

impl Wait {
    /// Tells if the call is to return `EAGAIN`.
    pub(crate) fn is_nonblocking(&mut self) -> bool {
        if let Some(nonblocking) = self.nonblocking {
            return nonblocking;
        }
        let mut nonblocking = false;
        if !self.knows(BLOCKS) {
            let stamp = self.slot.map(|slot| slot.known.stamp(&SETTINGS));
            nonblocking = is_nonblocking(self.fd);
            if !nonblocking {
                self.learn(stamp, BLOCKS);
            }
        }
        self.nonblocking = Some(nonblocking);
        nonblocking
    }

    /// Returns when the call ends by `SO_RCVTIMEO` or `SO_SNDTIMEO`, which count from its first wait.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        if let Some(limit) = self.limit {
            return limit;
        }
        let fact = match self.direction {
            Direction::Read => READS_WITHOUT_LIMIT,
            Direction::Write => WRITES_WITHOUT_LIMIT,
        };
        let mut limit = None;
        if !self.knows(fact) {
            let stamp = self.slot.map(|slot| slot.known.stamp(&SETTINGS));
            match socket_limit(self.fd, self.direction) {
                Some(duration) => {
                    limit = self
                        .began
                        .get_or_insert_with(Instant::now)
                        .checked_add(duration);
                }
                None => self.learn(stamp, fact),
            }
        }
        self.limit = Some(limit);
        limit
    }

    /// Tells if the descriptor is known to be a stream or a pipe, whose events are true.
    #[inline]
    pub(crate) fn has_true_events(&self) -> bool {
        self.slot
            .is_some_and(|slot| slot.known.has_true_events() == Some(true))
    }

    fn knows(&mut self, fact: u64) -> bool {
        let knows = self.trust != Trust::Doubts
            && self
                .slot
                .is_some_and(|slot| slot.known.knows(&SETTINGS, fact));
        if knows {
            self.trust = Trust::Known;
        }
        knows
    }

    fn learn(&self, stamp: Option<Stamp>, fact: u64) {
        if let (Some(slot), Some(stamp)) = (self.slot, stamp) {
            slot.known.learn(stamp, fact);
        }
    }

    /// Makes the call rely only on what the kernel says.
    #[cold]
    pub(super) fn doubt(&mut self) {
        self.trust = Trust::Doubts;
        self.nonblocking = None;
        self.limit = None;
        if let Some(state) = &mut self.state {
            state.armed = false;
            state.slot.known.forget();
        }
    }

    /// Tells if this poller already tells of the direction, and its events are true.
    pub(super) fn may_skip_arming(&self, slot: &FdSlot) -> bool {
        let Some(home) = Home::of(&slot.at) else {
            return false;
        };
        if self.trust == Trust::Doubts
            || self.tried_at.get().is_none()
            || slot.known.armed(home.id()) & self.direction.bit() == 0
        {
            return false;
        }
        // This is asked for at the second wait, as a short connection has only one.
        slot.known.has_true_events().unwrap_or_else(|| {
            let changes = slot.known.changes();
            let is_true = has_true_events(self.fd);
            slot.known.learn_kind(changes, is_true);
            is_true
        })
    }
}
