//! The call frame information of the process's code: where each caller's frame is.
//!
//! Each loaded object keeps it in `.eh_frame`, with an index, `.eh_frame_hdr`, that its program
//! headers name (Linux Standard Base 5.0, 10.6; dl_iterate_phdr(3)).
#![allow(unsafe_code, reason = "reads what the loader has mapped")]

use std::ffi::c_void;
use std::ops::Range;

use framehop::{ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module, Unwinder as _};

pub(crate) type Unwinder = framehop::UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>;

/// An unwinder that knows all objects that are loaded now.
pub(crate) fn unwinder() -> Unwinder {
    let mut unwinder = Unwinder::new();
    // SAFETY: `enter` is called with what this call is given, before it returns.
    unsafe { libc::dl_iterate_phdr(Some(enter), (&raw mut unwinder).cast()) };
    unwinder
}

/// Enters one object. The loader keeps it loaded meanwhile, so its information is copied.
///
/// # Safety
/// `info` is the loader's, `unwinder` a `*mut Unwinder`.
unsafe extern "C" fn enter(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    unwinder: *mut c_void,
) -> libc::c_int {
    // SAFETY: by contract; headers are the loader's array of that length.
    let (info, headers, unwinder) = unsafe {
        let info = &*info;
        let count = usize::from(info.dlpi_phnum);
        let headers = if info.dlpi_phdr.is_null() {
            &[]
        } else {
            std::slice::from_raw_parts(info.dlpi_phdr, count)
        };
        (info, headers, &mut *unwinder.cast::<Unwinder>())
    };
    let range = |header: &libc::Elf64_Phdr| header.p_vaddr..header.p_vaddr + header.p_memsz;
    let loaded = || {
        headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD)
    };
    let all = loaded()
        .map(range)
        .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
    let index = headers
        .iter()
        .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)
        .map(range);
    let (Some(all), Some(index)) = (all, index) else {
        return 0;
    };
    let base = info.dlpi_addr;
    // SAFETY: the range is of a segment that the loader has mapped, readable as all that is
    // unwound, and stays so until this returns.
    let bytes = |at: &Range<u64>| unsafe {
        let start = usize::try_from(base.wrapping_add(at.start)).unwrap_or(0);
        let length = usize::try_from(at.end - at.start).unwrap_or(0);
        std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start), length)
    };
    let index_bytes = bytes(&index);
    let Some(frames) = frames_of(index_bytes, &index).and_then(|at| {
        loaded()
            .map(range)
            .find(|segment| segment.contains(&at))
            .map(|s| at..s.end)
    }) else {
        return 0;
    };
    let section = ExplicitModuleSectionInfo {
        base_svma: 0,
        eh_frame_hdr: Some(index_bytes.to_vec()),
        eh_frame_hdr_svma: Some(index),
        eh_frame: Some(bytes(&frames).to_vec()),
        eh_frame_svma: Some(frames),
        ..Default::default()
    };
    let mapped = base.wrapping_add(all.start)..base.wrapping_add(all.end);
    unwinder.add_module(Module::new(String::new(), mapped, base, section));
    0
}

/// Where the index says that `.eh_frame` is. Linkers give it relative to its own place, in four bytes
/// (`DW_EH_PE_pcrel | DW_EH_PE_sdata4`); an object with another encoding is not known.
fn frames_of(index: &[u8], at: &Range<u64>) -> Option<u64> {
    let (&[1, 0x1b, _, _], rest) = index.split_first_chunk()? else {
        return None;
    };
    let offset = i32::from_le_bytes(*rest.first_chunk()?);
    at.start.wrapping_add(4).checked_add_signed(offset.into())
}
