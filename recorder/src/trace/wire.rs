//! Protobuf fields, written by hand for what there can be hundreds of thousands of in a second.

/// How a field's value is encoded.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    LengthDelimited = 2,
}

/// Appends a field that is an integer.
pub(super) fn append_varint(message: &mut Vec<u8>, field: u32, value: u64) {
    push_tag(message, field, WireType::Varint);
    push_varint(message, value);
}

/// Appends a `double`.
pub(super) fn append_double(message: &mut Vec<u8>, field: u32, value: f64) {
    push_tag(message, field, WireType::Fixed64);
    message.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `fixed64`.
pub(super) fn append_fixed64(message: &mut Vec<u8>, field: u32, value: u64) {
    push_tag(message, field, WireType::Fixed64);
    message.extend_from_slice(&value.to_le_bytes());
}

/// Appends a string, bytes, a message or a packed column.
pub(super) fn append_bytes(message: &mut Vec<u8>, field: u32, value: &[u8]) {
    push_tag(message, field, WireType::LengthDelimited);
    push_varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

/// Appends an integer without its field.
pub(super) fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn push_tag(message: &mut Vec<u8>, field: u32, wire_type: WireType) {
    push_varint(message, u64::from(field << 3 | wire_type as u32));
}
