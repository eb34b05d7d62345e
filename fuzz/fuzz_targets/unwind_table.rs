//! Any bytes as the `.eh_frame` of a file with some code: its table.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    target::image::{Architecture, EhFrame, End, Image, Segment},
    unwind::{MAX_PAGES, Table},
};
use polletto_common::unwind::Rule;

/// Close to the code, so that short pointers reach it.
const ADDRESS: u64 = 0x1_0000;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, eh_frame)) = bytes.split_first() else { return };
    let chosen = |bit: u8| choice >> bit & 1 == 1;
    let code =
        |address, file_size| Segment { file_offset: 0, file_size, address, memory_size: file_size, executable: true };
    let image = Image {
        architecture: if chosen(0) { Architecture::Aarch64 } else { Architecture::X86_64 },
        build_id: None,
        segments: vec![code(0x1000, 0x8000), code(0xa000, 0x1000)],
        eh_frame: Some(EhFrame {
            address: ADDRESS,
            file_offset: 0,
            size: eh_frame.len() as u64,
            end: if chosen(1) { End::Terminator } else { End::Section },
        }),
        text: chosen(2).then_some(0x1000),
        got: chosen(3).then_some(0x3000),
        linkage_tables: if chosen(4) { vec![0x2000..0x2100, 0x20f0..0x2200, 0x9000..0xb000] } else { Vec::new() },
    };
    let Ok(table) = Table::from_eh_frame(&image, eh_frame) else { return };
    assert!(table.pages.len() as u64 <= MAX_PAGES);
    assert_eq!(table.rules[0], Rule::default());
    // Every page, at different places.
    for address in table.addresses().step_by(251) {
        assert!(table.rule(address).is_some());
    }
    assert!(table.addresses().is_empty() || table.addresses().start >= 0x1000 && table.addresses().end <= 0xb000);
});
