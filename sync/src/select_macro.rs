//! The grammar of `select!`.
//!
//! The macro takes the arms off the input one by one and writes them down in one form, each with names of its own
//! from a list. The last step writes the program. Outputs are declared outside and assigned inside, so that all
//! borrows for the arms end before a body runs.

/// Waits for several operations and does one of them: a random one of those that are ready.
///
/// ```text
/// recv(receiver) -> pattern => body,          // Result<T, RecvError>
/// send(sender, message) -> pattern => body,   // Result<(), SendError<T>>
/// readable(&socket) -> pattern => body,       // io::Result<()>
/// writable(&socket) -> pattern => body,
/// join(&handle) -> _ => body,                 // the result then by `handle.join()`
/// default => body,                            // if none is ready
/// default(duration) => body,                  // if none is ready in time
/// ```
///
/// The grammar is crossbeam's. Exactly one arm is done, and the others have no effect: their channels are as before,
/// and the message of a `send` is made only after its arm was chosen. Ends are given by value or by reference. They
/// are no longer borrowed when the body runs, so `break`, `continue` and `return` in a body act on the caller's code.
/// Without arms it waits for ever. It is a blocking call: an exception unwinds, and then no arm was done.
///
/// A timer is `recv(after(duration))`. An arm that is switched off is `recv(never())`. There can be at most 16 arms.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald::sync::channel::{after, unbounded};
/// use weald::select;
///
/// let (sender, receiver) = unbounded();
/// sender.send(7).unwrap();
/// let got = select! {
///     recv(receiver) -> message => message.ok(),
///     recv(after(Duration::from_secs(60))) -> _ => None,
/// };
/// assert_eq!(got, Some(7));
/// let none = select! {
///     recv(receiver) -> message => message.is_ok(),
///     default => false,
/// };
/// assert!(!none);
/// ```
#[macro_export]
macro_rules! select {
    () => {
        $crate::__select_run!([] [none])
    };
    ($($arms:tt)+) => {
        $crate::__select_arms!(
            []
            [none]
            [(a0 o0 0) (a1 o1 1) (a2 o2 2) (a3 o3 3) (a4 o4 4) (a5 o5 5) (a6 o6 6) (a7 o7 7)
             (a8 o8 8) (a9 o9 9) (a10 o10 10) (a11 o11 11) (a12 o12 12) (a13 o13 13)
             (a14 o14 14) (a15 o15 15)]
            $($arms)+
        )
    };
}

/// Takes the arms off the input.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_arms {
    // All arms are done.
    ([$($done:tt)*] [$($default:tt)*] [$($names:tt)*]) => {
        $crate::__select_run!([$($done)*] [$($default)*])
    };
    // A comma after a block.
    ($done:tt $default:tt $names:tt , $($rest:tt)*) => {
        $crate::__select_arms!($done $default $names $($rest)*)
    };

    // The default arm.
    ($done:tt [none] $names:tt default => $body:block $($rest:tt)*) => {
        $crate::__select_arms!($done [now ($body)] $names $($rest)*)
    };
    ($done:tt [none] $names:tt default => $body:expr, $($rest:tt)*) => {
        $crate::__select_arms!($done [now ($body)] $names $($rest)*)
    };
    ($done:tt [none] $names:tt default => $body:expr) => {
        $crate::__select_arms!($done [now ($body)] $names)
    };
    ($done:tt [none] $names:tt default() => $($rest:tt)*) => {
        $crate::__select_arms!($done [none] $names default => $($rest)*)
    };
    ($done:tt [none] $names:tt default($limit:expr $(,)?) => $body:block $($rest:tt)*) => {
        $crate::__select_arms!($done [within ($limit) ($body)] $names $($rest)*)
    };
    ($done:tt [none] $names:tt default($limit:expr $(,)?) => $body:expr, $($rest:tt)*) => {
        $crate::__select_arms!($done [within ($limit) ($body)] $names $($rest)*)
    };
    ($done:tt [none] $names:tt default($limit:expr $(,)?) => $body:expr) => {
        $crate::__select_arms!($done [within ($limit) ($body)] $names)
    };
    ($done:tt [$($default:tt)+] $names:tt default $($rest:tt)*) => {
        ::core::compile_error!("there is more than one `default` arm")
    };

    // Any other arm, distinguished by how its body ends.
    ([$($done:tt)*] $default:tt [$name:tt $($names:tt)*]
        $kind:ident ($($args:tt)*) -> $pattern:pat => $body:block $($rest:tt)*) => {
        $crate::__select_arms!(
            [$($done)* ($name $kind ($($args)*) ($pattern) ($body))]
            $default [$($names)*] $($rest)*
        )
    };
    ([$($done:tt)*] $default:tt [$name:tt $($names:tt)*]
        $kind:ident ($($args:tt)*) -> $pattern:pat => $body:expr, $($rest:tt)*) => {
        $crate::__select_arms!(
            [$($done)* ($name $kind ($($args)*) ($pattern) ($body))]
            $default [$($names)*] $($rest)*
        )
    };
    ([$($done:tt)*] $default:tt [$name:tt $($names:tt)*]
        $kind:ident ($($args:tt)*) -> $pattern:pat => $body:expr) => {
        $crate::__select_arms!(
            [$($done)* ($name $kind ($($args)*) ($pattern) ($body))]
            $default [$($names)*]
        )
    };
    ($done:tt $default:tt [] $($rest:tt)+) => {
        ::core::compile_error!("a `select!` has at most 16 arms")
    };
    ($done:tt $default:tt $names:tt $($rest:tt)+) => {
        ::core::compile_error!(
            "an arm of `select!` is `recv(r) -> p => body`, `send(s, v) -> p => body`, \
             `readable(&s) -> p => body`, `writable(&s) -> p => body`, `join(&h) -> _ => body`, \
             `default => body` or `default(duration) => body`"
        )
    };
}

/// Writes the program.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_run {
    ([$((($arm:ident $out:ident $index:tt) $kind:ident $args:tt ($pattern:pat) ($body:expr)))*]
     $default:tt) => {{
        $(#[allow(unused_mut, unused_assignments)]
        let mut $out = ::core::option::Option::None;)*
        let chosen: ::core::option::Option<usize> = $crate::__select_with!(
            [$(($arm $kind $args))*]
            {
                let limit = $crate::__select_limit!($default);
                let chosen = $crate::select_parts::run(
                    &mut [$(&mut $arm as &mut dyn $crate::select_parts::Arm),*],
                    limit,
                );
                match chosen {
                    $(::core::option::Option::Some($index) => {
                        $out = ::core::option::Option::Some(
                            $crate::__select_finish!($arm $kind $args)
                        );
                    })*
                    _ => {}
                }
                chosen
            }
        );
        match chosen {
            $(::core::option::Option::Some($index) => {
                #[allow(clippy::ignored_unit_patterns, reason = "what an arm gives is known here only")]
                let $pattern = match $out {
                    ::core::option::Option::Some(out) => out,
                    ::core::option::Option::None => ::core::unreachable!(),
                };
                $body
            })*
            _ => $crate::__select_default!($default),
        }
    }};
}

/// Makes the arms around a block, nested, so that temporaries live as long as the arms.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_with {
    ([] $block:block) => { $block };
    ([($arm:ident recv ($end:expr $(,)?)) $($rest:tt)*] $block:block) => {
        match &$end {
            end => {
                let end: &$crate::channel::Receiver<_> = end;
                let mut $arm = $crate::select_parts::RecvArm::new(end);
                $crate::__select_with!([$($rest)*] $block)
            }
        }
    };
    ([($arm:ident send ($end:expr, $message:expr $(,)?)) $($rest:tt)*] $block:block) => {
        match &$end {
            end => {
                let end: &$crate::channel::Sender<_> = end;
                let mut $arm = $crate::select_parts::SendArm::new(end);
                $crate::__select_with!([$($rest)*] $block)
            }
        }
    };
    ([($arm:ident join ($end:expr $(,)?)) $($rest:tt)*] $block:block) => {
        match &$end {
            end => {
                let mut $arm = $crate::select_parts::JoinArm::new(end);
                $crate::__select_with!([$($rest)*] $block)
            }
        }
    };
    ([($arm:ident readable ($end:expr $(,)?)) $($rest:tt)*] $block:block) => {
        match &$end {
            end => {
                let mut $arm = $crate::select_parts::PollArm::new(end, false);
                $crate::__select_with!([$($rest)*] $block)
            }
        }
    };
    ([($arm:ident writable ($end:expr $(,)?)) $($rest:tt)*] $block:block) => {
        match &$end {
            end => {
                let mut $arm = $crate::select_parts::PollArm::new(end, true);
                $crate::__select_with!([$($rest)*] $block)
            }
        }
    };
    ([($arm:ident $kind:ident $args:tt) $($rest:tt)*] $block:block) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($kind), "` is not an operation of `select!`, or has other arguments"
        ))
    };
}

/// Returns the result of the chosen arm.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_finish {
    ($arm:ident send ($end:expr, $message:expr $(,)?)) => {{
        let ticket = $arm.finish();
        let message = $message;
        ticket.send(message)
    }};
    ($arm:ident $kind:ident $args:tt) => {
        $arm.finish()
    };
}

/// Returns how long the selection waits.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_limit {
    ([none]) => {
        $crate::select_parts::Limit::Until(::core::option::Option::None)
    };
    ([now $body:tt]) => {
        $crate::select_parts::Limit::Now
    };
    ([within ($limit:expr) $body:tt]) => {
        $crate::select_parts::Limit::within($limit)
    };
}

/// Writes what happens if no arm was done.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_default {
    ([none]) => {
        ::core::unreachable!("it waits for ever")
    };
    ([now ($body:expr)]) => {
        $body
    };
    ([within $limit:tt ($body:expr)]) => {
        $body
    };
}
