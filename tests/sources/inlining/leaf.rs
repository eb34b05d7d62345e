//! The innermost of three crates: everything here ends up inside of others' functions.

use std::hint::black_box;

/// Something that is generic, inlined, and calls another one that is.
#[inline(always)]
pub fn mix<T: Into<u64> + Copy>(values: &[T]) -> u64 {
    let mut sum = 0;
    for value in values {
        sum = stir(sum, (*value).into());
    }
    sum
}

#[inline(always)]
pub fn stir(state: u64, value: u64) -> u64 {
    let state = black_box(state).rotate_left(7);
    twist(state ^ value)
}

#[inline(always)]
fn twist(value: u64) -> u64 {
    let product = black_box(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 29
}

/// Not inlined, and of as many copies as there are types.
#[inline(never)]
pub fn apart<T: std::fmt::Debug + Copy>(value: T, times: usize) -> String {
    let mut text = String::new();
    for _ in 0..times {
        text.push_str(&format!("{value:?}"));
    }
    text
}

/// Calls a closure in the middle of inlined code.
#[inline(always)]
pub fn with_each<F: FnMut(u64)>(count: u64, mut each: F) {
    let mut index = 0;
    while index < count {
        each(black_box(index));
        index += 1;
    }
}
