//! Calls on the thread-locals of the OS thread: `on_os_thread`, and an allocator that makes all its calls so.
//!
//! With thread-locals of a green thread's own, a library that keeps something per thread keeps it for each
//! green thread. A cache of tens of KiB, or an entry in a list that is walked over, is too much for ten
//! thousand green threads. With both calls here the library sees the few OS threads instead.
//!
//! Why `on_os_thread` is safe to call: it is as if the OS thread itself ran the closure while the green
//! thread waits for it.
//! 1. So what goes in and what comes out must be `Send`: an `Rc` from a thread-local of the OS thread, or
//!    a guard of it, cannot come out and travel on to another OS thread.
//! 2. The closure runs *as* the OS thread: `current()` is the OS thread's handle, and a `green_local!` is the
//!    OS thread's. Otherwise an `Rc` could come out through a `green_local!`.
//! 3. It never leaves its stack: a blocking call panics. So no other green thread ever finds a thread-local
//!    of the OS thread in the middle of a change.
//! 4. A panic is caught while the OS thread's thread-locals are the running ones, on which the standard library has
//!    counted it, and goes on in the green thread.
#![allow(
    unsafe_code,
    reason = "switches thread-locals, and is a global allocator"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::engine::carrier;
use crate::green::current;
use crate::green::green_thread::Header;
use crate::parts::thread_locals::on_host;
use crate::wait::exception;
use crate::wait::os_header;

/// Runs `f` as the OS thread that the caller runs on: `f` sees the thread-locals of the OS thread. `f` must not
/// wait.
///
/// With [`ThreadLocals::Own`](crate::ThreadLocals::Own) a library that keeps something per thread keeps it for each
/// green thread. That is right, but with some libraries it is expensive: they have a cache of tens of KiB for each
/// thread, or walk over a list of all threads. If such a library is called in `on_os_thread`, it sees only the few OS
/// threads. `docs/crates-in-own.md` has a table of libraries.
///
/// In `f` the running thread *is* the OS thread: [`is_green`](crate::is_green()) is false,
/// [`current`](crate::current()) is the handle of the OS thread, a [`green_local!`](crate::green_local) is
/// the OS thread's. So `f` and its value must be [`Send`]: the green thread may be on another OS thread soon, and must
/// not take along what belongs to this one, such as an `Rc` from one of its thread-locals. A panic in `f` goes on in
/// the caller. Calls may be nested.
///
/// `f` may spawn threads, unpark them, and call anything that does not wait. A call that blocks the OS
/// thread, such as a lock of the standard library's, blocks it as in any green thread.
///
/// It is the same in each mode of thread-locals and on a plain OS thread. Where green threads have
/// thread-locals of their own it costs two writes of the thread pointer.
///
/// # Panics
/// A blocking call of weald's panics in `f`, even if it would not have to wait:
/// [`sleep`](crate::sleep()), [`yield_now`](crate::yield_now), [`Runtime::run`](crate::Runtime::run),
/// [`scope`](crate::scope()), `lock`, `send`, `recv`, the calls of sockets.
///
/// # Examples
/// ```
/// use std::hash::{BuildHasher, RandomState};
///
/// let rt = weald::Runtime::builder().workers(1).build()?;
/// // The first `RandomState` of a thread asks the system for random numbers. An OS thread has done so long ago.
/// let random = rt.run(|| weald::on_os_thread(RandomState::new));
/// random.hash_one("text");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// What is not `Send` stays there:
/// ```compile_fail
/// use std::rc::Rc;
/// thread_local! { static SHARED: Rc<u32> = Rc::new(5); }
/// let out = weald::on_os_thread(|| SHARED.with(Rc::clone));
/// ```
pub fn on_os_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    // SAFETY: both are `Send`.
    unsafe { on_os_thread_unsend(f) }
}

/// The caller is a green thread with thread-locals of its own: `on_os_thread` has others. Not for users.
#[doc(hidden)]
#[inline]
pub fn has_own_thread_locals() -> bool {
    crate::parts::thread_locals::is_elsewhere()
}

/// Like [`on_os_thread`], also for values that are not `Send`.
///
/// # Safety
/// What comes out of `f`, as its value or through what it has captured, may be used on any thread. And `f` uses nothing
/// of the green thread's that must not be used on another thread.
///
/// # Panics
/// As [`on_os_thread`].
///
/// # Examples
/// ```
/// use std::cell::Cell;
///
/// let calls = Cell::new(0);
/// // SAFETY: only a number is counted.
/// unsafe { weald::on_os_thread_unsend(|| calls.set(calls.get() + 1)) };
/// assert_eq!(calls.get(), 1);
/// ```
pub unsafe fn on_os_thread_unsend<T>(f: impl FnOnce() -> T) -> T {
    unsafe fn run<F: FnOnce() -> T, T>(call: *mut ()) {
        // SAFETY: it is the caller's `Call`, which nobody else uses meanwhile.
        let call = unsafe { &mut *call.cast::<Call<F, T>>() };
        let Call::Closure(f) = std::mem::replace(call, Call::Taken) else {
            return;
        };
        // Nothing here unwinds but `f`, and that is caught before `part` is dropped.
        let part = OsThreadsPart::begin();
        *call = Call::Value(catch_unwind(AssertUnwindSafe(f)));
        drop(part);
    }
    /// The function to call, and then its result.
    enum Call<F, T> {
        Closure(F),
        Taken,
        Value(std::thread::Result<T>),
    }
    fn start<F: FnOnce() -> T, T>(call: &mut Call<F, T>) -> (unsafe fn(*mut ()), *mut ()) {
        (run::<F, T>, ptr::from_mut(call).cast())
    }
    let mut call = Call::Closure(f);
    let (run, data) = start(&mut call);
    // SAFETY: the function fits the data; it catches panics, and no call of weald's suspends an OS thread.
    unsafe { on_host(run, data) };
    match call {
        Call::Value(Ok(value)) => value,
        Call::Value(Err(payload)) => exception::go_on(payload),
        Call::Closure(_) | Call::Taken => unreachable!("it has been run"),
    }
}

/// While it lives, the OS thread is the running thread, and must not wait.
struct OsThreadsPart {
    /// The thread that really runs here, or null.
    before: *const Header,
    header: *const Header,
}

impl OsThreadsPart {
    fn begin() -> Self {
        let before = os_header::become_os_thread();
        let header = os_header::header();
        // SAFETY: the OS thread's header is alive, and this is the OS thread; not held over anything.
        unsafe { (*header).local() }.never_waits += 1;
        Self { before, header }
    }
}

impl Drop for OsThreadsPart {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { (*self.header).local() }.never_waits -= 1;
        // On a plain OS thread this is its own header, or there was none before.
        if !self.before.is_null() {
            current::set_running(self.before);
        } else if !carrier::here().is_null() {
            current::set_running(ptr::null());
        }
    }
}

/// A global allocator that calls another one on the thread-locals of the OS thread.
///
/// Most allocators keep a cache for each thread. With [`ThreadLocals::Own`](crate::ThreadLocals::Own) each green
/// thread would have one: with jemalloc 140 KB after a request's worth of allocations, with mimalloc 1.4 MB.
/// With this wrapper each OS thread has one cache, and all green threads that it runs use that.
///
/// glibc's `malloc`, and so [`System`](std::alloc::System), does not need this wrapper: weald does the same for
/// glibc by itself.
///
/// Each call costs two writes of the thread pointer in a green thread with thread-locals of its own. The
/// wrapper can be used from the first allocation of the process to the last one, on any thread, whether a
/// runtime runs or not.
///
/// # Examples
/// ```
/// use std::alloc::System;
///
/// // In place of `System`: `MiMalloc`, `Jemalloc`.
/// #[global_allocator]
/// static ALLOCATOR: weald::OnOsThread<System> = weald::OnOsThread::new(System);
///
/// let rt = weald::Runtime::builder().workers(1).build()?;
/// assert_eq!(rt.run(|| vec![1, 2, 3]).len(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OnOsThread<A>(pub A);

impl<A> OnOsThread<A> {
    /// Makes one of the allocator that does the work.
    pub const fn new(allocator: A) -> Self {
        Self(allocator)
    }
}

/// A call of an allocator.
struct Request<'a, A> {
    allocator: &'a A,
    layout: Layout,
    /// What is to be freed or made larger.
    memory: *mut u8,
    new_size: usize,
    answer: *mut u8,
}

impl<A: GlobalAlloc> Request<'_, A> {
    /// # Safety
    /// `request` is a `Request` of this type that is the caller's; its call is one that may be made.
    unsafe fn alloc(request: *mut ()) {
        // SAFETY: by contract.
        unsafe {
            let this = &mut *request.cast::<Self>();
            this.answer = this.allocator.alloc(this.layout);
        }
    }

    /// # Safety
    /// As `alloc`.
    unsafe fn alloc_zeroed(request: *mut ()) {
        // SAFETY: by contract.
        unsafe {
            let this = &mut *request.cast::<Self>();
            this.answer = this.allocator.alloc_zeroed(this.layout);
        }
    }

    /// # Safety
    /// As `alloc`.
    unsafe fn dealloc(request: *mut ()) {
        // SAFETY: by contract.
        unsafe {
            let this = &mut *request.cast::<Self>();
            this.allocator.dealloc(this.memory, this.layout);
        }
    }

    /// # Safety
    /// As `alloc`.
    unsafe fn realloc(request: *mut ()) {
        // SAFETY: by contract.
        unsafe {
            let this = &mut *request.cast::<Self>();
            this.answer = this
                .allocator
                .realloc(this.memory, this.layout, this.new_size);
        }
    }
}

impl<A: GlobalAlloc> OnOsThread<A> {
    /// # Safety
    /// `call` is one of `Request`'s, which may be made with these values.
    #[inline]
    unsafe fn ask(
        &self,
        call: unsafe fn(*mut ()),
        layout: Layout,
        memory: *mut u8,
        new_size: usize,
    ) -> *mut u8 {
        let mut request = Request {
            allocator: &self.0,
            layout,
            memory,
            new_size,
            answer: ptr::null_mut(),
        };
        // SAFETY: by contract; an allocator does not unwind, nor does it wait by a call of weald's: a
        // green thread has its own thread-locals there, and this is the OS thread's.
        unsafe { on_host(call, ptr::from_mut(&mut request).cast()) };
        request.answer
    }
}

// SAFETY: it does what the inner allocator does. An allocator may be called on any thread, with memory that came from
// any other thread. So it may be called on the thread whose thread-locals are current.
unsafe impl<A: GlobalAlloc> GlobalAlloc for OnOsThread<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.ask(Request::<A>::alloc, layout, ptr::null_mut(), 0) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.ask(Request::<A>::alloc_zeroed, layout, ptr::null_mut(), 0) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: by contract.
        unsafe { self.ask(Request::<A>::dealloc, layout, memory, 0) };
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.ask(Request::<A>::realloc, layout, memory, new_size) }
    }
}
