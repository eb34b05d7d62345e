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

/// Whether a file is a program, and no library: it has fixed addresses, asks for a loader, or says so.
pub(super) fn is_program(source: &(impl Source + ?Sized)) -> Result<bool, ImageError> {
    let flags = elf::DynamicFlags1(Dynamic::read(source)?.value(elf::DT_FLAGS_1).unwrap_or_default());
    Ok(headers::kind(source)? == elf::ET_EXEC || flags.0 & elf::DF_1_PIE.0 != 0 || asks_for_loader(source)?)
}

/// Whether a file is a program that brings everything with it, its C library too.
pub fn is_static(source: &(impl Source + ?Sized)) -> Result<bool, ImageError> {
    Ok(is_program(source)? && !asks_for_loader(source)?)
}

fn asks_for_loader(source: &(impl Source + ?Sized)) -> Result<bool, ImageError> {
    Ok(headers::program(source, elf::PT_INTERP)?.is_some())
}
