//! Recordings of the flight recorder. There is one for the process, so one test has all of it.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weald::Runtime;
use weald::trace;

use crate::support::{Answer, get, request};

fn post(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "POST", path, &["Host: localhost"])
}

fn check_is_recording(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.field("content-type"),
        Some("application/octet-stream")
    );
    let name = answer.field("content-disposition").unwrap();
    assert!(name.ends_with(".pftrace\""), "{name}");
    // The name of a green thread is in it.
    assert!(answer.body.contains("recorded-thread"));
}

#[test]
fn a_recording_begins_is_looked_at_and_ends() {
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    let program = Runtime::builder().workers(1).build().unwrap();
    let sleeper = program.run(|| {
        let builder = weald::Builder::new().name(String::from("recorded-thread"));
        builder.spawn(|| {
            loop {
                weald::sleep(Duration::from_millis(1));
            }
        })
    });
    let sleeper = sleeper.unwrap();
    let is_recording = || get(addr, "/view.json").json()["is_recording"] == true;

    // Nothing is recorded yet. Another site cannot begin it, nor a bad request.
    for answer in [get(addr, "/trace"), post(addr, "/trace/stop")] {
        assert_eq!(answer.status, 409, "{}", answer.body);
    }
    let evil = ["Host: localhost", "Origin: http://evil.example"];
    assert_eq!(request(addr, "POST", "/trace/start", &evil).status, 403);
    for (path, status) in [
        ("/trace/start?memory=1", 400),
        ("/trace/start?memory=lots", 400),
        ("/trace/start?memory=4294967296", 400),
        ("/trace", 400),
        ("/trace?seconds=31", 400),
    ] {
        assert_eq!(post(addr, path).status, status, "{path}");
    }
    assert_eq!(get(addr, "/trace/start").status, 405);
    assert!(!is_recording() && !trace::is_on());

    let own = ["Host: localhost:1", "Origin: http://localhost:1"];
    assert_eq!(
        request(addr, "POST", "/trace/start?memory=1048576", &own).status,
        204
    );
    assert!(is_recording());
    for path in ["/trace/start", "/trace?seconds=1"] {
        assert_eq!(post(addr, path).status, 409, "{path}");
    }
    // Enough has happened once the thread has waited some times.
    let parks = program.metrics().parks;
    while program.metrics().parks < parks + 20 {
        std::thread::yield_now();
    }
    check_is_recording(&get(addr, "/trace"));
    assert!(is_recording());
    check_is_recording(&post(addr, "/trace/stop"));
    assert!(!is_recording());

    check_is_recording(&post(addr, "/trace?seconds=1"));
    assert!(!is_recording());

    // The client goes: the recording that it has begun ends.
    let mut stream = TcpStream::connect(addr).unwrap();
    let sent = "POST /trace?seconds=30 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    std::io::Write::write_all(&mut stream, sent.as_bytes()).unwrap();
    while !trace::is_on() {
        std::thread::yield_now();
    }
    drop(stream);
    let begun = Instant::now();
    while trace::is_on() {
        std::thread::yield_now();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "it did not wait for its end"
    );
    sleeper.thread().kill();
    drop(sleeper.join());
    console.shutdown();
}
