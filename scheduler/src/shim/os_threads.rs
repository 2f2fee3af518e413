//! OS threads that are joined: std's, and lean ones where we know how.

#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
use crate::shim::lean;

/// An OS thread that has not been joined.
#[derive(Debug)]
pub(crate) enum Handle {
    Std(std::thread::JoinHandle<()>),
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    Lean(lean::Lean),
}

impl Handle {
    /// Waits until it has ended.
    pub(crate) fn join(self) {
        match self {
            // One that panicked has said so already; there is nothing to add.
            Self::Std(handle) => drop(handle.join()),
            #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
            Self::Lean(lean) => lean.join(),
        }
    }
}

/// Before the first lean thread.
pub(crate) fn prepare() {
    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(miri)
    ))]
    crate::shim::arena::prepare();
}

/// Starts an OS thread with a name.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> std::io::Result<Handle> {
    let _bypass = crate::shim::bypass::Bypass::enter();
    let builder = std::thread::Builder::new().name(name);
    builder.spawn(body).map(Handle::Std)
}

/// The same, with a stack of so many bytes; std's if that is not said.
pub(crate) fn spawn_with_stack(
    name: String,
    stack_size: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<Handle> {
    let _bypass = crate::shim::bypass::Bypass::enter();
    let mut builder = std::thread::Builder::new().name(name);
    if let Some(bytes) = stack_size {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(body).map(Handle::Std)
}

/// The same as `spawn`; one that leaves nothing behind when it ends, where we know how (`lean.rs`).
pub(crate) fn spawn_lean(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<Handle> {
    let _bypass = crate::shim::bypass::Bypass::enter();
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    let body = match lean::start(&name, body) {
        Ok(lean) => return Ok(Handle::Lean(lean)),
        Err((error, body)) if error.raw_os_error() == Some(libc::EINVAL) => body,
        Err((error, _)) => return Err(error),
    };
    spawn(name, body)
}
