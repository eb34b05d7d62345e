//! `TracePacket.trace_attributes`, which is newer than our definitions.

use std::{collections::BTreeMap, ops::Deref};

use perfetto_protos::trace_packet::TracePacket;
use protobuf::{CodedInputStream, UnknownValueRef};

/// `TracePacket.trace_attributes`: messages with `repeated Attribute attribute = 1`.
const TRACE_ATTRIBUTES: u32 = 126;
/// `Attribute.key = 1`, `.long_value = 2`, `.string_value = 3`, with their wire types.
const KEY: u32 = 1 << 3 | 2;
const LONG_VALUE: u32 = 2 << 3;
const STRING_VALUE: u32 = 3 << 3 | 2;
const ATTRIBUTE: u32 = 1 << 3 | 2;

/// A value that describes the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A number.
    Long(i64),
    /// A text.
    Text(String),
}

/// Values that describe the recording, by their key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, Attribute>);

impl Deref for Attributes {
    type Target = BTreeMap<String, Attribute>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Attributes {
    pub(super) fn take(&mut self, packet: &TracePacket) {
        for (number, value) in packet.special_fields.unknown_fields() {
            if let (TRACE_ATTRIBUTES, UnknownValueRef::LengthDelimited(bytes)) = (number, value) {
                self.take_message(bytes).unwrap_or_else(|error| panic!("trace_attributes: {error}"));
            }
        }
    }

    fn take_message(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        let mut message = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = message.read_raw_tag_or_eof()? {
            assert_eq!(tag, ATTRIBUTE, "trace_attributes holds another field");
            let (key, value) = attribute(&message.read_bytes()?)?;
            let old = self.0.insert(key, value);
            assert!(old.is_none(), "an attribute is given twice: {old:?}");
        }
        Ok(())
    }
}

fn attribute(bytes: &[u8]) -> protobuf::Result<(String, Attribute)> {
    let mut message = CodedInputStream::from_bytes(bytes);
    let (mut key, mut value) = (None, None);
    while let Some(tag) = message.read_raw_tag_or_eof()? {
        match tag {
            KEY => key = Some(message.read_string()?),
            LONG_VALUE => value = Some(Attribute::Long(message.read_int64()?)),
            STRING_VALUE => value = Some(Attribute::Text(message.read_string()?)),
            other => panic!("an attribute holds a field with the tag {other}"),
        }
    }
    Ok((key.expect("an attribute has a key"), value.expect("an attribute has a value")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_read() {
        let bytes = [10, 8, 10, 4, b'c', b'p', b'u', b's', 16, 2, 10, 8, 10, 1, b'v', 26, 3, b'0', b'.', b'1'];
        let mut packet = TracePacket::new();
        packet.special_fields.mut_unknown_fields().add_length_delimited(TRACE_ATTRIBUTES, bytes.to_vec());
        let mut attributes = Attributes::default();
        attributes.take(&packet);
        assert_eq!(attributes["cpus"], Attribute::Long(2));
        assert_eq!(attributes["v"], Attribute::Text("0.1".to_owned()));
    }
}
