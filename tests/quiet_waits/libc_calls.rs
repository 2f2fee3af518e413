//! What libc's calls do on an OS thread.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net as unix;
use std::path::Path;

use crate::rows::{
    Call::{self, *},
    Kind,
};

fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Makes libc's blocking call.
pub(crate) fn plain(fd: &OwnedFd, kind: Kind, call: Call, place: &Path) -> io::Result<usize> {
    let number = fd.as_raw_fd();
    let polled = |events| {
        let mut one = libc::pollfd {
            fd: number,
            events,
            revents: 0,
        };
        // SAFETY: one live entry.
        length(unsafe { libc::poll(&raw mut one, 1, -1) } as isize)?;
        Ok(usize::try_from(one.revents).unwrap())
    };
    let mut buffer = [0_u8; 8];
    let one = 1_u64.to_ne_bytes();
    match call {
        Read if kind == Kind::Any => {
            // SAFETY: the buffer is live.
            length(unsafe { libc::read(number, buffer.as_mut_ptr().cast(), 8) })
        }
        Read => {
            // SAFETY: the buffer is live.
            length(unsafe { libc::recv(number, buffer.as_mut_ptr().cast(), 8, 0) })
        }
        Write if kind == Kind::Any => {
            // SAFETY: the buffer is live.
            length(unsafe { libc::write(number, one.as_ptr().cast(), 8) })
        }
        Write => {
            let bytes = one.as_ptr().cast();
            // SAFETY: the buffer is live.
            length(unsafe { libc::send(number, bytes, 1, libc::MSG_NOSIGNAL) })
        }
        SendTo => unix::UnixDatagram::from(fd.try_clone().unwrap()).send_to(b"!", place),
        Connect => unix::UnixStream::connect(place).map(|_| 0),
        Accept => {
            let nobody: *mut libc::c_void = std::ptr::null_mut();
            // SAFETY: no address is asked for.
            let got =
                length(unsafe { libc::accept(number, nobody.cast(), nobody.cast()) } as isize);
            got.map(|_| 0)
        }
        Readable => polled(libc::POLLIN).map(|_| usize::from(kind == Kind::Tcp)),
        Writable => polled(libc::POLLOUT).map(|_| usize::from(kind == Kind::Tcp)),
        PollIn => polled(libc::POLLIN),
        PollOut => polled(libc::POLLOUT),
        PollPri => polled(libc::POLLPRI),
        PollNothing => polled(0),
    }
}
