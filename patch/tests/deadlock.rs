//! Processes that wait for each other's locks of a file. Each process is this program, run for one test.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use support::runtime;

/// The variables that tell a child its part: the file, and its number.
const FILE: &str = "WEALD_DEADLOCK_FILE";
const WHO: &str = "WEALD_DEADLOCK_WHO";

/// Locks one byte of the file, or unlocks it.
fn lock(file: &File, command: libc::c_int, kind: libc::c_int, byte: i64) -> io::Result<()> {
    // SAFETY: all zeros is a valid lock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind.try_into().unwrap();
    lock.l_whence = libc::SEEK_SET.try_into().unwrap();
    lock.l_start = byte;
    lock.l_len = 1;
    // SAFETY: a pointer to a local.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn line(from: &mut impl io::BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

/// Holds the lock of its own byte, and waits for the lock of the next of `ring` bytes. A process that is told of the
/// deadlock unlocks.
fn take_part(file: &File, own: i64, ring: i64) {
    lock(file, libc::F_SETLK, libc::F_WRLCK, own).unwrap();
    println!("has its lock");
    assert_eq!(line(&mut io::stdin().lock()), "go on\n");
    let result = lock(file, libc::F_SETLKW, libc::F_WRLCK, (own + 1) % ring);
    lock(file, libc::F_SETLK, libc::F_UNLCK, own).unwrap();
    match result {
        Ok(()) => println!("got both"),
        Err(error) => println!("error {}", error.raw_os_error().unwrap()),
    }
    // Until here no process loses a lock by the end of another one.
    assert_eq!(line(&mut io::stdin().lock()), "go on\n");
}

/// Runs the part of a child, on an OS thread or on a green thread.
fn is_child() -> bool {
    let (Ok(path), Ok(who)) = (std::env::var(FILE), std::env::var(WHO)) else {
        return false;
    };
    let who: Vec<&str> = who.split(' ').collect();
    let [own, ring, kind] = who[..] else {
        panic!("{who:?}")
    };
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (own, ring) = (own.parse().unwrap(), ring.parse().unwrap());
    if kind == "green" {
        runtime(2).run(|| take_part(&file, own, ring));
    } else {
        take_part(&file, own, ring);
    }
    true
}

struct Member {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Member {
    fn new(test: &str, path: &std::path::Path, who: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(FILE, path)
            .env(WHO, who)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    /// Returns the next line that this test has printed.
    fn said(&mut self) -> String {
        loop {
            let line = line(&mut self.says);
            assert!(!line.is_empty(), "it has ended");
            let ours = ["has its lock", "got both", "error "];
            if let Some(at) = ours.iter().find_map(|one| line.find(one)) {
                return line[at..].trim_end().to_string();
            }
        }
    }

    fn go_on(&mut self) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"go on\n")
            .unwrap();
    }
}

/// A ring of processes of these kinds: at least one is told of the deadlock, and then the others get their locks.
fn check(test: &str, kinds: &[&str]) {
    let path = std::env::temp_dir().join(format!("weald-deadlock-{}-{test}", std::process::id()));
    File::create(&path).unwrap();
    let ring = kinds.len();
    let member = |(own, kind)| Member::new(test, &path, &format!("{own} {ring} {kind}"));
    let mut members: Vec<_> = kinds.iter().enumerate().map(member).collect();
    for member in &mut members {
        assert_eq!(member.said(), "has its lock");
    }
    members.iter_mut().for_each(Member::go_on);
    let said: Vec<_> = members.iter_mut().map(Member::said).collect();
    let error = format!("error {}", libc::EDEADLK);
    assert!(said.contains(&error), "{said:?}");
    assert!(
        said.iter().all(|said| *said == error || said == "got both"),
        "{said:?}"
    );
    for mut member in members {
        member.go_on();
        assert!(member.child.wait().unwrap().success());
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn two_processes_whose_green_threads_wait_for_each_others_locks() {
    if !is_child() {
        check(
            "two_processes_whose_green_threads_wait_for_each_others_locks",
            &["green", "green"],
        );
    }
}

#[test]
fn a_green_thread_and_an_os_thread_of_another_process_that_wait_for_each_other() {
    if !is_child() {
        check(
            "a_green_thread_and_an_os_thread_of_another_process_that_wait_for_each_other",
            &["green", "plain"],
        );
    }
}

#[test]
fn a_ring_of_three_processes() {
    if !is_child() {
        check("a_ring_of_three_processes", &["green", "plain", "green"]);
    }
}

#[test]
fn who_waits_for_a_process_that_waits_for_nobody_gets_the_lock() {
    // The holder waits for no lock but its own, so it goes on.
    let test = "who_waits_for_a_process_that_waits_for_nobody_gets_the_lock";
    if is_child() {
        return;
    }
    let path = std::env::temp_dir().join(format!("weald-deadlock-{}-{test}", std::process::id()));
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut holder = Member::new(test, &path, "0 1 plain");
    assert_eq!(holder.said(), "has its lock");
    runtime(2).run(|| {
        let waits = weald::spawn(move || lock(&file, libc::F_SETLKW, libc::F_WRLCK, 0));
        // By then the call has looked for a deadlock, and may look again.
        weald::sleep(std::time::Duration::from_millis(400));
        assert!(!waits.is_finished());
        holder.go_on();
        assert_eq!(holder.said(), "got both");
        waits.join().unwrap().unwrap();
    });
    holder.go_on();
    assert!(holder.child.wait().unwrap().success());
    std::fs::remove_file(path).unwrap();
}
