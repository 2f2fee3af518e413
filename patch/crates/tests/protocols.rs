//! Web sockets, mail, HTTP servers, TLS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use lettre::{Message, SmtpTransport, Transport};
use weald_patched_crates::{MANY, PAGE, all_at_once, answer, in_green, serve};

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

#[test]
fn tungstenite_clients_talk_at_once() {
    let addr = serve(|stream, all_here| {
        let mut socket =
            tungstenite::accept(stream).map_err(|error| io::Error::other(error.to_string()))?;
        let message = socket.read().map_err(other)?;
        all_here.wait();
        socket.send(message).map_err(other)
    });
    all_at_once(move |n| {
        let (mut socket, _) = tungstenite::connect(format!("ws://{addr}/")).unwrap();
        socket
            .send(tungstenite::Message::text(n.to_string()))
            .unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), n.to_string());
    });
}

#[test]
fn a_server_of_tungstenite_talks_to_all_at_once() {
    in_green(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let clients = move || {
            // An OS thread starts these clients, so they are OS threads.
            let clients: Vec<_> = (0..MANY)
                .map(|n| {
                    thread::spawn(move || {
                        let (mut socket, _) =
                            tungstenite::connect(format!("ws://{addr}/")).unwrap();
                        socket
                            .send(tungstenite::Message::text(n.to_string()))
                            .unwrap();
                        assert_eq!(socket.read().unwrap().to_text().unwrap(), n.to_string());
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
        };
        let clients = weald::spawn(move || {
            weald::blocking(|| {
                // `blocking` runs on an OS thread: a thread that it starts is an OS thread.
                thread::spawn(clients).join().unwrap();
            })
        });
        let all_here = Arc::new(Barrier::new(MANY));
        let talks: Vec<_> = (0..MANY)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                let all_here = Arc::clone(&all_here);
                weald::spawn(move || {
                    let mut socket = tungstenite::accept(stream).unwrap();
                    let message = socket.read().unwrap();
                    all_here.wait();
                    socket.send(message).unwrap();
                })
            })
            .collect();
        for talk in talks {
            talk.join().unwrap();
        }
        clients.join().unwrap();
    });
}

/// The clients come one by one, and all stay until the last one is there. tiny_http's pool starts no thread for a
/// connection while a thread that was woken for the connection before has not yet run. So connections that come in a
/// burst wait for the conversations that are under way, on OS threads too.
#[test]
fn tiny_http_serves_all_at_once() {
    in_green(|| {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let url = format!("http://{}/", server.server_addr());
        let all_here = Arc::new(Barrier::new(MANY));
        let (asked, has_asked) = mpsc::channel();
        let handlers: Vec<_> = (0..MANY)
            .map(|_| {
                let (server, all_here) = (Arc::clone(&server), Arc::clone(&all_here));
                let asked = asked.clone();
                weald::spawn(move || {
                    let request = server.recv().unwrap();
                    asked.send(()).unwrap();
                    all_here.wait();
                    request
                        .respond(tiny_http::Response::from_string(PAGE))
                        .unwrap();
                })
            })
            .collect();
        let clients: Vec<_> = (0..MANY)
            .map(|_| {
                let url = url.clone();
                let client = weald::spawn(move || {
                    let page = ureq::get(&url).call().unwrap().body_mut().read_to_string();
                    assert_eq!(page.unwrap(), PAGE);
                });
                has_asked.recv().unwrap();
                client
            })
            .collect();
        for thread in handlers.into_iter().chain(clients) {
            thread.join().unwrap();
        }
    });
}

/// Implements as much of RFC 5321 as one message takes.
fn take_mail(stream: TcpStream, all_here: &Barrier) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut writer = &stream;
    writer.write_all(b"220 localhost\r\n")?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let reply: &[u8] = match line.get(..4) {
            Some("DATA") => {
                writer.write_all(b"354 go on\r\n")?;
                while line != ".\r\n" {
                    line.clear();
                    reader.read_line(&mut line)?;
                }
                all_here.wait();
                b"250 taken\r\n"
            }
            Some("QUIT") => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        writer.write_all(reply)?;
    }
}

#[test]
fn lettre_sends_all_mails_at_once() {
    let addr = serve(take_mail);
    all_at_once(move |n| {
        let mail = Message::builder()
            .from("from@example.org".parse().unwrap())
            .to("to@example.org".parse().unwrap())
            .subject(n.to_string())
            .body(String::from("text"))
            .unwrap();
        let transport = SmtpTransport::builder_dangerous(addr.ip().to_string())
            .port(addr.port())
            .build();
        assert!(transport.send(&mail).unwrap().is_positive());
    });
}

/// Starts a web server behind TLS, and returns its address and certificate.
fn https() -> (std::net::SocketAddr, rcgen::Certificate) {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let addr = serve(move |stream, all_here| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).map_err(other)?;
        let mut stream = rustls::StreamOwned::new(connection, stream);
        answer(&mut stream, all_here)?;
        stream.conn.send_close_notify();
        stream.flush()
    });
    (addr, made.cert)
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn rustls_over_sockets_of_std() {
    let (addr, certificate) = https();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    all_at_once(move |_| {
        let name = "localhost".try_into().unwrap();
        let connection = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(addr).unwrap());
        stream.write_all(REQUEST).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(PAGE), "{text}");
    });
}

#[test]
fn native_tls_that_is_openssl_over_sockets_of_std() {
    let (addr, certificate) = https();
    let root = native_tls::Certificate::from_der(certificate.der()).unwrap();
    let connector = native_tls::TlsConnector::builder()
        .add_root_certificate(root)
        .build()
        .unwrap();
    all_at_once(move |_| {
        let stream = TcpStream::connect(addr).unwrap();
        let mut stream = connector.connect("localhost", stream).unwrap();
        stream.write_all(REQUEST).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(PAGE), "{text}");
    });
}
