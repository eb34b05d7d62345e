//! Between the innermost crate and the program: inlines the one, and is inlined into the other.

#[path = "shapes.rs"]
pub mod shapes;

use std::hint::black_box;

/// Its loops are of this crate, and what is in them is not.
#[inline(always)]
pub fn layers(seed: u64, words: &[u32]) -> u64 {
    let first = leaf::mix(words);
    let second = leaf::stir(first, seed);
    second ^ deeper(second, words)
}

#[inline(always)]
fn deeper(seed: u64, words: &[u32]) -> u64 {
    let mut total = seed;
    leaf::with_each(words.len() as u64, |index| {
        total = leaf::stir(total, index);
        if total % 5 == 0 {
            total = total.wrapping_add(rare(total));
        }
    });
    total
}

#[cold]
#[inline(never)]
fn rare(value: u64) -> u64 {
    leaf::apart(black_box(value), 2).len() as u64
}

/// Chains of the standard library's adapters, all of which are inlined.
#[inline(always)]
pub fn chained(words: &[u32]) -> u64 {
    words
        .iter()
        .copied()
        .filter(|word| word % 3 != 0)
        .map(|word| u64::from(word) * 3)
        .zip(1_u64..)
        .fold(0, |sum, (word, index)| leaf::stir(sum, word ^ index))
}

/// Sorting calls back from code that others have written.
pub fn sorted<T: Copy>(mut words: Vec<T>, key: impl Fn(&T) -> u64) -> Vec<T> {
    words.sort_by_key(|word| leaf::stir(key(word), 1));
    words
}
