//! The promises of weald-console, one module for each. The tests look from outside, over real HTTP.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

mod answers;
mod asking;
mod figures;
mod recording;
mod starting;
