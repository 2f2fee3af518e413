//! Taking traces on Linux.
#![allow(unsafe_code, reason = "reads registers")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use framehop::{CacheNative, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _};

mod frame_info;

use super::Trace;
use crate::green::green_thread::Header;
use crate::green::left_at::LeftAt;
use crate::shim::atomic::{Ordering, fence};

/// Of deeper stacks only the innermost calls are reported.
const DEPTH: usize = 128;
/// At most so many bytes of a stack are copied.
const BYTES: usize = 256 << 10;

/// Takes traces of any number of threads.
pub(crate) struct Tracer {
    unwinder: frame_info::Unwinder,
    cache: CacheNative<MayAllocateDuringUnwind>,
    /// The memory of this process, as a file.
    memory: Option<File>,
    copy: Vec<u8>,
    found: Vec<usize>,
}

impl Tracer {
    pub(crate) fn new() -> Self {
        Self {
            unwinder: frame_info::unwinder(),
            cache: CacheNative::new(),
            memory: File::open("/proc/self/mem").ok(),
            copy: Vec::new(),
            found: Vec::new(),
        }
    }

    /// The trace of a thread that waits; an empty one if it does not, or not all the while.
    pub(crate) fn take(&mut self, header: &Header) -> Trace {
        let Some(wait) = header.state.parked_epoch() else {
            return Trace::default();
        };
        let registers = self.copy_left(header);
        fence(Ordering::Acquire);
        match registers {
            Some(registers) if header.state.parked_epoch() == Some(wait) => self.unwind(registers),
            _ => Trace::default(),
        }
    }

    /// The trace of a thread that has left its stack.
    ///
    /// The caller holds the running reference, or the trace is nonsense.
    pub(crate) fn take_suspended(&mut self, header: &Header) -> Trace {
        self.copy_left(header)
            .map_or_else(Trace::default, |registers| self.unwind(registers))
    }

    /// The trace of a thread that runs on an OS thread which waits for the system. `None`: it computes,
    /// or the system does not tell.
    ///
    /// The caller sees to it that the thread does not end. As the frame pointer is not told, the
    /// trace ends early at a function that has its frame by it.
    pub(crate) fn take_blocked(&mut self, os_thread: usize, header: &Header) -> Option<Trace> {
        let path = format!("/proc/self/task/{os_thread}/syscall");
        let ask = || std::fs::read_to_string(&path).ok();
        let before = ask()?;
        let mut words = before.split_whitespace().rev();
        let mut word = || {
            let digits = words.next()?.strip_prefix("0x")?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (code, stack) = (word()?, word()?);
        let registers = self.copy(header, [code, stack, 0])?;
        (ask()? == before).then(|| self.unwind(registers))
    }

    /// Copies the stack from where the thread left it. Returns code address, stack and frame pointer.
    ///
    /// The copy is good only if the thread was suspended all the while.
    fn copy_left(&mut self, header: &Header) -> Option<[usize; 3]> {
        let LeftAt {
            code, stack, frame, ..
        } = &header.left_at;
        let registers = [code, stack, frame].map(|word| word.load(Ordering::Relaxed));
        self.copy(header, registers)
    }

    fn copy(&mut self, header: &Header, registers: [usize; 3]) -> Option<[usize; 3]> {
        let end = header.left_at.end.load(Ordering::Relaxed);
        let length = end.saturating_sub(registers[1]).min(BYTES);
        self.copy.clear();
        self.copy.resize(length, 0);
        let memory = self.memory.as_ref()?;
        let copied = memory.read_exact_at(&mut self.copy, registers[1] as u64);
        (length > 0 && copied.is_ok()).then_some(registers)
    }

    /// What lies at an address, as far as the system tells. It may change meanwhile.
    pub(crate) fn read(&self, address: usize, into: &mut [u8]) -> bool {
        let memory = self.memory.as_ref();
        memory.is_some_and(|memory| memory.read_exact_at(into, address as u64).is_ok())
    }

    /// The words of the stack that was copied for the last trace.
    pub(crate) fn words(&self) -> impl Iterator<Item = usize> {
        let words = self.copy.chunks_exact(size_of::<usize>());
        words.filter_map(|word| word.first_chunk().copied().map(usize::from_ne_bytes))
    }

    fn unwind(&mut self, registers: [usize; 3]) -> Trace {
        let [code, stack, frame] = registers.map(|word| word as u64);
        #[cfg(target_arch = "x86_64")]
        let registers = UnwindRegsNative::new(code, stack, frame);
        // The link register was saved by the function that left, which has made calls.
        #[cfg(target_arch = "aarch64")]
        let registers = UnwindRegsNative::new(0, stack, frame);
        let copy = &self.copy;
        let mut read = |address: u64| {
            let offset = address.checked_sub(stack).ok_or(())?;
            let offset = usize::try_from(offset).map_err(drop)?;
            let word = copy.get(offset..).and_then(|rest| rest.first_chunk());
            word.copied().map(u64::from_ne_bytes).ok_or(())
        };
        let mut frames = self
            .unwinder
            .iter_frames(code, registers, &mut self.cache, &mut read);
        self.found.clear();
        // It ends by an error where the copy ends.
        while let Ok(Some(found)) = frames.next()
            && self.found.len() < DEPTH
        {
            self.found.extend(usize::try_from(found.address()));
        }
        Trace(self.found.as_slice().into())
    }
}
