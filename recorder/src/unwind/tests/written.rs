//! `.eh_frame` made by hand, instruction by instruction.

use std::ops::Range;

use crate::{
    target::image::{Image, example::ExampleElf},
    unwind::Table,
};

/// Pointers count from where they stand, in 32 bits; or they are addresses of 64 bits.
pub(super) const RELATIVE: u8 = 0x1b;
pub(super) const ABSOLUTE: u8 = 0x00;

/// Instructions. Registers and offsets below 64, lengths of expressions below 128.
pub(super) fn advance(bytes: u8) -> Vec<u8> {
    vec![0x02, bytes]
}
pub(super) fn cfa(register: u8, offset: u8) -> Vec<u8> {
    vec![0x0c, register, offset]
}
pub(super) fn cfa_far(register: u8, offset: u64) -> Vec<u8> {
    [vec![0x0c, register], uleb(offset)].concat()
}
pub(super) fn cfa_offset(offset: u8) -> Vec<u8> {
    vec![0x0e, offset]
}
pub(super) fn cfa_expression(expression: &[u8]) -> Vec<u8> {
    [&[0x0f, expression.len() as u8], expression].concat()
}
/// At `cfa - 8 * factor`.
pub(super) fn saved(register: u8, factor: u64) -> Vec<u8> {
    [vec![0x05, register], uleb(factor)].concat()
}
pub(super) fn saved_at(register: u8, expression: &[u8]) -> Vec<u8> {
    [&[0x10, register, expression.len() as u8], expression].concat()
}
pub(super) fn is_cfa_minus(register: u8, factor: u8) -> Vec<u8> {
    vec![0x14, register, factor]
}
pub(super) fn undefined(register: u8) -> Vec<u8> {
    vec![0x07, register]
}
pub(super) fn same(register: u8) -> Vec<u8> {
    vec![0x08, register]
}
pub(super) const REMEMBER: u8 = 0x0a;
pub(super) const RESTORE: u8 = 0x0b;
pub(super) const NEGATE_RA_STATE: u8 = 0x2d;

fn uleb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A section that is being written.
pub(super) struct Written {
    address: u64,
    pointers: u8,
    pub(super) bytes: Vec<u8>,
}

impl Written {
    /// The section will stand at this address.
    pub(super) fn at(address: u64) -> Written {
        Written { address, pointers: RELATIVE, bytes: Vec::new() }
    }

    /// Adds what functions have in common. `augmentation` begins with `zR`.
    pub(super) fn common(
        &mut self,
        augmentation: &str,
        pointers: u8,
        return_address: u8,
        instructions: &[u8],
    ) -> usize {
        self.pointers = pointers;
        let offset = self.bytes.len();
        let mut entry = vec![0, 0, 0, 0, 1];
        entry.extend(augmentation.bytes());
        // Code is aligned to 1, data to -8; one byte of augmentation.
        entry.extend([0, 1, 0x78, return_address, 1, pointers]);
        entry.extend(instructions);
        self.entry(&entry);
        offset
    }

    /// The usual for x86-64.
    pub(super) fn common_x86_64(&mut self) -> usize {
        self.common("zR", RELATIVE, 16, &[cfa(7, 8), saved(16, 1)].concat())
    }

    /// Adds a function, and returns the offset of its entry.
    pub(super) fn function(&mut self, common: usize, addresses: Range<u64>, instructions: &[u8]) -> usize {
        let offset = self.bytes.len();
        let length = addresses.end.wrapping_sub(addresses.start);
        self.bytes.extend([0; 4]);
        self.bytes.extend(((offset + 4 - common) as u32).to_le_bytes());
        if self.pointers == RELATIVE {
            let from = self.address + offset as u64 + 8;
            self.bytes.extend((addresses.start.wrapping_sub(from) as u32).to_le_bytes());
            self.bytes.extend((length as u32).to_le_bytes());
        } else {
            self.bytes.extend(addresses.start.to_le_bytes());
            self.bytes.extend(length.to_le_bytes());
        }
        self.bytes.push(0);
        self.bytes.extend(instructions);
        let size = (self.bytes.len() - offset - 4) as u32;
        self.bytes[offset..offset + 4].copy_from_slice(&size.to_le_bytes());
        offset
    }

    fn entry(&mut self, entry: &[u8]) {
        self.bytes.extend((entry.len() as u32).to_le_bytes());
        self.bytes.extend(entry);
    }

    /// The whole section, with its terminator.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 4]);
        self.bytes
    }
}

/// The table of an example whose unwind information is written by `write`: it gets the address of the first byte of code.
pub(super) fn table_of(example: ExampleElf, write: impl FnOnce(&mut Written, u64)) -> Table {
    let bytes = with_eh_frame(example, write).bytes();
    Table::build(&Image::read(&bytes[..]).unwrap(), &bytes[..]).unwrap()
}

/// The same, before the table is made.
pub(super) fn with_eh_frame(example: ExampleElf, write: impl FnOnce(&mut Written, u64)) -> ExampleElf {
    let mut written = Written::at(example.eh_frame_address());
    write(&mut written, example.code_address());
    ExampleElf { eh_frame: written.finish(), ..example }
}
