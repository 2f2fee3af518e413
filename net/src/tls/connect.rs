//! Connections with TLS: `connect_ssl`.

use std::io;
use std::sync::OnceLock;

use super::connector::SslConnector;
use super::errors::invalid_input;
use super::stream::SslStream;
use crate::tcp::connect_tcp;

/// Connects to `host:port` with TLS, and trusts the roots of the operating system. When it returns, the handshake is
/// done and the server has proved its name. A blocking call.
///
/// # Examples
/// ```no_run
/// use std::io::{Read, Write};
/// let mut stream = weald::connect_ssl("example.org:443")?;
/// stream.write_all(b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n")?;
/// let mut page = String::new();
/// stream.read_to_string(&mut page)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput`: the text is not `host:port`. `InvalidData`: the server does not speak TLS, or its certificate is
/// not accepted; the text tells why. `TimedOut`: the handshake took longer than 10 s. Those of [`connect_tcp`].
pub fn connect_ssl(addr: &str) -> io::Result<SslStream> {
    static PLATFORM: OnceLock<SslConnector> = OnceLock::new();
    connect_ssl_with(addr, PLATFORM.get_or_init(SslConnector::new))
}

/// Connects as [`connect_ssl`] does, with settings.
///
/// # Examples
/// See [`SslConnector`].
///
/// # Errors
/// Those of [`connect_ssl`].
pub fn connect_ssl_with(addr: &str, connector: &SslConnector) -> io::Result<SslStream> {
    let host = host(addr)?;
    // This comes before the connection: faults of the name or of the settings show without one.
    let machine = connector.machine(host)?;
    let tcp = connect_tcp(addr)?;
    tcp.set_nodelay(true)?;
    let stream = SslStream::new(tcp, machine, connector.bounds());
    stream.handshake()?;
    Ok(stream)
}

/// Returns the host of `host:port`. An IPv6 address is in brackets.
fn host(addr: &str) -> io::Result<&str> {
    let refused = || invalid_input(format!("{addr:?} is not of the form host:port"));
    let (host, port) = addr.rsplit_once(':').ok_or_else(refused)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(refused());
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Ok(bare.unwrap_or(host))
}
