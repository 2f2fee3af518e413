//! Passes descriptors over a connection between Unix sockets, and tells who is at its other end: unix(7).
#![allow(unsafe_code, reason = "sendmsg, recvmsg and their control messages")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::UnixStream;
use crate::source::{Direction, Got};

/// The most descriptors that Linux takes in one message: `SCM_MAX_FD`.
const MOST: usize = 253;

/// Room for a control message with that many descriptors, and for one with credentials (`SO_PASSCRED`). It is counted
/// in words, for its alignment.
const ROOM: usize = 144;

/// Descriptors arrive with close-on-exec set.
#[cfg(any(target_os = "linux", target_os = "android"))]
const RECEIVE_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
/// The flag is set after the call.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const RECEIVE_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// The credentials of the other end of a connection; from [`UnixStream::peer_cred`]. The name and the fields are
/// those of std's unstable type.
///
/// # Examples
/// See [`UnixStream::peer_cred`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UCred {
    /// The user.
    pub uid: libc::uid_t,
    /// The user's group.
    pub gid: libc::gid_t,
    /// The process, if the system tells it (Linux does).
    pub pid: Option<libc::pid_t>,
}

impl UnixStream {
    /// Returns the credentials of the process that made the connection at the other end, by `connect`, `listen` or
    /// `pair`.
    ///
    /// The kernel vouches for them. The process may have ended since, and another process may have its number. Never
    /// waits.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Examples
    /// ```
    /// let (near, _far) = weald::net::unix::UnixStream::pair()?;
    /// let peer = near.peer_cred()?;
    /// # #[cfg(target_os = "linux")]
    /// assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
    /// println!("user {}, group {}", peer.uid, peer.gid);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        peer_cred(self.0.fd())
    }

    /// Writes bytes together with descriptors. The other end receives duplicates of them. Returns how many bytes were
    /// written; all descriptors have gone with the first byte. Descriptors cannot go without bytes: send a byte.
    ///
    /// A blocking call: it waits while there is no room, as a write does.
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors, or for no bytes; those of a write; an exception, and then
    /// nothing was sent.
    ///
    /// # Examples
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::fd::AsFd;
    /// use weald::net::Fd;
    /// use weald::net::unix::UnixStream;
    ///
    /// let (near, far) = UnixStream::pair()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// near.send_with_fds(b"a pipe", &[reader.as_fd()])?;
    ///
    /// let mut buffer = [0; 64];
    /// let mut fds = Vec::new();
    /// let read = far.recv_with_fds(&mut buffer, &mut fds)?;
    /// assert_eq!(&buffer[..read], b"a pipe");
    /// let mut pipe = Fd::from(fds.remove(0));
    /// writer.write_all(b"through it")?;
    /// drop(writer);
    /// let mut text = String::new();
    /// pipe.read_to_string(&mut text)?;
    /// assert_eq!(text, "through it");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        if fds.len() > MOST || bytes.is_empty() {
            let text = format!(
                "a message has at least 1 byte and at most {MOST} descriptors, not {} and {}",
                bytes.len(),
                fds.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let (fd, waits) = (self.0.fd(), self.0.write_waits());
        self.0
            .source
            .run_looking_again(fd, Direction::Write, waits, || {
                send(fd, bytes, &numbers).map(Got::more)
            })
    }

    /// Reads bytes, and adds the descriptors that came with them to `fds`. Returns how many bytes were read; 0 at the
    /// end of the connection. A read ends behind the message that brought descriptors. Earlier bytes may come before
    /// those of that message.
    ///
    /// A blocking call, as a read. If a plain `read` meets descriptors, the kernel closes them.
    ///
    /// # Errors
    /// Those of a read; an exception, and then nothing was read. `Other` if descriptors were lost, because the
    /// process has no room for more: those that came are in `fds`. It is not known then how many bytes were read, so
    /// close the connection.
    ///
    /// # Examples
    /// See [`send_with_fds`](Self::send_with_fds).
    pub fn recv_with_fds(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let (fd, waits) = (self.0.fd(), self.0.read_waits());
        self.0.run(Direction::Read, waits, || {
            receive(fd, buffer, fds).map(Got::more)
        })
    }
}

/// Returns a header for one slice and a control message.
fn header(slice: &mut libc::iovec, control: &mut [u64; ROOM], length: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid header.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = slice;
    header.msg_iovlen = 1;
    if length > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        // The type differs by system.
        header.msg_controllen = length as _;
    }
    header
}

/// Returns how many bytes that many descriptors take, in the type that control messages use.
#[allow(
    clippy::cast_possible_truncation,
    reason = "at most 253 descriptors of 4 bytes"
)]
fn bytes_of(count: usize) -> libc::c_uint {
    (count * mem::size_of::<RawFd>()) as libc::c_uint
}

fn send(fd: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let mut slice = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = [0_u64; ROOM];
    let length = if fds.is_empty() {
        0
    } else {
        // SAFETY: the macro only counts.
        unsafe { libc::CMSG_SPACE(bytes_of(fds.len())) as usize }
    };
    let header = header(&mut slice, &mut control, length);
    if length > 0 {
        // SAFETY: the control buffer has room for a message with so many descriptors (`ROOM`), and is aligned for its
        // header.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(bytes_of(fds.len())) as _;
            let data = libc::CMSG_DATA(message);
            ptr::copy_nonoverlapping(fds.as_ptr().cast(), data, mem::size_of_val(fds));
        }
    }
    // SAFETY: header, slice and control live until the call returns; the kernel only reads.
    let sent = unsafe { libc::sendmsg(fd, &raw const header, SEND_FLAGS) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn receive(fd: RawFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = [0_u64; ROOM];
    let mut header = header(&mut slice, &mut control, mem::size_of::<[u64; ROOM]>());
    // SAFETY: header, slice and control live until the call returns, and the kernel writes no more than their lengths.
    let read = unsafe { libc::recvmsg(fd, &raw mut header, RECEIVE_FLAGS) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled in the header and the messages that it leads to.
    unsafe { take_fds(&header, fds) };
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::other(
            "descriptors were lost: the process has no room for them",
        ));
    }
    Ok(read)
}

/// # Safety
/// The header is one that recvmsg(2) has filled in just now.
unsafe fn take_fds(header: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: by contract the messages are whole, and the descriptors are new and nobody else's.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(one) = message.as_ref() {
            if one.cmsg_level == libc::SOL_SOCKET && one.cmsg_type == libc::SCM_RIGHTS {
                #[allow(clippy::unnecessary_cast, reason = "the type differs by system")]
                let length = one.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(message);
                let size = mem::size_of::<RawFd>();
                for index in 0..length / size {
                    let mut number: RawFd = -1;
                    let bytes = (&raw mut number).cast::<u8>();
                    ptr::copy_nonoverlapping(data.add(index * size), bytes, size);
                    let fd = OwnedFd::from_raw_fd(number);
                    #[cfg(not(any(target_os = "linux", target_os = "android")))]
                    libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
                    fds.push(fd);
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer_cred(fd: RawFd) -> io::Result<UCred> {
    let mut cred = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(mem::size_of::<libc::ucred>())
        .expect("the length of a structure fits");
    // SAFETY: the kernel writes at most as many bytes as the structure has.
    let failed = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        libc::getsockopt(fd, level, name, (&raw mut cred).cast(), &raw mut length) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(UCred {
        uid: cred.uid,
        gid: cred.gid,
        pid: Some(cred.pid),
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer_cred(fd: RawFd) -> io::Result<UCred> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the C library writes two numbers.
    if unsafe { libc::getpeereid(fd, &raw mut uid, &raw mut gid) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = None;
    Ok(UCred { uid, gid, pid })
}
