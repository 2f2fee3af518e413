//! Look-ups of names: names that the system knows by itself wait behind no others, and callers that ask the same
//! share a look-up.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;
#[path = "support/several.rs"]
#[allow(dead_code, reason = "only a part is used")]
mod waits;

use std::ffi::{CStr, CString};
use std::net::ToSocketAddrs;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use weald_scheduler::io::{Lane, Offloaded, offload};

use support::{in_green, runtime};
use waits::{settle, waiter};

/// All tests use the process's pools, so one runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many look-ups as may run at a time. None of them ends before this is dropped.
struct Full(#[allow(dead_code, reason = "dropped")] Vec<(mpsc::Sender<()>, Offloaded)>);

fn fill(lane: Lane, jobs: usize) -> Full {
    let (runs, run) = mpsc::channel();
    let all = (0..jobs).map(|_| {
        let (end, ends) = mpsc::channel::<()>();
        let runs = runs.clone();
        let job = move || {
            runs.send(()).unwrap();
            let _ = ends.recv();
        };
        (end, offload(lane, job).unwrap())
    });
    let full = Full(all.collect());
    for _ in 0..jobs {
        run.recv().unwrap();
    }
    full
}

/// `SystemResolver` names these numbers.
const REMOTE: usize = 256;
/// How many local look-ups run at a time.
const LOCAL: usize = 16;

/// Returns what `getaddrinfo` says: its result, and the contents of each entry.
fn look_up(node: &str, flags: libc::c_int) -> (libc::c_int, Vec<String>) {
    let node = CString::new(node).unwrap();
    // SAFETY: all zeros are valid hints.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_flags = flags;
    let mut list = ptr::null_mut();
    // SAFETY: strings, hints, and room for a pointer.
    let code = unsafe {
        libc::getaddrinfo(
            node.as_ptr(),
            c"80".as_ptr(),
            &raw const hints,
            &raw mut list,
        )
    };
    let mut all = Vec::new();
    if code != 0 {
        return (code, all);
    }
    let mut next = list;
    // SAFETY: a list of `getaddrinfo`, each entry with an address of the length that it says and a name or none.
    unsafe {
        while let Some(entry) = next.as_ref() {
            let length = entry.ai_addrlen as usize;
            let address = std::slice::from_raw_parts(entry.ai_addr.cast::<u8>(), length);
            let name = (!entry.ai_canonname.is_null()).then(|| CStr::from_ptr(entry.ai_canonname));
            let (flags, family) = (entry.ai_flags, entry.ai_family);
            let (kind, protocol) = (entry.ai_socktype, entry.ai_protocol);
            all.push(format!(
                "{flags} {family} {kind} {protocol} {address:?} {name:?}"
            ));
            next = entry.ai_next;
        }
        libc::freeaddrinfo(list);
    }
    (code, all)
}

#[test]
fn what_the_system_knows_by_itself_passes_a_full_lane_of_look_ups() {
    let _alone = alone();
    let _full = fill(Lane::Remote, REMOTE);
    in_green(|| {
        let asks = waiter(|| look_up("one.invalid", 0));
        settle(1);
        let addrs: Vec<_> = ("localhost", 1).to_socket_addrs().unwrap().collect();
        assert!(!addrs.is_empty() && addrs.iter().all(|addr| addr.ip().is_loopback()));
        weald::net::resolve("localhost:1").unwrap();
        for number in ["127.0.0.1", "::1"] {
            let (code, all) = look_up(number, libc::AI_NUMERICSERV);
            assert!(code == 0 && !all.is_empty(), "{number}: {code}");
        }
        let (code, _) = look_up("one.invalid", libc::AI_NUMERICHOST);
        assert_eq!(code, libc::EAI_NONAME);
        settle(1);
        asks.thread().kill();
        assert!(asks.join().is_err());
    });
}

#[test]
fn all_who_ask_the_same_wait_for_one_look_up() {
    // These are more than may wait for a turn.
    const MANY: usize = 4200;
    let _alone = alone();
    let _full = fill(Lane::Remote, REMOTE);
    in_green(|| {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let ask = |flags| {
            waiter(move || {
                BEGUN.fetch_add(1, Ordering::SeqCst);
                look_up("one.invalid", flags)
            })
        };
        let mut all: Vec<_> = (0..MANY).map(|_| ask(0)).collect();
        // A question with other hints is another question.
        all.push(ask(libc::AI_CANONNAME));
        // There is one worker: a thread that has begun runs until it waits, or until it is told that there are too
        // many.
        while BEGUN.load(Ordering::SeqCst) < all.len() {
            weald::sleep(Duration::from_millis(1));
        }
        assert!(all.iter().all(|asks| !asks.is_finished()));
        for asks in &all {
            asks.thread().kill();
        }
        for asks in all {
            assert!(asks.join().is_err());
        }
    });
}

#[test]
fn each_of_those_who_wait_for_one_look_up_gets_a_list_of_its_own() {
    let _alone = alone();
    for flags in [
        0,
        libc::AI_CANONNAME,
        libc::AI_CANONNAME | libc::AI_NUMERICHOST,
    ] {
        let node = if flags & libc::AI_NUMERICHOST == 0 {
            "localhost"
        } else {
            "127.0.0.1"
        };
        // This asks libc, as the caller is not a green thread.
        let expected = look_up(node, flags);
        assert_eq!(expected.0, 0);
        let full = fill(Lane::Local, LOCAL);
        in_green(move || {
            let all: Vec<_> = (0..20)
                .map(|_| waiter(move || look_up(node, flags)))
                .collect();
            settle(20);
            drop(full);
            for asks in all {
                assert_eq!(asks.join().unwrap(), expected);
            }
        });
    }
}

/// The threads of the look-ups' pool are not the runtime's, and its hooks do not make them green.
#[test]
fn a_runtime_ends_soon_after_a_look_up_and_others_look_up() {
    let _alone = alone();
    for _ in 0..20 {
        let rt = runtime(1);
        rt.run(|| {
            weald::net::resolve("localhost:1").unwrap();
            ("localhost", 1).to_socket_addrs().map(drop).unwrap();
        });
        assert!(
            rt.shutdown(Duration::from_secs(60)),
            "nothing was left to be killed"
        );
    }
}
