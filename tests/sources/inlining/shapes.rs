//! Trait objects: what a call leads to is not known when it is compiled.

use std::collections::BTreeMap;

pub trait Shape {
    fn area(&self) -> f64;

    /// Given to all, and compiled for each.
    fn scaled(&self, by: f64) -> f64 {
        self.area() * by * by
    }
}

pub struct Circle(pub f64);
pub struct Named<S> {
    pub inner: S,
    pub marks: BTreeMap<String, f64>,
}

impl Shape for Circle {
    fn area(&self) -> f64 {
        square(self.0) * std::f64::consts::PI
    }
}

impl<S: Shape> Shape for Named<S> {
    fn area(&self) -> f64 {
        let most = self.marks.values().copied().map(square).fold(0.0, f64::max);
        self.inner.area() + most
    }
}

impl<S> Drop for Named<S> {
    fn drop(&mut self) {
        self.marks.insert("dropped".to_owned(), square(1.5));
    }
}

#[inline(always)]
fn square(value: f64) -> f64 {
    let value = std::hint::black_box(value);
    value * value
}
