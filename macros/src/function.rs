//! The function below an attribute.

use proc_macro::{Delimiter, Group, Ident, Spacing, Span, TokenStream, TokenTree};

use crate::fault::Fault;
use crate::settings::Entry;
use crate::tokens::{group, ident, path, punct};

pub(crate) struct Function {
    /// Attributes and visibility.
    before: TokenStream,
    name: Ident,
    /// `-> Type`, or nothing.
    arrow: TokenStream,
    body: Group,
}

impl Function {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self, Fault> {
        let fault = |place: Span, text: &str| Err(Fault(place, text.to_owned()));
        let mut before = TokenStream::new();
        let mut tokens = tokens.into_iter();
        loop {
            let Some(token) = tokens.next() else {
                return fault(Span::call_site(), "a function is expected");
            };
            let place = token.span();
            match &token {
                TokenTree::Ident(word) => match word.to_string().as_str() {
                    "fn" => break,
                    "async" => {
                        return fault(
                            place,
                            "a green thread runs plain functions: without `async`, `weald::block_on` runs a future",
                        );
                    }
                    "pub" => {}
                    "const" | "unsafe" | "extern" => {
                        return fault(place, "a plain function is expected");
                    }
                    _ => return fault(place, "a function is expected"),
                },
                // `#[..]`, and the parentheses of `pub(crate)`.
                TokenTree::Punct(_) | TokenTree::Group(_) => {}
                TokenTree::Literal(_) => return fault(place, "a function is expected"),
            }
            before.extend([token]);
        }
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return fault(Span::call_site(), "a function is expected");
        };
        match tokens.next() {
            Some(TokenTree::Group(list)) if list.delimiter() == Delimiter::Parenthesis => {
                if !list.stream().is_empty() {
                    return fault(list.span(), "the function takes no arguments");
                }
            }
            _ => return fault(name.span(), "the function has no type parameters"),
        }
        let mut rest: Vec<TokenTree> = tokens.collect();
        match rest.pop() {
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => Ok(Self {
                before,
                name,
                arrow: rest.into_iter().collect(),
                body,
            }),
            _ => fault(name.span(), "the function has a body"),
        }
    }

    /// ```text
    /// <before> fn name() -> ExitCode {
    ///     fn name() <arrow> <body>
    ///     ::weald::entry::main(<settings>, name)
    /// }
    /// ```
    ///
    /// A test without a return type returns nothing, as `#[should_panic]` requires; `::weald::entry::passed(..)` does
    /// that. The inner function has the same name, for the program's own messages and traces.
    pub(crate) fn expand(self, entry: Entry, settings: TokenStream) -> TokenStream {
        let place = self.name.span();
        let call_site = Span::call_site();
        let nothing = || group(Delimiter::Parenthesis, TokenStream::new(), call_site);
        let function = |arrow: TokenStream, body: TokenTree| {
            let head = [ident("fn", call_site), self.name.clone().into(), nothing()];
            let mut function: TokenStream = head.into_iter().collect();
            function.extend(arrow);
            function.extend([body]);
            function
        };
        let returns_nothing = entry == Entry::Test && self.arrow.is_empty();

        let mut arguments = settings;
        arguments.extend([punct(',', Spacing::Alone, place), self.name.clone().into()]);
        let verb = if entry == Entry::Test { "test" } else { "main" };
        let mut call = path(&["weald", "entry", verb], place);
        call.extend([group(Delimiter::Parenthesis, arguments, place)]);
        if returns_nothing {
            let mut passed = path(&["weald", "entry", "passed"], place);
            passed.extend([group(Delimiter::Parenthesis, call, place)]);
            call = passed;
        }

        let mut body = function(self.arrow.clone(), self.body.clone().into());
        body.extend(call);
        let mut arrow = TokenStream::new();
        if !returns_nothing {
            arrow.extend([
                punct('-', Spacing::Joint, call_site),
                punct('>', Spacing::Alone, call_site),
            ]);
            arrow.extend(path(&["std", "process", "ExitCode"], call_site));
        }
        let mut tokens = TokenStream::new();
        if entry == Entry::Test {
            let test = path(&["core", "prelude", "v1", "test"], call_site);
            tokens.extend([
                punct('#', Spacing::Alone, call_site),
                group(Delimiter::Bracket, test, call_site),
            ]);
        }
        tokens.extend(self.before.clone());
        tokens.extend(function(arrow, group(Delimiter::Brace, body, call_site)));
        tokens
    }
}
