//! `select` over descriptors, as in eventlet and Python, on poll(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::poll;

/// What [`select`] has found: indices into its arguments of all that are ready, in rising order.
///
/// # Examples
/// See [`select`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Indices into `read`: a read would find data, the end or an error.
    pub read: Vec<usize>,
    /// Indices into `write`: a write would find room or an error.
    pub write: Vec<usize>,
    /// Indices into `except`: there is out-of-band data, an error or a hang-up.
    pub except: Vec<usize>,
}

/// An error or a hang-up counts, whatever was asked for.
const END: libc::c_short = libc::POLLERR | libc::POLLHUP;

/// Waits until descriptors of the lists are ready to be read or to be written, or have out-of-band data, or until the
/// time is over; `None` waits without end. Returns all that are ready, and nothing when the time is over.
///
/// It is level-triggered: a descriptor that the program does not use is ready again. An error and a hang-up count as
/// ready. An ordinary file can always be read and written. A descriptor may be in several lists, and in any number of
/// calls at a time. A zero timeout asks without waiting. Empty lists wait for the whole timeout. A blocking call.
///
/// # Examples
/// ```
/// use std::io::Write;
/// use std::time::Duration;
///
/// let (reader, mut writer) = std::io::pipe()?;
/// let limit = Some(Duration::from_secs(60));
/// let sender = weald::spawn(move || writer.write_all(b"!"));
/// let selected = weald::select(&[&reader], &[], &[], limit)?;
/// assert_eq!(selected.read, [0]);
/// assert!(selected.write.is_empty());
/// # sender.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` for a descriptor that is not open, with its number in the text; the system's; an exception that
/// ends the wait.
pub fn select(
    read: &[&dyn AsFd],
    write: &[&dyn AsFd],
    except: &[&dyn AsFd],
    timeout: Option<Duration>,
) -> io::Result<Selected> {
    let lists = [
        (read, libc::POLLIN),
        (write, libc::POLLOUT),
        (except, libc::POLLPRI),
    ];
    let mut fds = Vec::with_capacity(read.len() + write.len() + except.len() + 1);
    for (list, events) in lists {
        fds.extend(list.iter().map(|fd| libc::pollfd {
            fd: fd.as_fd().as_raw_fd(),
            events,
            revents: 0,
        }));
    }
    poll::wait(&mut fds, timeout)?;
    let mut answers = fds.iter();
    let mut ready = |name: &str, list: &[&dyn AsFd], events: libc::c_short| {
        let mut ready = Vec::new();
        for (index, answer) in answers.by_ref().take(list.len()).enumerate() {
            if answer.revents & libc::POLLNVAL != 0 {
                let text = format!("descriptor {} is not open ({name}[{index}])", answer.fd);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            if answer.revents & (events | END) != 0 {
                ready.push(index);
            }
        }
        Ok(ready)
    };
    Ok(Selected {
        read: ready("read", read, libc::POLLIN)?,
        write: ready("write", write, libc::POLLOUT)?,
        except: ready("except", except, libc::POLLPRI)?,
    })
}
