//! Brackets, and what stands outside of them.

/// Where the bracket at `open` ends: behind its partner, or at the end of a text that lacks it.
pub(crate) fn end_of(text: &str, open: usize) -> usize {
    let bytes = text.as_bytes();
    let mut expected = Vec::with_capacity(16);
    let mut at = open;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'<' => expected.push(b'>'),
            b'(' => expected.push(b')'),
            b'[' => expected.push(b']'),
            b'{' => expected.push(b'}'),
            b'\'' | b'"' => {
                at = end_of_literal(text, at);
                continue;
            }
            // Of `->`, or a comparison inside parentheses.
            b'>' if is_arrow(&bytes[..at]) || expected.last() != Some(&b'>') => {}
            b'>' => drop(expected.pop()),
            // Those that were opened meanwhile are comparisons, or damaged.
            b')' | b']' | b'}' => while expected.pop().is_some_and(|closing| closing != byte) {},
            _ => {}
        }
        at += 1;
        if expected.is_empty() {
            break;
        }
    }
    at
}

/// What stands before a `>` that ends an arrow. Legacy Rust names have `.>` for it; C++ has `...>`.
fn is_arrow(before: &[u8]) -> bool {
    before.ends_with(b"-") || before.ends_with(b" .")
}

/// What the bracket at `open` encloses, and where it ends.
pub(crate) fn inside(text: &str, open: usize) -> (&str, usize) {
    let end = end_of(text, open);
    let inner = &text[open + 1..end];
    let inner = match inner.as_bytes().last() {
        Some(b'>' | b')' | b']' | b'}') => &inner[..inner.len() - 1],
        _ => inner,
    };
    (inner, end)
}

/// Where the constant that begins with a quotation mark at `at` ends. Lifetimes and `'lambda'` are not constants.
fn end_of_literal(text: &str, at: usize) -> usize {
    let rest = &text[at + 1..];
    if text.as_bytes()[at] == b'"' {
        return end_of_escaped(text, at + 1, b'"');
    }
    let mut characters = rest.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => end_of_escaped(text, at + 1, b'\''),
        (Some(character), Some('\'')) => at + 1 + character.len_utf8() + 1,
        _ => at + 1,
    }
}

fn end_of_escaped(text: &str, mut at: usize, mark: u8) -> usize {
    let bytes = text.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        at += if byte == b'\\' { 2 } else { 1 };
        if byte == mark {
            break;
        }
    }
    // An escape at the very end, or one of a character that is several bytes, must not end inside of it.
    at = at.min(bytes.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// The text before and behind the first `separator` that stands outside of all brackets.
pub(crate) fn split_once<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            _ if bytes[at..].starts_with(separator.as_bytes()) => {
                return Some((&text[..at], &text[at + separator.len()..]));
            }
            b'<' | b'(' | b'[' | b'{' => at = end_of(text, at),
            b'\'' | b'"' => at = end_of_literal(text, at),
            _ => at += 1,
        }
    }
    None
}
