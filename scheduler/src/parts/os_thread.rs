//! What the system knows about an OS thread of this process.

/// Whether an OS thread waits inside the kernel, for a lock, a descriptor or the disk. False: it computes, or
/// waits for a CPU. `None`: the system does not tell.
///
/// Linux has it in `/proc/self/task/TID/stat` (proc(5)); to read that costs some 10 us.
#[cfg(target_os = "linux")]
pub(crate) fn waits_in_kernel(os_thread: usize) -> Option<bool> {
    use std::io::Read as _;

    let mut text = [0; 256];
    let mut file = std::fs::File::open(format!("/proc/self/task/{os_thread}/stat")).ok()?;
    let length = file.read(&mut text).ok()?;
    waits(&text[..length])
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn waits_in_kernel(_os_thread: usize) -> Option<bool> {
    None
}

/// The state is the first letter behind the name, which is in brackets and may have brackets in it.
#[cfg(any(target_os = "linux", test))]
fn waits(stat: &[u8]) -> Option<bool> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    match stat.get(end + 2)? {
        // Interruptible or not.
        b'S' | b'D' => Some(true),
        b'R' => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::waits;

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(waits(b"71 (weald-3) S 1 71"), Some(true));
        assert_eq!(waits(b"71 (a) R) b) D 1 71"), Some(true));
        assert_eq!(waits(b"71 () R 1 71"), Some(false));
        assert_eq!(waits(b"71 (weald-3) T 1 71"), None);
        assert_eq!(waits(b"71 (weald-3)"), None);
        assert_eq!(waits(b""), None);
    }
}
