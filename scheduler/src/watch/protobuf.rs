//! The encoding of Protocol Buffers, as much of it as a trace needs.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. A message is a list of fields: a key with the field's number
//! and kind, then a varint, eight bytes, or a length and so many bytes.
//!
//! Rejected: `prost` and its like. They need a derive macro and a dozen crates at build time, for one message of some ten
//! fields, and they build each message in memory before they write it.

/// A message that is being written.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u32 = 0;
const EIGHT_BYTES: u32 = 1;
const LENGTH: u32 = 2;

/// Bytes of the longest varint.
const LONGEST: usize = 10;

impl Message {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    /// A number.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// A number of eight bytes.
    pub(crate) fn fixed(&mut self, field: u32, value: u64) {
        self.key(field, EIGHT_BYTES);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.key(field, LENGTH);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A message in this one, which `write` writes.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, LENGTH);
        let start = self.0.len();
        write(self);
        // The length comes before the bytes, and is known only now.
        let length = self.0.len() - start;
        let end = self.0.len();
        self.varint(length as u64);
        let count = self.0.len() - end;
        debug_assert!(count <= LONGEST, "a varint");
        self.0[start..].rotate_right(count);
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    #[test]
    fn the_examples_of_the_specification_are_encoded_as_there() {
        let mut message = Message::default();
        message.number(1, 150);
        assert_eq!(message.bytes(), [0x08, 0x96, 0x01]);
        message.clear();
        message.text(2, "testing");
        assert_eq!(message.bytes(), b"\x12\x07testing");
        message.clear();
        message.message(3, |inner| inner.number(1, 150));
        assert_eq!(message.bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        message.clear();
        message.fixed(1, 1);
        assert_eq!(message.bytes(), [9, 1, 0, 0, 0, 0, 0, 0, 0]);
        message.clear();
        message.number(1, u64::MAX);
        assert_eq!(message.bytes().len(), 11);
    }

    #[test]
    fn a_long_message_has_its_length_before_it() {
        let mut message = Message::default();
        message.message(1, |inner| inner.text(1, &"x".repeat(300)));
        assert_eq!(message.bytes()[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        assert!(message.bytes()[6..].iter().all(|&byte| byte == b'x'));
    }
}
