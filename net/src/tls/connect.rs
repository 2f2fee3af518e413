//! Connections with TLS: `connect_ssl`.

use std::io;
use std::sync::OnceLock;

use super::connector::SslConnector;
use super::errors::invalid_input;
use super::stream::SslStream;
use crate::tcp::connect_tcp;

/// Connects to `host:port` with TLS, and trusts whom the operating system trusts. When it returns,
/// the handshake is done and the server is who it says. A blocking call.
///
/// # Examples
/// ```no_run
/// use std::io::{Read, Write};
/// let mut stream = weald_net::connect_ssl("example.org:443")?;
/// stream.write_all(b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n")?;
/// let mut page = String::new();
/// stream.read_to_string(&mut page)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput`: not `host:port`. `InvalidData`: what the server says is not TLS, or its
/// certificate is not accepted, which the text tells. `TimedOut`: the handshake took longer than
/// 10 s. Those of [`connect_tcp`].
pub fn connect_ssl(addr: &str) -> io::Result<SslStream> {
    static PLATFORM: OnceLock<SslConnector> = OnceLock::new();
    connect_ssl_with(addr, PLATFORM.get_or_init(SslConnector::new))
}

/// As [`connect_ssl`], with settings.
///
/// # Examples
/// See [`SslConnector`].
///
/// # Errors
/// As [`connect_ssl`].
pub fn connect_ssl_with(addr: &str, connector: &SslConnector) -> io::Result<SslStream> {
    let host = host(addr)?;
    // Before the connection: what is wrong with the name or the settings is known by itself.
    let machine = connector.machine(host)?;
    let tcp = connect_tcp(addr)?;
    tcp.set_nodelay(true)?;
    let stream = SslStream::new(tcp, machine, connector.bounds());
    stream.handshake()?;
    Ok(stream)
}

/// The host of `host:port`; an IPv6 address stands in brackets.
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
