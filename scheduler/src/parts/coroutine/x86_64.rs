//! Switching stacks on x86-64, System V ABI. Where there is no such file corosensei does it, behind the same names.
//!
//! A processor predicts where a `ret` goes from the calls that it has seen, not from the stack. A
//! switch by `call` and `ret` puts these predictions off by one entry. Then every return of the function
//! that suspended, and of its callers, is predicted wrong, at some ten nanoseconds each. Here both ways are
//! jumps, and the code between two jumps calls and returns in pairs. Most threads wait at the same place. After a
//! switch between two such threads all returns are predicted right.
//!
//! ```text
//! top of the stack   Yielder     where the parent's stack was left, while the coroutine runs
//!                    body        until it starts
//!                    (nothing)   \
//!                    root        | only before the start; afterwards
//!                    trampoline  | the frames of the body:
//!                    control     /
//!                    ...
//!                    rbx, rbp, where to go on, control    while suspended; its address is
//!                                                         `Coroutine::resume_at`
//! ```
//!
//! 1. A side that is left has its rbx, rbp, the place to go on, and its floating-point control at the
//!    end of its stack. The other registers that a callee must keep are named as clobbered, so the
//!    compiler saves those in use.
//! 2. `resume_at` is `start` until the body starts, and null when the body has returned. At all other times it is
//!    something else, because every later switch comes from a frame below.
//! 3. A value is passed by its address on the stack that is left. The other side reads it before anything runs on
//!    that stack again.
//! 4. Nothing unwinds past `root`, and no trace goes past the trampoline.
//! 5. Floating-point control belongs to each side (`control.rs`). To load it costs ten nanoseconds, so it is loaded only
//!    if the other side's differs. When the body leaves, its control is read from the registers, which costs one
//!    nanosecond. The resumer's control is not read: the resumer knows it, because it is the same at each switch of an OS
//!    thread.
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
use crate::parts::prefetch::prefetch;
use crate::parts::stack::Stack;

/// Alignment of a stack pointer at a call, and of what lies at the top.
const ALIGN: usize = 16;

/// Before a switch so many bytes at each end of the stack are fetched into the cache: for the frames of a call that
/// waits, and for the frames above a body's buffers. A guess.
const PREFETCHED: usize = 640;

/// How many words lie below a body that has not started: control, trampoline, root, and nothing.
const START: usize = 4;

/// Stores floating-point control at the end of the stack, where there is room for it.
macro_rules! store_control {
    () => {
        "
        stmxcsr [rsp]
        fnstcw [rsp + 4]
        "
    };
}

/// Loads the control that lies at rsi into eax and ecx.
macro_rules! take_control {
    () => {
        "
        mov eax, [rsi]
        movzx ecx, word ptr [rsi + 4]
        "
    };
}

/// Goes on at the other side. Loads that side's control, which lies at the end of its stack, if it differs from that in
/// eax and ecx. Only the bits 6 to 15 of MXCSR are compared. x87 would trap earlier exceptions as soon as the new control
/// allows it, so these are cleared.
macro_rules! go_on {
    () => {
        "
        xor eax, [rsp]
        test eax, 0xffc0
        jne 3f
        cmp cx, [rsp + 4]
        jne 3f
        4:
        add rsp, 8
        pop rax
        jmp rax
        3:
        ldmxcsr [rsp]
        fnclex
        fldcw [rsp + 4]
        jmp 4b
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
unsafe extern "sysv64" fn trampoline() -> ! {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "pop rax",
        "add rsp, 8",
        "mov rdx, rsp",
        "xor ebp, ebp",
        "call rax",
        "ud2",
        ".cfi_endproc",
    )
}

/// Runs the body, and then leaves the stack for good.
unsafe extern "sysv64" fn root<I, Y, F>(
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
            "push rax",
            store_control!(),
            "mov rsi, rsp",
            "mov rsp, rdx",
            take_control!(),
            "xor esi, esi",
            go_on!(),
            in("rdx") yielder.parent.get(),
            in("rdi") 0,
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
            start.cast::<[u32; 2]>().write(control.words());
            let words = start.cast::<usize>();
            words.add(1).write(trampoline as *const () as usize);
            words.add(2).write(root::<I, Y, F> as *const () as usize);
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

    /// Runs the body until it suspends or returns. `own`: the caller's floating-point control.
    #[inline(always)]
    pub(super) fn resume(&mut self, input: I, own: Control) -> CoroutineResult<Y, ()> {
        assert!(!self.done(), "a body that has returned is resumed");
        let input = ManuallyDrop::new(input);
        let output: *const Y;
        let [sse, x87] = own.words();
        #[cfg(weald_sanitizer = "thread")]
        let before = self.fibre.enter();
        // SAFETY: the coroutine is left (1), and as it is borrowed mutably nobody else resumes it. Its
        // body reads the input before it does anything else (3). No panic comes out of it (4).
        unsafe {
            asm!(
                "lea r9, [rip + 2f]",
                "push rbx",
                "push rbp",
                "push r9",
                "push rax",
                "mov [rsp + 4], ecx",
                "mov [rsi], rsp",
                "mov rsp, rdx",
                go_on!(),
                "2:",
                "pop rbp",
                "pop rbx",
                inlateout("rdi") &raw const input => output,
                inlateout("rsi") self.yielder => self.resume_at,
                inlateout("rdx") self.resume_at => _,
                inlateout("rax") u64::from(sse) => _,
                inlateout("rcx") u64::from(x87) => _,
                lateout("r12") _,
                lateout("r13") _,
                lateout("r14") _,
                lateout("r15") _,
                clobber_abi("sysv64"),
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

    /// Has the processor fetch both ends of what is on the stack.
    #[inline]
    pub(super) fn prefetch(&self) {
        let top: *const u8 = ptr::with_exposed_provenance(self.stack.base().get());
        prefetch(self.resume_at, PREFETCHED);
        prefetch(top.wrapping_sub(PREFETCHED), PREFETCHED);
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
                "lea rax, [rip + 2f]",
                "push rbx",
                "push rbp",
                "push rax",
                "push rax",
                store_control!(),
                "mov rsi, rsp",
                "mov rsp, rdx",
                take_control!(),
                go_on!(),
                "2:",
                "pop rbp",
                "pop rbx",
                inlateout("rdi") &raw const output => input,
                inlateout("rdx") self.parent.get() => _,
                lateout("rsi") _,
                lateout("r12") _,
                lateout("r13") _,
                lateout("r14") _,
                lateout("r15") _,
                clobber_abi("sysv64"),
            );
            input.read()
        }
    }
}
