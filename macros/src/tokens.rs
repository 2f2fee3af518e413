//! Tokens that an expansion consists of.

use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// `::a::b`
pub(crate) fn path(names: &[&str], place: Span) -> TokenStream {
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

pub(crate) fn ident(name: &str, place: Span) -> TokenTree {
    Ident::new(name, place).into()
}

pub(crate) fn punct(sign: char, spacing: Spacing, place: Span) -> TokenTree {
    let mut punct = Punct::new(sign, spacing);
    punct.set_span(place);
    punct.into()
}

pub(crate) fn group(delimiter: Delimiter, inside: TokenStream, place: Span) -> TokenTree {
    let mut group = Group::new(delimiter, inside);
    group.set_span(place);
    group.into()
}
