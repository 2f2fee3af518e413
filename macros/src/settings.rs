//! The settings in the parentheses of an attribute.

use proc_macro::{Delimiter, Spacing, Span, TokenStream, TokenTree};

use crate::fault::Fault;
use crate::tokens::{group, ident, path, punct};

/// What a function becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Main,
    Test,
}

/// Returns `::weald::entry::Settings::new().workers(..)..`, a call for each of the settings.
pub(crate) fn parse(entry: Entry, tokens: TokenStream) -> Result<TokenStream, Fault> {
    let place = Span::call_site();
    let mut calls = path(&["weald", "entry", "Settings", "new"], place);
    calls.extend([group(Delimiter::Parenthesis, TokenStream::new(), place)]);
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        let place = token.span();
        let TokenTree::Ident(name) = token else {
            return Err(Fault(place, "a name of a setting is expected".to_owned()));
        };
        let name = name.to_string();
        let takes_value = match name.as_str() {
            "workers" | "stack_size" | "limit" => true,
            "no_leftovers" if entry == Entry::Test => false,
            _ => {
                let more = if entry == Entry::Test {
                    ", no_leftovers"
                } else {
                    ""
                };
                let text =
                    format!("no setting `{name}`: there are workers, stack_size, limit{more}");
                return Err(Fault(place, text));
            }
        };
        let mut value = TokenStream::new();
        if takes_value {
            match tokens.next() {
                Some(TokenTree::Punct(sign)) if sign.as_char() == '=' => {}
                _ => {
                    return Err(Fault(
                        place,
                        format!("`{name}` needs a value: `{name} = ..`"),
                    ));
                }
            }
        }
        // Commas inside of brackets are inside of groups.
        for token in tokens.by_ref() {
            match token {
                TokenTree::Punct(sign) if sign.as_char() == ',' => break,
                _ if takes_value => value.extend([token]),
                _ => return Err(Fault(place, format!("`{name}` takes no value"))),
            }
        }
        if takes_value && value.is_empty() {
            return Err(Fault(
                place,
                format!("`{name}` needs a value: `{name} = ..`"),
            ));
        }
        calls.extend([
            punct('.', Spacing::Alone, place),
            ident(&name, place),
            group(Delimiter::Parenthesis, value, place),
        ]);
    }
    Ok(calls)
}
