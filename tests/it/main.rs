//! The promises of the facade, each in a module, tested through public names only.

#![allow(
    unsafe_code,
    reason = "share_thread_locals is unsafe to say, and a few tests ask the kernel"
)]
#![allow(
    clippy::similar_names,
    reason = "`client` and `clients`, `served` and `server` read well"
)]
#![allow(
    clippy::large_stack_arrays,
    reason = "to use the stack is what they are for"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

#[cfg(feature = "macros")]
mod attributes;
mod blocking;
mod call_after;
mod channel_queue;
mod channel_select;
mod channel_select_races;
mod channel_suite;
mod deadlocks;
mod dump;
mod dump_data;
mod exceptions;
mod exceptions_order;
mod exceptions_wait;
mod fairness;
mod files;
mod floats;
mod fork_join;
mod futures;
mod fuzz_channels;
mod fuzz_exceptions;
mod fuzz_joins;
mod group;
mod hogs;
#[cfg(target_os = "linux")]
mod hogs_slices;
mod join;
mod known_bugs;
mod lives;
mod lives_locals;
mod lives_unstarted;
mod locals;
mod net_adopt;
mod net_connect;
mod net_faults;
mod net_fd;
mod net_handover;
mod net_interrupt;
mod net_low_water;
mod net_names;
mod net_options;
mod net_select;
mod net_server;
mod net_servers;
mod net_tcp;
mod net_unix_waits;
mod on_os_thread;
mod os_threads;
mod own_blocked;
mod own_crates;
// It tests a mode that only glibc has, and asks only glibc's questions.
#[cfg(target_env = "gnu")]
mod own_libraries;
mod own_locals;
#[cfg(target_env = "gnu")]
mod own_malloc;
// It tests a mode that only glibc has, and asks only glibc's questions.
#[cfg(target_env = "gnu")]
mod own_system;
mod own_thread;
mod panics;
mod park;
mod peer_failures;
mod process;
mod runtime;
mod scope;
mod set_workers;
mod shutdown;
#[cfg(feature = "signal")]
mod signals;
mod sleep;
mod soak;
mod spawn;
mod standard_io;
mod start_on;
mod steal;
mod storms;
mod sync_locks;
mod sync_signals;
mod timeout;
#[cfg(feature = "tls")]
mod tls_ends;
#[cfg(feature = "tls")]
mod tls_handshake;
#[cfg(feature = "tls")]
mod tls_hostile;
#[cfg(feature = "tls")]
mod tls_interrupt;
#[cfg(feature = "tls")]
mod tls_limits;
#[cfg(feature = "tls")]
mod tls_peers;
#[cfg(feature = "tls")]
mod tls_server;
#[cfg(feature = "tls")]
mod tls_stream;
#[cfg(feature = "tls")]
mod tls_support;
