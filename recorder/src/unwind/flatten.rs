//! What every function says → one list for all addresses.

use std::ops::Range;

use super::{
    cfi::{Change, Function, Functions},
    rule::Rules,
};

/// Changes in the order of their addresses: no two at the same address, no two neighbours of the same rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flat {
    pub(super) changes: Vec<Change>,
    /// Behind the last address of which anything is known.
    pub(super) end: u32,
}

/// Puts the functions in order. Between them nothing is known, except in linkage tables.
///
/// Where functions overlap, the one that begins later holds, as far as the next one: that is what the search of
/// `.eh_frame_hdr` finds, by which a program unwinds itself. Of those with the same start, the section's first holds.
pub(super) fn flatten(functions: Functions, linkage_tables: Vec<Range<u32>>, linkage_rule: u16) -> Flat {
    let Functions { mut functions, changes } = functions;
    functions.sort_by_key(|function| function.start);
    functions.dedup_by_key(|function| function.start);
    let mut gaps = Gaps { tables: linkage_tables, rule: linkage_rule };
    gaps.tables.sort_by_key(|table| std::cmp::Reverse(table.start));
    let mut flat = Flat::default();
    let starts = functions.iter().skip(1).map(|next| next.start).chain([u32::MAX]);
    for (function, next) in functions.iter().zip(starts) {
        gaps.fill(flat.end..function.start, &mut flat);
        flat.function(&changes, function, function.end.min(next));
    }
    gaps.fill(flat.end..u32::MAX, &mut flat);
    flat
}

impl Flat {
    fn function(&mut self, changes: &[Change], function: &Function, end: u32) {
        let own = function.first_change as usize..(function.first_change + function.changes) as usize;
        for change in changes[own].iter().take_while(|change| change.address < end) {
            self.change(change.address, change.rule);
        }
        self.ends(end);
    }

    fn change(&mut self, address: u32, rule: u16) {
        self.changes.pop_if(|last| last.address == address);
        if self.changes.last().map_or(Rules::UNKNOWN, |last| last.rule) != rule {
            self.changes.push(Change { address, rule });
        }
    }

    fn ends(&mut self, end: u32) {
        self.change(end, Rules::UNKNOWN);
        self.end = end;
    }
}

/// What lies between functions.
struct Gaps {
    /// The next one last.
    tables: Vec<Range<u32>>,
    rule: u16,
}

impl Gaps {
    fn fill(&mut self, gap: Range<u32>, flat: &mut Flat) {
        while let Some(table) = self.tables.pop_if(|table| table.start < gap.end) {
            let (start, end) = (table.start.max(flat.end), table.end.min(gap.end));
            if start < end {
                flat.change(start, self.rule);
                flat.ends(end);
            }
            if end < table.end {
                // The function that follows is in the midst of this table.
                self.tables.push(end..table.end);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions of which each says one rule.
    fn functions(each: &[(Range<u32>, u16)]) -> Functions {
        let mut all = Functions::default();
        for (Range { start, end }, rule) in each.iter().cloned() {
            let first_change = all.changes.len() as u32;
            all.functions.push(Function { start, end, first_change, changes: 1 });
            all.changes.push(Change { address: start, rule });
        }
        all
    }

    fn flat(each: &[(Range<u32>, u16)], tables: &[(u32, u32)]) -> (Vec<(u32, u16)>, u32) {
        let flat = flatten(functions(each), tables.iter().map(|&(start, end)| start..end).collect(), 9);
        (flat.changes.iter().map(|change| (change.address, change.rule)).collect(), flat.end)
    }

    #[test]
    fn functions_are_put_in_order_with_nothing_known_between_them() {
        assert_eq!(flat(&[(30..40, 2), (10..20, 1)], &[]), (vec![(10, 1), (20, 0), (30, 2), (40, 0)], 40));
        assert_eq!(flat(&[], &[]), (vec![], 0));
    }

    #[test]
    fn neighbours_of_the_same_rule_are_one() {
        assert_eq!(flat(&[(10..20, 1), (20..30, 1), (30..40, 2)], &[]), (vec![(10, 1), (30, 2), (40, 0)], 40));
    }

    #[test]
    fn of_overlapping_functions_the_later_start_holds() {
        for (each, expected) in [
            (&[(10..40, 1), (20..30, 2)][..], vec![(10, 1), (20, 2), (30, 0)]),
            (&[(20..50, 2), (10..30, 1)], vec![(10, 1), (20, 2), (50, 0)]),
            (&[(10..u32::MAX, 1), (20..30, 2), (40..50, 3)], vec![(10, 1), (20, 2), (30, 0), (40, 3), (50, 0)]),
            (&[(10..20, 1), (10..30, 2)], vec![(10, 1), (20, 0)]),
        ] {
            let (changes, end) = flat(each, &[]);
            assert_eq!(changes, expected, "{each:?}");
            assert_eq!(end, expected.last().unwrap().0);
        }
    }

    #[test]
    fn linkage_tables_fill_what_functions_leave() {
        for (tables, expected) in [
            (&[(0, 5)][..], vec![(0, 9), (5, 0), (10, 1), (20, 0), (30, 2), (40, 0)]),
            (&[(5, 15)], vec![(5, 9), (10, 1), (20, 0), (30, 2), (40, 0)]),
            (&[(15, 35)], vec![(10, 1), (20, 9), (30, 2), (40, 0)]),
            (&[(5, 45)], vec![(5, 9), (10, 1), (20, 9), (30, 2), (40, 9), (45, 0)]),
            (
                &[(50, 60), (55, 58), (44, 45)],
                vec![(10, 1), (20, 0), (30, 2), (40, 0), (44, 9), (45, 0), (50, 9), (60, 0)],
            ),
        ] {
            let (changes, end) = flat(&[(10..20, 1), (30..40, 2)], tables);
            assert_eq!(changes, expected, "{tables:?}");
            assert_eq!(end, expected.last().unwrap().0);
        }
    }
}
