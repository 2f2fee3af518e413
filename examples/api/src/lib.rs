//! A JSON service about trees, of plain functions that block.
//!
//! | file | holds |
//! |---|---|
//! | `routes.rs` | which path does what |
//! | `trees.rs` | what a tree is, and which ones are refused |
//! | `forecast.rs` | an answer that takes a computation |
//! | `store.rs`, `sqlite.rs`, `postgres.rs` | where trees are kept |
//! | `failure.rs` | what can go wrong, and what the client is told |
//! | `logger.rs` | lines on standard error |

pub mod failure;
pub mod forecast;
pub mod logger;
pub mod postgres;
mod routes;
pub mod sqlite;
mod store;
pub mod trees;

pub use crate::routes::{limits, router};
pub use crate::store::Store;
