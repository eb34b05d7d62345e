//! Slices of tracks, put together from their beginnings and ends.

use std::collections::HashMap;

use super::{Arguments, Event, EventKind, Nanoseconds, Trace};

/// A slice that has an end.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackSlice<'a> {
    /// The track's uuid.
    pub track: u64,
    /// When it begins.
    pub begin: Nanoseconds,
    /// When it ends.
    pub end: Nanoseconds,
    /// Its name.
    pub name: &'a str,
    /// Debug annotations by their name.
    pub arguments: &'a Arguments,
    /// Numbers of the arrows that lead to its beginning, or from there.
    pub flows: &'a [u64],
}

impl Trace {
    /// Slices of a category, in the order in which they end.
    pub fn slices_of<'a>(&'a self, category: &str) -> impl Iterator<Item = TrackSlice<'a>> {
        let mut open: HashMap<u64, Vec<&Event>> = HashMap::new();
        let mut slices = Vec::new();
        for event in &self.events {
            match event.kind {
                EventKind::Begin => open.entry(event.track).or_default().push(event),
                EventKind::End => {
                    let begin = open.entry(event.track).or_default().pop();
                    let begin = begin.unwrap_or_else(|| panic!("an end without a beginning: {event:?}"));
                    if begin.categories.iter().any(|of| of == category) {
                        let Event { at, track, name, arguments, flows, .. } = begin;
                        slices.push(TrackSlice { track: *track, begin: *at, end: event.at, name, arguments, flows });
                    }
                }
                EventKind::Instant | EventKind::Counter(_) => {}
            }
        }
        slices.into_iter()
    }
}
