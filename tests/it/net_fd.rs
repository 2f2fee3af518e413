//! `Fd` makes any descriptor green: a call that waits holds no worker, a descriptor that cannot wait does not, and
//! the flags of the open file stay.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

use weald::net::Fd;
use weald::{Elapsed, Killed};

use crate::support::{
    Flag, HOUR, MS, everywhere, in_each_mode, is_nonblocking, settle, source_of, was_killed,
};

fn pipe() -> (Fd<io::PipeReader>, Fd<io::PipeWriter>) {
    let (reader, writer) = io::pipe().unwrap();
    (Fd::new(reader), Fd::new(writer))
}

/// Both ends of a new terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    // SAFETY: no pointers but the name's, which is as long as is said; the descriptors are new.
    unsafe {
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let main = libc::posix_openpt(flags);
        assert!(main >= 0, "a terminal: {}", io::Error::last_os_error());
        assert_eq!((libc::grantpt(main), libc::unlockpt(main)), (0, 0));
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(main, name.as_mut_ptr(), name.len()), 0);
        let other = libc::open(name.as_ptr(), flags);
        assert!(other >= 0);
        (OwnedFd::from_raw_fd(main), OwnedFd::from_raw_fd(other))
    }
}

#[test]
fn a_pipe_carries_more_than_it_holds() {
    everywhere(|| {
        let (mut reader, mut writer) = pipe();
        let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[0]).collect();
        let expected = bytes.clone();
        let sender = weald::spawn(move || writer.write_all(&bytes));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert_eq!(received, expected);
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn flags_stay_and_both_kinds_of_pipes_wait() {
    everywhere(|| {
        for nonblocking in [false, true] {
            let (mut reader, mut writer) = pipe();
            if nonblocking {
                for fd in [reader.as_fd(), writer.as_fd()] {
                    // SAFETY: sets a flag of a pipe that is open.
                    let set = unsafe {
                        use std::os::fd::AsRawFd as _;
                        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK)
                    };
                    assert_eq!(set, 0);
                }
            }
            let sender = weald::spawn(move || {
                settle();
                writer.write_all(b"late").unwrap();
                assert_eq!(is_nonblocking(&writer), nonblocking);
            });
            let mut text = [0; 4];
            reader.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"late");
            assert_eq!(is_nonblocking(&reader), nonblocking);
            sender.join().unwrap();
        }
    });
}

#[test]
fn readable_and_writable_wait_for_what_they_say() {
    everywhere(|| {
        let (mut reader, writer) = pipe();
        writer.writable().unwrap();
        let sender = weald::spawn(move || {
            settle();
            (&writer).write_all(b"x").unwrap();
            writer
        });
        reader.readable().unwrap();
        reader.readable().unwrap();
        reader.read_exact(&mut [0]).unwrap();
        let writer = sender.join().unwrap();
        let closer = weald::spawn(move || {
            settle();
            drop(writer);
        });
        reader.readable().unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end");
        closer.join().unwrap();
        let (reader, writer) = pipe();
        drop(reader);
        writer.writable().unwrap();
        let error = (&writer).write(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_worker_that_reads_from_an_empty_pipe_goes_on() {
    in_each_mode(|| {
        let (reader, writer) = pipe();
        let readers: Vec<_> = {
            let reader = std::sync::Arc::new(reader);
            (0..10)
                .map(|_| {
                    let reader = reader.clone();
                    weald::spawn(move || (&*reader).read_exact(&mut [0]))
                })
                .collect()
        };
        settle();
        (&writer).write_all(&[0; 10]).unwrap();
        for reader in readers {
            reader.join().unwrap().unwrap();
        }
    });
}

#[test]
fn exceptions_end_the_waits() {
    everywhere(|| {
        let (mut reader, writer) = pipe();
        let outcome = weald::timeout(5 * MS, || {
            let error = reader.read(&mut [0]).unwrap_err();
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(outcome.is_err());
        // This is time enough to fill the pipe on any machine.
        let outcome = weald::timeout(100 * MS, || {
            let error = (&writer).write_all(&vec![0; 1 << 20]).unwrap_err();
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(outcome.is_err());
        let outcome = weald::timeout(5 * MS, || writer.writable().unwrap_err());
        assert!(outcome.is_err());
    });
    in_each_mode(|| {
        let about_to_wait = Flag::default();
        let tells = about_to_wait.clone();
        let waiting = weald::spawn(move || {
            let (reader, _writer) = pipe();
            tells.set();
            let error = reader.readable().unwrap_err();
            assert!(source_of::<Killed>(&error).is_some());
            let _ = reader.readable();
        });
        about_to_wait.wait();
        settle();
        waiting.thread().kill();
        assert!(was_killed(&waiting.join()));
    });
}

#[test]
fn ordinary_files_never_wait() {
    everywhere(|| {
        let path = std::env::temp_dir().join(format!(
            "weald-fd-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut file = Fd::new(File::create(&path).unwrap());
        file.writable().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        drop(file.into_inner());
        let mut file = Fd::new(File::open(&path).unwrap());
        file.readable().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 100_000]);
        fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_terminal_carries_lines() {
    everywhere(|| {
        let (main, other) = terminal();
        let (mut main, mut other) = (Fd::new(main), Fd::new(other));
        let typist = weald::spawn(move || {
            settle();
            main.write_all(b"a line\n").unwrap();
            main
        });
        let mut line = [0; 7];
        other.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"a line\n");
        assert!(!is_nonblocking(&other));
        drop(typist.join().unwrap());
    });
}

#[test]
fn several_may_stand_on_one_descriptor() {
    everywhere(|| {
        let (reader, writer) = io::pipe().unwrap();
        let (one, two) = (Fd::new(&reader), Fd::new(&reader));
        weald::scope(|s| {
            let waiting = [&one, &two].map(|fd| s.spawn(move || fd.readable()));
            settle();
            (&writer).write_all(b"x").unwrap();
            for one in waiting {
                one.join().unwrap().unwrap();
            }
        });
        drop(one);
        // The registration of the other `Fd` stays.
        weald::scope(|s| {
            (&two).read_exact(&mut [0]).unwrap();
            let waiting = s.spawn(|| two.readable());
            settle();
            (&writer).write_all(b"x").unwrap();
            waiting.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_select_waits_for_a_pipe_and_for_sockets_of_every_kind() {
    use weald::net::unix::{UnixDatagram, UnixStream};
    in_each_mode(|| {
        let (reader, writer) = pipe();
        let (near, far) = UnixStream::pair().unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        for round in 0..3 {
            let sender = {
                let (near, one) = (near.try_clone().unwrap(), one.try_clone().unwrap());
                let writer = Fd::new(writer.as_fd().try_clone_to_owned().unwrap());
                weald::spawn(move || {
                    settle();
                    match round {
                        0 => (&writer).write_all(b"x").unwrap(),
                        1 => (&near).write_all(b"x").unwrap(),
                        _ => drop(one.send(b"x").unwrap()),
                    }
                })
            };
            let chosen = weald::select! {
                readable(&reader) -> ready => { ready.unwrap(); 0 }
                readable(&far) -> ready => { ready.unwrap(); 1 }
                readable(&other) -> ready => { ready.unwrap(); 2 }
                default(HOUR) => 3,
            };
            assert_eq!(chosen, round);
            sender.join().unwrap();
            match round {
                0 => (&reader).read_exact(&mut [0]).unwrap(),
                1 => (&far).read_exact(&mut [0]).unwrap(),
                _ => drop(other.recv(&mut [0]).unwrap()),
            }
        }
    });
}
