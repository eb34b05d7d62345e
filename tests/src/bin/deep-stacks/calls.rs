//! Paths through calls of every kind.

use std::{cell::Cell, ffi::c_void, hint::black_box, sync::LazyLock};

use polletto_tests::workload::own_cpu_time;
use regex::{Captures, Regex};

use crate::bottom::{SHORT, bottom};

trait Work {
    fn work(&self) -> u64;
}

struct AtBottom;

impl Work for AtBottom {
    fn work(&self) -> u64 {
        bottom()
    }
}

struct Around<W>(W);

impl<W: Work> Work for Around<W> {
    fn work(&self) -> u64 {
        black_box(layer(&self.0))
    }
}

/// Another function for each type.
#[inline(never)]
fn layer<W: Work>(work: &W) -> u64 {
    black_box(work.work())
}

#[inline(never)]
pub fn through_generics() -> u64 {
    black_box(layer(&Around(Around(AtBottom))))
}

#[inline(never)]
fn call_with<F: FnOnce(u64) -> u64>(seed: u64, call: F) -> u64 {
    black_box(call(black_box(seed)))
}

#[inline(never)]
pub fn through_closures() -> u64 {
    let captured = black_box(5);
    black_box(call_with(captured, |seed| seed + call_with(seed + captured, |seed| seed ^ bottom())))
}

trait Layer {
    fn pass(&self, inner: &[Box<dyn Layer>]) -> u64;
}

fn next(inner: &[Box<dyn Layer>]) -> u64 {
    inner.split_first().map_or_else(bottom, |(layer, inner)| layer.pass(inner))
}

struct Plain;
struct Scaled(u64);
struct Padded([u64; 32]);

impl Layer for Plain {
    #[inline(never)]
    fn pass(&self, inner: &[Box<dyn Layer>]) -> u64 {
        black_box(next(inner))
    }
}

impl Layer for Scaled {
    #[inline(never)]
    fn pass(&self, inner: &[Box<dyn Layer>]) -> u64 {
        black_box(next(inner).wrapping_mul(self.0))
    }
}

impl Layer for Padded {
    /// With a large frame.
    #[inline(never)]
    fn pass(&self, inner: &[Box<dyn Layer>]) -> u64 {
        let copy = black_box(self.0);
        black_box(next(inner) ^ copy.iter().sum::<u64>())
    }
}

#[inline(never)]
pub fn through_dyn() -> u64 {
    let layers: Vec<Box<dyn Layer>> = vec![Box::new(Plain), Box::new(Scaled(3)), Box::new(Padded([1; 32]))];
    black_box(next(black_box(&layers)))
}

thread_local! {
    static COMPARED: Cell<bool> = const { Cell::new(false) };
}

/// Goes to the bottom the first time that it is called.
#[inline(never)]
extern "C" fn compare(left: *const c_void, right: *const c_void) -> i32 {
    if !COMPARED.replace(true) {
        black_box(bottom());
    }
    // SAFETY: `qsort` is given an array of `u32`s, and passes pointers to two of them.
    let (left, right) = unsafe { (*left.cast::<u32>(), *right.cast::<u32>()) };
    left.cmp(&right) as i32
}

/// Through C, and back into Rust.
#[inline(never)]
pub fn through_qsort() -> u64 {
    let mut numbers: Vec<u32> = (0..64u32).map(|number| number.wrapping_mul(0x9e37_79b9)).collect();
    COMPARED.set(false);
    // SAFETY: the array has as many elements of that size; `compare` takes pointers to such.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), size_of::<u32>(), Some(compare)) };
    u64::from(black_box(numbers)[0])
}

#[inline(never)]
fn replacement(captures: &Captures<'_>) -> String {
    let number = bottom();
    format!("{number}{}", &captures[1])
}

#[inline(never)]
pub fn through_regex() -> u64 {
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(\w+)@\w+\.example").expect("a pattern"));
    let replaced = PATTERN.replace(black_box("mail to someone@somewhere.example today"), replacement);
    black_box(replaced.len() as u64)
}

/// Computes inside of the matcher.
#[inline(never)]
pub fn through_matching() -> u64 {
    static PATTERN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\b(\w+)\s+(\w+)\b.*?\b(fox|dog)s?\b").expect("a pattern"));
    static TEXT: LazyLock<String> = LazyLock::new(|| "The quick brown Fox jumps over the lazy dogs. ".repeat(20));
    let end = own_cpu_time() + SHORT;
    let mut found = 0;
    while own_cpu_time() < end {
        found += PATTERN.captures_iter(black_box(&TEXT)).map(|found| found[1].len() as u64).sum::<u64>();
    }
    black_box(found)
}

#[inline(never)]
fn descend(depth: u64) -> u64 {
    let below = if black_box(depth) == 1 { bottom() } else { descend(depth - 1) };
    black_box(below ^ depth)
}

#[inline(never)]
pub fn through_recursion(depth: u64) -> u64 {
    black_box(descend(depth))
}
