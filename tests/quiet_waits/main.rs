//! States that the kernel reports again and again keep no thread busy: each kind of descriptor, in each state, with
//! each call of weald's that waits for it. If an OS thread would wait in a call, the call waits here too, without
//! using the processor. Any other call returns what libc's returns.

#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    reason = "descriptors in states that only system calls bring about"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::enum_glob_use,
    clippy::too_many_lines,
    reason = "the table reads well with short names, and is long"
)]

#[path = "../it/support.rs"]
mod support;

mod common;
mod libc_calls;
mod rows;
mod states;

use std::any::Any;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use common::{OnThread, answers, at_once, place, told, use_of_processor};
use libc_calls::plain;
use rows::{
    Call::{self, *},
    Kind, Row, rows,
};
use support::{MODES, in_child, runtime};
use weald::net::unix::{UnixDatagram, UnixListener, UnixStream};
use weald::net::{Fd, PollFd, TcpListener, TcpStream, UdpSocket};

/// How many threads wait on each descriptor.
const WAITERS: usize = 10;

/// How much of a core all of them together may use, in percent.
const PERCENT: u32 = if cfg!(debug_assertions) { 4 } else { 2 };

enum Green {
    Tcp(TcpStream),
    TcpListener(TcpListener),
    Udp(UdpSocket),
    Unix(UnixStream),
    UnixListener(UnixListener),
    Datagram(UnixDatagram),
    Any(Fd<OwnedFd>),
}

impl Green {
    fn new(kind: Kind, fd: OwnedFd) -> Self {
        match kind {
            Kind::Tcp => Self::Tcp(fd.into()),
            Kind::TcpListener => Self::TcpListener(fd.into()),
            Kind::Udp => Self::Udp(fd.into()),
            Kind::Unix => Self::Unix(fd.into()),
            Kind::UnixListener => Self::UnixListener(fd.into()),
            Kind::Datagram => Self::Datagram(fd.into()),
            Kind::Any => Self::Any(Fd::new(fd)),
        }
    }

    fn polled(&self, events: i16) -> io::Result<usize> {
        let fd: &dyn std::os::fd::AsFd = match self {
            Self::Tcp(one) => one,
            Self::TcpListener(one) => one,
            Self::Udp(one) => one,
            Self::Unix(one) => one,
            Self::UnixListener(one) => one,
            Self::Datagram(one) => one,
            Self::Any(one) => one,
        };
        let mut fds = [PollFd::new(fd, events)];
        weald::net::poll(&mut fds, None)?;
        Ok(usize::try_from(fds[0].revents()).unwrap())
    }

    fn call(&self, call: Call, place: &std::path::Path) -> io::Result<usize> {
        match (call, self) {
            (Read, Self::Tcp(one)) => (&*one).read(&mut [0; 8]),
            (Read, Self::Udp(one)) => one.recv(&mut [0; 8]),
            (Read, Self::Unix(one)) => (&*one).read(&mut [0; 8]),
            (Read, Self::Datagram(one)) => one.recv(&mut [0; 8]),
            (Read, Self::Any(one)) => (&*one).read(&mut [0; 8]),
            (Write, Self::Tcp(one)) => (&*one).write(b"!"),
            (Write, Self::Udp(one)) => one.send(b"!"),
            (Write, Self::Unix(one)) => (&*one).write(b"!"),
            (Write, Self::Datagram(one)) => one.send(b"!"),
            (Write, Self::Any(one)) => (&*one).write(&1_u64.to_ne_bytes()),
            (SendTo, Self::Datagram(one)) => one.send_to(b"!", place),
            (Connect, _) => UnixStream::connect(place).map(|_| 0),
            (Accept, Self::TcpListener(one)) => one.accept().map(|_| 0),
            (Accept, Self::UnixListener(one)) => one.accept().map(|_| 0),
            (Readable, Self::Any(one)) => one.readable().map(|()| 0),
            (Writable, Self::Any(one)) => one.writable().map(|()| 0),
            (Readable, Self::Tcp(one)) => {
                weald::select(&[one], &[], &[], None).map(|told| told.read.len())
            }
            (Writable, Self::Tcp(one)) => {
                weald::select! { writable(one) -> told => told.map(|()| 1) }
            }
            (PollIn, _) => self.polled(PollFd::IN),
            (PollOut, _) => self.polled(PollFd::OUT),
            (PollPri, _) => self.polled(PollFd::PRI),
            (PollNothing, _) => self.polled(0),
            (call, _) => unreachable!("{call:?} is not a call of this kind"),
        }
    }
}

/// One of weald's calls with its descriptor.
struct Asked {
    name: String,
    green: Green,
    call: Call,
    place: PathBuf,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Asked {
    fn new(row: &Row, call: Call) -> Self {
        let place = place();
        let (fd, keep) = (row.make)(&place);
        Self {
            name: format!("{}: {call:?}", row.name),
            green: Green::new(row.kind, fd),
            call,
            place,
            _keep: keep,
        }
    }

    fn call(&self) -> io::Result<usize> {
        self.green.call(self.call, &self.place)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.place);
    }
}

/// Returns the part of a core, in percent, that many waiters on each of these use.
fn use_of_waiters(rt: &weald::Runtime, all: &[Arc<Asked>]) -> f64 {
    let waiters: Vec<_> = all
        .iter()
        .flat_map(|asked| {
            (0..WAITERS).map(|_| {
                let asked = Arc::clone(asked);
                rt.spawn(move || told(asked.call()))
            })
        })
        .collect();
    let used = use_of_processor(f64::from(PERCENT));
    for waiter in waiters {
        waiter.thread().kill();
        let ended = waiter.join();
        if let Ok(told) = ended {
            assert!(told.contains("kill"), "one of many waiters got {told}");
        }
    }
    used
}

/// Returns what an OS thread gets by each call.
fn expected(table: Vec<(Row, Call)>) -> Vec<(Row, Call, Option<String>)> {
    let begun = at_once(table, |(row, call)| {
        let place = place();
        let made = (row.make)(&place);
        let (kind, there) = (row.kind, place.clone());
        let thread = OnThread::begin(move || {
            // The second part is what must stay open.
            let (fd, _keep) = made;
            plain(&fd, kind, call, &there)
        });
        (row, call, thread, place)
    });
    let answer = |(row, call, thread, place): (Row, Call, OnThread, PathBuf)| {
        let answer = thread.answer();
        println!("{}, {call:?}: {answer:?}", row.name);
        let _ = std::fs::remove_file(place);
        (row, call, answer)
    };
    begun.into_iter().map(answer).collect()
}

#[test]
fn a_call_waits_where_an_os_thread_would_and_uses_no_processor_meanwhile() {
    let name = "a_call_waits_where_an_os_thread_would_and_uses_no_processor_meanwhile";
    let child = in_child(name, &[], || {
        let all_of = |row: Row| row.calls.iter().map(move |&call| (row, call));
        let table = expected(rows().into_iter().flat_map(all_of).collect());
        let mut wrong = Vec::new();
        for (mode, workers) in MODES.into_iter().flat_map(|mode| [(mode, 1), (mode, 2)]) {
            let rt = runtime(workers, mode);
            let asked = at_once(table.iter().collect(), |(row, call, _)| {
                Arc::new(Asked::new(row, *call))
            });
            let begin = |one: &Arc<Asked>| {
                let one = Arc::clone(one);
                rt.spawn(move || told(one.call()))
            };
            let got = answers(&rt, asked.iter().map(begin).collect());
            let mut waiting = Vec::new();
            for ((got, one), (_, _, expected)) in got.into_iter().zip(asked).zip(&table) {
                if got != *expected {
                    wrong.push(format!(
                        "{mode:?} {workers}: {} gives {got:?}, an OS thread gets {expected:?}; None: it waits",
                        one.name
                    ));
                }
                if got.is_none() {
                    waiting.push(one);
                }
            }
            let used = use_of_waiters(&rt, &waiting);
            println!("{mode:?} {workers}: {used:.2} % of a core");
            if used > f64::from(PERCENT) {
                for one in &waiting {
                    let used = use_of_waiters(&rt, std::slice::from_ref(one));
                    wrong.push(format!("{mode:?} {workers}: {}: {used:.1} %", one.name));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        println!("all quiet");
    });
    assert!(
        child.success && child.stdout.contains("all quiet"),
        "{}\n{}",
        child.stdout,
        child.stderr
    );
}
