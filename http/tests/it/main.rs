//! The promises of weald-http, one module for each. The tests look from outside: they send raw bytes over sockets.

#![allow(unsafe_code, reason = "share_thread_locals is unsafe to say")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

mod bodies;
mod client;
mod ending;
mod framing;
mod fuzz;
mod gone;
mod held;
mod limits;
mod patience;
mod plain;
mod probe;
mod readme;
mod routes;
mod second;
mod threads;
