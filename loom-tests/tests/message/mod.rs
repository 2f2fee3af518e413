//! What travels through the channels of a model.

/// A number, and something that loom watches: two users that are not ordered are a race.
pub(crate) struct Message {
    number: usize,
    body: loom::cell::UnsafeCell<usize>,
}

// SAFETY: that it has one user at a time is what the models check.
unsafe impl Send for Message {}

impl Message {
    pub(crate) fn new(number: usize) -> Self {
        let body = loom::cell::UnsafeCell::new(0);
        // SAFETY: what is checked.
        body.with_mut(|body| unsafe { *body = number });
        Self { number, body }
    }

    pub(crate) fn read(self) -> usize {
        // SAFETY: what is checked.
        self.body.with_mut(|body| unsafe {
            assert_eq!(*body, self.number);
            *body
        })
    }
}
