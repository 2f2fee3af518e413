//! Keeps the memory of green threads that have ended for the next ones.
//!
//! A green thread is one allocation (`green_thread/`). Programs that start many make and free many of the
//! same few sizes, and a general allocator is slow when hundreds are freed before the next is made: glibc's keeps
//! seven of a size at hand. So each worker keeps some. Malloc and free were 45 of the 150 ns that it takes to start
//! and join a green thread.
//!
//! 1. Memory in a list has the size of its class and the alignment [`ALIGN`], and nobody uses it.
//! 2. A worker keeps at most [`MOST`] pieces. Before it sleeps for long it frees them all.
//! 3. The lists are touched by the holder of the worker's seat, inside the door, as the worker's core is.
//!
//! Nothing is kept in models and under Miri and the sanitizers: they could not detect any more that a thread is used
//! after its end.
#![allow(
    unsafe_code,
    reason = "memory without a type, between one green thread and the next"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// The alignment of all memory that is kept; what a general allocator gives without asking.
const ALIGN: usize = 16;

/// Bytes between the sizes of two classes.
const STEP: usize = 32;

/// Threads of `STEP * CLASSES` bytes and more are rare, and their memory is freed at once.
const CLASSES: usize = 24;

/// Pieces that a worker keeps, of all sizes together: less than 768 KiB; some 300 KiB if closures are small.
const MOST: usize = 1024;

/// Which list memory for a green thread belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class(usize);

impl Class {
    /// `None`: no list keeps memory of this layout.
    pub(crate) const fn of(layout: Layout) -> Option<Self> {
        let index = layout.size().div_ceil(STEP);
        let keeps = !cfg!(any(
            loom,
            miri,
            weald_sanitizer = "address",
            weald_sanitizer = "thread"
        ));
        if keeps && layout.align() <= ALIGN && index < CLASSES {
            Some(Self(index))
        } else {
            None
        }
    }

    fn layout(self) -> Layout {
        Layout::from_size_align(self.0 * STEP, ALIGN).expect("a few hundred bytes")
    }
}

/// The memory that a worker keeps.
#[derive(Debug)]
pub(crate) struct Cells {
    /// By class; the hottest last.
    lists: [Vec<Piece>; CLASSES],
    count: usize,
}

/// Memory that nobody uses.
#[derive(Debug)]
pub(crate) struct Piece(NonNull<u8>);

// SAFETY: nobody else has the memory.
unsafe impl Send for Piece {}

impl Cells {
    pub(crate) fn new() -> Self {
        Self {
            lists: [const { Vec::new() }; CLASSES],
            count: 0,
        }
    }

    /// Memory of this class, if there is some.
    #[inline]
    pub(crate) fn get(&mut self, class: Class) -> Option<Piece> {
        let piece = self.lists[class.0].pop()?;
        self.count -= 1;
        Some(piece)
    }

    /// Keeps memory of this class. `Err`: there is enough.
    #[inline]
    pub(crate) fn put(&mut self, class: Class, piece: Piece) -> Result<(), Piece> {
        if self.count == MOST {
            return Err(piece);
        }
        self.count += 1;
        self.lists[class.0].push(piece);
        Ok(())
    }

    /// Frees all.
    pub(crate) fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        self.count = 0;
        for (index, list) in self.lists.iter_mut().enumerate() {
            for piece in std::mem::take(list) {
                free(Class(index), piece);
            }
        }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.flush();
    }
}

fn free(class: Class, Piece(memory): Piece) {
    // SAFETY: it was allocated with the layout of its class (invariant 1), and nobody uses it.
    unsafe { dealloc(memory.as_ptr(), class.layout()) };
}

/// Memory for a green thread of this layout: what the worker had (`kept`), or new.
#[inline]
pub(crate) fn memory(layout: Layout, kept: Option<Piece>) -> NonNull<u8> {
    if let Some(piece) = kept {
        return piece.0;
    }
    let layout = Class::of(layout).map_or(layout, Class::layout);
    // SAFETY: a thread's cell has a header, so the size is not zero.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Takes memory back that [`memory`] gave for this layout. `keep` may put it into the list of its class; what comes
/// back from there is freed.
///
/// # Safety
/// Nobody uses the memory any more.
#[inline]
pub(crate) unsafe fn give_back(
    memory: NonNull<u8>,
    layout: Layout,
    keep: impl FnOnce(Class, Piece) -> Option<Piece>,
) {
    let Some(class) = Class::of(layout) else {
        // SAFETY: it was allocated with this layout; by contract nobody uses it.
        return unsafe { dealloc(memory.as_ptr(), layout) };
    };
    // Outside the lists: the allocator may be the user's.
    if let Some(piece) = keep(class, Piece(memory)) {
        free(class, piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(class: Class) -> Piece {
        // SAFETY: the size is not zero.
        Piece(NonNull::new(unsafe { alloc(class.layout()) }).expect("memory"))
    }

    #[test]
    fn what_is_put_comes_back_for_its_size_and_no_more_than_the_bound_is_kept() {
        let (small, large) = (Class(8), Class(CLASSES - 1));
        let mut cells = Cells::new();
        for _ in 0..MOST {
            cells.put(small, some(small)).expect("there is room");
        }
        let refused = cells.put(large, some(large)).expect_err("no room is left");
        assert!(cells.get(large).is_none());
        let piece = cells.get(small).expect("it was put there");
        cells.put(large, refused).expect("there is room again");
        assert!(cells.get(large).is_some_and(|piece| {
            free(large, piece);
            true
        }));
        free(small, piece);
        cells.flush();
        assert!(cells.get(small).is_none());
    }

    #[test]
    fn large_and_widely_aligned_memory_is_not_kept() {
        #[repr(align(64))]
        struct Wide([u8; 64]);
        assert_eq!(Wide([0; 64]).0.len(), 64);
        assert!(Class::of(Layout::new::<Wide>()).is_none());
        assert!(Class::of(Layout::new::<[u8; 4096]>()).is_none());
    }
}
