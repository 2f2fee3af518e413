//! The attributes `#[weald::main]` and `#[weald::test]`; programs have them from the crate `weald`.
//!
//! They move the body of a function into a function of its own and hand that to `weald::entry`, which runs it on a
//! green thread. The head of a function is simple enough to be walked through by hand: attributes, visibility, `fn`,
//! a name, no arguments, perhaps a type, a body. Tokens of the body are passed on as they are, with their places, so
//! that the compiler's messages point at the program.

mod function;
mod settings;

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

use crate::function::Function;

/// What is wrong, and where.
struct Fault(Span, String);

/// What a function becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Main,
    Test,
}

/// Runs `main` as a green thread.
///
/// The default runtime starts, with a worker for each CPU or what `WEALD_WORKERS` says, and the body is its first green
/// thread. As without the attribute, the process ends when `main` does, whatever other threads do.
///
/// `#[weald::main(workers = 4, stack_size = 1 << 20, limit = Duration::from_secs(60))]`: each is optional and any
/// expression; one with a comma outside of brackets needs parentheses. When the limit passes, a dump of all green threads
/// goes to standard error, and the process ends with exit code 1. The body has a green thread's stack, 256 KiB if nothing is
/// said, where `main` without the attribute has some megabytes.
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
/// As `main` does; and if a runtime runs already, for settings that need one of its own.
#[proc_macro_attribute]
pub fn main(settings: TokenStream, function: TokenStream) -> TokenStream {
    expand(Entry::Main, settings, function)
}

/// Makes a function a test that runs as a green thread, on a runtime of its own.
///
/// `#[weald::test(workers = 4, limit = Duration::from_secs(10), no_leftovers)]`: each is optional; `workers` (2 if not
/// said), `stack_size` and `limit` are expressions; one with a comma outside of brackets needs parentheses. When the limit passes, a dump of the test's green threads goes to
/// standard error, and the test fails. With `no_leftovers` it also fails if a green thread is still there five seconds after
/// the test's end; else those are killed.
///
/// The test harness's own attributes mean what they mean with `#[test]`, and a test may return a `Result` as there. The harness does not
/// capture what the body prints, as the body runs on another thread than the test's.
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
    expanded.unwrap_or_else(|Fault(place, text)| {
        // The function as well, or the compiler would also say that there is no `main`.
        let mut tokens = compile_error(place, &text);
        tokens.extend(function);
        tokens
    })
}

fn compile_error(place: Span, text: &str) -> TokenStream {
    let mut text = Literal::string(text);
    text.set_span(place);
    let text = TokenStream::from(TokenTree::from(text));
    let mut tokens = path(&["core", "compile_error"], place);
    tokens.extend([
        punct('!', Spacing::Alone, place),
        group(Delimiter::Brace, text, place),
    ]);
    tokens
}

/// `::a::b`
fn path(names: &[&str], place: Span) -> TokenStream {
    let colons = || {
        [
            punct(':', Spacing::Joint, place),
            punct(':', Spacing::Alone, place),
        ]
    };
    let parts = names
        .iter()
        .flat_map(|name| colons().into_iter().chain([ident(name, place)]));
    parts.collect()
}

fn ident(name: &str, place: Span) -> TokenTree {
    Ident::new(name, place).into()
}

fn punct(sign: char, spacing: Spacing, place: Span) -> TokenTree {
    let mut punct = Punct::new(sign, spacing);
    punct.set_span(place);
    punct.into()
}

fn group(delimiter: Delimiter, inside: TokenStream, place: Span) -> TokenTree {
    let mut group = Group::new(delimiter, inside);
    group.set_span(place);
    group.into()
}
