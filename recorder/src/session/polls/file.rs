//! A file whose code polls: where it is to be probed, and what probes there tell.

use std::sync::Arc;

use polletto_common::poll::Site;

use super::{process::Wanted, wakes};
use crate::{
    code::{AfterReturn, Entry, Polls},
    families::ProbedCode,
    session::{changes::Code, modules::ModuleFile},
};

/// A file whose code polls.
pub(super) struct Polling {
    pub(super) file: Arc<ModuleFile>,
    /// For each family of runtimes in it.
    pub(super) code: Vec<ProbedCode>,
}

impl Polling {
    /// Why some of what it does is not told.
    pub(super) fn refusals(&self) -> impl Iterator<Item = String> {
        self.code.iter().flat_map(|ProbedCode { polls, wakes }| {
            let polls = polls.entries().iter().filter_map(|entry| entry.place.as_ref().err().map(ToString::to_string));
            polls.chain(wakes.iter().flat_map(wakes::refusals))
        })
    }

    /// What is to be probed from the first on, where the file's code stands there in a process. In this order they are
    /// attached: what a poll does that is seen to begin is seen as well.
    pub(super) fn wanted(&self, code: &Code) -> Vec<Wanted> {
        let wakes = self.code.iter().filter_map(|code| code.wakes.as_ref());
        let mut wanted: Vec<Wanted> = wakes.flat_map(wakes::wanted).collect();
        let entries = self.code.iter().flat_map(|ProbedCode { polls, .. }| polls.entries());
        wanted.extend(entries.filter_map(|entry| begin(entry, code)));
        wanted.extend(self.likely_ends(code));
        wanted
    }

    /// Where polls end, for all that the calls look like: so that the first ones need not be missed.
    fn likely_ends(&self, code: &Code) -> impl Iterator<Item = Wanted> {
        let returns = self.code.iter().flat_map(|ProbedCode { polls, .. }| polls.likely_returns());
        returns.filter_map(|&address| {
            let return_address = address.wrapping_add(code.bias);
            match self.after_return(code, return_address).ok()? {
                AfterReturn::Place(place) => {
                    Some(Wanted { site: Site::End { return_address, popped: place.moved }, place })
                }
                AfterReturn::Outwards { .. } => None,
            }
        })
    }

    /// What follows in a process where polls return to this address. The reason why that is not known may have been told.
    pub(super) fn after_return(&self, code: &Code, address: u64) -> Result<AfterReturn, Option<String>> {
        let image = self.file.image.as_ref().ok_or(None)?;
        // Families differ in what polls, not in how what follows is read.
        let polls = self.code.first().map(|code| &code.polls).ok_or(None)?;
        let after = polls.after_return(image, &self.file.source, address.wrapping_sub(code.bias));
        after.map_err(|reason| Some(reason.to_string()))
    }
}

/// A probe where polls begin; none where there is no place for one.
fn begin(entry: &Entry, code: &Code) -> Option<Wanted> {
    let place = entry.place.clone().ok().filter(|place| place.moved <= 0)?;
    // The stack grows downwards.
    let pushed = place.moved.unsigned_abs();
    let site = match entry.polls {
        Polls::Tokio => Site::Begin { pushed },
        Polls::Own { may_block } => {
            Site::BeginOwn { pushed, function: entry.function.wrapping_add(code.bias), may_block }
        }
    };
    Some(Wanted { place, site })
}
