//! corosensei's switch. It does not move floating-point control, which stays with the OS thread.

use corosensei::CoroutineResult;

use crate::parts::coroutine::control::Control;
use crate::parts::stack::Stack;

/// corosensei's.
pub(super) struct Coroutine<I, Y>(corosensei::Coroutine<I, Y, (), Stack>);

/// corosensei's.
#[repr(transparent)]
pub(super) struct Yielder<I, Y>(corosensei::Yielder<I, Y>);

impl<I, Y> Coroutine<I, Y> {
    /// What is saved of a suspended body only corosensei knows.
    pub(super) const RESUME_AT: Option<usize> = None;

    /// # Safety
    /// As corosensei's.
    #[allow(unsafe_code, reason = "as corosensei's")]
    pub(super) unsafe fn with_stack_unchecked<F>(stack: Stack, control: Control, body: F) -> Self
    where
        F: FnOnce(&Yielder<I, Y>, I),
    {
        let body = move |yielder: &corosensei::Yielder<I, Y>, input: I| {
            control.restore();
            // SAFETY: the type is a transparent wrapper, so the reference is as valid as the other.
            body(unsafe { &*std::ptr::from_ref(yielder).cast() }, input);
        };
        // SAFETY: by contract.
        Self(unsafe { corosensei::Coroutine::with_stack_unchecked(stack, body) })
    }

    #[inline]
    pub(super) fn resume(&mut self, input: I, _own: Control) -> CoroutineResult<Y, ()> {
        let control = Control::current();
        let result = self.0.resume(input);
        control.restore();
        result
    }

    pub(super) fn started(&self) -> bool {
        self.0.started()
    }

    pub(super) fn done(&self) -> bool {
        self.0.done()
    }

    pub(super) fn force_unwind(&mut self) {
        self.0.force_unwind();
    }

    pub(super) fn into_stack(self) -> Stack {
        self.0.into_stack()
    }
}

impl<I, Y> Yielder<I, Y> {
    #[inline]
    pub(super) fn suspend(&self, output: Y) -> I {
        let control = Control::current();
        let input = self.0.suspend(output);
        control.restore();
        input
    }
}
