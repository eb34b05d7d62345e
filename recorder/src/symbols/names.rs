//! Names of functions: as people write them, and as a slice is labelled.
//!
//! A file's names are hostile: what they may cost in time, memory and stack is bounded here, whatever they say.

pub(crate) mod brackets;
mod crates;
mod path;
mod short;
mod types;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

pub use self::short::short;
pub(super) use self::{crates::crates_of, path::has_arguments};

/// What is read of a mangled name, in bytes: thirty times the longest one in LLVM and V8.
const MANGLED_BYTES: usize = 16 << 10;

/// What a name may become, in bytes. A few bytes of back references can stand for gigabytes.
const DEMANGLED_BYTES: usize = 64 << 10;

/// The name of a function as people write it, from the one that a symbol table has.
///
/// Rust names lose their hash and the disambiguators of their crates, C++ names keep their arguments, C names are as
/// they were. Versions (`@@GLIBC_2.34`) and what the linker's optimizer appends (`.llvm.123`) are dropped: they don't
/// name another function. Parts that a compiler cut off keep their mark: `name.cold` in Rust, `name() (.cold)` in C++.
///
/// A name that can't be read, or that would take more than 64 KiB, stays mangled.
pub fn demangle(mangled: &str) -> Cow<'_, str> {
    match without_promotion(without_version(mangled)) {
        Cow::Borrowed(name) => readable(name).map_or(Cow::Borrowed(name), Cow::Owned),
        Cow::Owned(name) => Cow::Owned(readable(&name).unwrap_or(name)),
    }
}

/// `name@VERSION` or `name@@VERSION` without its version. `name@plt` is no version, but another piece of code.
fn without_version(name: &str) -> &str {
    let Some((before, version)) = name.rsplit_once('@') else { return name };
    let before = before.strip_suffix('@').unwrap_or(before);
    let is_version = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if before.is_empty() || version.is_empty() || version == "plt" || !version.bytes().all(is_version) {
        return name;
    }
    before
}

/// `name.llvm.123.cold` as `name.cold`: ThinLTO numbers the local functions that it makes visible to other modules.
fn without_promotion(name: &str) -> Cow<'_, str> {
    const MARK: &str = ".llvm.";
    let Some(at) = name.find(MARK).filter(|&at| at > 0) else { return Cow::Borrowed(name) };
    let (before, number) = (&name[..at], &name[at + MARK.len()..]);
    let end = number.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(number.len());
    match (end, &number[end..]) {
        (0, _) => Cow::Borrowed(name),
        (_, "") => Cow::Borrowed(before),
        (_, suffix) if suffix.starts_with('.') => Cow::Owned(format!("{before}{suffix}")),
        _ => Cow::Borrowed(name),
    }
}

/// None for what is no mangled name, or one that is too much.
fn readable(name: &str) -> Option<String> {
    if name.len() > MANGLED_BYTES {
        return None;
    }
    // rustc-demangle also takes names without the underscore, as other systems have them; here those are C's.
    let demangled = match name.as_bytes() {
        [b'_', b'R', ..] => rust(name),
        [b'_', b'Z', ..] => rust(name).or_else(|| c_plus_plus(name)),
        _ => None,
    };
    demangled.filter(|name| !name.is_empty())
}

fn rust(name: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Limited::default();
    write!(out, "{demangled:#}").ok()?;
    // What is behind a back reference is only found to be wrong when it is printed.
    let damaged = out.text.contains("{recursion limit reached}") || out.text.contains("{invalid syntax}");
    (!damaged).then_some(out.text)
}

/// Suffixes are written as LLVM's tools do; the demangler's own way is `[clone .cold]`.
fn c_plus_plus(name: &str) -> Option<String> {
    // No mangled name has a point of its own.
    let (encoding, suffix) = name.split_at(name.find('.').unwrap_or(name.len()));
    // The default limits of recursion are low enough for a thread's stack without optimization.
    let symbol = cpp_demangle::Symbol::new(encoding).ok()?;
    let mut out = Limited::default();
    symbol.structured_demangle(&mut out, &cpp_demangle::DemangleOptions::new()).ok()?;
    if !suffix.is_empty() {
        write!(out, " ({suffix})").ok()?;
    }
    Some(out.text)
}

/// Text of at most [`DEMANGLED_BYTES`]. More of it is an error, at which the demanglers stop.
#[derive(Default)]
struct Limited {
    text: String,
}

impl Write for Limited {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.text.len() + more.len() > DEMANGLED_BYTES {
            return Err(fmt::Error);
        }
        self.text.push_str(more);
        Ok(())
    }
}
