//! A program of three crates, in which most of what runs was inlined.

#[path = "futures.rs"]
mod futures;

use std::{collections::BTreeMap, hint::black_box};

use middle::shapes::{Circle, Named, Shape};

/// Three crates in one function.
#[inline(never)]
fn outer(seed: u64) -> u64 {
    let words: Vec<u32> = (0..black_box(40)).map(|word| word ^ seed as u32).collect();
    let layered = middle::layers(seed, &words);
    let chained = middle::chained(&words);
    layered.wrapping_add(chained)
}

macro_rules! repeated {
    ($($name:ident: $type:ty),*) => {
        $(
            #[inline(never)]
            fn $name(value: $type) -> u64 {
                let text = leaf::apart(value, 3);
                leaf::mix(text.as_bytes())
            }
        )*
    };
}

repeated!(of_bytes: u8, of_words: u64, of_floats: f32, of_pairs: (u8, char), of_options: Option<i16>);

/// Closures in closures, some of them behind a pointer.
#[inline(never)]
fn closures(depth: u64) -> u64 {
    let add = move |value: u64| value.wrapping_add(depth);
    let boxed: Box<dyn Fn(u64) -> u64> = Box::new(move |value| {
        let twice = |value: u64| add(add(value));
        leaf::stir(twice(value), black_box(depth))
    });
    let mut total = 0_u64;
    leaf::with_each(depth, |index| total = total.wrapping_add(boxed(index)));
    total
}

#[inline(never)]
fn shapes(count: u32) -> f64 {
    let mut all: Vec<Box<dyn Shape>> = Vec::new();
    for index in 0..black_box(count) {
        let circle = Circle(f64::from(index));
        if index % 2 == 0 {
            all.push(Box::new(circle));
        } else {
            let marks = BTreeMap::from([(index.to_string(), f64::from(index))]);
            all.push(Box::new(Named { inner: circle, marks }));
        }
    }
    all.iter().map(|shape| shape.scaled(1.5)).sum()
}

#[inline(never)]
fn fails(text: &str) -> Result<u64, std::num::ParseIntError> {
    let number: u64 = text.trim().parse()?;
    Ok(leaf::stir(number, 3))
}

fn main() {
    let mut total = outer(black_box(7));
    total ^= of_bytes(1) ^ of_words(2) ^ of_floats(3.0) ^ of_pairs((4, 'x')) ^ of_options(Some(5));
    total ^= closures(black_box(9));
    total ^= shapes(6).to_bits();
    total ^= futures::run(total);
    total ^= fails("12").unwrap_or_default() ^ fails("x").unwrap_or(1);
    let words = middle::sorted(vec![3_u32, 1, 2], |word| u64::from(*word));
    let texts = middle::sorted(vec!["c", "a", "b"], |text| text.len() as u64);
    println!("{total} {words:?} {texts:?}");
}
