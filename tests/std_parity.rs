//! Parity with std: the sources `std_parity/*_cases.rs`, compiled once over std's sockets and once over weald's.
//!
//! Compiling twice is half of the test: every stable method and trait of std's sockets (Rust 1.95) exists in weald
//! with std's own signature. The other half: each case returns a report of what it saw, and the reports must be
//! equal, on an OS thread and as a green thread.

#![allow(
    unsafe_code,
    reason = "the support module says share_thread_locals; raw descriptors are handed over"
)]
#![allow(
    clippy::similar_names,
    reason = "`client` and `clients`, `served` and `server` read well"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::incompatible_msrv,
    reason = "parity is with the newest stable std"
)]
#![allow(
    deprecated,
    reason = "every stable method, also those that std would rather not have"
)]

#[path = "it/support.rs"]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

#[allow(
    dead_code,
    clippy::type_complexity,
    reason = "the signatures are written out, and what shortens them is used only there"
)]
mod on_std {
    pub(crate) mod tcp {
        use std::net;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::TcpStreamExt as _;

        include!("std_parity/tcp_cases.rs");
        include!("std_parity/tcp_listener_cases.rs");
        include!("std_parity/tcp_signatures.rs");
    }

    pub(crate) mod udp {
        use std::net;

        include!("std_parity/udp_cases.rs");
    }

    pub(crate) mod unix_sockets {
        use std::os::unix::net as unix;

        include!("std_parity/unix_cases.rs");
    }
}

#[allow(dead_code, clippy::type_complexity, reason = "as above")]
mod on_weald {
    pub(crate) mod tcp {
        use weald::net;

        include!("std_parity/tcp_cases.rs");
        include!("std_parity/tcp_listener_cases.rs");
        include!("std_parity/tcp_signatures.rs");
    }

    pub(crate) mod udp {
        use weald::net;

        include!("std_parity/udp_cases.rs");
    }

    pub(crate) mod unix_sockets {
        use weald::net::unix;

        include!("std_parity/unix_cases.rs");
    }
}

/// Runs a case over std, and over weald on an OS thread and as a green thread.
fn check<P: Copy + Send>(
    place: impl Fn() -> P,
    std: fn(P) -> Vec<String>,
    weald: fn(P) -> Vec<String>,
) {
    let expected = std(place());
    assert!(
        !expected.is_empty(),
        "a case that reports nothing compares nothing"
    );
    assert_eq!(weald(place()), expected, "on an OS thread");
    for mode in support::MODES {
        let rt = support::runtime(2, mode);
        let at = place();
        assert_eq!(rt.run(move || weald(at)), expected, "green, {mode:?}");
    }
}

macro_rules! each_case {
    ($family:ident: $($case:ident,)*) => {
        mod $family {
            $(
                #[test]
                fn $case() {
                    crate::$family(crate::on_std::$family::$case, crate::on_weald::$family::$case);
                }
            )*
        }
    };
}

type IpCase = fn(SocketAddr) -> Vec<String>;

fn at_loopbacks(std: IpCase, weald: IpCase) {
    support::with_deadline(support::LIMIT, || {
        for addr in support::loopbacks() {
            check(|| addr, std, weald);
        }
    });
}

fn tcp(std: IpCase, weald: IpCase) {
    at_loopbacks(std, weald);
}

fn udp(std: IpCase, weald: IpCase) {
    at_loopbacks(std, weald);
}

type UnixCase = fn(&Path) -> Vec<String>;

/// Each run has a folder of its own.
fn unix_sockets(std: UnixCase, weald: UnixCase) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("weald-parity-{}-{number}", std::process::id());
    let all = std::env::temp_dir().join(name);
    support::with_deadline(support::LIMIT, || {
        let folders: Vec<PathBuf> = (0..2 + support::MODES.len())
            .map(|run| all.join(run.to_string()))
            .collect();
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
        }
        let fresh = std::cell::RefCell::new(folders.iter());
        let place = || fresh.borrow_mut().next().unwrap().as_path();
        check(place, std, weald);
    });
    std::fs::remove_dir_all(&all).unwrap();
}

each_case! { tcp:
    a_connection_knows_both_its_ends,
    bytes_go_both_ways_through_the_value_and_through_a_reference,
    read_and_write_shut_down_apart,
    a_read_after_shutdown_read_is_the_end,
    a_write_after_shutdown_write_is_a_broken_pipe,
    shutdown_of_what_is_shut_down_or_gone,
    a_connection_is_refused,
    addresses_are_tried_in_order_and_the_last_error_wins,
    no_address_at_all,
    connect_timeout_connects_and_refuses_zero,
    timeouts_read_back_and_are_shared_with_clones,
    a_passed_timeout_is_an_error_and_the_stream_goes_on,
    nodelay_and_ttl_read_back,
    quickack_reads_back,
    take_error_is_none_on_a_sound_socket,
    nonblocking_calls_would_block,
    peek_does_not_take,
    vectored_calls_move_the_same_bytes,
    clones_are_the_same_connection,
    the_end_of_the_peer_is_the_end_of_the_stream,
    empty_buffers_return_at_once,
    a_listener_binds_accepts_and_knows_its_address,
    a_port_that_is_taken_is_refused,
    incoming_never_ends_by_itself,
    listeners_share_their_queue_with_clones,
    listener_options_read_back,
    a_listener_that_does_not_block,
    descriptors_go_out_and_come_back,
    debug_names_the_type_and_both_ends,
    to_socket_addrs_takes_all_that_std_takes,
    everything_else_of_read_and_write_works_on_top,
}

each_case! { udp:
    datagrams_go_to_an_address_and_tell_where_they_come_from,
    a_connected_socket_sends_and_receives,
    without_a_peer_send_and_peer_addr_fail,
    peek_leaves_the_datagram,
    what_does_not_fit_is_cut_off,
    empty_datagrams_arrive,
    too_long_datagrams_are_refused,
    nobody_there_is_told_by_the_next_call,
    timeouts_read_back_and_pass,
    nonblocking_calls_would_block,
    options_read_back,
    groups_are_joined_and_left,
    addresses_are_tried_in_order,
    a_clone_is_the_same_socket,
    descriptors_go_out_and_come_back,
    debug_names_the_type_and_its_address,
}

each_case! { unix_sockets:
    a_connection_knows_both_its_ends,
    bytes_go_both_ways_in_every_manner,
    both_directions_shut_down_apart,
    the_end_of_the_peer_is_the_end_of_the_stream,
    a_peer_that_closes_on_unread_bytes_resets,
    nobody_there_or_no_socket_is_refused,
    timeouts_read_back_and_pass,
    nonblocking_calls_would_block,
    incoming_gives_one_connection_after_another,
    listeners_share_their_queue_with_clones,
    addresses_made_by_hand_work_as_paths_do,
    abstract_names_need_no_file,
    datagrams_tell_where_they_come_from,
    datagrams_keep_their_bounds,
    a_connected_datagram_socket_has_one_peer,
    datagram_timeouts_and_shutdown,
    descriptors_go_out_and_come_back,
    debug_names_the_type_and_the_addresses,
}
