//! The words of a file that hold one of its own addresses.

use object::elf;

use super::{Architecture, Contents, Image, ImageError, Source, dynamic::Dynamic};

/// Bytes of relocations that are read: several times what the largest programs have.
const MAX_RELOCATIONS: u64 = 96 << 20;

/// Packed relocations that are unpacked. A bit takes 8 bytes of the file and 16 of memory.
const MAX_PACKED: usize = 4 << 20;

/// A word that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    /// Where it stands.
    pub at: u64,
    /// The address that it holds.
    pub to: u64,
}

/// The words of a file that hold one of its own addresses, as its relocations tell.
///
/// A file that is always mapped at the addresses that it names has none: any of its words may be one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// Sorted by where they stand, each once.
    sorted: Vec<Pointer>,
}

impl Pointers {
    /// Reads a file's relocations as its loader finds them, without section headers.
    pub fn read<S: Source + ?Sized>(
        image: &Image,
        source: &S,
        contents: &Contents<'_, S>,
    ) -> Result<Pointers, ImageError> {
        let dynamic = Dynamic::read(source)?;
        let table = |address, size| dynamic.value(address).zip(dynamic.value(size));
        let mut sorted = Vec::new();
        if let Some((address, size)) = table(elf::DT_RELA, elf::DT_RELASZ) {
            explicit(image.architecture, &bytes(contents, address, size)?, &mut sorted);
        }
        if let Some((address, size)) = table(elf::DT_RELR, elf::DT_RELRSZ) {
            let mut addresses = unpack(&bytes(contents, address, size)?)?;
            // In order, so that every part of the file is read once.
            addresses.sort_unstable();
            for at in addresses {
                sorted.extend(contents.word(at)?.map(|to| Pointer { at, to }));
            }
        }
        // Linkers sort them.
        if !sorted.is_sorted() {
            sorted.sort_unstable();
        }
        sorted.dedup_by_key(|pointer| pointer.at);
        Ok(Pointers { sorted })
    }

    /// All of them, in the order of their addresses.
    pub fn sorted(&self) -> &[Pointer] {
        &self.sorted
    }

    /// The address that a word holds, if it is known to hold one.
    pub fn at(&self, address: u64) -> Option<u64> {
        let index = self.sorted.binary_search_by_key(&address, |pointer| pointer.at).ok()?;
        Some(self.sorted[index].to)
    }
}

/// Reads a table. It may end before it should: a file without its data has one that isn't there.
fn bytes<S: Source + ?Sized>(contents: &Contents<'_, S>, address: u64, size: u64) -> Result<Vec<u8>, ImageError> {
    if size > MAX_RELOCATIONS {
        return Err(ImageError::TooLarge { what: "its relocations", size, limit: MAX_RELOCATIONS });
    }
    contents.piece(address, size)
}

/// Adds the words to which only the address is added that the file is mapped to.
fn explicit(architecture: Architecture, table: &[u8], pointers: &mut Vec<Pointer>) {
    let relative = match architecture {
        Architecture::X86_64 => elf::R_X86_64_RELATIVE,
        Architecture::Aarch64 => elf::R_AARCH64_RELATIVE,
    };
    let (entries, _) = table.as_chunks::<24>();
    pointers.extend(entries.iter().filter_map(|entry| {
        let ([at, kind, to], _) = entry.as_chunks::<8>() else { return None };
        let pointer = Pointer { at: u64::from_le_bytes(*at), to: u64::from_le_bytes(*to) };
        (u64::from_le_bytes(*kind) as u32 == relative.0).then_some(pointer)
    }));
}

/// The addresses of packed relocations: an even word is one, an odd one has a bit for each of the 63 words that follow.
fn unpack(table: &[u8]) -> Result<Vec<u64>, ImageError> {
    let (mut addresses, mut next) = (Vec::new(), 0_u64);
    let (words, _) = table.as_chunks::<8>();
    for word in words.iter().copied().map(u64::from_le_bytes) {
        if word & 1 == 0 {
            addresses.push(word);
            next = word.wrapping_add(8);
        } else {
            let bits = (1..u64::BITS).filter(|bit| word >> bit & 1 == 1);
            addresses.extend(bits.map(|bit| next.wrapping_add(8 * u64::from(bit - 1))));
            next = next.wrapping_add(63 * 8);
        }
        if addresses.len() > MAX_PACKED {
            return Err(ImageError::TooLarge {
                what: "its packed relocations",
                size: addresses.len() as u64,
                limit: MAX_PACKED as u64,
            });
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(words: &[u64]) -> Result<Vec<u64>, ImageError> {
        unpack(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }

    #[test]
    fn packed_relocations_are_addresses_and_bits_for_the_words_behind() {
        for (words, expected) in [
            (&[][..], &[][..]),
            (&[0x1000], &[0x1000]),
            (&[0x1000, 0b101], &[0x1000, 0x1010]),
            (&[0x1000, 1 | 1 << 63, 0b11], &[0x1000, 0x1000 + 8 * 63, 0x1000 + 8 * 64]),
            (&[0x1000, 1, 0x3000, 0b11], &[0x1000, 0x3000, 0x3008]),
        ] {
            assert_eq!(unpacked(words).unwrap(), expected, "{words:x?}");
        }
        assert_eq!(unpacked(&[u64::MAX - 1, u64::MAX]).unwrap().len(), 64, "at the end of all addresses");
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        assert!(matches!(unpacked(&vec![u64::MAX; MAX_PACKED / 63 + 2]), Err(ImageError::TooLarge { .. })));
    }
}
