//! Deadlocks of `fcntl(F_SETLKW)`: each of several processes waits for a lock that the next one holds. fcntl(2).
//!
//! The kernel finds them when a call begins to wait inside it. A green thread's call waits outside of the kernel: it
//! tries again after pauses. So once it has waited for a while it looks for deadlocks itself, seldom:
//!
//! | edge: which process waits for which     | where it is seen                                                 |
//! |-----------------------------------------|------------------------------------------------------------------|
//! | this call, for a process                | `F_GETLK`                                                        |
//! | a call that waits in the kernel         | /proc/locks                                                      |
//! | a green thread's call, of any process   | its [`Sign`]: a file in memory that has no content, only a name; |
//! |                                         | /proc/PID/fd shows it                                            |
//!
//! The call fails with `EDEADLK` if the edges lead back to this process in several looks in a row. One look is not
//! enough, as a sign may be as old as one of its call's pauses. Several processes may find the deadlock. The one with
//! the highest number fails first, and the others fail if that has not helped. As in the kernel, locks belong to
//! processes: a lock that another thread of this process is about to release still counts as a part of the deadlock
//! (fcntl(2), BUGS). If a look is not permitted (another user's process), an edge is missing and the deadlock is not
//! found.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::CString;
use std::fs;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libc::pid_t;
use weald_scheduler::patch;

use crate::raw::{error_of, sys};
use crate::slot::close_own;

/// When a call looks for the first time, and the pauses between its looks. These are guesses: most locks are acquired
/// by then, and a deadlock lasts. The longest pause is for deadlocks that another process completes, when that
/// process waits in the kernel and cannot see this one.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(2);

/// This many calls look as often as they like. If there are more, each looks less often, but at least every
/// [`LONGEST_REST`].
const FEW_CALLS: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(60);

/// How many looks in a row must find the deadlock: for the process with the highest number, and for the others.
const LOOKS: u32 = 2;
const PATIENT_LOOKS: u32 = 4;

/// How many processes are asked at most which process they wait for.
const MOST: usize = 64;

/// A call that waits for a lock of another process.
pub(crate) struct Watch {
    next: Instant,
    pause: Duration,
    found: u32,
    sign: Option<Sign>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            next: Instant::now() + FIRST,
            pause: FIRST,
            found: 0,
            sign: None,
        }
    }

    /// Returns true if the call would wait for ever. `holder` tells which process has the lock.
    pub(crate) fn finds_deadlock(&mut self, holder: impl FnOnce() -> Option<pid_t>) -> bool {
        if Instant::now() < self.next {
            // Other processes must not rely on a sign that is no longer true.
            if let Some(sign) = &self.sign
                && holder() != Some(sign.holder)
            {
                self.sign = None;
                self.found = 0;
            }
            return false;
        }
        let began = Instant::now();
        let is_found = patch::blocking_quietly(|| self.look(holder()));
        let now = Instant::now();
        self.pause = if self.found > 0 {
            FIRST
        } else {
            (self.pause * 2).min(LONGEST)
        };
        self.next = now + self.pause.max(rest(now - began, calls_with_signs()));
        is_found
    }

    fn look(&mut self, holder: Option<pid_t>) -> bool {
        // SAFETY: no pointers.
        let own = unsafe { sys!(SYS_getpid) };
        let (Some(holder), Ok(own)) = (holder, pid_t::try_from(own)) else {
            self.sign = None;
            self.found = 0;
            return false;
        };
        if self.sign.as_ref().is_none_or(|sign| sign.holder != holder) {
            // Looks that see different holders do not count as a row.
            self.found = 0;
            self.sign = Some(Sign::new(own, holder));
        }
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let in_kernel = waits_in_kernel(&locks);
        let found = cycle(own, holder, |process| {
            let in_kernel = in_kernel.iter().filter(|(waits, _)| *waits == process);
            let mut all: Vec<pid_t> = in_kernel.map(|(_, holder)| *holder).collect();
            all.extend(signs_of(process));
            all
        });
        let Some(members) = found else {
            self.found = 0;
            return false;
        };
        self.found += 1;
        let is_highest = members.iter().all(|member| *member <= own);
        self.found >= if is_highest { LOOKS } else { PATIENT_LOOKS }
    }
}

/// Returns the least pause after a look that took that long, while that many calls look. A look at a process with
/// thousands of files takes milliseconds. All calls together use about a tenth of a core.
fn rest(took: Duration, calls: u32) -> Duration {
    let all = took.saturating_mul(calls / FEW_CALLS);
    all.saturating_mul(10 * FEW_CALLS).min(LONGEST_REST)
}

/// Returns the processes on a way from `first`, for which this process waits, back to this process.
fn cycle(own: pid_t, first: pid_t, waits_for: impl Fn(pid_t) -> Vec<pid_t>) -> Option<Vec<pid_t>> {
    // Each process is stored with the index of the one that waits for it.
    let mut known = vec![(first, usize::MAX)];
    let mut next = 0;
    while next < known.len() && known.len() < MOST {
        let (process, _) = known[next];
        if process == own {
            let mut members = Vec::new();
            let mut at = next;
            while let Some(&(process, before)) = known.get(at) {
                members.push(process);
                at = before;
            }
            return Some(members);
        }
        for holder in waits_for(process) {
            if known.iter().all(|(other, _)| *other != holder) {
                known.push((holder, next));
            }
        }
        next += 1;
    }
    None
}

/// Returns which process waits in the kernel for which, from the text of /proc/locks. A line with an arrow waits for
/// the nearest line above whose arrow is further to the left, or that has none.
fn waits_in_kernel(locks: &str) -> Vec<(pid_t, pid_t)> {
    let mut all = Vec::new();
    // The lines above this one, by the place of their arrows.
    let mut above: Vec<(usize, Option<pid_t>)> = Vec::new();
    for line in locks.lines() {
        let Some((_, rest)) = line.split_once(": ") else {
            continue;
        };
        let place = rest.find("->").map_or(0, |at| at + 1);
        let mut words = rest
            .trim_start()
            .trim_start_matches("->")
            .split_whitespace();
        // Other locks belong to open files, and nothing tells which process has these.
        let is_of_process = words.next() == Some("POSIX");
        let process = words.nth(2).and_then(|pid| pid.parse().ok());
        let process = process.filter(|pid| is_of_process && *pid > 0);
        above.retain(|(other, _)| *other < place);
        if let (Some(waits), Some((_, Some(holder)))) = (process, above.last()) {
            all.push((waits, *holder));
        }
        above.push((place, process));
    }
    all
}

/// How the names of signs begin.
const NAME: &str = "weald-waits";

/// Returns for which processes a process's green threads wait, by its signs. A process can only have signs for
/// itself.
fn signs_of(process: pid_t) -> Vec<pid_t> {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return Vec::new();
    };
    let names = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    names
        .filter_map(|name| {
            let name = name.to_str()?.strip_prefix("/memfd:")?.strip_prefix(NAME)?;
            let mut numbers = name.split_whitespace().next()?.split(':').skip(1);
            let mut number = || numbers.next()?.parse().ok();
            // The child of a fork has its parent's signs.
            (number() == Some(process)).then(&mut number).flatten()
        })
        .collect()
}

/// Tells other processes that this one waits for a process. All calls that wait for the same process share it.
struct Sign {
    holder: pid_t,
}

/// The signs: for which process, for how many calls, and the file.
static SIGNS: Mutex<Vec<(pid_t, usize, RawFd)>> = Mutex::new(Vec::new());

/// Returns how many calls have a sign.
fn calls_with_signs() -> u32 {
    let _bypass = patch::Bypass::enter();
    let signs = SIGNS.lock().unwrap_or_else(PoisonError::into_inner);
    let calls: usize = signs.iter().map(|sign| sign.1).sum();
    u32::try_from(calls).unwrap_or(u32::MAX)
}

impl Sign {
    fn new(own: pid_t, holder: pid_t) -> Self {
        let mut signs = SIGNS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sign) = signs.iter_mut().find(|sign| sign.0 == holder) {
            sign.1 += 1;
        } else {
            let name = CString::new(format!("{NAME}:{own}:{holder}")).unwrap_or_default();
            // SAFETY: a name that ends by zero.
            let file = unsafe { sys!(SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) };
            // If no file can be made, other processes do not hear of the wait.
            let file = error_of(file).map_or(file, |_| -1);
            signs.push((holder, 1, RawFd::try_from(file).unwrap_or(-1)));
        }
        Self { holder }
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        let _bypass = patch::Bypass::enter();
        let mut signs = SIGNS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = signs.iter().position(|sign| sign.0 == self.holder) else {
            return;
        };
        signs[at].1 -= 1;
        if signs[at].1 == 0 {
            let (_, _, file) = signs.swap_remove(at);
            if file >= 0 {
                close_own(file);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Watch, cycle, rest, signs_of, waits_in_kernel};

    #[test]
    fn many_calls_that_look_at_much_look_seldom() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(100), 3), ms(0));
        assert_eq!(rest(ms(1), 1000), ms(10_000));
        assert_eq!(rest(Duration::MAX, u32::MAX), ms(60_000));
    }

    #[test]
    fn a_sign_goes_as_soon_as_another_process_has_the_lock() {
        let own = std::process::id().try_into().unwrap();
        let holders = [i32::MAX - 1, i32::MAX];
        let has_sign = |of: usize| signs_of(own).contains(&holders[of]);
        let mut watch = Watch::new();
        watch.next = Instant::now();
        assert!(!watch.finds_deadlock(|| Some(holders[0])));
        assert!(has_sign(0));
        // The next look of this call is not due for long.
        watch.next = Instant::now() + Duration::from_secs(3600);
        assert!(!watch.finds_deadlock(|| Some(holders[0])));
        assert!(has_sign(0));
        assert!(!watch.finds_deadlock(|| Some(holders[1])));
        assert!(!has_sign(0));
        watch.next = Instant::now();
        assert!(!watch.finds_deadlock(|| Some(holders[1])));
        assert!(has_sign(1));
        drop(watch);
        assert!(!has_sign(1));
    }

    #[test]
    fn the_kernels_list_tells_who_waits_for_whom() {
        let locks = "\
            1: POSIX  ADVISORY  WRITE 10 08:01:1 0 0\n\
            1: -> POSIX  ADVISORY  WRITE 20 08:01:1 0 0\n\
            1:  -> POSIX  ADVISORY  WRITE 30 08:01:1 0 0\n\
            1: -> POSIX  ADVISORY  READ 40 08:01:1 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 50 08:01:2 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 60 08:01:2 0 EOF\n\
            3: OFDLCK ADVISORY  WRITE -1 08:01:3 0 0\n\
            3: -> POSIX  ADVISORY  WRITE 70 08:01:3 0 0\n\
            4: POSIX  ADVISORY  READ 20 08:01:4 0 0\n";
        assert_eq!(waits_in_kernel(locks), [(20, 10), (30, 20), (40, 10)]);
        assert_eq!(waits_in_kernel("nonsense\n1:\n2: -> \n"), []);
    }

    #[test]
    fn a_way_back_is_a_deadlock_and_a_way_elsewhere_is_none() {
        let edges = [(2, 3), (3, 4), (4, 3), (4, 1), (5, 6), (6, 5)];
        let waits_for = |process| {
            let own = edges.iter().filter(|edge| edge.0 == process);
            own.map(|edge| edge.1).collect()
        };
        assert_eq!(cycle(1, 2, waits_for), Some(vec![1, 4, 3, 2]));
        assert_eq!(cycle(1, 5, waits_for), None);
        assert_eq!(cycle(1, 7, waits_for), None);
    }
}
