//! Which of several layouts is a program's.
//!
//! Those of programs that were built with other features differ in little, and several can look right: one whose pool for
//! blocking code is moved by a word reads other numbers there, which may be small too. So all are tried as long as there are
//! several. What a pool is like is told if all say the same that may be right, and by none that was wrong twice.

use super::{
    Doubt,
    runtimes::{BLOCKING_THREADS, Handle, RuntimeState},
};

/// Walks on which a layout may lead to a pool that can't be one, as while a runtime begins.
const POOL_DOUBTS: u32 = 2;

/// The runtimes that a layout leads to.
pub struct Found {
    pub runtimes: Vec<(Handle, RuntimeState)>,
    /// Whether that is all of them.
    pub are_all: bool,
}

impl Found {
    fn pool_doubt(&self) -> Option<Doubt> {
        self.runtimes.iter().find_map(|(_, state)| state.blocking.err())
    }

    fn doubting_pools(mut self, why: Doubt) -> Found {
        self.runtimes.iter_mut().for_each(|(_, state)| state.blocking = Err(why));
        self
    }
}

/// What was seen of a layout in a process.
#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    /// It is not the program's.
    is_out: bool,
    /// Walks on which it led to runtimes, and to a pool that can't be one.
    pool_doubts: u32,
}

/// What speaks for and against each of the layouts, by their numbers.
#[derive(Debug)]
pub struct Trials {
    layouts: Vec<Trial>,
    chosen: Option<usize>,
}

impl Trials {
    /// Of so many layouts nothing is known.
    pub fn of(layouts: usize) -> Trials {
        Trials { layouts: vec![Trial::default(); layouts], chosen: None }
    }

    /// The one by which runtimes were believed last.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Those that it may be.
    pub fn left(&self) -> Vec<usize> {
        (0..self.layouts.len()).filter(|&index| !self.layouts[index].is_out).collect()
    }

    /// What is believed of what layouts lead to, each to one runtime at least, or why nothing is. `agree` says of two whether
    /// they have the same numbers of a pool in the same places.
    pub fn judge(
        &mut self,
        found: Vec<(usize, Found)>,
        agree: impl Fn(usize, usize) -> bool,
    ) -> Result<Found, Option<Doubt>> {
        for (index, found) in &found {
            self.layouts[*index].pool_doubts += u32::from(found.pool_doubt().is_some());
        }
        let tells = |(index, found): &&(usize, Found)| !self.is_doubtful(*index) && found.pool_doubt().is_none();
        let telling: Vec<usize> = found.iter().filter(tells).map(|(index, _)| *index).collect();
        let Some(&first) = telling.first() else { return self.without_pools(found) };
        for index in self.left() {
            let may_be = found.iter().any(|(other, _)| *other == index) && !self.is_doubtful(index);
            self.layouts[index].is_out = !may_be;
        }
        self.chosen = Some(first);
        let believed = found.into_iter().find_map(|(index, found)| (index == first).then_some(found)).ok_or(None)?;
        if telling.into_iter().all(|index| agree(index, first)) {
            return Ok(believed);
        }
        Ok(believed.doubting_pools(Doubt::NotDescribed(BLOCKING_THREADS)))
    }

    /// No layout says what pools are like. It is that which was right before, or one that was wrong only about them.
    fn without_pools(&mut self, found: Vec<(usize, Found)>) -> Result<Found, Option<Doubt>> {
        let at = found.iter().position(|(index, _)| self.chosen == Some(*index)).unwrap_or_default();
        let (index, found) = found.into_iter().nth(at).ok_or(None)?;
        let why = found.pool_doubt().unwrap_or(Doubt::Implausible(BLOCKING_THREADS));
        if self.chosen != Some(index) && !self.is_doubtful(index) {
            return Err(Some(why));
        }
        self.chosen = Some(index);
        Ok(found.doubting_pools(why))
    }

    /// The only one is the program's own, from its debug information.
    fn is_doubtful(&self, index: usize) -> bool {
        self.layouts.len() > 1 && self.layouts[index].pool_doubts >= POOL_DOUBTS
    }
}
