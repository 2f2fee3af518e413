//! Pipes, files and their locks.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::settle;
use crate::support::{in_green, in_green_with_spares, runtime};

#[test]
fn a_line_of_a_killed_thread_reaches_a_standard_output_that_is_a_socket() {
    const CHILD: &str = "WEALD_TEST_PRINTS";
    if std::env::var_os(CHILD).is_some() {
        // Another carrier runs the others while the thread spins.
        in_green_with_spares(|| {
            static BEGUN: AtomicBool = AtomicBool::new(false);
            static KILLED: AtomicBool = AtomicBool::new(false);
            let prints = weald::spawn(|| {
                BEGUN.store(true, Ordering::SeqCst);
                while !KILLED.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                let mut stdout = io::stdout();
                stdout.write_all(b"the line\n").unwrap();
                stdout.flush().unwrap();
            });
            while !BEGUN.load(Ordering::SeqCst) {
                weald::yield_now();
            }
            prints.thread().kill();
            KILLED.store(true, Ordering::SeqCst);
            prints.join().unwrap();
        });
        return;
    }
    let (mut near, far) = UnixStream::pair().unwrap();
    let name = "files::a_line_of_a_killed_thread_reaches_a_standard_output_that_is_a_socket";
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(OwnedFd::from(far))
        .status()
        .unwrap();
    let mut said = String::new();
    near.read_to_string(&mut said).unwrap();
    assert!(status.success() && said.contains("the line"), "{said}");
}

#[test]
fn those_who_wait_for_a_files_lock_leave_its_holder_what_it_needs() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    const MANY: usize = 80;
    let path = std::env::temp_dir().join(format!("weald-locks-{}", std::process::id()));
    let rt = runtime(8);
    let threads: Vec<_> = (0..MANY)
        .map(|_| {
            let path = path.clone();
            rt.spawn(move || {
                let options = std::fs::File::options().append(true).create(true).clone();
                let mut file = options.open(path).unwrap();
                // SAFETY: no pointers.
                assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
                thread::sleep(Duration::from_millis(1));
                file.write_all(b"line\n").unwrap();
                DONE.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap().len(), MANY * 5);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(DONE.load(Ordering::Relaxed), MANY);
}

fn check_fifo(path: &std::path::Path, reader_first: bool) {
    let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a string.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    in_green_with_spares(|| {
        let start = |reads: bool| {
            let path = path.to_owned();
            weald::spawn(move || {
                if reads {
                    return std::fs::read_to_string(path).unwrap();
                }
                let mut file = std::fs::File::options().write(true).open(path).unwrap();
                file.write_all(b"through").unwrap();
                String::new()
            })
        };
        let first = start(reader_first);
        settle();
        let second = start(!reader_first);
        let both = first.join().unwrap() + &second.join().unwrap();
        assert_eq!(both, "through");
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn both_sides_of_a_fifo_wait_for_each_other() {
    let path = std::env::temp_dir().join(format!("weald-fifo-{}", std::process::id()));
    check_fifo(&path, true);
    check_fifo(&path, false);
}

#[test]
fn sendfile_and_splice_move_all_and_wait_for_room() {
    const SIZE: usize = 4 << 20;
    in_green_with_spares(|| {
        let path = std::env::temp_dir().join(format!("weald-sendfile-{}", std::process::id()));
        let bytes: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let sender = weald::spawn(move || {
            // SAFETY: no offset.
            let sent = unsafe {
                libc::sendfile(
                    near.as_raw_fd(),
                    file.as_raw_fd(),
                    std::ptr::null_mut(),
                    SIZE,
                )
            };
            assert_eq!(sent, SIZE.cast_signed());
        });
        settle();
        // The bytes go through a pipe and on.
        let (from, to) = io::pipe().unwrap();
        let (out, mut end) = UnixStream::pair().unwrap();
        let splicer = weald::spawn(move || {
            loop {
                let none = std::ptr::null_mut();
                // SAFETY: no offsets.
                let moved = unsafe {
                    libc::splice(from.as_raw_fd(), none, out.as_raw_fd(), none, 1 << 20, 0)
                };
                assert!(moved >= 0);
                if moved == 0 {
                    return;
                }
            }
        });
        let pump = weald::spawn(move || {
            let mut to = to;
            io::copy(&mut far, &mut to).unwrap();
        });
        let mut got = Vec::new();
        end.read_to_end(&mut got).unwrap();
        assert!(got == bytes);
        sender.join().unwrap();
        pump.join().unwrap();
        splicer.join().unwrap();
    });
}

#[test]
fn a_splice_that_waits_for_room_leaves_what_came_to_another_reader() {
    in_green(|| {
        let (from, mut to_from) = io::pipe().unwrap();
        let (drain, full) = io::pipe().unwrap();
        let (from_fd, full_fd) = (from.as_raw_fd(), full.as_raw_fd());
        // SAFETY: open pipes, and buffers of the lengths given.
        unsafe {
            let filling = vec![0_u8; 65536];
            let size = libc::fcntl(full_fd, libc::F_SETPIPE_SZ, 65536);
            assert_eq!(size, 65536);
            assert_eq!(libc::write(full_fd, filling.as_ptr().cast(), 65536), 65536);
        }
        let splice = weald::spawn(move || {
            let null = std::ptr::null_mut();
            // SAFETY: open pipes.
            unsafe { libc::splice(from_fd, null, full_fd, null, 1, 0) }
        });
        settle();
        let reader = weald::spawn(move || {
            let mut byte = 0_u8;
            // SAFETY: an open pipe, and a byte.
            unsafe { libc::read(from_fd, (&raw mut byte).cast(), 1) }
        });
        settle();
        to_from.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        drop(to_from);
        drop(drain);
        splice.join().unwrap();
    });
}

#[test]
fn what_several_append_to_a_file_stays_whole() {
    const LINE: usize = 256 << 10;
    const LINES: u8 = 10;
    let path = std::env::temp_dir().join(format!("weald-appended-{}", std::process::id()));
    in_green_with_spares(|| {
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let options = std::fs::File::options().append(true).create(true).clone();
                let mut file = options.open(&path).unwrap();
                weald::spawn(move || {
                    for line in 0..LINES {
                        file.write_all(&vec![writer * LINES + line; LINE]).unwrap();
                        weald::yield_now();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
    });
    let all = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(all.len(), 4 * usize::from(LINES) * LINE);
    let is_whole = |line: &[u8]| line.iter().all(|byte| *byte == line[0]);
    assert!(all.chunks(LINE).all(is_whole));
}
