//! `weald-gdb.py`: gdb shows green threads that wait with their calls, in a process that it has stopped and in a core file. It finds the
//! threads of both copies of weald.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{self, MODES, wait_until};
use super::{again, runtime, runtime_again};

const TEST: &str = "debugger::gdb_shows_waiting_threads_live_and_in_a_core_file";

/// gdb stops here, when all wait.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weald_test_everything_waits() {
    std::hint::black_box(());
}

#[inline(never)]
fn rebalance_the_table(lock: &weald::sync::Mutex<u32>, number: u32) -> u32 {
    let guard = lock.lock().unwrap();
    std::hint::black_box(*guard + number)
}

#[inline(never)]
fn sit_in_the_second_copy(number: u64) -> u64 {
    again::park();
    std::hint::black_box(number + 1)
}

#[inline(never)]
fn one_of_the_crowd(number: u64) -> u64 {
    weald::park();
    std::hint::black_box(number + 1)
}

/// The program that gdb looks at: in each mode a thread `lease-MODE` waits for a lock that `table-MODE` has, beside a crowd. Threads of the
/// second copy wait, too. And a thread with an OS thread of its own.
fn program() {
    let named = |name: String| weald::Builder::new().name(name);
    let runtimes = MODES.map(|mode| {
        let rt = runtime(2, mode);
        let lock = std::sync::Arc::new(weald::sync::Mutex::new(1));
        let taken = support::Flag::default();
        let (table, tells) = (lock.clone(), taken.clone());
        let table = rt.run(|| {
            let body = move || {
                let _table = table.lock();
                tells.set();
                weald::park();
            };
            named(format!("table-{mode:?}")).spawn(body).unwrap()
        });
        taken.wait();
        let lease = rt.run(|| {
            let body = move || assert_eq!(rebalance_the_table(&lock, 5), 6);
            named(format!("lease-{mode:?}")).spawn(body).unwrap()
        });
        let crowd: Vec<_> = (0..50)
            .map(|number| rt.spawn(move || one_of_the_crowd(number)))
            .collect();
        wait_until(|| rt.metrics().parked == 52);
        (rt, table, lease, crowd)
    });
    let second = runtime_again(2, MODES[0]);
    let there = second.spawn(|| sit_in_the_second_copy(7));
    wait_until(|| second.metrics().parked == 1);
    let own = runtimes[0].0.run(|| {
        let builder = named(String::from("own")).own_thread(true);
        let body = || assert_eq!(one_of_the_crowd(1), 2);
        builder.spawn(body).unwrap()
    });
    let own_waits = || {
        let dump = runtimes[0].0.dump();
        let mut threads = dump.threads.iter();
        let own = threads.find(|thread| thread.name.as_deref() == Some("own"));
        own.is_some_and(|own| own.doing == weald::Doing::Parks)
    };
    wait_until(own_waits);
    weald_test_everything_waits();
    // gdb has looked. Now the kernel writes a core file, as it does when a program crashes.
    let all = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: it is given a limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const all) };
    drop((there, own));
    std::process::abort();
}

/// gdb with the script; `None`, said loudly: it is not here.
fn gdb() -> Option<Command> {
    let works = Command::new("gdb")
        .args(["--batch", "-nx", "-ex", "python print('weald')"])
        .output();
    let works = works.is_ok_and(|output| output.stdout.starts_with(b"weald"));
    if !works {
        skip("there is no gdb with Python");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scheduler/gdb/weald-gdb.py");
    let mut gdb = Command::new("gdb");
    gdb.args(["--batch", "-nx", "-iex", "set debuginfod enabled off"])
        .args(["-ex", "set width 0", "-ex", "set startup-with-shell off"]);
    gdb.arg("-x").arg(script);
    Some(gdb)
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The harness keeps what a test prints if it passes, so this goes around it.
fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "\nNOT TESTED: weald-gdb.py: {why}");
}

fn output(gdb: &mut Command) -> String {
    let output = gdb.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    format!("{text}{}", String::from_utf8_lossy(&output.stderr))
}

/// The part of an output between two lines that `echo` has written.
fn part<'a>(text: &'a str, name: &str) -> &'a str {
    let begin = text
        .find(&format!("[{name}]"))
        .unwrap_or_else(|| panic!("{text}"));
    let rest = &text[begin..];
    rest.find("[end]").map_or(rest, |end| &rest[..end])
}

const LOOK: [&str; 12] = [
    "echo [threads]\\n",
    "weald threads",
    "echo [end][where]\\n",
    "weald where",
    "echo [end][lease]\\n",
    "weald bt lease-Shared",
    "echo [end][own]\\n",
    "weald bt own",
    "echo [end][switched]\\n",
    "weald switch lease-Pinned",
    "bt",
    "weald switch",
];

fn check_what_gdb_has_shown(text: &str) {
    let threads = part(text, "threads");
    for mode in MODES {
        let mut lines = threads.lines();
        let lease = lines.find(|line| line.contains(&format!("lease-{mode:?} waits for mutex")));
        let lease = lease.unwrap_or_else(|| panic!("{text}"));
        assert!(lease.contains(&format!("table-{mode:?} has")), "{text}");
    }
    let where_ = part(text, "where");
    let crowd = format!("{} park: ", 50 * MODES.len());
    assert!(where_.contains(&crowd), "{text}");
    assert!(where_.contains("one_of_the_crowd"), "{text}");
    assert!(where_.contains("sit_in_the_second_copy"), "{text}");

    let lease = part(text, "lease");
    assert!(lease.contains("#0 "), "{text}");
    assert!(lease.contains("rebalance_the_table"), "{text}");
    assert!(lease.contains("debugger.rs:"), "{text}");
    assert!(!lease.contains("run_green_thread_body"), "{text}");

    let own = part(text, "own");
    assert!(
        own.contains("on thread") && own.contains("one_of_the_crowd"),
        "{text}"
    );

    let switched = part(text, "switched");
    assert!(switched.contains("rebalance_the_table"), "{text}");
    assert!(switched.contains("run_green_thread_body"), "{text}");
    assert!(!text.contains("corrupt stack"), "{text}");
    assert!(!text.contains("Python Exception"), "{text}");
}

/// The words of a line, without its numbers.
fn words(line: &str) -> Vec<&str> {
    let is_number = |word: &str| {
        let word = word.trim_start_matches(['#', '(']);
        word.starts_with(|first: char| first.is_ascii_digit())
    };
    let words = line.split_whitespace();
    words
        .map(|word| if is_number(word) { "N" } else { word })
        .collect()
}

/// What the chapter shows of these threads is what gdb has written.
fn check_chapter(threads: &str) {
    let chapter = include_str!("../../docs/hangs.md");
    let threads = threads.replace("-Pinned", "");
    for name in ["lease", "table", "own"] {
        let is_its =
            |line: &&str| line.trim_start().starts_with('#') && words(line).get(1) == Some(&name);
        let line = threads.lines().find(is_its).unwrap();
        let mut shown = chapter.lines().map(words);
        assert!(
            shown.any(|shown| shown == words(line)),
            "not in docs/hangs.md: {line}"
        );
    }
}

#[test]
fn gdb_shows_waiting_threads_live_and_in_a_core_file() {
    let child = support::child_command(TEST, program);
    let Some(mut live) = gdb() else { return };
    let name = format!("weald-core-{}", std::process::id());
    let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    fs::create_dir_all(&folder.0).unwrap();
    let begin = [
        "handle SIGABRT nostop pass",
        "break weald_test_everything_waits",
        "run",
    ];
    for command in begin.into_iter().chain(LOOK).chain(["continue"]) {
        live.args(["-ex", command]);
    }
    live.arg("--args")
        .arg(child.get_program())
        .args(child.get_args());
    live.current_dir(&folder.0);
    for (name, value) in child.get_envs() {
        match value {
            Some(value) => live.env(name, value),
            None => live.env_remove(name),
        };
    }
    let text = output(&mut live);
    if text.contains("ptrace: Operation not permitted") {
        skip("gdb may not trace a process here");
        return;
    }
    check_what_gdb_has_shown(&text);

    let files = fs::read_dir(&folder.0).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let is_core = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.as_bytes().starts_with(b"core"))
    };
    let Some(core) = files.find(is_core) else {
        // Another program may get it: core(5).
        skip("the kernel leaves no core file in the folder of the process");
        return;
    };
    let mut dead = gdb().unwrap();
    for command in LOOK {
        dead.args(["-ex", command]);
    }
    let text = output(dead.arg(child.get_program()).arg(core));
    check_what_gdb_has_shown(&text);
    let threads = part(&text, "threads");
    assert!(threads.contains("after the runtime's start"), "{text}");
    check_chapter(threads);
}
