//! The control block of a green thread: id, name, state, result.
//!
//! A green thread is one allocation, a [`Cell`]: the [`Header`], whose layout does not depend on
//! the closure, and behind it the closure, later its result. An OS thread that waits for something
//! of weald's, or that somebody holds a handle of, has a header of its own too, so that all waits
//! work alike.
//!
//! | part of the cell | whose                                                                    |
//! |------------------|--------------------------------------------------------------------------|
//! | state, refs      | everybody's: atomics                                                     |
//! | coroutine, home  | the carrier that dispatches the thread                                   |
//! | stage: closure   | the thread itself                                                        |
//! | stage: result    | before DONE the thread's, after it the handle's, else whose `join.rs`    |
//! |                  | says (`state.rs` 4)                                                      |
//! | cold.local       | the thread itself                                                        |
//! | cold.inbox       | everybody's: a lock                                                      |
//! | forks            | the thread itself, and who has the right to take (`forks.rs`)            |
//!
//! Invariant 1: whoever holds a [`Task`] keeps the cell alive. The queue a thread is in, its
//! carrier, or, while it is PARKED, its state word owns exactly one such reference ("the running
//! reference"), which `Wake::Won` hands to the waker.
//! Invariant 2: `coroutine` is touched only by who holds the running reference.
#![allow(
    unsafe_code,
    reason = "one allocation with a type-erased tail, shared by counts"
)]

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell as StdCell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::thread;

use crate::green::cells::{self, Class, Piece};
use crate::green::exception::Exception;
use crate::green::exception::Inbox;
use crate::green::exception::Local;
use crate::green::id::GreenThreadId;
use crate::green::left::Left;
use crate::green::wait_list::WaitQueue;
use crate::parts::coroutine::{Control, Coroutine, Suspender};
use crate::parts::forks::Forks;
use crate::parts::os_parker::Parker;
use crate::parts::prefetch::prefetch;
use crate::parts::quietly::drop_quietly;
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
    /// Its carrier may have lost its seat; go on wherever there is one.
    Requeue,
}

/// Which kind of thread a header stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Green,
    Os,
}

/// Stands for a runtime, which this floor knows only by its address: `Inner::of` says what is there.
#[derive(Debug)]
pub(crate) struct AnyRuntime(());

/// What a thread's memory and result need of the floors above. Who makes a thread chooses, so nothing is called by
/// address that would not be otherwise.
pub(crate) trait Engine {
    /// The outcome of a thread whose body has ended with this result.
    fn outcome<T>(header: &Header, result: thread::Result<T>) -> thread::Result<T>;

    /// A thread has failed with this payload, and nobody will look at it.
    #[cfg(loom)]
    fn unseen(header: &Header, payload: &(dyn Any + Send));

    /// Takes the memory of a thread that is over.
    ///
    /// # Safety
    /// Nobody uses the memory any more; `cells::memory` gave it for this layout. `runtime` is only compared: it may be gone.
    unsafe fn give_back(memory: NonNull<u8>, layout: Layout, runtime: *const AnyRuntime);
}

/// What is known of a thread's type once the type is gone.
pub(crate) struct Vtable {
    /// Runs the body, or drops it if the thread is doomed, and leaves the result in the stage.
    run: unsafe fn(NonNull<Header>),
    /// Drops the result.
    drop_result: unsafe fn(NonNull<Header>),
    /// Moves the result to `into`, a `*mut Option<thread::Result<T>>`.
    take_result: unsafe fn(NonNull<Header>, *mut ()),
    /// Frees the cell.
    free: unsafe fn(NonNull<Header>),
}

/// The part of a green thread that does not depend on its closure.
#[repr(C)]
pub(crate) struct Header {
    // What each wait touches comes first, in as few cache lines as may be.
    /// What the floors below know of it; they have the header's address for that of this field.
    pub(crate) front: Front,
    /// Usable bytes of its stack in units of 4 KiB.
    stack_pages: u32,
    pub(crate) state: State,
    /// The runtime it belongs to; null for an OS thread. Alive until the thread is DONE, for ever if that
    /// never comes: `runtime.rs`.
    pub(crate) runtime: *const AnyRuntime,
    /// Index + 1 of the carrier that a pinned, started thread belongs to; 0: none.
    pub(crate) home: AtomicUsize,
    /// What most threads never need, made when first needed.
    cold: AtomicPtr<Cold>,
    /// The way out of its stack; set at the first run, read by the thread itself.
    pub(crate) suspender: StdCell<*const Suspender<(), Note>>,
    /// Bound at the first run (invariant 2).
    pub(crate) coroutine: UnsafeCell<Option<Coroutine<(), Note>>>,
    /// Its thread-locals, in `Own`; bound with the coroutine (invariant 2).
    pub(crate) block: UnsafeCell<Option<Block>>,
    /// It did not come back for long when it last ran; its carrier's.
    pub(crate) hog: StdCell<bool>,
    /// In the registry; owner's while it runs.
    pub(crate) registered: StdCell<bool>,
    /// Whether they suspend it otherwise.
    #[cfg(not(loom))]
    pub(crate) patched: crate::parts::patching::Choice,
    kind: Kind,
    /// Its body has ended, and destructors run: nothing is raised any more but the timeouts that they
    /// enter. Its own.
    pub(crate) ending: StdCell<bool>,
    /// Its body is not to run, only to be dropped; said before it starts by who holds the running reference.
    pub(crate) doomed: StdCell<bool>,
    /// Never migrates once started, whatever the runtime's mode.
    pub(crate) pinned: bool,
    /// How many sleeps the exception that is pending may still end, or `FRESH`; its own.
    #[cfg(not(loom))]
    pub(crate) sleeps_to_end: StdCell<u8>,
    /// Where it was when it left its stack.
    pub(crate) left: Left,
    /// The second halves of its joins; its own, but for who has the right to take (`forks.rs`).
    pub(crate) forks: Forks,
    // What it does not touch.
    refs: AtomicUsize,
    vtable: &'static Vtable,
    pub(crate) id: GreenThreadId,
    /// Who waits for its end.
    pub(crate) joiners: WaitQueue,
    /// Its place in the registry of started threads; under the registry's lock.
    pub(crate) links: UnsafeCell<Links>,
    /// For fair choices; the thread's own.
    #[cfg(not(loom))]
    pub(crate) random: Random,
    /// The floating-point control that it begins with.
    pub(crate) control: Control,
    /// The shard of the registry that it is in.
    pub(crate) shard: StdCell<u16>,
}

impl Header {
    /// The bytes at its beginning that each wait touches, the first word of `forks` among them.
    pub(crate) const TOUCHED: usize = std::mem::offset_of!(Header, forks) + size_of::<usize>();
}

/// Links of the registry's list.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) next: *const Header,
    pub(crate) prev: *const Header,
}

/// What most threads never need: a name, exceptions, locals, an OS-level parker.
pub(crate) struct Cold {
    name: Option<Box<str>>,
    /// What others raise in it.
    pub(crate) inbox: Mutex<Inbox>,
    /// Its own deadlines, scopes and locals; only the thread itself touches it.
    pub(crate) local: UnsafeCell<Local>,
    /// Blocks its OS thread when it waits in place.
    pub(crate) parker: Arc<Parker>,
}

enum Stage<F, T> {
    Body(F),
    Result(thread::Result<T>),
    Empty,
}

/// Calls the body. Never inlined: traces end at its name.
#[inline(never)]
fn run_green_thread_body<F: FnOnce() -> T, T>(body: F) -> T {
    let result = body();
    // Not a tail call, so that its frame is there.
    std::hint::black_box(());
    result
}

/// The whole allocation.
#[repr(C)]
struct Cell<F, T> {
    header: Header,
    stage: UnsafeCell<Stage<F, T>>,
}

/// The functions of a cell.
struct Table<F, T, E>(PhantomData<(F, T, E)>);

impl<F: FnOnce() -> T, T, E: Engine> Table<F, T, E> {
    const TABLE: Vtable = Vtable {
        run: Cell::<F, T>::run::<E>,
        drop_result: Cell::<F, T>::drop_result::<E>,
        take_result: Cell::<F, T>::take_result,
        free: Cell::<F, T>::free::<E>,
    };
}

impl<F, T> Cell<F, T>
where
    F: FnOnce() -> T,
{
    /// Puts it on the heap, in memory that was kept if there is some. Who has nothing but a reference to the header
    /// may not touch what lies beside it, so the right to the whole is exposed, and `whole` takes it up again.
    #[inline]
    fn leak(self, kept: Option<Piece>) -> NonNull<Header> {
        let whole = cells::memory(Layout::new::<Self>(), kept).cast::<Self>();
        // SAFETY: the memory is ours, large enough and aligned for it.
        unsafe { whole.write(self) };
        whole.as_ptr().expose_provenance();
        whole.cast()
    }

    /// The cell that `leak` made of this header: `repr(C)` puts it first, so the addresses agree.
    fn whole(header: NonNull<Header>) -> *mut Self {
        ptr::with_exposed_provenance_mut(header.addr().get())
    }

    /// # Safety
    /// `header` heads a live `Cell<F, T>` and the caller has the right to its stage.
    unsafe fn stage<'a>(header: NonNull<Header>) -> &'a mut Stage<F, T> {
        // SAFETY: it is alive; the caller's right to the stage makes the reference unique.
        unsafe { &mut *(*Self::whole(header)).stage.get() }
    }

    unsafe fn run<E: Engine>(header: NonNull<Header>) {
        // SAFETY: the thread itself runs this, once, so the stage is its own (table above).
        let stage = unsafe { Self::stage(header) };
        let Stage::Body(body) = std::mem::replace(stage, Stage::Empty) else {
            unreachable!("a green thread runs its body once")
        };
        // SAFETY: by contract it is alive.
        let this = unsafe { header.as_ref() };
        let result = if this.doomed.get() {
            // What it had captured is the user's: no exception cuts its destructors short.
            this.ending.set(true);
            drop_quietly(body);
            // SAFETY: this is the thread itself.
            let payload = unsafe { this.local_if_any() }.and_then(|local| local.payload.take());
            Err(payload.unwrap_or_else(|| Box::new(Exception::killed())))
        } else {
            let result = catch_unwind(AssertUnwindSafe(|| run_green_thread_body(body)));
            E::outcome(this, result)
        };
        // SAFETY: as above; no reference into the stage was kept over the body.
        unsafe { *Self::stage(header) = Stage::Result(result) };
    }

    unsafe fn drop_result<E: Engine>(header: NonNull<Header>) {
        // SAFETY: by the caller's contract the stage is its own.
        let stage = unsafe { Self::stage(header) };
        let result = std::mem::replace(stage, Stage::Empty);
        #[cfg(loom)]
        if let Stage::Result(Err(payload)) = &result {
            // SAFETY: by contract it is alive.
            E::unseen(unsafe { header.as_ref() }, &**payload);
        }
        drop_quietly(result);
    }

    unsafe fn take_result(header: NonNull<Header>, into: *mut ()) {
        // SAFETY: the handle calls this after DONE: the stage is its own.
        let stage = unsafe { Self::stage(header) };
        if let Stage::Result(result) = std::mem::replace(stage, Stage::Empty) {
            // SAFETY: the caller passes an `Option<thread::Result<T>>` of this cell's `T`.
            unsafe { *into.cast::<Option<thread::Result<T>>>() = Some(result) };
        }
    }

    unsafe fn free<E: Engine>(header: NonNull<Header>) {
        let whole = Self::whole(header);
        // SAFETY: the last reference is gone, so the cell is ours to drop. `leak` got its memory for this layout, and
        // an address that was that of a header is not null.
        unsafe {
            let runtime = (*whole).header.runtime;
            whole.drop_in_place();
            let memory = NonNull::new_unchecked(whole.cast());
            E::give_back(memory, Layout::new::<Self>(), runtime);
        }
    }
}

/// One counted reference to a thread's cell.
pub(crate) struct Task(NonNull<Header>);

// SAFETY: the header's shared parts are atomics and locks, the others have one owner at a time by
// the table above; closures and results are `Send` where threads are made.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Task {
    /// Where the memory of such a thread is kept.
    pub(crate) const fn class<F: FnOnce() -> T, T>() -> Option<Class> {
        Class::of(Layout::new::<Cell<F, T>>())
    }

    /// Makes a green thread that has not started, with one reference for its queue and, if
    /// `handle`, one for a `JoinHandle`. `kept`: memory of its [`class`](Self::class).
    ///
    /// # Safety
    /// What `body` borrows outlives the thread; `runtime` is alive until the thread is DONE.
    #[inline]
    pub(crate) unsafe fn new<E, F, T>(
        body: F,
        settings: Settings,
        handle: bool,
        kept: Option<Piece>,
    ) -> Task
    where
        E: Engine,
        F: FnOnce() -> T,
    {
        let header = Header::new(
            Kind::Green,
            settings,
            if handle { 2 } else { 1 },
            &Table::<F, T, E>::TABLE,
            handle,
        );
        let cell = Cell::<F, T> {
            header,
            stage: UnsafeCell::new(Stage::Body(body)),
        };
        Task(cell.leak(kept))
    }

    /// A header for the calling OS thread.
    pub(crate) fn new_os<E: Engine>(name: Option<Box<str>>) -> Task {
        type Nothing = fn();
        let settings = Settings {
            id: GreenThreadId::next(),
            runtime: ptr::null(),
            name,
            stack_size: 0,
            pinned: true,
            patched: Some(false),
            control: Control::current(),
        };
        let table = &Table::<Nothing, (), E>::TABLE;
        let header = Header::new(Kind::Os, settings, 1, table, false);
        let cell = Cell::<Nothing, ()> {
            header,
            stage: UnsafeCell::new(Stage::Empty),
        };
        Task(cell.leak(None))
    }

    /// The second reference of a new thread, for its handle.
    ///
    /// # Safety
    /// Once for each thread that was made with a handle.
    pub(crate) unsafe fn handle_reference(&self) -> Task {
        Task(self.0)
    }

    pub(crate) fn into_raw(self) -> *mut Header {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    /// `header` came from `into_raw` (or stands for a reference that its state word owned), once.
    pub(crate) unsafe fn from_raw(header: *const Header) -> Task {
        // SAFETY: by contract it points to a live header, so it is not null.
        Task(unsafe { NonNull::new_unchecked(header.cast_mut()) })
    }

    /// A new reference to a header that is known to be alive.
    pub(crate) fn from_header(header: &Header) -> Task {
        header.refs.fetch_add(1, Ordering::Relaxed);
        Task(NonNull::from(header))
    }

    /// Has the processor fetch what running the thread will touch. With many threads none of it is in the
    /// cache any more; fetched early, it costs no wait. For the owner of the running reference.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch(self.0.as_ptr().cast(), Header::TOUCHED);
        // SAFETY: the running reference is the caller's (invariant 2).
        if let Some(coroutine) = unsafe { &*self.coroutine.get() } {
            coroutine.prefetch();
        }
    }

    /// Runs the body, or drops it if the thread is doomed; as the thread itself.
    ///
    /// # Safety
    /// The caller is the thread itself, for the first time.
    pub(crate) unsafe fn run_body(header: &Header) {
        // SAFETY: by contract.
        unsafe { (header.vtable.run)(NonNull::from(header)) };
    }

    /// # Safety
    /// The result is the caller's (`state.rs` 4).
    pub(crate) unsafe fn drop_result(header: &Header) {
        // SAFETY: by contract.
        unsafe { (header.vtable.drop_result)(NonNull::from(header)) };
    }

    /// # Safety
    /// The caller is the handle of the thread, which is DONE, and `T` is its result's type.
    pub(crate) unsafe fn take_result<T>(header: &Header) -> Option<thread::Result<T>> {
        let mut result: Option<thread::Result<T>> = None;
        // SAFETY: by contract; `result` has the type that the cell expects.
        unsafe { (header.vtable.take_result)(NonNull::from(header), (&raw mut result).cast()) };
        result
    }
}

impl std::ops::Deref for Task {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: this reference keeps the cell alive (invariant 1).
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Task {
    #[inline]
    fn clone(&self) -> Self {
        Task::from_header(self)
    }
}

impl Drop for Task {
    #[inline]
    fn drop(&mut self) {
        // Where this is the only reference nobody can make another, so the count may stay as it is.
        // The load acquires what those did who had the others.
        let last = self.refs.load(Ordering::Acquire) == 1
            || self.refs.fetch_sub(1, Ordering::Release) == 1;
        if last {
            // A load, where a fence would do: ThreadSanitizer sees no fences.
            self.refs.load(Ordering::Acquire);
            // SAFETY: this was the last reference.
            unsafe { (self.vtable.free)(self.0) };
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a new thread is made of besides its body.
pub(crate) struct Settings {
    pub(crate) id: GreenThreadId,
    pub(crate) runtime: *const AnyRuntime,
    pub(crate) name: Option<Box<str>>,
    pub(crate) stack_size: usize,
    pub(crate) pinned: bool,
    #[cfg_attr(loom, allow(dead_code, reason = "a model has no libc to patch"))]
    pub(crate) patched: Option<bool>,
    /// The floating-point control that it begins with.
    pub(crate) control: Control,
}

impl Header {
    #[inline]
    fn new(
        kind: Kind,
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
            state: State::new(handle),
            refs: AtomicUsize::new(refs),
            vtable,
            id: settings.id,
            runtime: settings.runtime,
            coroutine: UnsafeCell::new(None),
            block: UnsafeCell::new(None),
            suspender: StdCell::new(ptr::null()),
            left: Left::new(),
            home: AtomicUsize::new(0),
            joiners: WaitQueue::of("the end of a green thread"),
            cold: AtomicPtr::new(cold),
            links: UnsafeCell::new(Links {
                next: ptr::null(),
                prev: ptr::null(),
            }),
            stack_pages: u32::try_from(settings.stack_size >> 12).unwrap_or(u32::MAX),
            kind,
            pinned: settings.pinned,
            #[cfg(not(loom))]
            patched: settings.patched.into(),
            #[cfg(not(loom))]
            sleeps_to_end: StdCell::new(crate::parts::patching::FRESH),
            #[cfg(not(loom))]
            random: Random::new(settings.id.get()),
            hog: StdCell::new(false),
            ending: StdCell::new(false),
            doomed: StdCell::new(false),
            registered: StdCell::new(false),
            control: settings.control,
            forks: Forks::new(),
            shard: StdCell::new(0),
        }
    }

    pub(crate) fn is_green(&self) -> bool {
        self.kind == Kind::Green
    }

    pub(crate) fn stack_size(&self) -> usize {
        (self.stack_pages as usize) << 12
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

    pub(crate) fn name(&self) -> Option<&str> {
        self.cold_if_any().and_then(|cold| cold.name.as_deref())
    }
}

/// What woke a thread, for the choice of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Another thread did: it probably waits for this one next, so run it soon and here.
    Peer,
    /// A timer, a descriptor, the end of a thread.
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

/// The payload of a thread whose stack could not be made.
pub(crate) fn stack_payload(error: &std::io::Error) -> Box<dyn Any + Send> {
    Box::new(format!("failed to start a green thread: {error}"))
}
