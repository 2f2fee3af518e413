//! Waiting for several things until one of them happens, below `select!` and `Select`.
//!
//! | file        | holds                                                    |
//! |-------------|----------------------------------------------------------|
//! | `arm.rs`    | what a selection needs of an arm, and its limit          |
//! | `locks.rs`  | the locks of all channels of a selection                 |
//! | `order.rs`  | the order in which arms are visited                      |
//! | `wait.rs`   | the loop: how an arm is chosen                           |
//! | `events.rs` | the arms without a channel                               |

mod arm;
mod events;
mod locks;
mod order;
mod wait;

pub use self::arm::{Arm, Limit};
pub use self::events::{JoinArm, PollArm};
pub use self::wait::run;
pub(crate) use self::wait::{ready, select};
