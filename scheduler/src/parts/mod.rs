//! Parts that know no green thread: queues of the kernel, stacks, switches, thread-locals, small lock-free words.

pub(crate) mod coroutine;
pub(crate) mod cpus;
pub(crate) mod door;
pub(crate) mod eager;
pub(crate) mod ends;
pub(crate) mod errno;
pub(crate) mod forks;
pub(crate) mod idle;
pub(crate) mod last_words;
#[cfg(not(loom))]
pub(crate) mod local_names;
#[cfg(not(loom))]
pub(crate) mod offload;
pub(crate) mod os_parker;
pub(crate) mod os_thread;
#[cfg(not(any(loom, miri)))]
pub(crate) mod panic_count;
#[cfg(not(loom))]
pub(crate) mod patching;
pub(crate) mod poller;
pub(crate) mod prefetch;
pub(crate) mod quietly;
pub(crate) mod quota;
pub(crate) mod random;
#[cfg(not(loom))]
pub(crate) mod recorder;
pub(crate) mod shadow_stack;
pub(crate) mod slice;
pub(crate) mod stack;
pub(crate) mod state;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(any(loom, miri))
))]
pub(crate) mod thread_locals;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(any(loom, miri))
)))]
#[path = "thread_locals/none.rs"]
pub(crate) mod thread_locals;
pub(crate) mod threads;
pub(crate) mod timer_place;
