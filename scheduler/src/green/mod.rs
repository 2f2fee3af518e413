//! One green thread as it lies in memory: its header, its state, what others leave with it. No rule here waits or wakes.

pub(crate) mod awaited;
pub(crate) mod blocked;
pub(crate) mod call;
pub(crate) mod cells;
pub(crate) mod current;
pub(crate) mod exception;
pub(crate) mod green_thread;
pub(crate) mod handle;
pub(crate) mod id;
pub(crate) mod left_at;
pub(crate) mod locals;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod switch_out;
pub(crate) mod trace;
pub(crate) mod wait_list;
