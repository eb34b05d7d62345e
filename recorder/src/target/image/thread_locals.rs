//! Where a program's thread-local variables are.

use std::ops::Range;

use object::{
    LittleEndian as LE,
    elf::{self, ProgramHeader64, Sym64},
    pod,
};

use super::{Architecture, Image, ImageError, Source, dynamic::is_program, headers, read_up_to};

/// Bytes of a symbol table that are read: several times what the largest programs have.
const MAX_SYMBOLS: u64 = 1 << 30;

/// Bytes of it that are read at once.
const PIECE: u64 = 24 << 14;

/// Thread-locals that a file may name. Large programs have some dozens.
const MAX_NAMED: usize = 4096;

/// Bytes of a name. What is longer is cut.
const MAX_NAME: u64 = 1024;

/// Where the thread-locals of a program are, counted from the thread pointer, bytes.
///
/// Those of a program itself have a fixed place. Those of a library that is loaded later do not, and which libraries are is
/// the process's to say: `None` for a library, and for what has none.
pub fn thread_locals(image: &Image, source: &(impl Source + ?Sized)) -> Result<Option<Range<i64>>, ImageError> {
    let Some(segment) = headers::program(source, elf::PT_TLS)? else { return Ok(None) };
    Ok(if is_program(source)? { place(image.architecture, &segment) } else { None })
}

/// Threads find their variables by what the ABI says and linkers, loaders and compilers keep to.
fn place(architecture: Architecture, segment: &ProgramHeader64<LE>) -> Option<Range<i64>> {
    let size = segment.p_memsz.get(LE);
    let (address, last) = (segment.p_vaddr.get(LE), segment.p_align.get(LE).max(1).checked_sub(1)?);
    let start = match architecture {
        // They end at the thread pointer, or as far before it as their alignment needs.
        Architecture::X86_64 => {
            let space = address.wrapping_neg().wrapping_sub(size) & last;
            i64::try_from(size.checked_add(space)?).ok()?.checked_neg()?
        }
        // They follow two words that the thread pointer leads to.
        Architecture::Aarch64 => {
            const WORDS: u64 = 16;
            i64::try_from(WORDS.checked_add(address.wrapping_sub(WORDS) & last)?).ok()?
        }
    };
    // No system gives a thread so much.
    let is_within = |offset: i64| offset.unsigned_abs() < 1 << 32;
    let end = start.checked_add_unsigned(size)?;
    (is_within(start) && is_within(end)).then_some(start..end)
}

/// A thread-local variable that a file's symbol table names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadLocal {
    /// As the compiler writes it.
    pub name: Vec<u8>,
    /// Where it stands, counted from the first thread-local, bytes.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

impl ThreadLocal {
    /// All that a file's symbol table names. None where it is stripped.
    pub fn named(source: &(impl Source + ?Sized)) -> Result<Vec<ThreadLocal>, ImageError> {
        let Some(table) = headers::symbol_table(source)? else { return Ok(Vec::new()) };
        let (mut found, mut at) = (Vec::new(), table.symbols.start);
        let end = table.symbols.end.min(at.saturating_add(MAX_SYMBOLS));
        while at < end && found.len() < MAX_NAMED {
            let bytes = read_up_to(source, at, PIECE.min(end - at))?;
            let whole = bytes.len() - bytes.len() % size_of::<Sym64<LE>>();
            let symbols = pod::slice_from_all_bytes::<Sym64<LE>>(&bytes[..whole]).unwrap_or_default();
            if symbols.is_empty() {
                break;
            }
            for symbol in symbols.iter().filter(|symbol| symbol.st_type() == elf::STT_TLS).take(MAX_NAMED) {
                let name = table.names.start.checked_add(u64::from(symbol.st_name.get(LE)));
                let Some(name) = name.filter(|name| table.names.contains(name)) else { continue };
                let name = read_up_to(source, name, MAX_NAME.min(table.names.end - name))?;
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
                found.push(ThreadLocal { name, offset: symbol.st_value.get(LE), size: symbol.st_size.get(LE) });
            }
            at += whole as u64;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use object::U64;

    use super::*;

    thread_local! {
        static MARKED: Cell<u64> = const { Cell::new(7) };
    }

    fn segment(address: u64, size: u64, alignment: u64) -> ProgramHeader64<LE> {
        let word = |value| U64::new(LE, value);
        ProgramHeader64 {
            p_type: elf::PT_TLS.into(),
            p_flags: elf::PF_R.into(),
            p_offset: word(0),
            p_vaddr: word(address),
            p_paddr: word(address),
            p_filesz: word(0),
            p_memsz: word(size),
            p_align: word(alignment),
        }
    }

    #[test]
    fn thread_locals_are_where_the_abi_says() {
        for (architecture, address, size, alignment, expected) in [
            (Architecture::X86_64, 0x1000, 0x130, 8, Some(-0x130..0)),
            (Architecture::X86_64, 0x1000, 0x131, 8, Some(-0x138..-7)),
            (Architecture::X86_64, 0x1000, 0x130, 64, Some(-0x140..-16)),
            (Architecture::X86_64, 0x1008, 0x130, 64, Some(-0x138..-8)),
            (Architecture::X86_64, 0x1000, 0x130, 0, Some(-0x130..0)),
            (Architecture::X86_64, 0x1000, u64::MAX, 8, None),
            (Architecture::Aarch64, 0x1000, 0x130, 8, Some(16..0x140)),
            (Architecture::Aarch64, 0x1000, 0x130, 64, Some(64..0x170)),
        ] {
            let segment = segment(address, size, alignment);
            assert_eq!(place(architecture, &segment), expected, "{architecture:?} {address:x} {size:x} {alignment}");
        }
    }

    #[test]
    fn a_variable_of_this_thread_is_where_its_symbol_says() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let image = Image::read(&file).unwrap();
        let first = thread_locals(&image, &file).unwrap().unwrap().start;
        let named = ThreadLocal::named(&file).unwrap();
        let is_it = |symbol: &&ThreadLocal| symbol.name.windows(6).any(|part| part == b"MARKED") && symbol.size == 8;
        let offset = first + named.iter().find(is_it).unwrap().offset as i64;
        // SAFETY: it has no conditions.
        let thread = unsafe { libc::pthread_self() };
        let address = MARKED.with(|marked| &raw const *marked as u64);
        if image.architecture == Architecture::X86_64 {
            assert_eq!(address, thread.wrapping_add_signed(offset));
        }
    }
}
