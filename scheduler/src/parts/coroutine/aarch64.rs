//! Switching stacks on AArch64, by its procedure call standard (AAPCS64). See `x86_64.rs` for why both ways are jumps.
//!
//! ```text
//! top of the stack   Yielder     where the parent's stack was left, while the coroutine runs
//!                    body        until it starts
//!                    control     \
//!                    trampoline  | only before the start; afterwards
//!                    (nothing)   | the frames of the body:
//!                    root        /
//!                    ...
//!                    x19, x29, where to go on, control    while suspended; its address is
//!                                                         `Coroutine::resume_at`
//! ```
//!
//! 1. A side that is left has its x19, x29, the place to go on, and its floating-point control at the
//!    end of its stack. The other registers that a callee must keep are named as clobbered, so the
//!    compiler saves those in use. x18 is an exception: it belongs to the platform.
//! 2. `resume_at` is `start` until the body starts, and null when the body has returned. At all other times it is
//!    something else, because every later switch comes from a frame below.
//! 3. A value is passed by its address on the stack that is left. The other side reads it before anything runs on
//!    that stack again.
//! 4. Nothing unwinds past `root`, and no trace goes past the trampoline.
//! 5. Floating-point control belongs to each side (`control.rs`). The side that leaves stores it, and
//!    loads the other side's only if that differs.
#![allow(unsafe_code, reason = "switches stacks")]

use std::arch::{asm, naked_asm};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;

use corosensei::CoroutineResult;
use corosensei::stack::Stack as _;

use crate::parts::coroutine::control::Control;
#[cfg(weald_sanitizer = "thread")]
use crate::parts::coroutine::fibre::{self, Fibre};
use crate::parts::stack::Stack;

/// Alignment of a stack pointer, and of what lies at the top.
const ALIGN: usize = 16;

/// How many words lie below a body that has not started: root, nothing, trampoline, control.
const START: usize = 4;

/// Goes on at the other side. The end of its stack is in x2. Loads that side's control if it differs from that in x10.
/// The place to go on begins with `hint #36`, which is `bti j`: a jump may land there.
macro_rules! go_on {
    () => {
        "
        mov sp, x2
        ldp x9, x11, [sp, #16]
        cmp x10, x11
        b.ne 3f
        4:
        br x9
        3:
        msr fpcr, x11
        b 4b
        "
    };
}

/// Leaves this side. Afterwards the end of its stack is in x12, and its control is in x10.
macro_rules! leave {
    () => {
        "
        adr x9, 2f
        mrs x10, fpcr
        stp x19, x29, [sp, #-32]!
        stp x9, x10, [sp, #16]
        mov x12, sp
        "
    };
}

/// The place that `leave` has noted, where this side goes on.
macro_rules! land {
    () => {
        "
        2:
        hint #36
        ldp x19, x29, [sp], #32
        "
    };
}

/// Like corosensei's type, with weald's stack.
pub(super) struct Coroutine<I, Y> {
    resume_at: *mut u8,
    start: *mut u8,
    yielder: *const Yielder<I, Y>,
    drop_body: unsafe fn(*mut u8),
    stack: Stack,
    #[cfg(weald_sanitizer = "thread")]
    fibre: Fibre,
}

/// By this a coroutine leaves its stack. It lies at the top of the coroutine's stack.
pub(super) struct Yielder<I, Y> {
    parent: Cell<*mut u8>,
    marker: PhantomData<fn(I) -> Y>,
}

unsafe fn drop_body<F>(body: *mut u8) {
    // SAFETY: the caller has the only pointer to a body that did not start.
    unsafe { ptr::drop_in_place(body.cast::<F>()) };
}

/// Where the first switch to a coroutine goes: calls `root` with its input, the yielder and the body.
/// To a stack trace it is the end.
#[unsafe(naked)]
unsafe extern "C" fn trampoline() -> ! {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined x30",
        "hint #36",
        "ldr x9, [sp], #32",
        "mov x2, sp",
        "mov x29, xzr",
        "mov x30, xzr",
        "blr x9",
        "brk #1",
        ".cfi_endproc",
    )
}

/// Runs the body, and then leaves the stack for good.
unsafe extern "C" fn root<I, Y, F>(
    input: *const I,
    yielder: *const Yielder<I, Y>,
    body: *const F,
) -> !
where
    F: FnOnce(&Yielder<I, Y>, I),
{
    // SAFETY: the yielder lies on this stack, and nobody writes to it but by its cell; `new` has put
    // the body there for this call alone, and the input is the resumer's to give away (3).
    let yielder = unsafe {
        let yielder = &*yielder;
        let (body, input) = (body.read(), input.read());
        body(yielder, input);
        yielder
    };
    #[cfg(weald_sanitizer = "thread")]
    fibre::switch_back();
    // SAFETY: the parent has left as (1) says, and waits for this. Nothing on this stack is in use.
    unsafe {
        asm!(
            "mrs x10, fpcr",
            go_on!(),
            in("x0") 0_usize,
            in("x1") 0_usize,
            in("x2") yielder.parent.get(),
            options(noreturn),
        )
    }
}

impl<I, Y> Coroutine<I, Y> {
    /// Where a debugger finds `resume_at` (1, 2). `gdb/weald-gdb.py` knows what lies there.
    pub(super) const RESUME_AT: Option<usize> = Some(std::mem::offset_of!(Self, resume_at));

    /// # Safety
    /// What the body borrows lives until it has ended, or `force_unwind` has dropped it.
    #[inline]
    #[allow(clippy::cast_ptr_alignment, reason = "`below` has aligned them")]
    pub(super) unsafe fn with_stack_unchecked<F>(stack: Stack, control: Control, body: F) -> Self
    where
        F: FnOnce(&Yielder<I, Y>, I),
    {
        let top: *mut u8 = ptr::with_exposed_provenance_mut(stack.base().get());
        let below = |place: *mut u8, size: usize, align: usize| {
            place.map_addr(|address| (address - size) & !(align.max(ALIGN) - 1))
        };
        let yielder = below(top, size_of::<Yielder<I, Y>>(), align_of::<Yielder<I, Y>>());
        let place = below(yielder, size_of::<F>(), align_of::<F>());
        let start = below(place, START * size_of::<usize>(), ALIGN);
        // SAFETY: the stack is ours, nothing else is on it, and `Coroutine::new` has seen that the
        // body fits; the places do not overlap and are aligned. The words at `start` end at the body.
        unsafe {
            yielder.cast::<Yielder<I, Y>>().write(Yielder {
                parent: Cell::new(ptr::null_mut()),
                marker: PhantomData,
            });
            place.cast::<F>().write(body);
            start.cast::<[usize; START]>().write([
                root::<I, Y, F> as *const () as usize,
                0,
                trampoline as *const () as usize,
                control.word(),
            ]);
        }
        Self {
            resume_at: start,
            start,
            yielder: yielder.cast(),
            drop_body: drop_body::<F>,
            stack,
            #[cfg(weald_sanitizer = "thread")]
            fibre: Fibre::new(),
        }
    }

    /// Runs the body until it suspends or returns.
    #[inline(always)]
    pub(super) fn resume(&mut self, input: I, _own: Control) -> CoroutineResult<Y, ()> {
        assert!(!self.done(), "a body that has returned is resumed");
        let input = ManuallyDrop::new(input);
        let output: *const Y;
        #[cfg(weald_sanitizer = "thread")]
        let before = self.fibre.enter();
        // SAFETY: the coroutine is left (1), and as it is borrowed mutably nobody else resumes it. Its
        // body reads the input before it does anything else (3). No panic comes out of it (4).
        unsafe {
            asm!(
                leave!(),
                "str x12, [x1]",
                go_on!(),
                land!(),
                inlateout("x0") &raw const input => output,
                inlateout("x1") self.yielder => self.resume_at,
                inlateout("x2") self.resume_at => _,
                lateout("x20") _,
                lateout("x21") _,
                lateout("x22") _,
                lateout("x23") _,
                lateout("x24") _,
                lateout("x25") _,
                lateout("x26") _,
                lateout("x27") _,
                lateout("x28") _,
                clobber_abi("C"),
            );
        }
        #[cfg(weald_sanitizer = "thread")]
        fibre::came_back(before);
        if self.resume_at.is_null() {
            CoroutineResult::Return(())
        } else {
            // SAFETY: `suspend` has given it away, and its stack does not run (3).
            CoroutineResult::Yield(unsafe { output.read() })
        }
    }

    pub(super) fn started(&self) -> bool {
        self.resume_at != self.start
    }

    pub(super) fn done(&self) -> bool {
        self.resume_at.is_null()
    }

    /// Drops the body of a coroutine that did not start. Others are never unwound.
    pub(super) fn force_unwind(&mut self) {
        assert!(!self.started(), "nobody else unwinds a coroutine");
        self.resume_at = ptr::null_mut();
        // SAFETY: it did not start, so the body lies where `new` has put it, above the words; the line
        // above says that it is gone.
        unsafe { (self.drop_body)(self.start.add(START * size_of::<usize>())) };
    }

    pub(super) fn into_stack(self) -> Stack {
        self.stack
    }
}

impl<I, Y> Yielder<I, Y> {
    #[inline(always)]
    pub(super) fn suspend(&self, output: Y) -> I {
        let output = ManuallyDrop::new(output);
        let input: *const I;
        #[cfg(weald_sanitizer = "thread")]
        fibre::switch_back();
        // SAFETY: the yielder is used on its own stack alone, so that runs, and its resumer has left
        // as (1) says and reads the output first (3).
        unsafe {
            asm!(
                leave!(),
                "mov x1, x12",
                go_on!(),
                land!(),
                inlateout("x0") &raw const output => input,
                inlateout("x2") self.parent.get() => _,
                lateout("x1") _,
                lateout("x20") _,
                lateout("x21") _,
                lateout("x22") _,
                lateout("x23") _,
                lateout("x24") _,
                lateout("x25") _,
                lateout("x26") _,
                lateout("x27") _,
                lateout("x28") _,
                clobber_abi("C"),
            );
            input.read()
        }
    }
}
