//! Thread-locals of a green thread's own: each has a block of them, as an OS thread has.
//!
//! Every access to a thread-local, `errno` among them, is relative to the *thread pointer*, a
//! register. What lies there is laid out by the C library:
//!
//! ```text
//!  lower addresses                    thread pointer                      higher addresses
//!  | thread-locals of the libraries, the program's | control block: table, canary, id, keys ... |
//! ```
//!
//! A green thread gets such a block when it first runs. Its carrier writes the block's address to the
//! register before it enters the thread's stack. After it has left the stack, it writes the address of the next thread's
//! block, or of its own. So, seen from inside, a green thread *is* a thread: the compiler may keep the
//! address of a thread-local over a switch, and a value out of a thread-local stays with its thread.
//!
//! 1. The carrier's loop runs on its own block, except for the few steps from one green thread to the
//!    next (`run/change_over.rs`). Nobody else can run on that thread's block meanwhile.
//! 2. What a green thread must know of its carrier (`shim/here.rs`) is written into its block before
//!    each switch.
//! 3. When the body has ended, the destructors of the thread's
//!    thread-locals run, then those of its pthread keys, still on its stack and its block. Nothing is raised in them.
//! 4. The block of a thread that has ended goes to a pool. For its next green thread the thread-locals of all libraries
//!    are made new from their images (`images.rs`), and what the C library keeps is made as in a new thread
//!    (`kept.rs`). A block that nobody has needed for a while goes back to the C library (`excess.rs`).
//! 5. What `malloc` keeps for a thread belongs to the OS thread on which the green thread runs (`heap.rs`).
//! 6. Only the ABI (`x86_64.rs`) is known beforehand. `layout.rs` finds the layout
//!    out in two threads, which must agree, and `self_test.rs` tries it, once in a process. If
//!    anything is not as expected, there are no such thread-locals here.
//!
//! The C library's id of the thread (its `tid`) is made up (`ids.rs`). The kernel does not know it;
//! `docs/thread-locals.md` says what does not work for that reason.
#![allow(
    clippy::cast_possible_truncation,
    reason = "it is built for 64 bits only (`lib.rs`), and what is 64 bits wide is an address"
)]

mod block;
mod cache;
mod destructors;
mod excess;
mod heap;
mod heap_probe;
mod host;
mod ids;
#[cfg(test)]
mod ids_tests;
mod images;
mod kept;
mod kept_probe;
mod layout;
mod libraries;
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod machine;
mod memory;
mod own;
mod pool;
mod self_test;
mod setxid;
mod slabs;
mod visit;

pub(crate) use self::block::Block;
pub(crate) use self::cache::Cache;
pub(crate) use self::excess::{give_back_all, trim};
pub(crate) use self::heap::LentWords;
pub(crate) use self::host::{host_pointer, is_elsewhere, on_host};
pub(crate) use self::own::Support;
pub(crate) use self::pool::release;
pub(crate) use self::self_test::support;
