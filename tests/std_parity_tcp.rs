//! Parity with std: one source, `std_parity/tcp_cases.rs`, compiled once over `std::net` and once over `weald::net`.
//!
//! That it compiles twice is half of the test: every stable method and trait of `TcpStream` and `TcpListener` (Rust 1.95) is there with std's own
//! signature. The other half: each case returns a report of what it saw, and the reports must be equal, on an OS thread and as a green thread.

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

mod on_std {
    use std::net;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::TcpStreamExt as _;

    include!("std_parity/tcp_cases.rs");
}

mod on_weald {
    use weald::net;

    include!("std_parity/tcp_cases.rs");
}

macro_rules! each_case {
    ($($case:ident,)*) => {$(
        #[test]
        fn $case() {
            support::with_deadline(support::LIMIT, || {
                for addr in support::loopbacks() {
                    let expected = on_std::$case(addr);
                    assert!(!expected.is_empty(), "a case that reports nothing compares nothing");
                    assert_eq!(on_weald::$case(addr), expected, "on an OS thread, at {addr}");
                    for mode in support::MODES {
                        let rt = support::runtime(2, mode);
                        assert_eq!(rt.run(|| on_weald::$case(addr)), expected, "green, {mode:?}, at {addr}");
                    }
                }
            });
        }
    )*};
}

each_case! {
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
