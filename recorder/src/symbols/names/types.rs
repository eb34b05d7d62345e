//! A type, as a method's label has it: without generics, paths and bounds.

use super::{
    brackets,
    path::{Path, Segment},
};

/// How deep types inside of types are written out: `&[(A, B)]` is at two. Beyond, they are left out.
const LEVELS: u32 = 6;

fn write_level(out: &mut String, of_type: &str, levels: u32) {
    let of_type = write_prefixes(out, of_type.trim());
    let Some(levels) = levels.checked_sub(1) else { return out.push('_') };
    match of_type.as_bytes().first() {
        Some(b'(') => write_tuple(out, brackets::inside(of_type, 0).0, levels),
        Some(b'[') => write_array(out, brackets::inside(of_type, 0).0, levels),
        Some(_) if is_function(of_type) => out.push_str("fn"),
        Some(_) if of_type.contains(['<', '{']) || of_type.contains("::") => write_path(out, of_type, levels),
        // A primitive, or a parameter. What is no type is no word either.
        Some(_) => out.push_str(of_type),
        None => out.push('_'),
    }
}

/// References, pointers, and what says that a trait is meant. Returns the rest, and of several bounds the first.
fn write_prefixes<'a>(out: &mut String, of_type: &'a str) -> &'a str {
    let mut rest = of_type;
    loop {
        if let Some(referred) = rest.strip_prefix('&') {
            out.push('&');
            rest = without_lifetime(referred);
        } else if let Some(word) = ["mut ", "*const ", "*mut "].into_iter().find(|word| rest.starts_with(word)) {
            out.push_str(word);
            rest = &rest[word.len()..];
        } else if let Some(word) = ["dyn ", "impl "].into_iter().find(|word| rest.starts_with(word)) {
            out.push_str(word);
            let bounds = without_binder(&rest[word.len()..]);
            return brackets::split_once(bounds, " + ").map_or(bounds, |(first, _)| first);
        } else {
            return rest;
        }
    }
}

/// `'a T` as `T`.
fn without_lifetime(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(lifetime) => lifetime.split_once(' ').map_or(text, |(_, behind)| behind),
        None => text,
    }
}

/// `for<'a> T` as `T`.
fn without_binder(text: &str) -> &str {
    if !text.starts_with("for<") {
        return text;
    }
    text[brackets::end_of(text, "for".len())..].trim_start()
}

fn is_function(text: &str) -> bool {
    ["fn(", "unsafe ", "extern ", "for<"].iter().any(|word| text.starts_with(word))
}

/// `(A, B)`. The trait of `&(dyn A + Send)` also stands in parentheses.
fn write_tuple(out: &mut String, mut elements: &str, levels: u32) {
    out.push('(');
    while let Some((first, others)) = brackets::split_once(elements, ",") {
        write_level(out, first, levels);
        out.push(',');
        elements = others.trim_start();
        if !elements.is_empty() {
            out.push(' ');
        }
    }
    if !elements.is_empty() {
        write_level(out, elements, levels);
    }
    out.push(')');
}

/// `[T]` and `[T; N]`. A length that is calculated is left out.
fn write_array(out: &mut String, inner: &str, levels: u32) {
    let (element, length) = brackets::split_once(inner, "; ").map_or((inner, None), |(item, n)| (item, Some(n)));
    out.push('[');
    write_level(out, element, levels);
    if let Some(length) = length {
        let plain = length.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        out.push_str("; ");
        out.push_str(if plain { length } else { "_" });
    }
    out.push(']');
}

/// The last segment, and for closures the function that they are in.
fn write_path(out: &mut String, of_type: &str, levels: u32) {
    let path = Path::of_type(of_type).unwrap_or_default();
    match path.function {
        Some(segment) => write_segment(out, segment, levels),
        None if path.inner[1].is_none() => out.push('_'),
        None => {}
    }
    write_inner(out, &path);
}

/// Closures and blocks, behind what they are in.
pub(super) fn write_inner(out: &mut String, path: &Path<'_>) {
    for name in path.inner.into_iter().flatten() {
        if !out.is_empty() {
            out.push_str("::");
        }
        out.push('{');
        out.push_str(name);
        out.push('}');
    }
}

fn write_segment(out: &mut String, segment: Segment<'_>, levels: u32) {
    match segment {
        Segment::Name(name) => out.push_str(name),
        Segment::Type(of_type) => write_level(out, of_type, levels),
        Segment::Conversion(of_type) => {
            out.push_str("operator ");
            write_level(out, of_type, levels);
        }
    }
}

impl Segment<'_> {
    /// Types rather than modules: a method says little without its own.
    pub(super) fn is_type(&self) -> bool {
        match self {
            Segment::Name(name) => name.starts_with(char::is_uppercase),
            Segment::Type(_) | Segment::Conversion(_) => true,
        }
    }

    /// Types lose their own generics and paths: `&mut [core::task::Waker]` becomes `&mut [Waker]`.
    pub(super) fn write(&self, out: &mut String) {
        write_segment(out, *self, LEVELS);
    }
}
