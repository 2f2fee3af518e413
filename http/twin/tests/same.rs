//! The two services behave the same, as far as clients can see.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start(path: &str) -> Self {
        let mut child = Command::new(path)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let address = address.to_owned();
        Self { child, address }
    }

    /// Returns the CPU time in user mode, in hundredths of a second; proc(5).
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(11).unwrap().parse().unwrap()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Returns the complete answer.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> String {
        let mut stream = self.connect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the status line, the type and the body. The texts of errors differ, so they are left out.
fn seen(answer: &str) -> (String, Option<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().to_owned();
    if status.contains(" 4") {
        return (status, None, String::new());
    }
    let mut lines = head.lines();
    let kind = lines.find_map(|line| line.strip_prefix("content-type: "));
    (status, kind.map(str::to_owned), body.to_owned())
}

#[test]
fn both_answer_the_same() {
    let both = [
        Program::start(env!("CARGO_BIN_EXE_service")),
        Program::start(env!("CARGO_BIN_EXE_twin")),
    ];
    let json = "Content-Type: application/json\r\n";
    let table = [
        ("GET", "/", "", ""),
        ("HEAD", "/", "", ""),
        ("POST", "/", "", ""),
        ("GET", "/nowhere", "", ""),
        ("GET", "/notes/1", "", ""),
        ("POST", "/notes", json, "{\"text\": \"one\"}"),
        ("POST", "/notes", json, "{\"text\": \"two ä\"}"),
        ("POST", "/notes", json, "{\"text\": \"\"}"),
        ("POST", "/notes", json, "{\"text\": 5}"),
        ("POST", "/notes", json, "{}"),
        ("POST", "/notes", json, "{"),
        ("POST", "/notes", "", "{\"text\": \"one\"}"),
        (
            "POST",
            "/notes",
            "Content-Type: text/plain\r\n",
            "{\"text\": \"one\"}",
        ),
        ("GET", "/notes/1", "", ""),
        ("GET", "/notes/2", "", ""),
        ("GET", "/notes/3", "", ""),
        ("GET", "/notes/0", "", ""),
        ("GET", "/notes/x", "", ""),
        ("DELETE", "/notes/1", "", ""),
        ("GET", "/primes/100000", "", ""),
        ("GET", "/primes/1", "", ""),
        ("GET", "/primes/1000001", "", ""),
        ("GET", "/primes/many", "", ""),
    ];
    for (method, path, kind, body) in table {
        let [ours, twins] = both.each_ref().map(|one| one.ask(method, path, kind, body));
        assert_eq!(
            seen(&ours),
            seen(&twins),
            "{method} {path} {body}:\n{ours}\n{twins}"
        );
    }
    assert!(
        both[0]
            .ask("GET", "/primes/100000", "", "")
            .ends_with("\r\n\r\n9592\n")
    );
}

#[test]
fn both_end_by_sigterm_after_their_last_answer() {
    for path in [env!("CARGO_BIN_EXE_service"), env!("CARGO_BIN_EXE_twin")] {
        let mut program = Program::start(path);
        let mut stream = program.connect();
        let before = program.ticks();
        write!(stream, "GET /primes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        // The program computes.
        while program.ticks() < before + 3 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let id = i32::try_from(program.child.id()).unwrap();
        // SAFETY: no pointers; the child is ours, and has not been waited for.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\n78498\n"), "{path}: {answer}");
        assert!(program.child.wait().unwrap().success());
    }
}

#[test]
fn the_readme_shows_the_twin() {
    let source = include_str!("../src/main.rs");
    let shown = &source[source.find("use std::io;").unwrap()..];
    assert!(include_str!("../../README.md").contains(shown), "{shown}");
}
