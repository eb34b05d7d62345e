//! One list for all addresses → pages.

use polletto_common::unwind::{PAGE_BYTES, Page, Row};

use super::{Error, cfi::Change, flatten::Flat, rule::Rules};

/// The pages of a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    /// The number of the first one, counted from where addresses are counted from.
    pub(super) first: u32,
    pub(super) pages: Vec<Page>,
    pub(super) rows: Vec<Row>,
    /// Those with more rows than a page can count, of which nothing is known now.
    pub(super) crowded: u64,
}

/// Cuts a list into pages, each with a row for its first address.
pub(super) fn cut(flat: &Flat) -> Result<Pages, Error> {
    let mut cut = Pages::default();
    let (Some(first), Some(last)) = (flat.changes.first(), flat.end.checked_sub(1)) else { return Ok(cut) };
    cut.first = page_of(first.address);
    let (mut rest, mut rule) = (&flat.changes[..], Rules::UNKNOWN);
    for page in cut.first..=page_of(last) {
        let own;
        (own, rest) = rest.split_at(rest.partition_point(|change| page_of(change.address) <= page));
        cut.page(own, rule);
        rule = own.last().map_or(rule, |change| change.rule);
        if cut.rows.len() > Page::MAX_FIRST_ROW as usize {
            return Err(Error::TooManyRows);
        }
    }
    Ok(cut)
}

impl Pages {
    /// Adds a page, at the start of which `rule` still holds.
    fn page(&mut self, own: &[Change], rule: u16) {
        let first_row = self.rows.len();
        if own.first().is_none_or(|change| low_byte(change.address) != 0) {
            self.rows.push(Row::new(0, rule));
        }
        self.rows.extend(own.iter().map(|change| Row::new(low_byte(change.address), change.rule)));
        let rows = u8::try_from(self.rows.len() - first_row).unwrap_or_else(|_| {
            self.crowded += 1;
            self.rows.truncate(first_row);
            self.rows.push(Row::new(0, Rules::UNKNOWN));
            1
        });
        self.pages.push(Page::new(first_row as u32, rows));
    }
}

fn page_of(address: u32) -> u32 {
    address / PAGE_BYTES as u32
}

fn low_byte(address: u32) -> u8 {
    (address % PAGE_BYTES as u32) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(changes: impl IntoIterator<Item = (u32, u16)>, end: u32) -> Flat {
        Flat { changes: changes.into_iter().map(|(address, rule)| Change { address, rule }).collect(), end }
    }

    #[test]
    fn every_page_begins_with_what_still_holds() {
        let pages = cut(&flat([(0x210, 1), (0x300, 2), (0x5ff, 3), (0x601, 0)], 0x601)).unwrap();
        let row = Row::new;
        assert_eq!((pages.first, pages.crowded), (2, 0));
        assert_eq!(
            pages.rows,
            [row(0, 0), row(0x10, 1), row(0, 2), row(0, 2), row(0, 2), row(0xff, 3), row(0, 3), row(1, 0)]
        );
        assert_eq!(pages.pages, [(0, 2), (2, 1), (3, 1), (4, 2), (6, 2)].map(|(first, rows)| Page::new(first, rows)));
    }

    #[test]
    fn a_table_that_ends_with_its_page_has_no_page_behind() {
        assert_eq!(cut(&flat([(0x100, 1), (0x200, 0)], 0x200)).unwrap().pages, [Page::new(0, 1)]);
        assert_eq!(cut(&Flat::default()).unwrap(), Pages::default());
    }

    #[test]
    fn a_page_of_too_many_rows_is_unknown_and_its_neighbours_are_not() {
        for (rows, crowded) in [(255, 0), (256, 1)] {
            let changes = (0..rows).map(|at| (0x100 + at, 1 + at as u16)).chain([(0x280, 0)]);
            let pages = cut(&flat(changes, 0x280)).unwrap();
            assert_eq!(pages.crowded, crowded);
            let last = &pages.rows[pages.pages[1].first_row() as usize..];
            assert_eq!(last, [Row::new(0, rows as u16), Row::new(0x80, 0)]);
            assert_eq!(pages.pages[0].rows(), if crowded == 0 { 255 } else { 1 });
        }
    }
}
