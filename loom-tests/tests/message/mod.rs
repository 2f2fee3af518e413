//! What one thread of a model hands to another, with no lock of its own.

use weald_loom_tests::cell::UnsafeCell;

/// A number, and something that loom watches: two users that are not ordered are a race.
pub(crate) struct Message {
    number: usize,
    body: UnsafeCell<usize>,
}

// SAFETY: that it has one user at a time is what the models check.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Message {
    pub(crate) fn new(number: usize) -> Self {
        let body = UnsafeCell::new(0);
        // SAFETY: what is checked.
        body.with_mut(|body| unsafe { *body = number });
        Self { number, body }
    }

    /// Adds to what it says.
    #[allow(dead_code, reason = "of some models nothing but the number travels")]
    pub(crate) fn add(&self, more: usize) {
        // SAFETY: what is checked.
        self.body
            .with_mut(|body| unsafe { *body = (*body).wrapping_add(more) });
    }

    /// What it says.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn look(&self) -> usize {
        // SAFETY: what is checked.
        self.body.with(|body| unsafe { *body })
    }

    #[allow(dead_code, reason = "as above")]
    pub(crate) fn read(self) -> usize {
        // SAFETY: what is checked.
        self.body.with_mut(|body| unsafe {
            assert_eq!(*body, self.number);
            *body
        })
    }
}
