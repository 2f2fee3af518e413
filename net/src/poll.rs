//! poll(2): what the kernel says of descriptors, level-triggered.
#![allow(unsafe_code, reason = "poll(2)")]

use std::io;
use std::os::fd::RawFd;

/// One of the events has happened, or an error or hang-up has.
pub(crate) fn is_ready(fd: RawFd, events: libc::c_short) -> io::Result<bool> {
    let mut one = [libc::pollfd {
        fd,
        events,
        revents: 0,
    }];
    let ready = poll_now(&mut one)? > 0;
    if one[0].revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(ready)
}

/// Asks without waiting. Returns of how many there is something to say.
pub(crate) fn poll_now(fds: &mut [libc::pollfd]) -> io::Result<usize> {
    loop {
        // The kernel refuses more than the process may have open.
        let count = fds.len() as libc::nfds_t;
        // SAFETY: as many entries as are there.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), count, 0) };
        if let Ok(ready) = usize::try_from(ready) {
            return Ok(ready);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
