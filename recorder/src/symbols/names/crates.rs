//! The crates that a Rust name speaks of.

use super::{brackets, path::type_and_trait};

/// How deep `<<<A as B>::C as D>::E as F>` is followed.
const LEVELS: u32 = 8;

/// The crates of a function's path, as far as it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Crates<'a> {
    /// Where the path begins, or that of the type whose method it is. None for primitive types and parameters.
    pub(in super::super) of_type: Option<&'a str>,
    /// That of the trait, where the method is one's.
    pub(in super::super) of_trait: Option<&'a str>,
    /// It is a method of a type without a crate.
    pub(in super::super) of_primitive: bool,
}

/// The crates of `app::run`, `<app::T as tower::Service>::call` or `<[T]>::sort`.
pub(in super::super) fn crates_of(function: &str) -> Crates<'_> {
    at_level(function, LEVELS)
}

fn at_level(path: &str, levels: u32) -> Crates<'_> {
    if !path.starts_with('<') || levels == 0 {
        return Crates { of_type: first_segment(path), ..Crates::default() };
    }
    let (of_type, of_trait) = type_and_trait(brackets::inside(path, 0).0);
    let of_type = at_level(without_prefixes(of_type), levels - 1);
    let of_type = of_type.of_type.or(of_type.of_trait);
    Crates { of_type, of_trait: of_trait.and_then(first_segment), of_primitive: of_type.is_none() }
}

/// What is behind references, pointers, lifetimes and `dyn`.
fn without_prefixes(of_type: &str) -> &str {
    let mut rest = of_type;
    loop {
        let behind = rest.trim_start_matches(['&', '*', ' ']);
        let words = ["mut ", "const ", "dyn ", "(dyn ", "impl "];
        let behind = words.iter().find_map(|word| behind.strip_prefix(word)).unwrap_or(behind);
        let behind = match behind.strip_prefix('\'') {
            Some(lifetime) => lifetime.split_once(' ').map_or("", |(_, behind)| behind),
            None => behind,
        };
        if behind.len() == rest.len() {
            return rest;
        }
        rest = behind;
    }
}

/// The identifier that other segments follow.
fn first_segment(path: &str) -> Option<&str> {
    let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    (end > 0 && path[end..].starts_with("::")).then(|| &path[..end])
}
