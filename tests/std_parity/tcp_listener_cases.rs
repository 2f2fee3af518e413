// The cases of TCP listeners, included into the modules of `tcp_cases.rs`, whose helpers they use.

pub(crate) fn a_listener_binds_accepts_and_knows_its_address(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let at = listener.local_addr().unwrap();
    let mut report = vec![format!("{} {}", at.ip() == addr.ip(), at.port() != 0)];
    // Three clients wait in the queue, in their order.
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
    for client in &clients {
        let (stream, from) = listener.accept().unwrap();
        report.push(format!("{}", from == client.local_addr().unwrap()));
        report.push(format!("{}", stream.peer_addr().unwrap() == from));
    }
    report
}

pub(crate) fn a_port_that_is_taken_is_refused(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let at = listener.local_addr().unwrap();
    let mut report = vec![line("taken", TcpListener::bind(at).map(drop))];
    drop(listener);
    report.push(line("free again", TcpListener::bind(at).map(drop)));
    report.push(line(
        "not ours",
        TcpListener::bind((Ipv4Addr::new(192, 0, 2, 1), 0)).map(drop),
    ));
    report
}

pub(crate) fn incoming_never_ends_by_itself(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let at = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
    let mut incoming = listener.incoming();
    let mut report = vec![format!("{:?}", incoming.size_hint().1)];
    for client in &clients {
        let stream = incoming.next().unwrap().unwrap();
        report.push(format!(
            "{}",
            stream.peer_addr().unwrap() == client.local_addr().unwrap()
        ));
    }
    report.push(format!(
        "{}",
        format!("{incoming:?}").starts_with("Incoming")
    ));
    report
}

pub(crate) fn listeners_share_their_queue_with_clones(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let clone = listener.try_clone().unwrap();
    let at = clone.local_addr().unwrap();
    let first = TcpStream::connect(at).unwrap();
    let second = TcpStream::connect(at).unwrap();
    let report = vec![
        format!(
            "{}",
            listener.accept().unwrap().1 == first.local_addr().unwrap()
        ),
        format!(
            "{}",
            clone.accept().unwrap().1 == second.local_addr().unwrap()
        ),
    ];
    drop(listener);
    let third = TcpStream::connect(at).unwrap();
    assert_eq!(clone.accept().unwrap().1, third.local_addr().unwrap());
    report
}

pub(crate) fn listener_options_read_back(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let mut report = Vec::new();
    if addr.is_ipv4() {
        report.push(line("set", listener.set_ttl(33)));
        report.push(line("ttl", listener.ttl()));
    } else {
        report.push(line("only_v6", listener.only_v6()));
        report.push(format!("{}", listener.set_only_v6(true).is_err()));
    }
    report
}

pub(crate) fn a_listener_that_does_not_block(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let mut report = vec![line("set", listener.set_nonblocking(true))];
    report.push(line("accept", listener.accept().map(drop)));
    report.push(line(
        "incoming",
        listener.incoming().next().unwrap().map(drop),
    ));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = loop {
        match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => break other,
        }
    };
    report.push(line("with one in the queue", accepted.map(drop)));
    report.push(line("set", listener.set_nonblocking(false)));
    report
}
