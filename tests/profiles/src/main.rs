//! A program that is built with `panic = "abort"`. It shows what still works then, and what ends the process with
//! which message.
//!
//! `cargo run --profile abort -p weald-profiles` runs each scene in a process of its own and checks how it ends.
//! `docs/exceptions.md` has the rules.

use std::io::Read as _;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weald::{Builder, Runtime};

const MS: Duration = Duration::from_millis(1);

/// A name, the code, and a part of the text on stderr if the code ends the process.
type Scene = (&'static str, fn(), Option<&'static str>);

const SCENES: [Scene; 11] = [
    ("a runtime is shut down", shut_down, None),
    ("a runtime is dropped", drop_runtime, None),
    (
        "a thread is killed that has not started",
        kill_unstarted,
        None,
    ),
    ("a limit ends a read", limit_a_read, None),
    ("a kill ends a read", kill_a_reader, None),
    ("a server is stopped", stop_server, None),
    ("a thread is killed that waits", kill, Some("killed")),
    ("an error is thrown", throw, Some("no need any more")),
    ("a limit passes", limit, Some("the time limit has passed")),
    ("an alarm goes off", alarm, Some("too late")),
    (
        "an alarm goes off on an OS thread",
        os_alarm,
        Some("too late"),
    ),
];

fn main() -> ExitCode {
    if cfg!(panic = "unwind") {
        println!("this is about programs that abort: cargo run --profile abort -p weald-profiles");
        return ExitCode::SUCCESS;
    }
    if let Some(name) = std::env::args().nth(1) {
        let scene = SCENES.iter().find(|scene| scene.0 == name);
        scene.expect("it is one of the scenes").1();
        return ExitCode::SUCCESS;
    }
    let mut code = ExitCode::SUCCESS;
    for (name, _, last_words) in SCENES {
        let own = std::env::current_exe().expect("the program knows itself");
        let ended = Command::new(own).arg(name).output();
        let ended = ended.expect("it can be started again");
        let said = String::from_utf8_lossy(&ended.stderr);
        let right = match last_words {
            None => ended.status.success(),
            Some(words) => {
                !ended.status.success() && said.starts_with("weald: ") && said.contains(words)
            }
        };
        println!("{} {name}", if right { "ok   " } else { "WRONG" });
        if !right {
            println!("{}; stderr: {said}", ended.status);
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn runtime() -> Runtime {
    let builder = Runtime::builder().workers(1);
    builder.build().expect("the machine has room for it")
}

fn shut_down() {
    let rt = runtime();
    let _waits = rt.spawn(weald::park);
    rt.run(|| weald::sleep(MS));
    assert!(!rt.shutdown(MS), "one is left");
}

fn drop_runtime() {
    let rt = runtime();
    let _waits = rt.spawn(weald::park);
    rt.run(|| weald::sleep(MS));
}

fn kill_unstarted() {
    runtime().run(|| {
        let thread = weald::spawn(|| unreachable!("it never runs"));
        thread.thread().kill();
        assert!(thread.join().is_err());
    });
}

/// Returns a stream from which nothing comes, and its other end.
fn silent() -> (weald::net::TcpStream, weald::net::TcpStream) {
    let listener = weald::tcp_listener("127.0.0.1:0").expect("there is a port");
    let at = listener.local_addr().expect("it has an address");
    let near = weald::connect_tcp(at).expect("it listens");
    let (far, _) = listener.accept().expect("one has connected");
    (near, far)
}

fn limit_a_read() {
    runtime().run(|| {
        let (mut near, _far) = silent();
        let limited = weald::timeout(MS, || near.read(&mut [0]).is_err());
        assert!(limited.is_err());
        weald::sleep(MS);
    });
}

/// A thread that is to be killed or ended must have begun. A killed thread that has not begun never begins.
static BEGUN: AtomicBool = AtomicBool::new(false);

fn wait_until_it_has_begun() {
    while !BEGUN.load(Ordering::SeqCst) {
        weald::sleep(MS);
    }
}

fn kill_a_reader() {
    runtime().run(|| {
        let (mut near, _far) = silent();
        let reader = weald::spawn(move || {
            BEGUN.store(true, Ordering::SeqCst);
            near.read(&mut [0]).is_err()
        });
        wait_until_it_has_begun();
        reader.thread().kill();
        assert!(reader.join().expect("it returned"));
    });
}

fn stop_server() {
    let serve = || {
        let listener = weald::tcp_listener("127.0.0.1:0").expect("there is a port");
        weald::tcp_server(listener, |mut stream, _| {
            BEGUN.store(true, Ordering::SeqCst);
            let _ended = stream.read(&mut [0]);
        })
    };
    runtime().run(|| {
        serve().stop();
        assert!(serve().shutdown(MS));
        let server = serve();
        let _client = weald::connect_tcp(server.local_addr()).expect("it listens");
        wait_until_it_has_begun();
        assert!(!server.shutdown(MS), "a handler is left");
    });
}

fn kill() {
    runtime().run(|| {
        let sleeper = Builder::new().name("sleeper".to_owned()).spawn(|| {
            BEGUN.store(true, Ordering::SeqCst);
            weald::park();
        });
        let sleeper = sleeper.expect("there is room");
        wait_until_it_has_begun();
        sleeper.thread().kill();
        let _never = sleeper.join();
    });
}

fn throw() {
    runtime().run(|| {
        weald::current().throw("no need any more");
        weald::checkpoint();
    });
}

fn limit() {
    runtime().run(|| {
        let _never = weald::timeout(MS, weald::park);
    });
}

fn alarm() {
    runtime().run(os_alarm);
}

fn os_alarm() {
    weald::exc_after(MS, "too late");
    weald::park();
}
