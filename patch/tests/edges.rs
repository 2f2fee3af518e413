//! Calls that are errors do not wait: at its edges, each call gives a patched green thread what it gives an OS
//! thread.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "constants and sizes of libc, in the types that its records have"
)]

use std::io::{Read as _, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[path = "edges/locks.rs"]
mod locks;
#[path = "edges/sockets.rs"]
mod sockets;
mod support;

use locks::{
    condition_in_the_past, deadline, detaches_itself, exits, joins_for_a_while,
    pthread_rwlock_timedrdlock, relock, relock_for_writing, sem_timedwait, semaphore_in_the_past,
    semtimedop,
};
use sockets::{
    NONE, buffer, connect, ended, eventfd, fast_open, file, full_stream, halves, owned, poll,
    reset, send_until_reset, shut_down, tcp, tcp_socket,
};

/// Returns a call's result, or minus its error number.
fn answer(said: impl TryInto<i64>) -> i64 {
    match said.try_into().ok() {
        Some(said) if said >= 0 => said,
        _ => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

macro_rules! calls {
    ($($name:literal: $call:expr;)*) => {
        &[$(($name, || {
            // SAFETY: each call is given what its manual page asks for, or what the kernel refuses.
            #[allow(unused_unsafe, reason = "some are safe")]
            unsafe { answer($call) }
        })),*]
    };
}

/// The factor by which all pauses are longer.
static PATIENCE: AtomicU64 = AtomicU64::new(1);

/// Gives another thread the time to come to its wait. A busy machine may need longer for that.
fn pause(millis: u64) {
    let patience = PATIENCE.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(millis * patience));
}

type Call = (&'static str, fn() -> i64);

const CALLS: &[Call] = calls! {
    "read of what is none": libc::read(NONE, buffer(), 1);
    "read to nowhere": {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        libc::read(reader.as_raw_fd(), null_mut(), 8)
    };
    "read of 4 bytes of an eventfd": libc::read(eventfd().as_raw_fd(), buffer(), 4);
    "read of nothing of a pipe": libc::read(std::io::pipe().unwrap().0.as_raw_fd(), buffer(), 0);
    "read of what is for writing": {
        let (_reader, writer) = std::io::pipe().unwrap();
        libc::read(writer.as_raw_fd(), buffer(), 1)
    };
    "read of a folder": libc::read(std::fs::File::open("/").unwrap().as_raw_fd(), buffer(), 1);
    "read at the end of a pipe": {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        libc::read(reader.as_raw_fd(), buffer(), 9)
    };
    "readv of too many": libc::readv(eventfd().as_raw_fd(), buffer().cast(), 1 << 20);
    "readv of a negative number": libc::readv(eventfd().as_raw_fd(), buffer().cast(), -1);
    "write to what is for reading": libc::write(file().as_raw_fd(), buffer(), 1);
    "write of 4 bytes to an eventfd": libc::write(eventfd().as_raw_fd(), buffer(), 4);
    "write of nothing to a socket": libc::write(tcp().0.as_raw_fd(), buffer(), 0);
    "pread of a pipe": libc::pread(std::io::pipe().unwrap().0.as_raw_fd(), buffer(), 1, 0);
    "pread at a negative place": libc::pread(file().as_raw_fd(), buffer(), 1, -1);
    "preadv2 with a flag that is none": {
        let part = libc::iovec { iov_base: buffer(), iov_len: 1 };
        libc::preadv2(file().as_raw_fd(), &raw const part, 1, 0, 1 << 30)
    };
    "preadv at a negative place": {
        let part = libc::iovec { iov_base: buffer(), iov_len: 1 };
        libc::preadv(file().as_raw_fd(), &raw const part, 1, -1)
    };
    "preadv2 where the file is": {
        let part = libc::iovec { iov_base: buffer(), iov_len: 7 };
        libc::preadv2(file().as_raw_fd(), &raw const part, 1, -1, 0)
    };
    "recv of what is no socket": libc::recv(eventfd().as_raw_fd(), buffer(), 1, 0);
    "recv of a socket that is not connected": libc::recv(tcp_socket().as_raw_fd(), buffer(), 1, 0);
    "recv of urgent data that is not there": libc::recv(tcp().0.as_raw_fd(), buffer(), 1, libc::MSG_OOB);
    "recv to nowhere": {
        let (client, mut server) = tcp();
        server.write_all(b"x").unwrap();
        libc::recv(client.as_raw_fd(), null_mut(), 1, 0)
    };
    "recvmsg with a header that is none": libc::recvmsg(tcp().0.as_raw_fd(), null_mut(), 0);
    "recvmmsg with a limit that is none": {
        let mut limit = deadline(0, -1);
        let mut message: libc::mmsghdr = std::mem::zeroed();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        libc::recvmmsg(socket.as_raw_fd(), &raw mut message, 1, 0, &raw mut limit)
    };
    "recv of 100 with SO_RCVLOWAT 10": halves(10, 0, 100, false);
    "recv of 5 with SO_RCVLOWAT 10": halves(10, 0, 5, false);
    "recv of 10 with MSG_WAITALL": halves(1, libc::MSG_WAITALL, 10, false);
    "recv of 20 with MSG_WAITALL, of which 10 come": halves(1, libc::MSG_WAITALL, 20, false);
    "recv of 10 with MSG_PEEK and MSG_WAITALL": halves(1, libc::MSG_PEEK | libc::MSG_WAITALL, 10, false);
    "recv of 20 with MSG_PEEK and MSG_WAITALL": halves(1, libc::MSG_PEEK | libc::MSG_WAITALL, 20, false);
    "recvmsg of 10 with MSG_WAITALL": halves(1, libc::MSG_WAITALL, 10, true);
    "recvmsg of 100 with SO_RCVLOWAT 10": halves(10, 0, 100, true);
    "recvmsg of 10 with MSG_PEEK and MSG_WAITALL": halves(1, libc::MSG_PEEK | libc::MSG_WAITALL, 10, true);
    "recv of 10 with MSG_WAITALL, of which 3 come before a reset": reset(libc::MSG_WAITALL, false);
    "the same with recvmsg": reset(libc::MSG_WAITALL, true);
    "send of more than fits before a reset": send_until_reset(|fd, bytes| {
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
    });
    "write of more than fits before a reset": send_until_reset(|fd, bytes| {
        libc::write(fd, bytes.as_ptr().cast(), bytes.len())
    });
    "pthread_exit": exits();
    "pthread_detach by the thread itself, and pthread_join afterwards": detaches_itself();
    "pthread_tryjoin_np and pthread_timedjoin_np of a thread that runs": joins_for_a_while();
    "recv of a datagram socket whose reading side is shut down":
        shut_down(libc::SHUT_RD, |fd| libc::recv(fd, buffer(), 9, 0));
    "read of a datagram socket whose reading side is shut down":
        shut_down(libc::SHUT_RD, |fd| libc::read(fd, buffer(), 9));
    "recvmsg of a datagram socket whose reading side is shut down": shut_down(libc::SHUT_RD, |fd| {
        let mut header: libc::msghdr = std::mem::zeroed();
        libc::recvmsg(fd, &raw mut header, 0)
    });
    "send to a datagram socket that is shut down":
        shut_down(libc::SHUT_WR, |fd| libc::send(fd, buffer(), 9, libc::MSG_NOSIGNAL));
    "send to what is not connected": libc::send(tcp_socket().as_raw_fd(), buffer(), 1, libc::MSG_NOSIGNAL);
    "send with MSG_FASTOPEN": fast_open();
    "send of a datagram that is too large": {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        let large = vec![0_u8; 1 << 17];
        libc::send(socket.as_raw_fd(), large.as_ptr().cast(), large.len(), 0)
    };
    "accept4 with a flag that is none": {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        libc::accept4(listener.as_raw_fd(), null_mut(), null_mut(), 0x4000_0000)
    };
    "accept on a datagram socket": {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        libc::accept(socket.as_raw_fd(), null_mut(), null_mut())
    };
    "accept on what does not listen": libc::accept(tcp_socket().as_raw_fd(), null_mut(), null_mut());
    "accept on what is no socket": libc::accept(eventfd().as_raw_fd(), null_mut(), null_mut());
    "connect where nobody listens": {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        connect(tcp_socket().as_raw_fd(), port)
    };
    "a second connect": {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (socket, port) = (tcp_socket(), listener.local_addr().unwrap().port());
        assert_eq!(connect(socket.as_raw_fd(), port), 0);
        connect(socket.as_raw_fd(), port)
    };
    "connect of a listener": {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        connect(listener.as_raw_fd(), listener.local_addr().unwrap().port())
    };
    "connect to an address of no family": {
        let to = libc::sockaddr { sa_family: 200, sa_data: [0; 14] };
        libc::connect(tcp_socket().as_raw_fd(), &raw const to, 16)
    };
    "poll of what is none": poll(NONE, libc::POLLIN);
    "poll of an error": {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        poll(writer.as_raw_fd(), 0)
    };
    "poll of a file": poll(file().as_raw_fd(), libc::POLLIN | libc::POLLOUT);
    "poll of a bad array": libc::poll(null_mut(), 1, 20);
    "poll of too many": libc::poll(null_mut(), libc::nfds_t::MAX, 20);
    "ppoll with a limit that is none": {
        let limit = deadline(0, 2_000_000_000);
        libc::ppoll(null_mut(), 0, &raw const limit, null())
    };
    "select with a negative limit": {
        let mut limit = libc::timeval { tv_sec: -1, tv_usec: 0 };
        libc::select(0, null_mut(), null_mut(), null_mut(), &raw mut limit)
    };
    "select of what was closed": {
        let fd = file().as_raw_fd();
        let mut set: libc::fd_set = std::mem::zeroed();
        libc::FD_SET(fd, &raw mut set);
        libc::select(fd + 1, &raw mut set, null_mut(), null_mut(), null_mut())
    };
    "select of a negative number": libc::select(-1, null_mut(), null_mut(), null_mut(), null_mut());
    "epoll_wait on what is no epoll": {
        let mut event: libc::epoll_event = std::mem::zeroed();
        libc::epoll_wait(eventfd().as_raw_fd(), &raw mut event, 1, -1)
    };
    "epoll_wait for no events": {
        let epoll = owned(libc::epoll_create1(0));
        libc::epoll_wait(epoll.as_raw_fd(), null_mut(), 0, -1)
    };
    "nanosleep of what is none": {
        let limit = deadline(0, -1);
        libc::nanosleep(&raw const limit, null_mut())
    };
    "clock_nanosleep by a clock that is none": {
        let limit = deadline(0, 1);
        libc::clock_nanosleep(99, 0, &raw const limit, null_mut())
    };
    "clock_nanosleep by the CPU time of the thread": {
        let limit = deadline(0, 1);
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        libc::clock_nanosleep(clock, 0, &raw const limit, null_mut())
    };
    "clock_nanosleep until a moment of the past": {
        let limit = deadline(1, 1);
        let flag = libc::TIMER_ABSTIME;
        libc::clock_nanosleep(libc::CLOCK_REALTIME, flag, &raw const limit, null_mut())
    };
    "splice between files": {
        let (a, b) = (file(), file());
        libc::splice(a.as_raw_fd(), null_mut(), b.as_raw_fd(), null_mut(), 9, 0)
    };
    "splice of what is none": {
        let (_reader, writer) = std::io::pipe().unwrap();
        libc::splice(NONE, null_mut(), writer.as_raw_fd(), null_mut(), 9, 0)
    };
    "splice of a pipe at its end": {
        let ((reader, writer), (_other, to)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        drop(writer);
        libc::splice(reader.as_raw_fd(), null_mut(), to.as_raw_fd(), null_mut(), 9, 0)
    };
    "splice of a pipe into itself": {
        let (reader, writer) = std::io::pipe().unwrap();
        libc::splice(reader.as_raw_fd(), null_mut(), writer.as_raw_fd(), null_mut(), 9, 0)
    };
    "splice the wrong way round": {
        let ((reader, _writer), (_other, to)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        libc::splice(to.as_raw_fd(), null_mut(), reader.as_raw_fd(), null_mut(), 9, 0)
    };
    "splice with a flag that is none": {
        let ((reader, _writer), (_other, to)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        libc::splice(reader.as_raw_fd(), null_mut(), to.as_raw_fd(), null_mut(), 9, 1 << 20)
    };
    "tee of a pipe into itself": {
        let (reader, writer) = std::io::pipe().unwrap();
        libc::tee(reader.as_raw_fd(), writer.as_raw_fd(), 9, 0)
    };
    "sendfile from a pipe to a socket that is full": {
        let ((full, _far), (reader, _writer)) = (full_stream(), std::io::pipe().unwrap());
        libc::sendfile(full.as_raw_fd(), reader.as_raw_fd(), null_mut(), 9)
    };
    "sendfile from /dev/zero to a socket that becomes full": {
        let (near, far) = tcp();
        let count = 64 << 20;
        let reads = thread::spawn(move || {
            let (mut far, mut buffer, mut all) = (far, vec![0; 1 << 20], 0);
            // The call begins when the socket has been full for a while.
            thread::sleep(Duration::from_millis(30));
            while let Ok(more @ 1..) = far.read(&mut buffer) {
                all += more;
            }
            all
        });
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        let sent = answer(libc::sendfile(near.as_raw_fd(), zeros.as_raw_fd(), null_mut(), count));
        drop(near);
        let came = reads.join().unwrap();
        u8::from(usize::try_from(sent) == Ok(count)) + 2 * u8::from(came == count)
    };
    "sendfile to what is for reading": {
        let (reader, _writer) = std::io::pipe().unwrap();
        libc::sendfile(reader.as_raw_fd(), file().as_raw_fd(), null_mut(), 9)
    };
    "send to a full stream whose writing side is shut down then": ended(libc::SHUT_WR, |fd| {
        libc::send(fd, buffer(), 4096, libc::MSG_NOSIGNAL)
    });
    "write to a full stream that is shut down then": ended(libc::SHUT_RDWR, |fd| {
        libc::send(fd, buffer(), 4096, libc::MSG_NOSIGNAL)
    });
    "send to a full stream whose peer goes then": ended(-1, |fd| {
        libc::send(fd, buffer(), 4096, libc::MSG_NOSIGNAL)
    });
    "sendfile to a full stream whose writing side is shut down then": ended(libc::SHUT_WR, |fd| {
        let mut at = 0;
        libc::sendfile(fd, file().as_raw_fd(), &raw mut at, 4096)
    });
    "splice to a full stream whose writing side is shut down then": ended(libc::SHUT_WR, |fd| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"some").unwrap();
        libc::splice(reader.as_raw_fd(), null_mut(), fd, null_mut(), 4, 0)
    });
    "semtimedop of what is free, until what is no moment": {
        let set = libc::semget(libc::IPC_PRIVATE, 1, 0o600);
        let mut up = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 };
        let limit = deadline(0, -1);
        let said = libc::syscall(libc::SYS_semtimedop, set, &raw mut up, 1, &raw const limit);
        let said = answer(said).min(answer(semtimedop(set, &raw mut up, 1, &raw const limit)));
        libc::semctl(set, 0, libc::IPC_RMID);
        -said
    };
    "semop of a set that is removed meanwhile": {
        let set = libc::semget(libc::IPC_PRIVATE, 1, 0o600);
        let removes = thread::spawn(move || {
            pause(30);
            libc::semctl(set, 0, libc::IPC_RMID)
        });
        let mut down = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
        let said = answer(libc::semop(set, &raw mut down, 1));
        removes.join().unwrap();
        -said
    };
    "msgrcv of a message that is too long": {
        let queue = libc::msgget(libc::IPC_PRIVATE, 0o600);
        let message = [1_u64; 20];
        libc::msgsnd(queue, message.as_ptr().cast(), 100, 0);
        let said = answer(libc::msgrcv(queue, buffer(), 8, 0, 0));
        libc::msgctl(queue, libc::IPC_RMID, null_mut());
        -said
    };
    "sigtimedwait of no signal, until what is no moment": {
        let (set, limit): (libc::sigset_t, _) = (std::mem::zeroed(), deadline(0, -1));
        libc::sigtimedwait(&raw const set, null_mut(), &raw const limit)
    };
    "system of what fails": libc::system(c"exit 3".as_ptr());
    "tee of what is no pipe": {
        let (_reader, writer) = std::io::pipe().unwrap();
        libc::tee(tcp().0.as_raw_fd(), writer.as_raw_fd(), 9, 0)
    };
    "sendfile from a socket": {
        let (client, server) = tcp();
        libc::sendfile(client.as_raw_fd(), server.as_raw_fd(), null_mut(), 9)
    };
    "sendfile of more than the file has": {
        let (client, _server) = tcp();
        let path = std::env::temp_dir().join(format!("weald-edges-{}", std::process::id()));
        std::fs::write(&path, b"twelve bytes").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        libc::sendfile(client.as_raw_fd(), file.as_raw_fd(), null_mut(), 100)
    };
    "sendfile into a pipe": {
        let (_reader, writer) = std::io::pipe().unwrap();
        let mut at = 0;
        libc::sendfile(writer.as_raw_fd(), file().as_raw_fd(), &raw mut at, 1000)
    };
    "flock of what is none": libc::flock(NONE, libc::LOCK_EX);
    "flock without an operation": libc::flock(file().as_raw_fd(), 0);
    "fcntl to lock what is none": {
        let mut lock: libc::flock = std::mem::zeroed();
        libc::fcntl(NONE, libc::F_SETLKW, &raw mut lock)
    };
    "fcntl to lock for writing what is for reading": {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as _;
        libc::fcntl(file().as_raw_fd(), libc::F_SETLKW, &raw mut lock)
    };
    "fcntl with a command that is none": libc::fcntl(file().as_raw_fd(), 9999);
    "fcntl of an owner": libc::fcntl(tcp().0.as_raw_fd(), libc::F_GETOWN);
    "waitpid of no child": libc::waitpid(1, null_mut(), 0);
    "waitpid with a flag that is none": libc::waitpid(1, null_mut(), 1 << 20);
    "waitid for nothing": {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, 1, &raw mut info, 0)
    };
    "waitid of no child": {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, 1, &raw mut info, libc::WEXITED)
    };
    "close of what is none": libc::close(NONE);
    "dup2 of what is none": libc::dup2(NONE, NONE + 1);
    "dup2 onto itself": {
        let file = file();
        i64::from(libc::dup2(file.as_raw_fd(), file.as_raw_fd()) == file.as_raw_fd())
    };
    "dup3 onto itself": libc::dup3(0, 0, 0);
    "dup3 with a flag that is none": {
        let (old, new) = (file(), file());
        libc::dup3(old.as_raw_fd(), new.as_raw_fd(), libc::O_APPEND)
    };
    "open of nothing": libc::open(c"/nowhere/at/all".as_ptr(), libc::O_RDONLY);
    "open with O_CREAT": {
        let path = std::env::temp_dir().join(format!("weald-edges-mode-{}", std::process::id()));
        let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let file = owned(libc::open(text.as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o640));
        let mut status: libc::stat = std::mem::zeroed();
        libc::fstat(file.as_raw_fd(), &raw mut status);
        std::fs::remove_file(&path).unwrap();
        i64::from(status.st_mode & 0o777)
    };
    "a lock of a lock that its thread has, until a moment that has passed": relock(libc::PTHREAD_MUTEX_NORMAL);
    "the same of a recursive one": relock(libc::PTHREAD_MUTEX_RECURSIVE);
    "the same of one that checks errors": relock(libc::PTHREAD_MUTEX_ERRORCHECK);
    "a write lock of a lock that its thread has for writing": relock_for_writing();
    "a condition until a moment that has passed": condition_in_the_past();
    "a semaphore until a moment that has passed": semaphore_in_the_past(0);
    "a semaphore until what is no moment": semaphore_in_the_past(-1);
    "a semaphore that is free until what is no moment": {
        let (past, mut semaphore) = (deadline(1, -1), std::mem::zeroed());
        libc::sem_init(&raw mut semaphore, 0, 1);
        sem_timedwait(&raw mut semaphore, &raw const past)
    };
    "a lock that is free until what is no moment": {
        let (past, mut lock) = (deadline(1, -1), std::mem::zeroed());
        pthread_rwlock_timedrdlock(&raw mut lock, &raw const past)
    };
    "a stream of Unix at its end": {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        libc::recv(near.as_raw_fd(), buffer(), 9, 0)
    };
};

#[test]
fn each_call_gives_at_its_edges_what_an_os_thread_gets() {
    let only = std::env::var("WEALD_EDGES_ROW").ok();
    let mut different = Vec::new();
    for (name, call) in CALLS {
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let difference = |patience| {
            println!("{name}");
            PATIENCE.store(patience, Ordering::Relaxed);
            let native = std::thread::spawn(call).join().unwrap();
            let rt = support::runtime(4);
            let (tell, told) = mpsc::channel();
            rt.spawn(move || tell.send(call()).unwrap());
            let said = told.recv_timeout(Duration::from_secs(10));
            std::mem::forget(rt);
            match said {
                Ok(green) if green == native => None,
                Ok(green) => Some(format!("{name}: OS thread {native}, green {green}")),
                Err(_) => Some(format!("{name}: OS thread {native}, green waits")),
            }
        };
        // A thread that comes to its wait after the pause sees something else. It does not matter which of the two is
        // late.
        if [1, 6, 36]
            .into_iter()
            .all(|patience| difference(patience).is_some())
        {
            different.extend(difference(36));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}
