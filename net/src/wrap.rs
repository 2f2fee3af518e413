//! Standard sockets made green.

/// A standard socket that has a green twin.
///
/// # Examples
/// See [`wrap_socket`].
pub trait WrapSocket {
    /// The green twin.
    type Green;

    /// Makes the socket green.
    fn wrap(self) -> Self::Green;
}

/// Makes a standard socket green: its calls suspend the green thread, not the worker.
///
/// A stream's `O_NONBLOCK` stays as it is. A listener's is set: it belongs to the open file, so every clone sees it.
///
/// # Examples
/// ```
/// let plain = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let green = weald::wrap_socket(plain);
/// assert!(green.local_addr()?.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// If the descriptor is not valid, because somebody has closed it behind the socket's back.
pub fn wrap_socket<S: WrapSocket>(socket: S) -> S::Green {
    socket.wrap()
}
