//! Protobuf fields, read where they stand: the inverse of [`wire`](crate::trace::wire).
//!
//! Whoever wrote the bytes may mean ill. Nothing here allocates, and nothing is believed of a length but what is there.

/// An encoded message, or a string, or packed numbers: whoever asks for it must know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Message<'a> {
    pub bytes: &'a [u8],
    /// Where the bytes stand in what is read, for error messages.
    pub offset: u64,
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

/// What stands in a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    /// `fixed32`, `fixed64`, `float` or `double`, none of which matters to us.
    Fixed,
    Bytes(Message<'a>),
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub offset: u64,
    pub what: &'static str,
}

impl<'a> Message<'a> {
    /// Its fields. The first that can't be read is the last.
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self }
    }

    /// The numbers that are packed in it.
    pub fn packed(self) -> Numbers<'a> {
        Numbers { one: None, rest: self }
    }
}

impl<'a> Value<'a> {
    /// The number; 0 where something else stands, as for a reader of the official definitions.
    pub fn number(self) -> u64 {
        match self {
            Value::Number(number) => number,
            Value::Fixed | Value::Bytes(_) => 0,
        }
    }

    /// The bytes; none where something else stands.
    pub fn message(self) -> Message<'a> {
        match self {
            Value::Bytes(message) => message,
            Value::Number(_) | Value::Fixed => Message::default(),
        }
    }

    /// The numbers of a repeated field, which may stand alone or packed.
    pub fn numbers(self) -> Numbers<'a> {
        match self {
            Value::Number(number) => Numbers { one: Some(number), rest: Message::default() },
            Value::Bytes(message) => message.packed(),
            Value::Fixed => Message::default().packed(),
        }
    }
}

/// The fields of a message, in their order.
pub(super) struct Fields<'a> {
    rest: Message<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.bytes.is_empty() {
            return None;
        }
        let field = read_field(&mut self.rest);
        if field.is_err() {
            self.rest.bytes = &[];
        }
        Some(field)
    }
}

/// Numbers of a repeated field.
pub(super) struct Numbers<'a> {
    one: Option<u64>,
    rest: Message<'a>,
}

impl Iterator for Numbers<'_> {
    type Item = Result<u64, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(number) = self.one.take() {
            return Some(Ok(number));
        }
        if self.rest.bytes.is_empty() {
            return None;
        }
        let number = read_varint(&mut self.rest);
        if number.is_err() {
            self.rest.bytes = &[];
        }
        Some(number)
    }
}

fn read_field<'a>(rest: &mut Message<'a>) -> Result<Field<'a>, Malformed> {
    let offset = rest.offset;
    let malformed = |what| Malformed { offset, what };
    let tag = read_varint(rest)?;
    let number = u32::try_from(tag >> 3).map_err(|_| malformed("a field with an impossible number"))?;
    let value = match tag & 7 {
        0 => Value::Number(read_varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = read_varint(rest)?;
            Value::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Value::Fixed)?,
        _ => return Err(malformed("a field of an unknown type")),
    };
    if number == 0 {
        return Err(malformed("a field with the number 0"));
    }
    Ok(Field { number, value })
}

fn take<'a>(rest: &mut Message<'a>, length: u64) -> Result<Message<'a>, Malformed> {
    let split = usize::try_from(length).ok().and_then(|length| rest.bytes.split_at_checked(length));
    let Some((bytes, behind)) = split else {
        return Err(Malformed { offset: rest.offset, what: "a field that is longer than what it stands in" });
    };
    let taken = Message { bytes, offset: rest.offset };
    *rest = Message { bytes: behind, offset: rest.offset + length };
    Ok(taken)
}

fn read_varint(rest: &mut Message<'_>) -> Result<u64, Malformed> {
    let mut varint = Varint::default();
    for (at, &byte) in rest.bytes.iter().enumerate() {
        match varint.push(byte) {
            Step::More => {}
            Step::Is(value) => {
                *rest = Message { bytes: &rest.bytes[at + 1..], offset: rest.offset + at as u64 + 1 };
                return Ok(value);
            }
            Step::TooLong => break,
        }
    }
    Err(Malformed { offset: rest.offset, what: "a number that does not end" })
}

/// A number that is read byte by byte.
#[derive(Default)]
pub(super) struct Varint {
    value: u64,
    bits: u32,
}

/// What a further byte of a number means.
pub(super) enum Step {
    More,
    Is(u64),
    /// It has more than ten bytes.
    TooLong,
}

impl Varint {
    /// Bits beyond the 64th are dropped, as everyone does.
    pub fn push(&mut self, byte: u8) -> Step {
        self.value |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        match byte {
            0x80.. if self.bits >= 70 => Step::TooLong,
            0x80.. => Step::More,
            _ => Step::Is(self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::wire, *};

    fn message(bytes: &[u8]) -> Message<'_> {
        Message { bytes, offset: 100 }
    }

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        wire::append_varint(&mut bytes, 1, u64::MAX);
        wire::append_double(&mut bytes, 2, 1.5);
        wire::append_bytes(&mut bytes, 135, b"text");
        let fields: Vec<_> = message(&bytes).fields().map(Result::unwrap).collect();
        let [number, fixed, text] = fields[..] else { panic!("{fields:?}") };
        assert_eq!((number.number, number.value.number()), (1, u64::MAX));
        assert!(fixed.number == 2 && matches!(fixed.value, Value::Fixed));
        assert_eq!((text.number, text.value.message().bytes), (135, &b"text"[..]));
        assert_eq!(text.value.message().offset, 100 + bytes.len() as u64 - 4);
    }

    #[test]
    fn numbers_stand_alone_or_packed() {
        let numbers = |value: Value<'_>| value.numbers().collect::<Result<Vec<_>, _>>();
        assert_eq!(numbers(Value::Number(300)), Ok(vec![300]));
        assert_eq!(numbers(Value::Bytes(message(&[1, 0xac, 2, 0]))), Ok(vec![1, 300, 0]));
        assert!(numbers(Value::Bytes(message(&[1, 0x80]))).is_err());
    }

    #[test]
    fn what_is_no_message_is_refused_where_it_goes_wrong() {
        for (bytes, offset, what) in [
            (&[0x80_u8; 11][..], 100, "a number that does not end"),
            (&[0x08], 101, "a number that does not end"),
            (&[0x0a, 5, 1], 102, "a field that is longer than what it stands in"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], 111, "a field that is longer"),
            (&[0x09, 1, 2], 101, "a field that is longer than what it stands in"),
            (&[0x08, 1, 0x0b], 102, "a field of an unknown type"),
            (&[0, 0], 100, "a field with the number 0"),
        ] {
            let mut fields = message(bytes).fields();
            let malformed = fields.find_map(Result::err).unwrap();
            assert_eq!(malformed.offset, offset, "{bytes:x?}");
            assert!(malformed.what.starts_with(what), "{bytes:x?}: {}", malformed.what);
            assert!(fields.next().is_none());
        }
    }
}
