//! States that the kernel reports again and again keep no thread busy: each kind of descriptor, in each state, with
//! each of libc's calls that may wait for it, made by a patched green thread. If an OS thread would wait in a call,
//! the call waits here too, without using the processor. Any other call returns the same as on an OS thread. The
//! kinds and states are those of weald's own test of this name.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::enum_glob_use,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the table reads well with short names, and is long; small numbers, in the types that libc has for them"
)]

#[path = "../../tests/quiet_waits/common.rs"]
mod common;
#[path = "../../tests/quiet_waits/rows.rs"]
#[allow(dead_code, reason = "all kinds have all calls here")]
mod rows;
#[path = "../../tests/quiet_waits/states.rs"]
mod states;

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use common::{OnThread, answers, at_once, place, told, use_of_processor};
use rows::{Row, rows};

/// How many threads wait in each call.
const WAITERS: usize = 8;
/// How much of a core all of them together may use, in percent.
const PERCENT: f64 = if cfg!(debug_assertions) { 4.0 } else { 2.0 };
/// How many states there are at a time: each takes some descriptors for each call.
const AT_A_TIME: usize = 5;

type Function = fn(RawFd, &Path) -> isize;

/// A call with its name.
#[derive(Clone, Copy)]
struct Call(&'static str, Function);

fn address_of(path: &Path) -> libc::sockaddr_un {
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    for (to, from) in address
        .sun_path
        .iter_mut()
        .zip(path.to_str().unwrap().bytes())
    {
        *to = from.cast_signed();
    }
    address
}

const ADDRESS: libc::socklen_t = size_of::<libc::sockaddr_un>() as _;

/// Returns what `poll` tells of the descriptor. With `beside` it also polls a pipe to which nothing happens.
fn poll(fd: RawFd, events: libc::c_short, beside: bool) -> isize {
    let quiet = beside.then(|| io::pipe().unwrap());
    let other = quiet.as_ref().map_or(-1, |(reader, _)| reader.as_raw_fd());
    let mut both = [(fd, events), (other, libc::POLLIN)].map(|(fd, events)| libc::pollfd {
        fd,
        events,
        revents: 0,
    });
    let count = if beside { 2 } else { 1 };
    // SAFETY: as many entries.
    let ready = unsafe { libc::poll(both.as_mut_ptr(), count, -1) };
    if ready < 0 {
        -1
    } else {
        isize::from(both[0].revents)
    }
}

fn ppoll(fd: RawFd, events: libc::c_short) -> isize {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one entry, no limit, no mask.
    let ready = unsafe { libc::ppoll(&raw mut one, 1, ptr::null(), ptr::null()) };
    if ready < 0 {
        -1
    } else {
        isize::from(one.revents)
    }
}

fn select(fd: RawFd, which: &[usize]) -> isize {
    // The number is beyond the room of an `fd_set`, which the kernel accepts.
    let mut all = [[0_u64; 512]; 3];
    let mut sets = [ptr::null_mut(); 3];
    for &one in which {
        all[one][fd as usize / 64] |= 1 << (fd % 64);
        sets[one] = all[one].as_mut_ptr().cast();
    }
    // SAFETY: each set is null or has room for the descriptor.
    unsafe { libc::select(fd + 1, sets[0], sets[1], sets[2], ptr::null_mut()) as isize }
}

fn epoll(fd: RawFd, events: libc::c_int) -> isize {
    // SAFETY: pointers to locals; the instance is closed at the end.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: 0,
        };
        let mut result = libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) as isize;
        if result == 0 {
            result = libc::epoll_wait(epoll, &raw mut event, 1, -1) as isize;
            if result == 1 {
                result = event.events as isize;
            }
        }
        libc::close(epoll);
        result
    }
}

/// A header for one buffer.
fn with_header(bytes: &mut [u8], call: impl FnOnce(&mut libc::msghdr) -> isize) -> isize {
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros is a valid header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    call(&mut header)
}

/// Each of libc's calls that may wait for a descriptor. A write has eight bytes, as an eventfd takes them.
const CALLS: &[Call] = &[
    Call("read", |fd, _| {
        let mut bytes = [0_u8; 8];
        // SAFETY: the buffer is live.
        unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), 8) }
    }),
    Call("readv", |fd, _| {
        let mut bytes = [0_u8; 8];
        with_header(&mut bytes, |header| {
            // SAFETY: one live buffer.
            unsafe { libc::readv(fd, header.msg_iov, 1) }
        })
    }),
    Call("preadv2", |fd, _| {
        let mut bytes = [0_u8; 8];
        with_header(&mut bytes, |header| {
            // SAFETY: one live buffer.
            unsafe { libc::preadv2(fd, header.msg_iov, 1, -1, 0) }
        })
    }),
    Call("recv", |fd, _| {
        let mut bytes = [0_u8; 8];
        // SAFETY: the buffer is live.
        unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), 8, 0) }
    }),
    Call("recv, all", |fd, _| {
        let mut bytes = [0_u8; 8];
        // SAFETY: the buffer is live.
        unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), 8, libc::MSG_WAITALL) }
    }),
    Call("recv, a look", |fd, _| {
        let mut bytes = [0_u8; 8];
        // SAFETY: the buffer is live.
        unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), 8, libc::MSG_PEEK) }
    }),
    Call("recvmsg", |fd, _| {
        let mut bytes = [0_u8; 8];
        with_header(&mut bytes, |header| {
            // SAFETY: a live header.
            unsafe { libc::recvmsg(fd, header, 0) }
        })
    }),
    Call("recvmmsg", |fd, _| {
        let mut bytes = [0_u8; 8];
        with_header(&mut bytes, |header| {
            let mut one = libc::mmsghdr {
                msg_hdr: *header,
                msg_len: 0,
            };
            // SAFETY: one live header.
            unsafe { libc::recvmmsg(fd, &raw mut one, 1, 0, ptr::null_mut()) as isize }
        })
    }),
    Call("write", |fd, _| {
        let bytes = 1_u64.to_ne_bytes();
        // SAFETY: the buffer is live.
        unsafe { libc::write(fd, bytes.as_ptr().cast(), 8) }
    }),
    Call("writev", |fd, _| {
        with_header(&mut 1_u64.to_ne_bytes(), |header| {
            // SAFETY: one live buffer.
            unsafe { libc::writev(fd, header.msg_iov, 1) }
        })
    }),
    Call("send", |fd, _| {
        let bytes = [0_u8; 8];
        // SAFETY: the buffer is live.
        unsafe { libc::send(fd, bytes.as_ptr().cast(), 8, libc::MSG_NOSIGNAL) }
    }),
    Call("sendmsg", |fd, _| {
        with_header(&mut [0; 8], |header| {
            // SAFETY: a live header.
            unsafe { libc::sendmsg(fd, header, libc::MSG_NOSIGNAL) }
        })
    }),
    Call("sendmmsg", |fd, _| {
        with_header(&mut [0; 8], |header| {
            let mut one = libc::mmsghdr {
                msg_hdr: *header,
                msg_len: 0,
            };
            // SAFETY: one live header.
            unsafe { libc::sendmmsg(fd, &raw mut one, 1, libc::MSG_NOSIGNAL) as isize }
        })
    }),
    Call("sendto", |fd, place| {
        let (bytes, to) = ([0_u8; 8], address_of(place));
        let to = (&raw const to).cast();
        // SAFETY: the buffer is live, and so is the address.
        unsafe {
            libc::sendto(
                fd,
                bytes.as_ptr().cast(),
                8,
                libc::MSG_NOSIGNAL,
                to,
                ADDRESS,
            )
        }
    }),
    Call("connect, another socket", |_, place| {
        let to = address_of(place);
        // SAFETY: an address of that size; the socket is closed at the end.
        unsafe {
            let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let result = libc::connect(socket, (&raw const to).cast(), ADDRESS);
            let error = *libc::__errno_location();
            libc::close(socket);
            *libc::__errno_location() = error;
            result as isize
        }
    }),
    Call("accept", |fd, _| {
        // SAFETY: no address is asked for.
        let accepted = unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) };
        if accepted < 0 { -1 } else { 0 }
    }),
    Call("accept4", |fd, _| {
        // SAFETY: no address is asked for.
        let accepted =
            unsafe { libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), libc::SOCK_CLOEXEC) };
        if accepted < 0 { -1 } else { 0 }
    }),
    Call("poll to read", |fd, _| poll(fd, libc::POLLIN, false)),
    Call("poll to write", |fd, _| poll(fd, libc::POLLOUT, false)),
    Call("poll for urgent data", |fd, _| {
        poll(fd, libc::POLLPRI, false)
    }),
    Call("poll for nothing", |fd, _| poll(fd, 0, false)),
    Call("poll of two to read", |fd, _| poll(fd, libc::POLLIN, true)),
    Call("poll of two to write", |fd, _| {
        poll(fd, libc::POLLOUT, true)
    }),
    Call("poll of two for both", |fd, _| {
        poll(fd, libc::POLLIN | libc::POLLOUT | libc::POLLPRI, true)
    }),
    Call("ppoll to read", |fd, _| {
        ppoll(fd, libc::POLLIN | libc::POLLRDHUP)
    }),
    Call("select to read", |fd, _| select(fd, &[0])),
    Call("select to write", |fd, _| select(fd, &[1])),
    Call("select except", |fd, _| select(fd, &[2])),
    Call("select to read or except", |fd, _| select(fd, &[0, 2])),
    Call("epoll_wait to read", |fd, _| epoll(fd, libc::EPOLLIN)),
    Call("epoll_wait to write", |fd, _| epoll(fd, libc::EPOLLOUT)),
    Call("epoll_wait for urgent data", |fd, _| {
        epoll(fd, libc::EPOLLPRI)
    }),
];

fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A call with a descriptor of its own.
struct Asked {
    name: String,
    call: Call,
    fd: OwnedFd,
    place: PathBuf,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Asked {
    fn new(row: &Row, call: Call) -> Self {
        let place = place();
        let (fd, keep) = (row.make)(&place);
        Self {
            name: format!("{}: {}", row.name, call.0),
            call,
            fd,
            place,
            _keep: keep,
        }
    }

    fn call(&self) -> io::Result<usize> {
        length(self.call.1(self.fd.as_raw_fd(), &self.place))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.place);
    }
}

/// Returns the part of a core, in percent, that many waiters in each of these use.
fn use_of_waiters(rt: &weald::Runtime, all: &[Arc<Asked>]) -> f64 {
    let wait = |asked: &Arc<Asked>| {
        let asked = Arc::clone(asked);
        rt.spawn(move || told(asked.call()))
    };
    let waiters: Vec<_> = (0..WAITERS).flat_map(|_| all.iter().map(wait)).collect();
    let used = use_of_processor(PERCENT);
    for waiter in &waiters {
        assert!(!waiter.is_finished(), "one of many waiters came back");
        waiter.thread().kill();
    }
    for waiter in waiters {
        assert!(waiter.join().is_err(), "a killed thread has no result");
    }
    used
}

/// Returns which of them use too much, each tested alone.
fn busy(rt: &weald::Runtime, all: &[Arc<Asked>]) -> Vec<String> {
    let used = use_of_waiters(rt, all);
    if used < PERCENT {
        return Vec::new();
    }
    if let [one] = all {
        return vec![format!("{}: {used:.1} % of a core", one.name)];
    }
    let (first, second) = all.split_at(all.len() / 2);
    let mut both = busy(rt, first);
    both.extend(busy(rt, second));
    both
}

fn raise_the_limit_of_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: pointers to a local.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn a_call_waits_where_an_os_thread_would_and_uses_no_processor_meanwhile() {
    raise_the_limit_of_descriptors();
    weald_patch::all().unwrap();
    let only = std::env::var("WEALD_QUIET_ROW").unwrap_or_default();
    let rows: Vec<Row> = rows()
        .into_iter()
        .filter(|row| row.name.contains(&only))
        .collect();
    let mut wrong = Vec::new();
    for (number, rows) in rows.chunks(AT_A_TIME).enumerate() {
        let table: Vec<_> = rows
            .iter()
            .flat_map(|row| CALLS.iter().map(move |call| (*row, *call)))
            .collect();
        let on_threads = at_once(table.clone(), |(row, call)| {
            let asked = Asked::new(&row, call);
            OnThread::begin(move || asked.call())
        });
        let expected: Vec<_> = on_threads.iter().map(OnThread::answer).collect();
        let rt = weald::Runtime::builder()
            .workers(1 + number % 2)
            .build()
            .unwrap();
        let asked = at_once(table, |(row, call)| Arc::new(Asked::new(&row, call)));
        let begin = |one: &Arc<Asked>| {
            let one = Arc::clone(one);
            rt.spawn(move || told(one.call()))
        };
        let got = answers(&rt, asked.iter().map(begin).collect());
        let mut waiting = Vec::new();
        for ((got, one), expected) in got.into_iter().zip(asked).zip(expected) {
            if got != expected {
                let name = &one.name;
                wrong.push(format!(
                    "{name} gives {got:?}, an OS thread gets {expected:?}; None: it waits"
                ));
            }
            if got.is_none() {
                waiting.push(one);
            }
        }
        println!("{} calls wait", waiting.len());
        wrong.extend(busy(&rt, &waiting));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
