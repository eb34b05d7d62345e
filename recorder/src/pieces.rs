//! Pieces of an address space, of which the newest counts where several lie.

use std::ops::Range;

/// Something that has addresses, and of which a part is something as well.
pub trait Piece: Clone {
    /// Its addresses: at least one.
    fn addresses(&self) -> Range<u64>;

    /// The part of it that has these addresses, which are among its own.
    fn part(&self, addresses: Range<u64>) -> Self;
}

/// Pieces in the order of their addresses, none of them overlapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces<P>(Vec<P>);

impl<P> Default for Pieces<P> {
    fn default() -> Pieces<P> {
        Pieces(Vec::new())
    }
}

impl<P: Piece> Pieces<P> {
    /// Puts a piece in the place of whatever lies there. False if nothing did.
    pub fn insert(&mut self, piece: P) -> bool {
        let Range { start, end } = piece.addresses();
        let first = self.0.partition_point(|before| before.addresses().end <= start);
        let after = self.0.partition_point(|before| before.addresses().start < end);
        let overlapped = &self.0[first..after];
        let part = |of: &P, addresses: Range<u64>| (!addresses.is_empty()).then(|| of.part(addresses));
        let left = overlapped.first().and_then(|of| part(of, of.addresses().start..start));
        let right = overlapped.last().and_then(|of| part(of, end..of.addresses().end));
        self.0.splice(first..after, [left, Some(piece), right].into_iter().flatten());
        first < after
    }

    /// The piece that lies at an address.
    pub fn find(&self, address: u64) -> Option<&P> {
        let after = self.0.partition_point(|piece| piece.addresses().start <= address);
        self.0[..after].last().filter(|piece| piece.addresses().contains(&address))
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, P> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, and how far into the piece of that name it begins.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Named(u64, u64, char, u64);

    impl Piece for Named {
        fn addresses(&self) -> Range<u64> {
            self.0..self.1
        }

        fn part(&self, addresses: Range<u64>) -> Named {
            Named(addresses.start, addresses.end, self.2, self.3 + addresses.start - self.0)
        }
    }

    fn pieces() -> Pieces<Named> {
        let mut pieces = Pieces::default();
        for piece in [Named(10, 20, 'a', 0), Named(20, 30, 'b', 0), Named(40, 50, 'c', 0)] {
            pieces.insert(piece);
        }
        pieces
    }

    #[test]
    fn a_piece_replaces_what_it_overlaps() {
        let (a, b, c) = (Named(10, 20, 'a', 0), Named(20, 30, 'b', 0), Named(40, 50, 'c', 0));
        let new = |start, end| Named(start, end, 'n', 0);
        let cases = [
            ("in a gap", new(30, 40), vec![a.clone(), b.clone(), new(30, 40), c.clone()]),
            ("the same", new(20, 30), vec![a.clone(), new(20, 30), c.clone()]),
            (
                "inside",
                new(12, 15),
                vec![Named(10, 12, 'a', 0), new(12, 15), Named(15, 20, 'a', 5), b.clone(), c.clone()],
            ),
            ("two halves", new(15, 25), vec![Named(10, 15, 'a', 0), new(15, 25), Named(25, 30, 'b', 5), c.clone()]),
            ("all", new(0, 100), vec![new(0, 100)]),
            ("over a gap", new(25, 45), vec![a, Named(20, 25, 'b', 0), new(25, 45), Named(45, 50, 'c', 5)]),
        ];
        for (what, new, expected) in cases {
            let mut pieces = pieces();
            pieces.insert(new);
            assert_eq!(pieces.0, expected, "{what}");
        }
    }

    #[test]
    fn an_address_is_found_in_its_piece_only() {
        let pieces = pieces();
        let found = [9, 10, 19, 20, 30, 40, 50].map(|address| pieces.find(address).map(|piece| piece.2));
        assert_eq!(found, [None, Some('a'), Some('a'), Some('b'), None, Some('c'), None]);
    }
}
