//! OS threads that are joined: std's, and lean ones on systems on which we know how to make them.

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
            // If the thread has panicked, its message was written already.
            Self::Std(handle) => drop(handle.join()),
            #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
            Self::Lean(lean) => lean.join(),
        }
    }
}

/// Called before the first lean thread starts.
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

/// Starts an OS thread with a name and a stack of so many bytes. `None`: std's default.
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

/// Starts an OS thread that leaves nothing behind when it ends, if we know how (`lean.rs`). Otherwise as `spawn`.
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
