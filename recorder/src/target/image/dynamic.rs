//! What a file tells its loader.

use object::{
    LittleEndian as LE,
    elf::{self, Dyn64},
    pod,
};

use super::{ImageError, Source, headers, read_up_to};

/// Bytes that are read. Honest ones have about 500.
const MAX_BYTES: u64 = 64 << 10;

/// The dynamic section. Empty where there is none: the file is complete and always at the same addresses.
pub(super) struct Dynamic(Vec<(elf::DynamicTag, u64)>);

impl Dynamic {
    pub(super) fn read(source: &(impl Source + ?Sized)) -> Result<Dynamic, ImageError> {
        let Some(place) = headers::program(source, elf::PT_DYNAMIC)? else { return Ok(Dynamic(Vec::new())) };
        let bytes = read_up_to(source, place.p_offset.get(LE), place.p_filesz.get(LE).min(MAX_BYTES))?;
        let whole = bytes.len() - bytes.len() % size_of::<Dyn64<LE>>();
        let entries = pod::slice_from_all_bytes::<Dyn64<LE>>(&bytes[..whole]).unwrap_or_default();
        let entries = entries.iter().map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE)));
        Ok(Dynamic(entries.take_while(|&(tag, _)| tag != elf::DT_NULL).collect()))
    }

    /// The first value of a kind.
    pub(super) fn value(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.0.iter().find(|&&(found, _)| found == tag).map(|&(_, value)| value)
    }
}
