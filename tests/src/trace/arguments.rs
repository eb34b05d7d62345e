//! What an event has as arguments, by their names.

use std::collections::BTreeMap;

use super::Value;

/// Debug annotations by their name.
pub type Arguments = BTreeMap<String, Value>;

/// A number that is an argument; none if there is none of that name.
pub fn number(arguments: &Arguments, name: &str) -> Option<u64> {
    match arguments.get(name)? {
        Value::Integer(number) => Some(u64::try_from(*number).expect("a number of 64 bits")),
        other => panic!("{name} is {other:?}"),
    }
}

/// A number that must be an argument.
pub fn the_number(arguments: &Arguments, name: &str) -> u64 {
    number(arguments, name).unwrap_or_else(|| panic!("{name} is not among {arguments:?}"))
}

/// A text that is an argument; none if there is none of that name.
pub fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    match arguments.get(name)? {
        Value::Text(text) => Some(text),
        other => panic!("{name} is {other:?}"),
    }
}

/// A text that must be an argument.
pub fn the_text<'a>(arguments: &'a Arguments, name: &str) -> &'a str {
    text(arguments, name).unwrap_or_else(|| panic!("{name} is not among {arguments:?}"))
}
