//! Floating-point control: rounding, flushing of small numbers, and which exceptions trap. It belongs to
//! the thread: by the calling conventions a call does not change it.
//!
//! | architecture | where                                    | bits that count          |
//! |--------------|------------------------------------------|--------------------------|
//! | x86-64       | MXCSR (SSE), the control word (x87)      | 6 to 15 of MXCSR, all 16 |
//! | AArch64      | FPCR                                     | all 32                   |
//! | others       | not known: it stays with the OS thread   |                          |
//!
//! The bits that record raised exceptions do not belong to it: a call may change them.
//!
//! A new green thread begins with its spawner's control, as with `pthread_create(3)`.
#![allow(unsafe_code, reason = "reads and writes registers")]

/// Floating-point control of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control(u32);

/// The bits of MXCSR that record raised exceptions.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) const RAISED: u32 = 0x3f;

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Control {
    /// The control of the running thread.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        let (mut sse, mut x87) = (0_u32, 0_u16);
        // SAFETY: both are stored where there is room for them.
        unsafe {
            std::arch::asm!(
                "stmxcsr [{sse}]",
                "fnstcw [{x87}]",
                sse = in(reg) &raw mut sse,
                x87 = in(reg) &raw mut x87,
                options(nostack, preserves_flags),
            );
        }
        Self((sse & 0xffff & !RAISED) | u32::from(x87) << 16)
    }

    /// MXCSR, and the control word of x87 behind it.
    pub(super) fn words(self) -> [u32; 2] {
        [self.0 & 0xffff, self.0 >> 16]
    }

    /// Makes it the running thread's.
    pub(super) fn set(self) {
        let [sse, x87] = self.words();
        // SAFETY: both were read from these registers. x87 would trap earlier exceptions as soon as the new control
        // allows it, so these are cleared.
        unsafe {
            std::arch::asm!(
                "ldmxcsr [{sse}]",
                "fnclex",
                "fldcw [{x87}]",
                sse = in(reg) &raw const sse,
                x87 = in(reg) &raw const x87,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
impl Control {
    /// The control of the running thread.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        let control: u64;
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("mrs {}, fpcr", out(reg) control, options(nostack, preserves_flags));
        }
        Self(u32::try_from(control).unwrap_or(0))
    }

    /// As the register has it.
    #[cfg(target_os = "linux")]
    pub(super) fn word(self) -> usize {
        self.0 as usize
    }

    /// Makes it the running thread's.
    pub(super) fn set(self) {
        let control = u64::from(self.0);
        // SAFETY: it was read from this register.
        unsafe {
            std::arch::asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags));
        }
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
impl Control {
    /// Nothing is known of it.
    pub(crate) fn current() -> Self {
        Self(0)
    }

    #[cfg(any(miri, target_arch = "x86_64"))]
    pub(super) fn words(self) -> [u32; 2] {
        [self.0, 0]
    }

    pub(super) fn set(self) {
        let _ = self;
    }
}

impl Control {
    /// Makes it the running thread's, if that has another one.
    #[inline]
    pub(crate) fn restore(self) {
        if Self::current() != self {
            self.set();
        }
    }
}
