//! Messages that are newer than our definitions, read field by field.

use protobuf::{CodedInputStream, Message as _, UnknownFields, UnknownValueRef, well_known_types::empty::Empty};

/// A message of which only the numbers of its fields are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    what: &'static str,
    fields: UnknownFields,
}

impl Message {
    /// Panics if the bytes are no message, or have a field that is not among `known`.
    pub fn parse(what: &'static str, bytes: &[u8], known: &[u32]) -> Message {
        // A message without fields of its own keeps all of them as unknown ones.
        let message = Empty::parse_from_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        let fields = message.special_fields.unknown_fields().clone();
        for (number, _) in &fields {
            assert!(known.contains(&number), "{what} has a field {number}, which we don't read");
        }
        Message { what, fields }
    }

    /// A whole number.
    pub fn number(&self, number: u32) -> Option<u64> {
        match self.fields.get(number)? {
            UnknownValueRef::Varint(value) => Some(value),
            other => panic!("{}: field {number} is no number: {other:?}", self.what),
        }
    }

    /// A whole number that fits into a smaller type.
    pub fn small<T: TryFrom<u64>>(&self, number: u32) -> Option<T> {
        let narrow = |value: u64| {
            T::try_from(value).unwrap_or_else(|_| panic!("{}: field {number} is {value}, out of range", self.what))
        };
        self.number(number).map(narrow)
    }

    /// A text.
    pub fn text(&self, number: u32) -> Option<String> {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec());
            text.unwrap_or_else(|error| panic!("{}: field {number}: {error}", self.what))
        };
        self.bytes(number).map(text).next()
    }

    /// Every value of a field with a length: messages, texts, packed numbers.
    pub fn bytes(&self, number: u32) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(other, _)| *other == number).map(move |(_, value)| match value {
            UnknownValueRef::LengthDelimited(bytes) => bytes,
            other => panic!("{}: field {number} has no length: {other:?}", self.what),
        })
    }

    /// Numbers, packed or not.
    pub fn numbers(&self, number: u32) -> Vec<u64> {
        let values = self.fields.iter().filter(|(other, _)| *other == number);
        let numbers = values.flat_map(|(_, value)| match value {
            UnknownValueRef::Varint(value) => vec![value],
            UnknownValueRef::LengthDelimited(bytes) => {
                unpacked(bytes).unwrap_or_else(|error| panic!("{}: field {number}: {error}", self.what))
            }
            other => panic!("{}: field {number} holds no numbers: {other:?}", self.what),
        });
        numbers.collect()
    }
}

fn unpacked(bytes: &[u8]) -> protobuf::Result<Vec<u64>> {
    let mut stream = CodedInputStream::from_bytes(bytes);
    let mut numbers = Vec::new();
    while !stream.eof()? {
        numbers.push(stream.read_uint64()?);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_their_number() {
        let bytes = [8, 0x96, 1, 0x12, 2, b'o', b'k', 0x1a, 3, 1, 0x80, 1];
        let message = Message::parse("a message", &bytes, &[1, 2, 3]);
        assert_eq!(message.number(1), Some(150));
        assert_eq!(message.small::<u8>(1), Some(150));
        assert_eq!(message.text(2).as_deref(), Some("ok"));
        assert_eq!(message.numbers(3), [1, 128]);
        assert_eq!(message.number(4), None);
    }

    #[test]
    #[should_panic(expected = "a message has a field 2, which we don't read")]
    fn a_field_that_nobody_expects_is_a_fault() {
        Message::parse("a message", &[0x12, 0], &[1]);
    }

    #[test]
    #[should_panic(expected = "field 1 is 300, out of range")]
    fn a_number_that_does_not_fit_is_a_fault() {
        Message::parse("a message", &[8, 0xac, 2], &[1]).small::<u8>(1);
    }
}
