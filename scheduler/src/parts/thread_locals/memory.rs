//! The memory of the C library: its names, the descriptions of its structures for debuggers, and words by their address.
#![allow(
    unsafe_code,
    reason = "reads the C library's own structures, after checks"
)]

use std::ffi::{CStr, c_void};
use std::ptr;

/// The error is a sentence about the surprise.
pub(super) type Found<T> = Result<T, &'static str>;

/// Looks a name up in the libraries of the process.
pub(super) fn symbol(name: &CStr) -> Found<*mut c_void> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() {
        return Err("the C library lacks a name that is needed");
    }
    Ok(found)
}

/// A field of the C library's, as it describes it to debuggers: bits, count, offset.
pub(super) fn field(name: &CStr, bits: u32, count: u32) -> Found<isize> {
    let described = symbol(name)?.cast::<[u32; 3]>();
    // SAFETY: every such name is an array of three words.
    let [size, number, offset] = unsafe { described.read() };
    if [size, number] != [bits, count] {
        return Err("a field of the C library has another size");
    }
    isize::try_from(offset).map_err(|_| "a field of the C library is far off")
}

pub(super) fn size(name: &CStr) -> Found<usize> {
    // SAFETY: every such name is a word.
    Ok(unsafe { symbol(name)?.cast::<u32>().read() } as usize)
}

/// # Safety
/// There is a `T` so far from the base.
pub(super) unsafe fn read<T: Copy>(base: usize, offset: isize) -> T {
    // SAFETY: by contract.
    unsafe { ptr::with_exposed_provenance::<T>(base.wrapping_add_signed(offset)).read() }
}

/// # Safety
/// There is room for a `T` so far from the base, and it is the caller's.
pub(super) unsafe fn write<T>(base: usize, offset: isize, value: T) {
    // SAFETY: by contract.
    unsafe { ptr::with_exposed_provenance_mut::<T>(base.wrapping_add_signed(offset)).write(value) };
}

pub(super) fn between(from: usize, to: usize) -> isize {
    to.wrapping_sub(from).cast_signed()
}
