//! A [`Table`] as bytes on disk.
//!
//! `magic | version | key | counts | first page | omissions | pages | rows | rules | CRC-32 of all before`, little-endian.
//! The key is the SHA-256 of all that the table was made of. What is read back may be cut, old, or somebody else's: it is
//! a table only if every index in it leads to where it should.

use polletto_common::unwind::{Cfa, PAGE_BYTES, Page, Row, Rule, Saved};

use super::{MAX_PAGES, Omissions, Table, rule::Rules};

/// Counts up whenever bytes that mean one thing begin to mean another, or the same file makes another table.
pub(super) const VERSION: u32 = 2;

/// The SHA-256 of all that a table is made of.
pub(super) type Key = [u8; 32];

const MAGIC: [u8; 8] = *b"pollunwd";
const CHECKSUM_BYTES: usize = 4;

/// The table as bytes.
pub(super) fn encode(table: &Table, key: &Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 4 * (table.pages.len() + table.rows.len()) + 16 * table.rules.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(key);
    for count in [table.pages.len(), table.rows.len(), table.rules.len()] {
        out.extend((count as u32).to_le_bytes());
    }
    out.extend(table.first_page.to_le_bytes());
    let Omissions { broken, empty, outside, unsupported, excess, crowded_pages } = table.omissions;
    out.extend([broken, empty, outside, unsupported, excess, crowded_pages].map(u64::to_le_bytes).as_flattened());
    table.pages.iter().for_each(|page| out.extend(page.0.to_le_bytes()));
    table.rows.iter().for_each(|row| out.extend(row.0.to_le_bytes()));
    table.rules.iter().for_each(|rule| out.extend(rule_bytes(rule)));
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

/// The table that these bytes are. `None` if they are not exactly one, made of what the key stands for.
pub(super) fn decode(bytes: &[u8], key: &Key) -> Option<Table> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if checksum != crc32fast::hash(content).to_le_bytes() {
        return None;
    }
    let mut rest = content;
    if take(&mut rest)? != MAGIC || take(&mut rest)? != VERSION.to_le_bytes() || take(&mut rest)? != *key {
        return None;
    }
    let [pages, rows, rules] = [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
    let first_page = u64::from_le_bytes(take(&mut rest)?);
    let mut omission = || take(&mut rest).map(u64::from_le_bytes);
    let omissions = Omissions {
        broken: omission()?,
        empty: omission()?,
        outside: omission()?,
        unsupported: omission()?,
        excess: omission()?,
        crowded_pages: omission()?,
    };
    let pages: Vec<Page> = words(&mut rest, pages)?.map(Page).collect();
    let rows: Vec<Row> = words(&mut rest, rows)?.map(Row).collect();
    let (bytes_of_rules, behind) = rest.split_at_checked(rules.checked_mul(size_of::<Rule>())?)?;
    let rules = bytes_of_rules.as_chunks().0.iter().map(rule).collect();
    let table = Table { first_page, pages, rows, rules, omissions };
    (behind.is_empty() && is_sound(&table)).then_some(table)
}

/// Whether every search in it ends at a rule.
fn is_sound(table: &Table) -> bool {
    let counts = table.pages.len() as u64 <= MAX_PAGES && table.rules.len() <= Rules::MAX;
    let end = table.first_page.checked_add(table.pages.len() as u64);
    let addresses = end.is_some_and(|end| end <= u64::MAX / PAGE_BYTES);
    let page = |page: &Page| {
        let rows = table.rows.get(page.first_row() as usize..).and_then(|rows| rows.get(..page.rows() as usize));
        rows.is_some_and(|rows| {
            rows.first().is_some_and(|first| first.address() == 0)
                && rows.is_sorted_by(|row, next| row.address() < next.address())
                && rows.iter().all(|row| (row.rule() as usize) < table.rules.len())
        })
    };
    counts && addresses && table.pages.iter().all(page)
}

fn rule_bytes(rule: &Rule) -> [u8; size_of::<Rule>()] {
    let mut bytes = [0; size_of::<Rule>()];
    bytes[..4].copy_from_slice(&[rule.cfa.0, rule.frame_pointer.0, rule.return_address.0, 0]);
    bytes[4..8].copy_from_slice(&rule.cfa_offset.to_le_bytes());
    bytes[8..12].copy_from_slice(&rule.frame_pointer_offset.to_le_bytes());
    bytes[12..14].copy_from_slice(&rule.return_address_offset.to_le_bytes());
    bytes[14..].copy_from_slice(&rule.cfa_addend.to_le_bytes());
    bytes
}

fn rule(bytes: &[u8; size_of::<Rule>()]) -> Rule {
    let [cfa, frame_pointer, return_address, _, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, d0, d1] = *bytes;
    Rule {
        cfa: Cfa(cfa),
        frame_pointer: Saved(frame_pointer),
        return_address: Saved(return_address),
        reserved: 0,
        cfa_offset: i32::from_le_bytes([a0, a1, a2, a3]),
        frame_pointer_offset: i32::from_le_bytes([b0, b1, b2, b3]),
        return_address_offset: i16::from_le_bytes([c0, c1]),
        cfa_addend: i16::from_le_bytes([d0, d1]),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take(rest)?)).ok()
}

fn words<'a>(rest: &mut &'a [u8], count: usize) -> Option<impl Iterator<Item = u32> + use<'a>> {
    let (taken, behind) = rest.split_at_checked(count.checked_mul(4)?)?;
    *rest = behind;
    Some(taken.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn table() -> Table {
        let rule = Rule {
            cfa: Cfa::AT_FRAME_POINTER,
            frame_pointer: Saved::AT_CFA,
            return_address: Saved::AT_CFA,
            reserved: 0,
            cfa_offset: -0x12345,
            frame_pointer_offset: 0x1234567,
            return_address_offset: -8,
            cfa_addend: 0x123,
        };
        Table {
            first_page: 0x1234,
            pages: vec![Page::new(0, 2), Page::new(2, 1)],
            rows: vec![Row::new(0, 0), Row::new(3, 1), Row::new(0, 1)],
            rules: vec![Rule::default(), rule],
            omissions: Omissions { broken: 1, empty: 2, outside: 3, unsupported: 4, excess: 5, crowded_pages: 6 },
        }
    }

    #[test]
    fn a_table_comes_back_as_it_was() {
        for table in [table(), Table::default()] {
            assert_eq!(decode(&encode(&table, &KEY), &KEY), Some(table));
        }
    }

    #[test]
    fn bytes_with_any_bit_changed_or_cut_or_added_are_no_table() {
        let bytes = encode(&table(), &KEY);
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at], &KEY), None, "cut at {at}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(decode(&changed, &KEY), None, "bit {bit} of byte {at}");
            }
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat(), &KEY), None);
        assert_eq!(decode(&bytes, &[8; 32]), None);
    }

    #[test]
    fn a_table_that_leads_astray_is_none_even_with_the_right_checksum() {
        for (claim, spoil) in [
            ("a page reaches behind the rows", (|table| table.pages[1] = Page::new(2, 2)) as fn(&mut Table)),
            ("a page begins behind the rows", |table| table.pages[1] = Page::new(9, 1)),
            ("a page has no rows", |table| table.pages[1] = Page::new(0, 0)),
            ("a page begins in its midst", |table| table.rows[2] = Row::new(1, 1)),
            ("rows are out of order", |table| table.rows[1] = Row::new(0, 1)),
            ("there is no such rule", |table| table.rows[1] = Row::new(3, 2)),
            ("addresses overflow", |table| table.first_page = u64::MAX / PAGE_BYTES),
            ("pages overflow", |table| table.first_page = u64::MAX),
            ("there are too many rules", |table| table.rules.resize(Rules::MAX + 1, Rule::default())),
        ] {
            let mut spoilt = table();
            spoil(&mut spoilt);
            assert_eq!(decode(&encode(&spoilt, &KEY), &KEY), None, "{claim}");
        }
    }
}
