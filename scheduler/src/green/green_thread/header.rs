//! The header of a thread: what does not depend on its closure.
#![allow(unsafe_code, reason = "parts that belong to one of several at a time")]

use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};

use crate::green::awaited::Mark;
use crate::green::exception::{Inbox, Local};
use crate::green::id::GreenThreadId;
use crate::green::left_at::LeftAt;
use crate::green::wait_list::WaitQueue;
use crate::parts::coroutine::{Control, Coroutine, Suspender};
use crate::parts::forks::Forks;
use crate::parts::os_parker::Parker;
#[cfg(not(loom))]
use crate::parts::random::Random;
use crate::parts::state::{State, WaitKind};
use crate::parts::thread_locals::Block;
use crate::shim::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::shim::here::Front;
use crate::shim::sync::{Arc, Mutex};

/// What a green thread tells its carrier when it leaves its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// It goes on later.
    Yield,
    /// It waits: publish it as parked.
    Park { epoch: u32, kind: WaitKind },
    /// Its carrier may have lost its seat: the thread goes on where there is one.
    Requeue,
}

/// Which kind of thread a header stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ThreadKind {
    /// A green thread that carriers run.
    Green,
    /// A green thread that has an OS thread for itself.
    OwnThread,
    Os,
}

/// Stands for a runtime, which this floor knows only by its address: `Inner::of` says what is there.
#[derive(Debug)]
pub(crate) struct AnyRuntime(());

/// What is known of a thread's type once the type is gone.
pub(crate) struct Vtable {
    /// Runs the body, or drops it if the thread is doomed, and leaves the result in the stage.
    pub(super) run: unsafe fn(NonNull<Header>),
    /// Drops the result.
    pub(super) drop_result: unsafe fn(NonNull<Header>),
    /// Moves the result to `into`, a `*mut Option<thread::Result<T>>`.
    pub(super) take_result: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees the cell.
    pub(super) free: unsafe fn(NonNull<Header>),
}

/// The part of a green thread that does not depend on its closure.
#[repr(C)]
pub(crate) struct Header {
    // The fields that each wait touches come first, in as few cache lines as possible.
    /// What the lower floors know of the thread. They use the address of this field, which is the header's.
    pub(crate) front: Front,
    /// Stands for it in a lock that it has; zero for an OS thread.
    mark: Mark,
    pub(crate) state: State,
    /// The runtime it belongs to; null for an OS thread. The runtime is alive until the thread is DONE, and for ever if
    /// the thread never is (`runtime.rs`).
    pub(crate) runtime: *const AnyRuntime,
    /// Index + 1 of the carrier that a pinned, started thread belongs to; 0: none.
    pub(crate) home: AtomicUsize,
    /// The part that most threads never need; made when it is first needed.
    cold: AtomicPtr<Cold>,
    /// The suspender, by which the thread leaves its stack. Set at the first run, read by the thread itself.
    pub(crate) suspender: Cell<*const Suspender<(), Note>>,
    /// Bound at the first run (invariant 2).
    pub(crate) coroutine: UnsafeCell<Option<Coroutine<(), Note>>>,
    /// Its thread-locals, in `Own`; bound with the coroutine (invariant 2).
    pub(crate) block: UnsafeCell<Option<Block>>,
    /// The thread did not come back for long when it last ran. Only its carrier touches the field.
    pub(crate) hog: Cell<bool>,
    /// In the registry; owner's while it runs.
    pub(crate) registered: Cell<bool>,
    /// Whether hooked calls suspend the thread.
    #[cfg(not(loom))]
    pub(crate) patched: crate::parts::patching::Choice,
    kind: ThreadKind,
    /// The thread's body has ended, and destructors run. Only timeouts that they enter are raised now. Only the thread
    /// itself touches the field.
    pub(crate) ending: Cell<bool>,
    /// The thread's body must not run: the thread only drops it. The holder of the running reference sets this before
    /// the thread starts.
    pub(crate) doomed: Cell<bool>,
    /// Once started, the thread never migrates, in any mode of the runtime.
    pub(crate) pinned: bool,
    /// How many sleeps the pending exception may still end, or `FRESH`. Only the thread itself touches the field.
    #[cfg(not(loom))]
    pub(crate) sleeps_to_end: Cell<u8>,
    /// Where it was when it left its stack.
    pub(crate) left_at: LeftAt,
    /// The second halves of its joins. The thread's own, except for what a taker may do (`forks.rs`).
    pub(crate) forks: Forks,
    // The fields that a wait does not touch.
    pub(super) refs: AtomicUsize,
    pub(super) vtable: &'static Vtable,
    pub(crate) id: GreenThreadId,
    /// The threads that wait for its end.
    pub(crate) joiners: WaitQueue,
    /// Its place in the registry of started threads; under the registry's lock.
    pub(crate) links: UnsafeCell<Links>,
    /// State of random numbers for fair choices. Only the thread itself touches it.
    #[cfg(not(loom))]
    pub(crate) random: Random,
    /// The floating-point control that it begins with.
    pub(crate) control: Control,
    /// Usable bytes of its stack in units of 4 KiB, and `UNDER_LIMIT`.
    stack_pages: u32,
    /// The shard of the registry in which the thread is.
    pub(crate) shard: Cell<u16>,
    /// Index + 1 of the worker on which the thread must start; 0: any.
    worker: u16,
}

/// A bit beside `stack_pages`, whose bound is far below it (`stack::MAX_STACK`). The thread may be killed when a limit passes that
/// another thread has: `Request::is_under_limit`.
const UNDER_LIMIT: u32 = 1 << 31;

impl Header {
    /// The bytes at its beginning that each wait touches, the first word of `forks` among them.
    pub(crate) const TOUCHED: usize = std::mem::offset_of!(Header, forks) + size_of::<usize>();
}

/// Where the fields lie that a debugger reads (`watch/debugger.rs`), in bytes from the header's beginning.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Places {
    id: usize,
    /// The state word: `parts/state.rs`.
    state: usize,
    /// What it waits for: `green/awaited.rs`.
    on: usize,
    /// When its wait began.
    time: usize,
    /// The upper end of its stack.
    end: usize,
    /// A `u32`, in units of 4 KiB; its highest bit means something else.
    stack_pages: usize,
    /// A `u8`: `ThreadKind`.
    kind: usize,
    /// The next one in its shard of the registry.
    next: usize,
    /// A pointer to the cold part, or null.
    cold: usize,
    /// The name, in bytes from the beginning of the cold part: where its text is, or null; then its length.
    name_in_cold: usize,
    /// A pointer to what is saved of a suspended thread: `parts/coroutine/`. `usize::MAX`: it is not known here.
    resume_at: usize,
}

#[cfg(not(loom))]
impl Places {
    pub(crate) const fn new() -> Self {
        use std::mem::offset_of;
        // So the coroutine lies at the beginning of the option.
        const {
            assert!(size_of::<Option<Coroutine<(), Note>>>() == size_of::<Coroutine<(), Note>>());
        }
        Self {
            id: offset_of!(Header, id),
            state: offset_of!(Header, state),
            on: offset_of!(Header, left_at.on),
            time: offset_of!(Header, left_at.time),
            end: offset_of!(Header, left_at.end),
            stack_pages: offset_of!(Header, stack_pages),
            kind: offset_of!(Header, kind),
            next: offset_of!(Header, links) + offset_of!(Links, next),
            cold: offset_of!(Header, cold),
            name_in_cold: offset_of!(Cold, name),
            resume_at: match Coroutine::<(), Note>::RESUME_AT {
                Some(offset) => offset_of!(Header, coroutine) + offset,
                None => usize::MAX,
            },
        }
    }
}

/// Links of the registry's list.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) next: *const Header,
    pub(crate) prev: *const Header,
}

/// The part that most threads never need: a name, exceptions, locals, an OS-level parker.
pub(crate) struct Cold {
    name: Option<Box<str>>,
    /// What other threads raise in it.
    pub(crate) inbox: Mutex<Inbox>,
    /// Its own deadlines, timeouts and locals; only the thread itself touches it.
    pub(crate) local: UnsafeCell<Local>,
    /// By this the thread blocks its OS thread when it waits in place.
    pub(crate) parker: Arc<Parker>,
}

/// What a new thread is made of besides its body.
pub(crate) struct Settings {
    pub(crate) id: GreenThreadId,
    pub(crate) runtime: *const AnyRuntime,
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_size: usize,
    pub(crate) pinned: bool,
    pub(crate) is_under_limit: bool,
    /// The worker that it starts on, if not any.
    pub(crate) worker: Option<u16>,
    /// It has an OS thread for itself.
    pub(crate) has_own_thread: bool,
    #[cfg_attr(loom, allow(dead_code, reason = "a model has no libc to patch"))]
    pub(crate) patched: Option<bool>,
    /// The floating-point control that it begins with.
    pub(crate) control: Control,
}

impl Header {
    #[inline]
    pub(super) fn new(
        kind: ThreadKind,
        settings: Settings,
        refs: usize,
        vtable: &'static Vtable,
        handle: bool,
    ) -> Self {
        let cold = match settings.name {
            None => ptr::null_mut(),
            Some(name) => Box::into_raw(Box::new(Cold::new(Some(name)))),
        };
        Self {
            front: Front::new(),
            mark: match kind {
                ThreadKind::Green | ThreadKind::OwnThread => Mark::of_number(settings.id.get()),
                ThreadKind::Os => Mark::NONE,
            },
            state: State::new(handle),
            refs: AtomicUsize::new(refs),
            vtable,
            id: settings.id,
            runtime: settings.runtime,
            coroutine: UnsafeCell::new(None),
            block: UnsafeCell::new(None),
            suspender: Cell::new(ptr::null()),
            left_at: LeftAt::new(),
            home: AtomicUsize::new(0),
            joiners: WaitQueue::of("the end of a green thread"),
            cold: AtomicPtr::new(cold),
            links: UnsafeCell::new(Links {
                next: ptr::null(),
                prev: ptr::null(),
            }),
            stack_pages: u32::try_from(settings.stack_size >> 12).unwrap_or(0)
                | if settings.is_under_limit {
                    UNDER_LIMIT
                } else {
                    0
                },
            kind,
            pinned: settings.pinned,
            #[cfg(not(loom))]
            patched: settings.patched.into(),
            #[cfg(not(loom))]
            sleeps_to_end: Cell::new(crate::parts::patching::FRESH),
            #[cfg(not(loom))]
            random: Random::new(settings.id.get()),
            hog: Cell::new(false),
            ending: Cell::new(false),
            doomed: Cell::new(false),
            registered: Cell::new(false),
            control: settings.control,
            forks: Forks::new(),
            shard: Cell::new(0),
            worker: settings.worker.map_or(0, |worker| worker + 1),
        }
    }

    pub(crate) fn is_green(&self) -> bool {
        self.kind != ThreadKind::Os
    }

    /// It has a stack of weald's, which it leaves to wait. The others block their OS thread.
    #[inline]
    pub(crate) fn runs_on_carriers(&self) -> bool {
        self.kind == ThreadKind::Green
    }

    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    pub(crate) fn stack_size(&self) -> usize {
        ((self.stack_pages & !UNDER_LIMIT) as usize) << 12
    }

    /// A limit that another thread has may end it.
    pub(crate) fn is_under_limit(&self) -> bool {
        self.stack_pages & UNDER_LIMIT != 0
    }

    /// The worker that it starts on, if not any.
    #[inline]
    pub(crate) fn starts_on(&self) -> Option<usize> {
        usize::from(self.worker).checked_sub(1)
    }

    /// The cold part, if it was ever needed.
    #[inline]
    pub(crate) fn cold_if_any(&self) -> Option<&Cold> {
        // SAFETY: once set, the pointer stays until the header is freed.
        unsafe { self.cold.load(Ordering::Acquire).as_ref() }
    }

    /// The cold part, made now if it was never needed.
    pub(crate) fn cold(&self) -> &Cold {
        if let Some(cold) = self.cold_if_any() {
            return cold;
        }
        let new = Box::into_raw(Box::new(Cold::new(None)));
        match self
            .cold
            .compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: it is in place now and stays until the header is freed.
            Ok(_) => unsafe { &*new },
            Err(other) => {
                // SAFETY: `new` was never shared.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: `other` is in place and stays until the header is freed.
                unsafe { &*other }
            }
        }
    }

    /// The thread's own part of the cold part.
    ///
    /// # Safety
    /// The caller runs on the thread, and keeps no other reference to it meanwhile.
    #[allow(clippy::mut_from_ref, reason = "the caller's promise makes it unique")]
    pub(crate) unsafe fn local(&self) -> &mut Local {
        // SAFETY: by contract.
        unsafe { &mut *self.cold().local.get() }
    }

    /// As `local`, if there is one.
    ///
    /// # Safety
    /// As for `local`.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "the caller's promise makes it unique")]
    pub(crate) unsafe fn local_if_any(&self) -> Option<&mut Local> {
        // SAFETY: by contract.
        self.cold_if_any()
            .map(|cold| unsafe { &mut *cold.local.get() })
    }

    /// A limit may end what the thread does now: its own, or that of a thread which would then kill it.
    ///
    /// # Safety
    /// The caller runs on the thread.
    pub(crate) unsafe fn has_limit(&self) -> bool {
        // SAFETY: by contract; the reference ends here.
        let local = unsafe { self.local_if_any() };
        self.is_under_limit() || local.is_some_and(|local| local.earliest.is_some())
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.cold_if_any().and_then(|cold| cold.name.as_deref())
    }
}

/// What has woken a thread. It decides to which queue the thread goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Another thread has woken it, by `unpark` or a channel. That thread probably waits for this one next. So this
    /// thread runs soon, and on this worker.
    Peer,
    /// Something else: a timer, a descriptor, the end of a thread, a lock.
    Event,
}

impl Drop for Header {
    fn drop(&mut self) {
        let cold = self.cold.load(Ordering::Acquire);
        if !cold.is_null() {
            // SAFETY: it came from `Box::into_raw`, and nobody has the header any more.
            drop(unsafe { Box::from_raw(cold) });
        }
    }
}

impl Cold {
    fn new(name: Option<Box<str>>) -> Self {
        Self {
            name,
            inbox: Mutex::new(Inbox::default()),
            local: UnsafeCell::new(Local::default()),
            parker: Arc::new(Parker::new()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    /// `Places::name_in_cold` counts on it. No language says it, but all compilers do it so.
    #[test]
    fn the_text_of_a_boxed_str_comes_before_its_length() {
        let boxed: Option<Box<str>> = Some(Box::from("lease"));
        let address = boxed.as_ref().map_or(0, |text| text.as_ptr().addr());
        let words: *const [usize; 2] = (&raw const boxed).cast();
        const { assert!(size_of::<Option<Box<str>>>() == size_of::<[usize; 2]>()) };
        // SAFETY: as large as the words, and all bytes are initialized.
        assert_eq!(unsafe { words.read() }, [address, 5]);
    }
}
