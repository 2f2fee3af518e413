//! What is wrong with an attribute or its function.

use proc_macro::{Delimiter, Literal, Spacing, Span, TokenStream, TokenTree};

use crate::tokens::{group, path, punct};

/// What is wrong, and where.
pub(crate) struct Fault(pub(crate) Span, pub(crate) String);

impl Fault {
    /// Returns a call of `compile_error!` that says so at the place.
    pub(crate) fn into_error(self) -> TokenStream {
        let Self(place, text) = self;
        let mut text = Literal::string(&text);
        text.set_span(place);
        let text = TokenStream::from(TokenTree::from(text));
        let mut tokens = path(&["core", "compile_error"], place);
        tokens.extend([
            punct('!', Spacing::Alone, place),
            group(Delimiter::Brace, text, place),
        ]);
        tokens
    }
}
