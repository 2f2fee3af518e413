// The signatures of TCP streams and listeners, method by method; included into the modules of `tcp_cases.rs`.

const _: () = {
    const _CONNECT: fn(SocketAddr) -> io::Result<TcpStream> = TcpStream::connect;
    const _CONNECT_TIMEOUT: fn(&SocketAddr, Duration) -> io::Result<TcpStream> =
        TcpStream::connect_timeout;
    const _PEER_ADDR: fn(&TcpStream) -> io::Result<SocketAddr> = TcpStream::peer_addr;
    const _LOCAL_ADDR: fn(&TcpStream) -> io::Result<SocketAddr> = TcpStream::local_addr;
    const _SHUTDOWN: fn(&TcpStream, Shutdown) -> io::Result<()> = TcpStream::shutdown;
    const _TRY_CLONE: fn(&TcpStream) -> io::Result<TcpStream> = TcpStream::try_clone;
    const _SET_READ_TIMEOUT: fn(&TcpStream, Option<Duration>) -> io::Result<()> =
        TcpStream::set_read_timeout;
    const _SET_WRITE_TIMEOUT: fn(&TcpStream, Option<Duration>) -> io::Result<()> =
        TcpStream::set_write_timeout;
    const _READ_TIMEOUT: fn(&TcpStream) -> io::Result<Option<Duration>> = TcpStream::read_timeout;
    const _WRITE_TIMEOUT: fn(&TcpStream) -> io::Result<Option<Duration>> = TcpStream::write_timeout;
    const _PEEK: fn(&TcpStream, &mut [u8]) -> io::Result<usize> = TcpStream::peek;
    const _SET_NODELAY: fn(&TcpStream, bool) -> io::Result<()> = TcpStream::set_nodelay;
    const _NODELAY: fn(&TcpStream) -> io::Result<bool> = TcpStream::nodelay;
    const _SET_TTL: fn(&TcpStream, u32) -> io::Result<()> = TcpStream::set_ttl;
    const _TTL: fn(&TcpStream) -> io::Result<u32> = TcpStream::ttl;
    const _TAKE_ERROR: fn(&TcpStream) -> io::Result<Option<io::Error>> = TcpStream::take_error;
    const _SET_NONBLOCKING: fn(&TcpStream, bool) -> io::Result<()> = TcpStream::set_nonblocking;

    const _BIND: fn(SocketAddr) -> io::Result<TcpListener> = TcpListener::bind;
    const _OWN_ADDR: fn(&TcpListener) -> io::Result<SocketAddr> = TcpListener::local_addr;
    const _CLONE: fn(&TcpListener) -> io::Result<TcpListener> = TcpListener::try_clone;
    const _ACCEPT: fn(&TcpListener) -> io::Result<(TcpStream, SocketAddr)> = TcpListener::accept;
    const _INCOMING: fn(&TcpListener) -> net::Incoming<'_> = TcpListener::incoming;
    const _SET_OWN_TTL: fn(&TcpListener, u32) -> io::Result<()> = TcpListener::set_ttl;
    const _OWN_TTL: fn(&TcpListener) -> io::Result<u32> = TcpListener::ttl;
    const _SET_ONLY_V6: fn(&TcpListener, bool) -> io::Result<()> = TcpListener::set_only_v6;
    const _ONLY_V6: fn(&TcpListener) -> io::Result<bool> = TcpListener::only_v6;
    const _OWN_ERROR: fn(&TcpListener) -> io::Result<Option<io::Error>> = TcpListener::take_error;
    const _SET_OWN_NONBLOCKING: fn(&TcpListener, bool) -> io::Result<()> =
        TcpListener::set_nonblocking;
};

// The traits.

const _: () = {
    const fn socket<T>()
    where
        T: std::fmt::Debug + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static,
        T: AsFd + AsRawFd + FromRawFd + IntoRawFd + From<OwnedFd> + Into<OwnedFd>,
    {
    }
    const fn stream<T: Read + Write>() {}
    const fn incoming<T>()
    where
        T: Iterator<Item = io::Result<TcpStream>>
            + std::iter::FusedIterator
            + std::fmt::Debug
            + Send
            + Sync,
    {
    }
    socket::<TcpStream>();
    socket::<TcpListener>();
    stream::<TcpStream>();
    stream::<&TcpStream>();
    incoming::<net::Incoming<'static>>();
};
