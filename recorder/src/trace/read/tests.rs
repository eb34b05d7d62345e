//! Traces of our own making, of others, and of nobody's.

use std::io::{Cursor, Read, Write};

use polletto_protos::{
    AddressSymbols, Callstack, Frame, InternedData, InternedString, Line, Mapping, ModuleSymbols, StackSample,
    trace_packet::Data,
};
use prost::Message as _;

use super::{
    super::{
        compression::Compressor,
        packets::PacketBuffer,
        wire::{append_bytes, append_varint},
    },
    *,
};

const BUILD_ID: &[u8] = &[0xc0, 0xff, 0xee];

fn string(iid: u64, text: &[u8]) -> InternedString {
    InternedString { iid: Some(iid), str: Some(text.to_vec()) }
}

/// `/usr/thing`, two addresses in it, a frame with a name, and one that is in no stack.
fn interned() -> InternedData {
    let frame = |iid, address| Frame { iid: Some(iid), mapping_id: Some(1), rel_pc: Some(address), ..Frame::default() };
    InternedData {
        build_ids: vec![string(1, BUILD_ID)],
        mapping_paths: vec![string(1, b"usr"), string(2, b"thing")],
        function_names: vec![string(1, b"known"), string(2, b"")],
        mappings: vec![Mapping { iid: Some(1), build_id: Some(1), path_string_ids: vec![1, 2], ..Mapping::default() }],
        frames: vec![
            frame(1, 0x100),
            Frame { function_name_id: Some(2), ..frame(2, 0x200) },
            Frame { function_name_id: Some(1), ..frame(3, 0x300) },
            frame(4, 0x400),
            Frame { mapping_id: None, ..frame(5, 0x500) },
        ],
        callstacks: vec![
            Callstack { iid: Some(1), frame_ids: vec![1, 3, 5, 2] },
            Callstack { iid: Some(2), frame_ids: vec![4] },
        ],
        ..InternedData::default()
    }
}

fn sample(callstack: u64) -> Data {
    Data::StackSample(StackSample { callstack_iid: Some(callstack), ..StackSample::default() })
}

fn symbols(address: u64, file: Option<&str>) -> ModuleSymbols {
    let line =
        Line { function_name: Some("f".into()), source_file_name: file.map(str::to_owned), line_number: Some(1) };
    ModuleSymbols {
        path: Some("/usr/thing".into()),
        build_id: Some(BUILD_ID.to_vec()),
        address_symbols: vec![AddressSymbols { address: Some(address), lines: vec![line] }],
    }
}

/// A trace as we write it.
fn ours(compression: Compression, fill: impl FnOnce(&mut PacketBuffer)) -> Vec<u8> {
    let mut packets = PacketBuffer::with_stack_samples();
    packets.push_interned(interned());
    packets.push(Some(1), sample(1));
    fill(&mut packets);
    let (mut compressor, mut file) = (Compressor::new(compression).unwrap(), Vec::new());
    for batch in packets.take_all() {
        compressor.append(&batch, &mut file).unwrap();
    }
    file
}

/// Fields, encoded one after another.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn number(mut self, field: u32, value: u64) -> Fields {
        append_varint(&mut self.0, field, value);
        self
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Fields {
        append_bytes(&mut self.0, field, value);
        self
    }

    fn message(self, field: u32, message: Fields) -> Fields {
        self.bytes(field, &message.0)
    }
}

/// Packets of sequence 7.
fn trace(packets: impl IntoIterator<Item = Fields>) -> Vec<u8> {
    packets.into_iter().fold(Fields::default(), |trace, packet| trace.message(1, packet.number(10, 7))).0
}

fn cleared() -> Fields {
    Fields::default().number(13, 1).bytes(12, &interned().encode_to_vec())
}

fn read(trace: &[u8]) -> TracedCode {
    read_code(trace, &Limits::default()).unwrap()
}

fn error(trace: &[u8]) -> String {
    read_code(trace, &Limits::default()).unwrap_err().to_string()
}

/// The addresses of the only module.
fn addresses(code: &TracedCode) -> Vec<(u64, Known)> {
    match &code.modules[..] {
        [] => Vec::new(),
        [module] => {
            assert_eq!((&module.path[..], &module.build_id[..]), (&b"/usr/thing"[..], BUILD_ID));
            module.addresses.iter().map(|(&address, &known)| (address, known)).collect()
        }
        modules => panic!("{modules:?}"),
    }
}

const BOTH: [(u64, Known); 2] = [(0x100, Known::Nothing), (0x200, Known::Nothing)];

#[test]
fn frames_of_stacks_that_are_used_and_have_no_name_are_found() {
    for compression in [Compression::Zstd, Compression::Deflate, Compression::None] {
        let file = ours(compression, |_| {});
        let code = read(&file);
        assert_eq!(addresses(&code), BOTH, "{compression:?}");
        assert_eq!(code.compression.unwrap_or(Compression::None), compression);
        assert_eq!((code.packets, code.whole_bytes, code.is_cut), (2, file.len() as u64, false));
    }
}

#[test]
fn a_stack_of_any_kind_of_packet_counts() {
    let number = |field| Fields::default().number(field, 1);
    let heap_sample = Fields::default().message(2, number(1));
    for (field, content) in [
        (11, number(56)),
        (66, number(4)),
        (54, number(1)),
        (54, Fields::default().bytes(1, &[9, 1])),
        (37, Fields::default().message(5, heap_sample)),
        (135, number(6)),
    ] {
        let packet = Fields::default().number(13, 2).message(field, content);
        assert_eq!(addresses(&read(&trace([cleared(), packet]))), BOTH, "field {field}");
    }
}

#[test]
fn what_is_no_sample_has_no_stack() {
    let sample = || Fields::default().number(4, 1);
    for content in [sample().number(17, 3), sample().message(19, Fields::default())] {
        assert!(read(&trace([cleared(), Fields::default().message(66, content)])).modules.is_empty());
    }
}

#[test]
fn names_that_are_there_already_are_known() {
    let known = |fill: &dyn Fn(&mut PacketBuffer)| addresses(&read(&ours(Compression::Zstd, fill)))[0].1;
    assert_eq!(known(&|packets| packets.push_module_symbols(symbols(0x100, None))), Known::Function);
    assert_eq!(known(&|packets| packets.push_module_symbols(symbols(0x100, Some("f.rs")))), Known::Line);
    // The last ones count.
    let twice = |packets: &mut PacketBuffer| {
        packets.push_module_symbols(symbols(0x100, Some("f.rs")));
        packets.push_module_symbols(symbols(0x100, Some("")));
    };
    assert_eq!(known(&twice), Known::Function);
    let of_others = |packets: &mut PacketBuffer| {
        packets.push_module_symbols(ModuleSymbols { build_id: None, ..symbols(0x100, None) });
        packets.push_module_symbols(ModuleSymbols { path: Some("/usr/thin".into()), ..symbols(0x100, None) });
        packets.push_module_symbols(symbols(0x101, None));
    };
    assert_eq!(known(&of_others), Known::Nothing);
}

#[test]
fn state_that_is_cleared_or_lost_is_forgotten() {
    let sample = |callstack| Fields::default().number(13, 2).message(135, Fields::default().number(6, callstack));
    let use_second = |between: Fields| read(&trace([cleared(), between, sample(2)])).modules.len();
    assert_eq!(use_second(Fields::default()), 1);
    assert_eq!(use_second(Fields::default().number(13, 1)), 0);
    assert_eq!(use_second(Fields::default().number(41, 1)), 0);
    assert_eq!(use_second(Fields::default().number(42, 1)), 0);
    // What is interned before the state begins, or after a loss, is not taken.
    let lost = Fields::default().number(42, 1).bytes(12, &interned().encode_to_vec());
    assert_eq!(use_second(lost), 0);
    // Another sequence has another state.
    let other = Fields::default().message(1, sample(1).number(10, 8)).0;
    assert!(read(&[trace([cleared()]), other].concat()).modules.is_empty());
}

#[test]
fn numbers_mean_something_else_after_the_state_was_cleared() {
    let mut later = interned();
    later.frames[0].rel_pc = Some(0x900);
    let sample = || Fields::default().message(66, Fields::default().number(4, 1));
    let later = Fields::default().number(13, 1).bytes(12, &later.encode_to_vec());
    let code = read(&trace([cleared(), sample(), later, sample()]));
    let found: Vec<u64> = addresses(&code).into_iter().map(|(address, _)| address).collect();
    assert_eq!(found, [0x100, 0x200, 0x900]);
}

/// A profile with tables of its own, as heapprofd wrote it at first.
fn old_profile(build_id: &[u8]) -> Fields {
    let string = |iid, text: &[u8]| Fields::default().number(1, iid).bytes(2, text);
    let frame = |iid, name, address| Fields::default().number(1, iid).number(2, name).number(3, 1).number(4, address);
    let mapping = Fields::default().number(1, 1).number(2, 3).number(7, 1).number(7, 2);
    Fields::default()
        .message(2, frame(1, 0, 0x100))
        .message(2, frame(2, 4, 0x300))
        .message(4, mapping)
        .message(1, string(1, b"usr"))
        .message(1, string(2, b"thing"))
        .message(1, string(3, build_id))
        .message(1, string(4, b"named"))
        .message(3, Fields::default().number(1, 1).number(2, 1))
}

#[test]
fn a_profile_can_bring_its_own_tables() {
    let code = read(&trace([Fields::default().message(37, old_profile(BUILD_ID))]));
    assert_eq!(addresses(&code), [(0x100, Known::Nothing)]);
    // Symbols can't be said for such a file without a build id: a reader would not find it.
    assert!(read(&trace([Fields::default().message(37, old_profile(b""))])).modules.is_empty());
}

#[test]
fn a_profile_s_stacks_are_looked_up_at_its_end() {
    let samples = Fields::default().message(5, Fields::default().message(2, Fields::default().number(1, 1)));
    let first = Fields::default().message(37, samples.number(6, 1));
    let last = || Fields::default().message(37, Fields::default());
    let begin = || Fields::default().number(13, 1);
    let interned = || Fields::default().bytes(12, &interned().encode_to_vec());
    assert_eq!(addresses(&read(&trace([begin(), first, interned(), last()]))), BOTH);
}

#[test]
fn code_of_the_kernel_and_of_no_file_is_left_out() {
    for path in [&b"kernel"[..], b"[kernel.kallsyms]", b""] {
        let mut data = interned();
        data.mapping_paths[0] = string(1, path);
        data.mappings[0].path_string_ids = vec![1; usize::from(!path.is_empty())];
        data.mappings[0].build_id = None;
        let cleared = Fields::default().number(13, 1).bytes(12, &data.encode_to_vec());
        let code = read(&trace([cleared, Fields::default().message(66, Fields::default().number(4, 1))]));
        assert!(code.modules.is_empty(), "{:?}", code.modules);
    }
    for kind in [2, 3, 4] {
        let mut data = interned();
        data.frames.iter_mut().for_each(|frame| frame.kind = Some(kind));
        let cleared = Fields::default().number(13, 1).bytes(12, &data.encode_to_vec());
        let code = read(&trace([cleared, Fields::default().message(66, Fields::default().number(4, 1))]));
        assert!(code.modules.is_empty(), "{kind}");
    }
}

#[test]
fn wherever_a_trace_is_cut_what_is_whole_counts() {
    let file = ours(Compression::None, |packets| packets.push_module_symbols(symbols(0x100, None)));
    let whole: Vec<u64> = {
        let mut packets = Packets::new(&file[..], u64::MAX);
        std::iter::from_fn(|| matches!(packets.next().unwrap(), Next::Packet).then(|| packets.whole())).collect()
    };
    assert_eq!(whole.len(), 3);
    for length in 0..=file.len() {
        let code = read(&file[..length]);
        let expected = whole.iter().rev().find(|&&end| end <= length as u64).copied().unwrap_or(0);
        assert_eq!((code.whole_bytes, code.is_cut), (expected, expected != length as u64), "{length}");
    }
}

#[test]
fn other_fields_between_packets_are_passed_over() {
    let file = Fields(trace([cleared()])).number(2, 5).bytes(3, b"something").0;
    let file = [file, trace([Fields::default().message(66, Fields::default().number(4, 1))])].concat();
    assert_eq!(addresses(&read(&file)), BOTH);
}

#[test]
fn a_file_can_be_compressed_as_a_whole_and_cut() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let file = ours(Compression::None, |_| {});
    encoder.write_all(&file).unwrap();
    let gzip = encoder.finish().unwrap();
    for (bytes, is_cut) in [(gzip.clone(), false), (gzip[..gzip.len() - 20].to_vec(), true)] {
        let (input, is_compressed) = open(Cursor::new(bytes)).unwrap();
        let code = read_code(input, &Limits::default()).unwrap();
        assert_eq!((is_compressed, code.is_cut), (true, is_cut));
    }
    let (mut plain, is_compressed) = open(Cursor::new(file.clone())).unwrap();
    let mut same = Vec::new();
    plain.read_to_end(&mut same).unwrap();
    assert_eq!((same, is_compressed), (file, false));
}

#[test]
fn what_is_no_trace_is_refused_with_its_place() {
    assert_eq!(error(b"\x7fELF\x02\x01"), "byte 0: no packet of a Perfetto trace");
    assert_eq!(error(b"{\"traceEvents\":[]}"), "byte 0: no packet of a Perfetto trace");
    assert_eq!(error(&[0x80; 12]), "byte 0: a number that does not end");
    assert_eq!(error(&[0x0a, 2, 0x0b, 0]), "byte 2: a field of an unknown type");
    assert_eq!(error(&[0x0a, 0x80, 0x80, 0x80, 0x80, 0x10]), "byte 0: a packet of more than 512 MiB");
    // Interned data with an entry that is longer than it.
    let packet = Fields::default().number(13, 1).bytes(12, &[0x2a, 9]);
    assert_eq!(error(&trace([packet])), "byte 8: a field that is longer than what it stands in");
}

#[test]
fn a_packet_that_is_said_to_be_large_takes_no_memory() {
    let mut packets = Packets::new(&[0x0a, 0xff, 0xff, 0xff, 0x7f, 1][..], 1 << 30);
    assert!(matches!(packets.next().unwrap(), Next::Cut));
    assert!(packets.packet().bytes.len() < 2);
}

#[test]
fn compressed_packets_are_not_nested_and_hold_whole_packets() {
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        Fields::default().message(1, Fields::default().bytes(50, &encoder.finish().unwrap())).0
    };
    let nested = deflate(&deflate(&trace([cleared()])));
    assert!(error(&nested).ends_with("of what is compressed there): a compressed packet inside of another"));
    let cut = trace([cleared()]);
    assert!(error(&deflate(&cut[..cut.len() - 1])).contains("a packet that does not end"));
    let mut damaged = deflate(&trace([cleared()]));
    damaged[20] ^= 0xff;
    assert!(error(&damaged).contains(" of what is compressed there): "), "{}", error(&damaged));
    assert!(error(&Fields::default().message(1, Fields::default().bytes(133, b"no zstd")).0).starts_with("byte 2 "));
}

#[test]
fn what_inflates_without_end_is_given_up() {
    let limits = Limits { inflated: 1 << 20, ..Limits::default() };
    // One packet of zeros that is not needed, and a few of those.
    let zeros = Fields::default().bytes(1, &Fields::default().bytes(900, &vec![0; 600 << 10]).0).0;
    let bytes = zeros.repeat(3);
    let zstd = zstd::bulk::compress(&bytes, 3).unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&bytes).unwrap();
    for (field, compressed) in [(133, zstd), (50, deflate.finish().unwrap())] {
        let file = Fields::default().message(1, Fields::default().bytes(field, &compressed)).0;
        assert!(file.len() < 10_000);
        let refusal = read_code(&file[..], &limits).unwrap_err();
        assert!(
            refusal.to_string().ends_with("a compressed packet that holds packets of more than 1 MiB"),
            "{refusal}"
        );
    }
}

#[test]
fn what_has_to_be_remembered_is_bounded() {
    let limits = Limits { kept: 1 << 20, ..Limits::default() };
    let many = (0..20_000).map(|iid| string(iid, b"")).collect();
    let data = InternedData { mapping_paths: many, ..InternedData::default() };
    let packet = || Fields::default().number(13, 1).bytes(12, &data.encode_to_vec());
    let refusal = read_code(&trace([packet()])[..], &limits).unwrap_err().to_string();
    assert!(refusal.ends_with("stacks that have to be remembered here of more than 1 MiB"), "{refusal}");
    // What is forgotten does not count.
    let data = InternedData { mapping_paths: data.mapping_paths[..10_000].to_vec(), ..data };
    let packet = || Fields::default().number(13, 1).bytes(12, &data.encode_to_vec());
    read_code(&trace([packet(), packet(), packet()])[..], &limits).unwrap();
}

#[test]
fn references_that_lead_nowhere_or_in_circles_are_nothing() {
    let mut data = interned();
    data.frames[0].mapping_id = Some(99);
    data.frames[1].function_name_id = Some(99);
    data.callstacks[0].frame_ids = vec![1, 1, 2, 4];
    data.callstacks.push(Callstack { iid: Some(3), frame_ids: vec![77, 4] });
    let cleared = Fields::default().number(13, 1).bytes(12, &data.encode_to_vec());
    let sample = |stack| Fields::default().message(66, Fields::default().number(4, stack));
    assert!(read(&trace([cleared, sample(1), sample(3), sample(1), sample(0)])).modules.is_empty());
}
