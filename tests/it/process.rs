//! `weald::process`: children are started, read, waited for and killed. No wait holds a worker or leaves a zombie.

use std::io::{BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;

use weald::process::{Command, Stdio};
use weald::{Elapsed, Killed};

use crate::support::{
    Count, HOUR, MS, Mark, each_mode_on, everywhere, in_each_mode, settle, source_of, wait_until,
    was_killed,
};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Tells if there is a process with this number: one that runs, or a zombie.
fn is_there(id: u32) -> bool {
    std::fs::exists(format!("/proc/{id}")).unwrap()
}

/// Starts a shell that prints its number and becomes `sleep`. The number is read from the pipe once the shell has
/// started.
fn sleeper(command: &mut Command) -> BufReader<std::io::PipeReader> {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer);
    BufReader::new(reader)
}

fn number(reader: &mut impl std::io::BufRead) -> u32 {
    let mut line = String::new();
    weald::blocking(|| reader.read_line(&mut line)).unwrap();
    line.trim().parse().unwrap()
}

const SAYS_ITS_NUMBER: &str = "echo $$; exec sleep 3600";

#[test]
fn a_child_that_writes_more_than_a_pipe_holds_on_both_ways_is_read_to_the_end() {
    everywhere(|| {
        let mib = 1 << 20;
        let errors_first = "head -c 1048576 /dev/zero >&2; head -c 1048576 /dev/zero; exit 7";
        let by_turns = "for i in 1 2 3 4; do head -c 262144 /dev/zero; head -c 262144 /dev/zero >&2; done; exit 7";
        for script in [errors_first, by_turns] {
            let output = shell(script).output().unwrap();
            assert_eq!(output.status.code(), Some(7));
            assert_eq!((output.stdout.len(), output.stderr.len()), (mib, mib));
        }
    });
}

#[test]
fn output_has_an_empty_input_and_what_was_said_holds() {
    everywhere(|| {
        assert!(Command::new("cat").output().unwrap().stdout.is_empty());
        let mut command = shell("echo out; echo err >&2");
        command.stderr(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), vec![]));
        let program: Vec<_> = command.get_args().collect();
        assert_eq!(program, ["-c", "echo out; echo err >&2"]);
        let status = shell("test \"$GREEN\" = yes && test \"$(pwd)\" = / && exit 5");
        let mut status = status;
        let status = status.env("GREEN", "yes").current_dir("/").status();
        assert_eq!(status.unwrap().code(), Some(5));
    });
}

#[test]
fn what_cannot_be_started_is_an_error_with_its_kind() {
    everywhere(|| {
        let missing = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let no_program = Command::new("/proc/self/status").output().unwrap_err();
        assert_eq!(no_program.kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn waiting_for_children_holds_no_worker() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let waiting = Count::default();
            let mut inputs = Vec::new();
            let waits: Vec<_> = (0..10)
                .map(|_| {
                    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
                    inputs.push(child.stdin.take().unwrap());
                    let waiting = waiting.clone();
                    weald::spawn(move || {
                        waiting.add();
                        child.wait().unwrap()
                    })
                })
                .collect();
            // This thread comes here, and the children end, only if the one worker is free.
            wait_until(|| waiting.get() == 10);
            settle();
            drop(inputs);
            for wait in waits {
                assert!(wait.join().unwrap().success());
            }
        });
    });
}

#[test]
fn a_limit_ends_a_wait_and_the_child_is_there_still() {
    everywhere(|| {
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        let late = weald::timeout(20 * MS, || {
            let error = child.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(late.is_err());
        assert_eq!(child.wait_timeout(20 * MS).unwrap(), None);
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        // It can be called again and again, also after a kill.
        assert_eq!(
            child.wait_timeout(HOUR).unwrap().unwrap().signal(),
            Some(libc::SIGKILL)
        );
        child.kill().unwrap();
        assert!(!is_there(child.id()));
    });
}

#[test]
fn a_limit_that_does_not_pass_returns_the_status() {
    everywhere(|| {
        let mut child = shell("exit 9").spawn().unwrap();
        let status = child.wait_timeout(HOUR).unwrap().unwrap();
        assert_eq!(status.code(), Some(9));
        let status = weald::timeout(HOUR, || shell("exit 8").status()).unwrap();
        assert_eq!(status.unwrap().code(), Some(8));
    });
}

#[test]
fn an_interrupted_output_and_status_take_their_child_along() {
    in_each_mode(|| {
        for read in [false, true] {
            let mut command = shell(SAYS_ITS_NUMBER);
            let mut says = sleeper(&mut command);
            let thread = weald::spawn(move || {
                if read {
                    drop(command.output());
                } else {
                    drop(command.status());
                }
                weald::sleep(HOUR);
            });
            let id = number(&mut says);
            thread.thread().kill();
            assert!(was_killed(&thread.join()));
            assert!(!is_there(id), "{id}");
        }
        let mut command = shell(SAYS_ITS_NUMBER);
        let mut says = sleeper(&mut command);
        let me = weald::current();
        let thrower = weald::spawn(move || {
            let id = number(&mut says);
            me.throw(Mark(1));
            id
        });
        let error = command.status().unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(1)));
        let id = thrower.join().unwrap();
        assert!(!is_there(id), "{id}");
    });
}

#[test]
fn a_child_that_is_to_be_killed_on_drop_is_gone_after_it() {
    everywhere(|| {
        let ids: Vec<u32> = (0..5)
            .map(|_| {
                let child = Command::new("sleep").arg("3600").kill_on_drop(true).spawn();
                child.unwrap().id()
            })
            .collect();
        for id in ids {
            assert!(!is_there(id), "{id}");
        }
    });
    in_each_mode(|| {
        let (send, receive) = weald::sync::channel::bounded(1);
        let thread = weald::spawn(move || {
            let child = Command::new("sleep").arg("3600").kill_on_drop(true).spawn();
            let mut child = child.unwrap();
            send.send(child.id()).unwrap();
            let error = child.wait().unwrap_err();
            assert!(source_of::<Killed>(&error).is_some());
            weald::sleep(HOUR);
        });
        let id = receive.recv().unwrap();
        thread.thread().kill();
        assert!(was_killed(&thread.join()));
        assert!(!is_there(id), "{id}");
    });
}

#[test]
fn a_dropped_child_runs_on_and_is_no_zombie_for_long() {
    everywhere(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, id) = (child.stdin.take().unwrap(), child.id());
        drop(child);
        assert!(is_there(id));
        drop(stdin);
        wait_until(|| {
            assert!(Command::new("true").status().unwrap().success());
            !is_there(id)
        });
    });
}

#[test]
fn pipes_to_a_child_carry_more_than_they_hold_and_a_limit_reaches_them() {
    everywhere(|| {
        let mut child = Command::new("cat");
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let expected = bytes.clone();
        let writer = weald::spawn(move || stdin.write_all(&bytes));
        let mut read = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, expected);
        writer.join().unwrap().unwrap();
        assert!(child.wait().unwrap().success());

        let mut silent = Command::new("sleep");
        let silent = silent
            .arg("3600")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut silent = silent.kill_on_drop(true).spawn().unwrap();
        let mut stdout = silent.stdout.take().unwrap();
        let limited = weald::timeout(20 * MS, || stdout.read(&mut [0]).unwrap_err().kind());
        assert!(limited.is_err());
        // Nobody reads the pipe, so it becomes full.
        let mut stdin = silent.stdin.take().unwrap();
        let full = weald::timeout(50 * MS, || while stdin.write(&[0; 4096]).is_ok() {});
        assert!(full.is_err());
    });
}

#[test]
fn a_pipe_from_child_to_child() {
    everywhere(|| {
        let mut first = shell("echo one; echo two");
        let mut first = first.stdout(Stdio::piped()).spawn().unwrap();
        let between = first.stdout.take().unwrap();
        let last = Command::new("wc")
            .arg("-l")
            .stdin(between)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(last.stdout).unwrap().trim(), "2");
        assert!(first.wait().unwrap().success());
    });
}
