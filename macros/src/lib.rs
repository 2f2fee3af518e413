//! The attributes `#[weald::main]` and `#[weald::test]`. Programs get them from the crate `weald`.
//!
//! An attribute moves the body of a function into a function of its own and hands that to `weald::entry`, which runs
//! it on a green thread. The head of a function is simple enough to be parsed by hand: attributes, visibility, `fn`,
//! a name, no arguments, perhaps a type, a body. The tokens of the body are passed on as they are, with their places,
//! so that the compiler's messages point at the program.

mod fault;
mod function;
mod settings;
mod tokens;

use proc_macro::TokenStream;

use crate::function::Function;
use crate::settings::Entry;

/// Runs `main` as a green thread.
///
/// The default runtime starts, with a worker for each CPU or with as many as `WEALD_WORKERS` says. The body is its
/// first green thread. As without the attribute, the process ends when `main` does, whatever other threads do.
///
/// `#[weald::main(workers = 4, stack_size = 1 << 20, limit = Duration::from_secs(60))]`: each setting is optional,
/// and its value is any expression. An expression with a comma outside of brackets needs parentheses. When the limit
/// passes, a dump of all green threads goes to standard error, and the process ends with exit code 1. The body runs
/// on a green thread's stack, by default of 256 KiB; without the attribute `main` has some megabytes.
///
/// # Examples
/// ```
/// #[weald::main]
/// fn main() -> std::io::Result<()> {
///     assert!(weald::is_green());
///     Ok(())
/// }
/// ```
///
/// # Panics
/// If `main` panics. If there are settings that need a runtime of their own and a runtime runs already.
#[proc_macro_attribute]
pub fn main(settings: TokenStream, function: TokenStream) -> TokenStream {
    expand(Entry::Main, settings, function)
}

/// Makes a function a test that runs as a green thread, on a runtime of its own.
///
/// `#[weald::test(workers = 4, limit = Duration::from_secs(10), no_leftovers)]`: each setting is optional. `workers`
/// (2 by default), `stack_size` and `limit` are expressions; an expression with a comma outside of brackets needs
/// parentheses. When the limit passes, a dump of the test's green threads goes to standard error, and the test fails.
/// With `no_leftovers` the test also fails if a green thread is still there five seconds after its end. Without it
/// such threads are killed.
///
/// The test harness's own attributes mean the same as with `#[test]`, and a test may return a `Result`, as there. The
/// harness does not capture what the body prints, because the body does not run on the test's own OS thread.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// #[weald::test(limit = Duration::from_secs(10))]
/// fn a_message_arrives() {
///     let (send, receive) = weald::sync::channel::bounded(1);
///     weald::spawn(move || send.send("hello"));
///     assert_eq!(receive.recv(), Ok("hello"));
/// }
/// ```
#[proc_macro_attribute]
pub fn test(settings: TokenStream, function: TokenStream) -> TokenStream {
    expand(Entry::Test, settings, function)
}

fn expand(entry: Entry, settings: TokenStream, function: TokenStream) -> TokenStream {
    let expanded = settings::parse(entry, settings)
        .and_then(|settings| Ok(Function::parse(function.clone())?.expand(entry, settings)));
    expanded.unwrap_or_else(|fault| {
        // The function is kept, or the compiler would also say that there is no `main`.
        let mut tokens = fault.into_error();
        tokens.extend(function);
        tokens
    })
}
