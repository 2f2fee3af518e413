//! The `exc_after`s of a thread, as they wait in its inbox.

use std::collections::BTreeMap;
use std::time::Instant;

use super::kinds::BoxError;

/// The key of an `exc_after` among those of its thread. Keys are in the order in which the `exc_after`s are due.
pub(crate) type AlarmKey = (Instant, u64);

/// The `exc_after`s of a thread. The error is `None` once the thread's body has ended: it was dropped.
///
/// Most threads have one at a time, which allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    /// One of them. It need not be the earliest.
    one: Option<(AlarmKey, Option<BoxError>)>,
    /// The others.
    more: BTreeMap<AlarmKey, Option<BoxError>>,
}

impl Alarms {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.one.is_some()) + self.more.len()
    }

    #[inline]
    pub(crate) fn insert(&mut self, key: AlarmKey, error: Option<BoxError>) {
        if self.one.is_none() {
            self.one = Some((key, error));
        } else {
            self.more.insert(key, error);
        }
    }

    /// True: it was there, and `error` is its error.
    #[inline]
    pub(crate) fn remove(&mut self, key: AlarmKey, error: &mut Option<BoxError>) -> bool {
        if self.one.as_ref().is_some_and(|(one, _)| *one == key) {
            *error = self.one.take().and_then(|(_, error)| error);
            return true;
        }
        self.remove_other(key, error)
    }

    /// Removes an `exc_after` from those that are not in `one`. A function of its own, so that the usual case stays small
    /// where it is inlined.
    #[inline(never)]
    fn remove_other(&mut self, key: AlarmKey, error: &mut Option<BoxError>) -> bool {
        let found = self.more.remove(&key);
        let is_found = found.is_some();
        *error = found.flatten();
        is_found
    }

    /// The earliest.
    fn first(&self) -> Option<AlarmKey> {
        let one = self.one.as_ref().map(|&(key, _)| key);
        let more = self.more.keys().next().copied();
        match (one, more) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.first().map(|(deadline, _)| deadline)
    }

    pub(crate) fn pop_first(&mut self) -> Option<BoxError> {
        let mut error = None;
        self.remove(self.first()?, &mut error);
        error
    }

    /// Takes all errors; the keys stay.
    pub(crate) fn take_errors(&mut self) -> impl Iterator<Item = BoxError> {
        let one = self.one.as_mut().and_then(|(_, error)| error.take());
        let more = self.more.values_mut().filter_map(Option::take);
        one.into_iter().chain(more)
    }
}
