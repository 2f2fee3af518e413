//! Other programs at the other end: `openssl` and `curl`. If one is not installed, its tests print that, and check
//! nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use weald::net::{ClientCertificates, SslAcceptor, SslConnector, SslListener, SslRoots, SslStream};

use crate::support::{v4, with_deadline};
use crate::tls_support::{LOCALHOST, Leaf, TRUSTED, connector, pattern};

/// Tells if the program is there, and prints a line if it is not.
fn is_there(program: &str) -> bool {
    let argument = if program == "openssl" {
        "version"
    } else {
        "--version"
    };
    let found = Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        // This bypasses the harness, whose capture would hide it.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: `{program}` is not installed");
    }
    there
}

/// A folder with the certificates, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weald-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("roots.pem"), &TRUSTED.pem).unwrap();
        let folder = Self(path);
        folder.put("server", &LOCALHOST);
        folder
    }

    fn put(&self, name: &str, leaf: &Leaf) {
        std::fs::write(self.path(&format!("{name}.pem")), &leaf.chain).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), &leaf.key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child that does not outlive its test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Echoes every connection, and greets it with what TLS has agreed upon.
fn echo_server(acceptor: &SslAcceptor) -> u16 {
    let listener = weald::ssl_listener_with(v4(), acceptor).unwrap();
    let port = listener.local_addr().unwrap().port();
    weald::spawn(move || serve(&listener, echo));
    port
}

fn serve(listener: &SslListener, handler: fn(&SslStream) -> std::io::Result<()>) {
    while let Ok((stream, _)) = listener.accept() {
        weald::spawn(move || {
            // The other end sees what goes wrong.
            let _ = handler(&stream);
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

fn echo(mut stream: &SslStream) -> std::io::Result<()> {
    stream.handshake()?;
    let version = stream.protocol_version().unwrap_or("none");
    let certificates = stream.peer_certificates().len();
    let resumed = stream.is_resumed();
    writeln!(
        stream,
        "hello {version} certificates={certificates} resumed={resumed}"
    )?;
    std::io::copy(&mut &*stream, &mut stream).map(drop)
}

fn s_client(port: u16, folder: &Folder, more: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-servername",
        "localhost",
    ]);
    command.arg("-connect").arg(format!("127.0.0.1:{port}"));
    command
        .arg("-CAfile")
        .arg(folder.path("roots.pem"))
        .args(more);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The greeting and the line that comes back.
fn check_client(port: u16, folder: &Folder, more: &[&str]) -> String {
    let mut peer = Peer(s_client(port, folder, more).spawn().unwrap());
    let mut to = peer.0.stdin.take().unwrap();
    let mut from = BufReader::new(peer.0.stdout.take().unwrap());
    to.write_all(b"there and back\n").unwrap();
    let (mut greeting, mut line) = (String::new(), String::new());
    from.read_line(&mut greeting).unwrap();
    from.read_line(&mut line).unwrap();
    if line != "there and back\n" {
        drop(to);
        let mut errors = String::new();
        peer.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        panic!("openssl with {more:?}: {greeting:?} {line:?}\n{errors}");
    }
    greeting
}

#[test]
fn openssl_connects_with_both_versions_of_tls_and_every_kind_of_key_exchange() {
    if !is_there("openssl") {
        return;
    }
    with_deadline(60, || {
        let folder = Folder::new("s_client");
        let port = echo_server(&SslAcceptor::new(LOCALHOST.identity()).unwrap());
        for (more, version) in [
            (&["-tls1_3"][..], "TLSv1.3"),
            (&["-tls1_2"], "TLSv1.2"),
            (
                &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
                "TLSv1.3",
            ),
            (&["-tls1_3", "-groups", "P-256"], "TLSv1.3"),
            (
                &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
                "TLSv1.2",
            ),
        ] {
            let greeting = check_client(port, &folder, more);
            assert!(greeting.contains(version), "{greeting}");
        }
        // Older versions are refused.
        let mut old = s_client(port, &folder, &["-tls1_1"]);
        let mut old = Peer(old.spawn().unwrap());
        assert!(!old.0.wait().unwrap().success());
    });
}

#[test]
fn openssl_shows_its_certificate_and_resumes_its_session() {
    if !is_there("openssl") {
        return;
    }
    with_deadline(60, || {
        let folder = Folder::new("s_client_more");
        folder.put("member", &TRUSTED.leaf(&["member"]));
        let acceptor = SslAcceptor::builder()
            .identity(LOCALHOST.identity())
            .client_certificates(ClientCertificates::Required(
                SslRoots::from_pem(&TRUSTED.pem).unwrap(),
            ))
            .build()
            .unwrap();
        let port = echo_server(&acceptor);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (cert, key) = (
            text(folder.path("member.pem")),
            text(folder.path("member.key")),
        );
        let greeting = check_client(port, &folder, &["-cert", &cert, "-key", &key]);
        assert!(!greeting.contains("certificates=0"), "{greeting}");

        let port = echo_server(&SslAcceptor::new(LOCALHOST.identity()).unwrap());
        let session = text(folder.path("session"));
        // Resumption by a ticket in both versions.
        for version in ["-tls1_2", "-tls1_3"] {
            let greeting = check_client(port, &folder, &[version, "-sess_out", &session]);
            assert!(greeting.contains("resumed=false"), "{greeting}");
            if Path::new(&session).exists() {
                let greeting = check_client(port, &folder, &[version, "-sess_in", &session]);
                assert!(greeting.contains("resumed=true"), "{greeting}");
                std::fs::remove_file(&session).unwrap();
            }
        }
    });
}

#[test]
fn openssl_asks_for_new_keys_in_the_middle_of_a_connection() {
    if !is_there("openssl") {
        return;
    }
    with_deadline(60, || {
        let port = echo_server(&SslAcceptor::new(LOCALHOST.identity()).unwrap());
        let mut command = Command::new("openssl");
        // Without -quiet a line `K` asks the peer to change its keys too; -msg tells what goes over.
        command.args(["s_client", "-tls1_3", "-msg", "-servername", "localhost"]);
        command.arg("-connect").arg(format!("127.0.0.1:{port}"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut peer = Peer(command.spawn().unwrap());
        let mut to = peer.0.stdin.take().unwrap();
        let mut lines = BufReader::new(peer.0.stdout.take().unwrap()).lines();
        let mut until = |found: &dyn Fn(&str) -> bool| {
            let line = lines.find(|line| line.as_ref().is_ok_and(|line| found(line)));
            assert!(line.is_some(), "openssl said it");
        };
        until(&|line| line.starts_with("hello "));
        for round in 0..5 {
            to.write_all(b"K\n").unwrap();
            until(&|line| line.starts_with(">>>") && line.contains("KeyUpdate"));
            // The answer goes out with the next bytes that are written.
            let text = format!("round {round}");
            to.write_all(format!("{text}\n").as_bytes()).unwrap();
            until(&|line| line.starts_with("<<<") && line.contains("KeyUpdate"));
            until(&|line| line == text);
        }
    });
}

/// `openssl s_server` on a port of its choice.
fn s_server(folder: &Folder, more: &[&str]) -> (Peer, u16) {
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "4"])
        .args(more);
    command.arg("-cert").arg(folder.path("server.pem"));
    command.arg("-key").arg(folder.path("server.key"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut peer = Peer(command.spawn().unwrap());
    let mut lines = BufReader::new(peer.0.stdout.take().unwrap());
    let mut line = String::new();
    loop {
        line.clear();
        assert!(
            lines.read_line(&mut line).unwrap() > 0,
            "s_server says where it listens"
        );
        if let Some(at) = line.trim_end().strip_prefix("ACCEPT ") {
            let port = at.rsplit(':').next().unwrap().parse().unwrap();
            // It goes on writing there.
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return (peer, port);
        }
    }
}

#[test]
fn openssl_serves_a_client() {
    if !is_there("openssl") {
        return;
    }
    with_deadline(60, || {
        let folder = Folder::new("s_server");
        for more in [&["-rev", "-tls1_3"][..], &["-rev", "-tls1_2"]] {
            let (_peer, port) = s_server(&folder, more);
            let connector = connector();
            for _ in 0..2 {
                let at = format!("localhost:{port}");
                let stream = weald::connect_ssl_with(&at, &connector).unwrap();
                (&stream).write_all(b"desserts\n").unwrap();
                let mut line = [0; 9];
                (&stream).read_exact(&mut line).unwrap();
                assert_eq!(&line, b"stressed\n");
                stream.shutdown(Shutdown::Write).unwrap();
            }
        }
    });
}

#[test]
fn curl_fetches_a_page_and_posts_a_megabyte() {
    const BODY: usize = 1 << 20;
    fn http(stream: &SslStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut length, mut line) = (0, String::new());
            loop {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let header = line.trim_end().to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if header.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let mut writer = stream;
            let head = "HTTP/1.1 200 OK\r\nContent-Length:";
            let answer = if body.is_empty() {
                b"a page".to_vec()
            } else {
                body
            };
            write!(writer, "{head} {}\r\n\r\n", answer.len())?;
            writer.write_all(&answer)?;
        }
    }
    if !is_there("curl") {
        return;
    }
    with_deadline(60, || {
        let folder = Folder::new("curl");
        let acceptor = SslAcceptor::builder()
            .identity(LOCALHOST.identity())
            .alpn(["http/1.1"])
            .build()
            .unwrap();
        let listener = weald::ssl_listener_with(v4(), &acceptor).unwrap();
        let url = format!(
            "https://localhost:{}/",
            listener.local_addr().unwrap().port()
        );
        weald::spawn(move || serve(&listener, http));
        let curl = |more: &[&str]| {
            let mut command = Command::new("curl");
            command.args([
                "--silent",
                "--show-error",
                "--max-time",
                "30",
                "--noproxy",
                "*",
            ]);
            command
                .arg("--cacert")
                .arg(folder.path("roots.pem"))
                .args(more);
            let output = command.stdin(Stdio::null()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{more:?}: {text}");
            output.stdout
        };
        assert_eq!(curl(&[&url]), b"a page");
        // Both requests go over one connection.
        assert_eq!(curl(&[&url, &url]), b"a pagea page");
        assert_eq!(curl(&["--tls-max", "1.2", &url]), b"a page");
        let sent = pattern(0, BODY);
        std::fs::write(folder.path("body"), &sent).unwrap();
        let data = format!("@{}", folder.path("body").display());
        let got = curl(&["--header", "Expect:", "--data-binary", &data, &url]);
        assert!(got == sent);
        // curl refuses a server that it does not trust.
        let mut command = Command::new("curl");
        let status = command
            .args(["--silent", "--max-time", "30", "--noproxy", "*", &url])
            .status();
        assert!(!status.unwrap().success());
    });
}

#[test]
fn a_connector_talks_to_openssl_with_a_protocol_and_a_certificate() {
    if !is_there("openssl") {
        return;
    }
    with_deadline(60, || {
        let folder = Folder::new("s_server_more");
        let roots = folder.path("roots.pem");
        let more = [
            "-rev",
            "-alpn",
            "reverse",
            "-Verify",
            "2",
            "-CAfile",
            roots.to_str().unwrap(),
        ];
        let (_peer, port) = s_server(&folder, &more);
        let connector = SslConnector::builder()
            .roots(SslRoots::from_pem(&TRUSTED.pem).unwrap())
            .identity(TRUSTED.leaf(&["member"]).identity())
            .alpn(["other", "reverse"])
            .build()
            .unwrap();
        let stream = weald::connect_ssl_with(&format!("localhost:{port}"), &connector).unwrap();
        assert_eq!(stream.alpn_protocol().unwrap(), b"reverse");
        (&stream).write_all(b"desserts\n").unwrap();
        let mut line = [0; 9];
        (&stream).read_exact(&mut line).unwrap();
        assert_eq!(&line, b"stressed\n");
    });
}
