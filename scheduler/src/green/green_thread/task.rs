//! The one allocation of a thread, with its closure and then its result; and [`Task`], a counted reference to it.
#![allow(
    unsafe_code,
    reason = "one allocation with a type-erased tail, shared by counts"
)]

use std::alloc::Layout;
use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::thread;

use super::header::{AnyRuntime, Header, Settings, ThreadKind, Vtable};
use crate::green::cells::{self, Class, Piece};
use crate::green::exception::Exception;
use crate::green::id::GreenThreadId;
use crate::parts::coroutine::Control;
use crate::parts::prefetch::prefetch;
use crate::parts::quietly::drop_quietly;
use crate::shim::atomic::Ordering;

/// What a thread's memory and result need of the floors above. The code that makes a thread chooses the type, so
/// there are no further calls by address.
pub(crate) trait Engine {
    /// The outcome of a thread whose body has ended with this result.
    fn outcome<T>(header: &Header, result: thread::Result<T>) -> thread::Result<T>;

    /// A thread has failed with this payload, and nobody will look at the payload.
    #[cfg(loom)]
    fn unseen(header: &Header, payload: &(dyn Any + Send));

    /// Takes the memory of a thread that has ended.
    ///
    /// # Safety
    /// Nobody uses the memory. `cells::memory` has given it for this layout. `runtime` may be gone: it is only compared.
    unsafe fn give_back(memory: NonNull<u8>, layout: Layout, runtime: *const AnyRuntime);
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
    // So that this is no tail call, and the function has a frame that traces see.
    std::hint::black_box(());
    result
}

/// The whole allocation.
#[repr(C)]
struct ThreadCell<F, T> {
    header: Header,
    stage: UnsafeCell<Stage<F, T>>,
}

/// The functions of a cell.
struct Table<F, T, E>(PhantomData<(F, T, E)>);

impl<F: FnOnce() -> T, T, E: Engine> Table<F, T, E> {
    const TABLE: Vtable = Vtable {
        run: ThreadCell::<F, T>::run::<E>,
        drop_result: ThreadCell::<F, T>::drop_result::<E>,
        take_result: ThreadCell::<F, T>::take_result,
        free: ThreadCell::<F, T>::free::<E>,
    };
}

impl<F, T> ThreadCell<F, T>
where
    F: FnOnce() -> T,
{
    /// Puts the cell on the heap, in memory that was kept if there is some. A reference to the header gives no right to
    /// the memory beside it. So the address of the whole cell is exposed here, and `whole` makes a pointer of it again.
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
    /// `header` heads a live `ThreadCell<F, T>` and the caller has the right to its stage.
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
            // What the body has captured is the user's. No exception interrupts the destructors.
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
        Class::of(Layout::new::<ThreadCell<F, T>>())
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
        let kind = if settings.has_own_thread {
            ThreadKind::OwnThread
        } else {
            ThreadKind::Green
        };
        let header = Header::new(
            kind,
            settings,
            if handle { 2 } else { 1 },
            &Table::<F, T, E>::TABLE,
            handle,
        );
        let cell = ThreadCell::<F, T> {
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
            is_under_limit: false,
            worker: None,
            has_own_thread: false,
            patched: Some(false),
            control: Control::current(),
        };
        let table = &Table::<Nothing, (), E>::TABLE;
        let header = Header::new(ThreadKind::Os, settings, 1, table, false);
        let cell = ThreadCell::<Nothing, ()> {
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

    /// Has the processor fetch the memory that the thread will touch when it runs. With many threads none of it is in
    /// the cache any more, and an early fetch saves the wait. For the owner of the running reference.
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
        // If this is the only reference, nobody can make another one, and the count may stay as it is.
        // The load acquires what the holders of the other references did.
        let last = self.refs.load(Ordering::Acquire) == 1
            || self.refs.fetch_sub(1, Ordering::Release) == 1;
        if last {
            // A fence would be enough, but ThreadSanitizer does not see fences. So this is a load.
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

/// The payload of a thread whose stack could not be made.
pub(crate) fn stack_payload(error: &std::io::Error) -> Box<dyn Any + Send> {
    Box::new(format!("failed to start a green thread: {error}"))
}
