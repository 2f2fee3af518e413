//! Percent-encoded text: of paths and queries.

/// Decodes a text; `None` if the result is not UTF-8. With `plus` a `+` is a space, as in queries. A `%` without two
/// hexadecimal digits after it stands for itself.
pub(crate) fn percent_decoded(text: &str, plus: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let hex = |at: usize| {
            bytes
                .get(place + at)
                .and_then(|&byte| char::from(byte).to_digit(16))
        };
        let (byte, length) = match (bytes[place], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => (u8::try_from(high * 16 + low).ok()?, 3),
            (b'+', ..) if plus => (b' ', 1),
            (byte, ..) => (byte, 1),
        };
        decoded.push(byte);
        place += length;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn text_is_decoded_as_far_as_it_is_encoded() {
        let table = [
            ("tree", Some("tree")),
            ("a%20b+c", Some("a b+c")),
            ("%C3%A4%c3%a4", Some("ää")),
            ("%", Some("%")),
            ("%2", Some("%2")),
            ("%zz%", Some("%zz%")),
            ("%2F%2f", Some("//")),
            ("%ff", None),
        ];
        for (text, expected) in table {
            assert_eq!(percent_decoded(text, false).as_deref(), expected, "{text}");
        }
        assert_eq!(percent_decoded("a+b%2B", true).as_deref(), Some("a b+"));
    }
}
