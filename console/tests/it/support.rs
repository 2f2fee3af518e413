//! A client of few lines, and ways to wait for what a dump shows.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No answer takes so long.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// A field of the head, by its name in small letters.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// Sends bytes, and returns all that comes until the console closes the connection.
pub(crate) fn exchange(addr: SocketAddr, sent: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(sent)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    // A recording is no text.
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a request with these fields of the head, `Connection: close` beside them.
pub(crate) fn request(addr: SocketAddr, method: &str, path: &str, fields: &[&str]) -> Answer {
    let fields = fields.join("\r\n");
    let sent = format!(
        "{method} {path} HTTP/1.1\r\n{fields}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let text = exchange(addr, sent.as_bytes()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub(crate) fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "GET", path, &["Host: localhost"])
}

/// The runtime of this name in an answer that has all of them.
pub(crate) fn runtime<'a>(all: &'a Value, name: &str) -> Option<&'a Value> {
    let mut runtimes = all["runtimes"].as_array().unwrap().iter();
    runtimes.find(|runtime| runtime["name"] == name)
}

/// Asks for dumps until the one of the runtime with this name is as it should be.
pub(crate) fn wait_for(addr: SocketAddr, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let all = get(addr, "/view.json").json();
        if let Some(found) = runtime(&all, name)
            && is_so(found)
        {
            return found.clone();
        }
        assert!(begun.elapsed() < LIMIT, "{name} did not become so: {all:#}");
        thread::sleep(Duration::from_millis(20));
    }
}
