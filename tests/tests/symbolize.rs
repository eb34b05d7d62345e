//! Names for the addresses of traces: of our own, which need root and a kernel that takes BPF programs, and of others.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use perfetto_protos::{
    clock_snapshot::{ClockSnapshot, clock_snapshot::Clock},
    interned_data::InternedData,
    profile_common::{Callstack, Frame, InternedString, Mapping},
    profile_packet::{
        PerfSample, ProfilePacket, StreamingProfilePacket,
        profile_packet::{HeapSample, ProcessHeapSamples},
    },
    thread_descriptor::ThreadDescriptor,
    trace::Trace as TraceMessage,
    trace_packet::TracePacket,
};
use polletto_tests::{
    check::{self, Loss},
    program,
    program::{DEADLINE, Guard, Program},
    recorder::Record,
    symbolize::{command, symbolize},
    symbols::{Symbols, build_id, short_name},
    trace::{FrameKind, ModuleSymbols, Trace},
    turn::Turn,
};
use protobuf::Message;
use rustc_demangle::demangle;
use rustix::process::Signal;
use tempfile::TempDir;

/// A file in a directory of its own.
struct Scene {
    directory: TempDir,
    trace: PathBuf,
}

impl Scene {
    fn of(bytes: &[u8]) -> Scene {
        let directory = tempfile::tempdir().expect("a directory for the trace");
        let trace = directory.path().join("x.perfetto-trace");
        fs::write(&trace, bytes).expect("the directory is writable");
        Scene { directory, trace }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.trace).expect("the trace is there")
    }
}

/// What is said of an address, down to what its file's symbol table says too.
fn function(symbols: &ModuleSymbols, path: &str, id: &str, address: u64) -> Option<String> {
    let lines = symbols.lines(path, id, address)?;
    // The others were inlined into the last one.
    let name = &lines.last().expect("an address has functions").function;
    Some(short_name(&format!("{:#}", demangle(name))))
}

/// `stack-burner`, as it is recorded.
fn recorded() -> Scene {
    let mut burner = Program::start(program!("stack-burner"), &["--wait", "--seconds", "1"]);
    let recording = Record::new().process(burner.pid()).arguments(["-F", "997", "--no-symbols"]).start();
    burner.begin();
    let outcome = recording.wait().expect_success();
    burner.finish();
    Scene::of(&fs::read(&outcome.output).expect("there is a trace"))
}

#[test]
fn a_recording_s_functions_have_names_and_that_is_said_once() {
    let _turn = Turn::with_others();
    let scene = recorded();
    symbolize(&scene.trace, ["--json"]).expect_success();
    check::check(&scene.trace, Loss::None);
    let trace = Trace::open(&scene.trace);
    let (mut by_table, program) = (Symbols::new(), program!("stack-burner").to_str().expect("a plain path"));
    let id = build_id(Path::new(program));
    let mut named = BTreeSet::new();
    let native = |kind| kind == FrameKind::Native;
    for frame in trace.samples.iter().flat_map(|sample| sample.stack.frames()).filter(|frame| native(frame.kind)) {
        if frame.path() == Some(program) && named.insert(frame.rel_pc) {
            let expected = by_table.name(frame).map(str::to_owned);
            assert_eq!(function(&trace.symbols, program, &id, frame.rel_pc), expected, "{frame:?}");
        }
    }
    assert!(named.len() > 5, "{named:?}");
    let rows = check::sql(
        &scene.trace,
        "select count(*) from stack_profile_frame f join stack_profile_symbol s using (symbol_set_id)
         where s.name like '%descend%'",
    );
    assert!(rows.is_none_or(|rows| rows[0][0] != "0"), "trace_processor does not see the names");

    let before = scene.bytes();
    let again = symbolize(&scene.trace, ["--json"]).expect_success();
    assert_eq!(again.count("bytes_added"), 0);
    assert!(again.count("named_before") > 5);
    assert!(symbolize(&scene.trace, [""; 0]).expect_success().stderr.contains("nothing added"));
    assert!(scene.bytes() == before, "a trace that lacks nothing has changed");
}

#[test]
fn a_copy_leaves_the_trace_as_it_is_and_is_private() {
    let _turn = Turn::with_others();
    let scene = Scene::of(&perf_samples());
    let (before, copy) = (scene.bytes(), scene.path("named"));
    let to_copy = [Path::new("-o"), &copy];
    symbolize(&scene.trace, to_copy).expect_success();
    assert!(scene.bytes() == before, "the trace has changed");
    let named = fs::read(&copy).expect("there is a copy");
    assert!(named.starts_with(&before) && named.len() > before.len());
    assert_eq!(fs::metadata(&copy).expect("it is there").permissions().mode() & 0o7777, 0o600);
    symbolize(&scene.trace, to_copy).expect_refusal("--force");
    symbolize(&scene.trace, to_copy.into_iter().chain([Path::new("--force")])).expect_success();
    let names = |path: &Path| Trace::open(path).symbols;
    let of_copy = Trace::from_bytes(&named).symbols;
    assert!(of_copy.count() > 0 && names(&copy) == of_copy, "a second copy has other names");
    symbolize(&scene.trace, [Path::new("-o"), &scene.trace, Path::new("--force")]).expect_refusal("without -o");
    assert!(scene.bytes() == before, "the trace has changed");
    // Appending gives the same.
    symbolize(&scene.trace, [""; 0]).expect_success();
    assert!(scene.bytes().starts_with(&before) && names(&scene.trace) == of_copy, "a copy and the trace itself differ");
}

#[test]
fn appending_keeps_whose_file_it_is() {
    let _turn = Turn::with_others();
    let scene = Scene::of(&perf_samples());
    fs::set_permissions(&scene.trace, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let before = fs::metadata(&scene.trace).expect("it is there");
    symbolize(&scene.trace, [""; 0]).expect_success();
    let after = fs::metadata(&scene.trace).expect("it is there");
    assert_eq!((after.mode(), after.uid(), after.ino()), (before.mode(), before.uid(), before.ino()));
    assert!(after.len() > before.len());
}

#[test]
fn a_trace_that_was_cut_off_is_named_as_far_as_it_goes() {
    let _turn = Turn::with_others();
    let whole = perf_samples();
    for copies in [false, true] {
        let scene = Scene::of(&[&whole[..], &whole[..whole.len() / 2 + 1]].concat());
        let copy = scene.path("named");
        let arguments: &[&Path] = if copies { &[Path::new("-o"), &copy] } else { &[] };
        let said = symbolize(&scene.trace, arguments).expect_success();
        assert!(said.stderr.contains("middle of a packet"), "{said:?}");
        let named = if copies { &copy } else { &scene.trace };
        let trace = Trace::open(named);
        assert_eq!((trace.truncated_bytes, trace.symbols.count()), (0, FUNCTIONS));
        check::check_stats(named, Loss::None);
    }
}

#[test]
fn a_file_that_is_compressed_as_a_whole_can_only_be_copied() {
    let _turn = Turn::with_others();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&perf_samples()).expect("memory takes everything");
    let gzip = gzip.finish().expect("memory takes everything");
    let zstd = zstd::encode_all(&*perf_samples(), 0).expect("memory takes everything");
    for compressed in [gzip, zstd] {
        let scene = Scene::of(&compressed);
        symbolize(&scene.trace, [""; 0]).expect_refusal("-o FILE");
        assert!(scene.bytes() == compressed, "the trace has changed");
        let copy = scene.path("named");
        symbolize(&scene.trace, [Path::new("-o"), &copy]).expect_success();
        assert_eq!(Trace::open(&copy).symbols.count(), FUNCTIONS);
        check::check_stats(&copy, Loss::None);
    }
}

#[test]
fn traces_of_other_recorders_are_named() {
    let _turn = Turn::with_others();
    let (functions, path) = (functions(), program_path());
    let id = build_id(Path::new(&path));
    for (name, bytes) in [
        ("perf", perf_samples()),
        ("perf, deflated", deflated(&perf_samples())),
        ("heap", heap_profile()),
        ("old heap", old_heap_profile()),
        ("streaming", streaming_profile()),
    ] {
        for compression in ["", "zstd", "deflate", "none"] {
            println!("{name}, {compression}");
            let scene = Scene::of(&bytes);
            // What is wrong afterwards was not wrong before.
            check::check_stats(&scene.trace, Loss::None);
            let chosen = ["--compression", compression];
            let chosen = if compression.is_empty() { &[][..] } else { &chosen[..] };
            let said = symbolize(&scene.trace, ["--json"].iter().chain(chosen));
            if name == "perf, deflated" && compression == "zstd" {
                // trace_processor refuses a trace of both.
                said.expect_refusal("another compression");
                assert_eq!(scene.bytes(), bytes);
                continue;
            }
            let said = said.expect_success();
            assert_eq!(said.count("addresses"), FUNCTIONS as u64 + 1, "{name}: {said:?}");
            assert_eq!(said.count("named"), FUNCTIONS as u64, "{name}: {said:?}");
            let trace = Trace::open(&scene.trace);
            for (address, function_name) in &functions {
                let found = function(&trace.symbols, &path, &id, *address);
                assert_eq!(found.as_ref(), Some(function_name), "{name}, {compression}");
            }
            check::check_stats(&scene.trace, Loss::None);
            let rows = check::sql(&scene.trace, "select count(distinct name) from stack_profile_symbol");
            assert!(rows.is_none_or(|rows| rows[0][0].parse::<usize>().is_ok_and(|names| names >= FUNCTIONS)));
            let frames = "select count(*) from stack_profile_frame where symbol_set_id is not null";
            assert!(check::sql(&scene.trace, frames).is_none_or(|rows| rows[0][0] == FUNCTIONS.to_string()), "{name}");
        }
    }
}

#[test]
fn a_file_that_is_not_the_one_that_ran_names_nothing() {
    let _turn = Turn::with_others();
    let mut data = interned();
    data.build_ids[0].set_str(vec![1; 20]);
    let sample = |packet: &mut TracePacket| packet.set_perf_sample(perf_sample());
    let scene = Scene::of(&serialized(data, sample));
    let said = symbolize(&scene.trace, ["--json"]).expect_success();
    assert_eq!((said.count("named"), said.count("bytes_added")), (0, 0));
    assert!(said.summary()["modules"][0]["missing"].is_string(), "{said:?}");
}

#[test]
fn what_is_no_trace_is_a_clear_failure_and_stays() {
    let _turn = Turn::with_others();
    for (bytes, reason) in [
        (&b"{\"traceEvents\": []}"[..], "byte 0: no packet"),
        (b"\x7fELF\x02\x01\x01", "byte 0: no packet"),
        (b"", "no complete packet"),
        (&[0x0a, 3, 0x0b, 0, 0], "byte 2: "),
    ] {
        let scene = Scene::of(bytes);
        symbolize(&scene.trace, [""; 0]).expect_refusal(reason);
        assert_eq!(scene.bytes(), bytes);
    }
    let scene = Scene::of(&perf_samples());
    symbolize(&scene.path("missing"), [""; 0]).expect_refusal("missing");
    symbolize(scene.directory.path(), [""; 0]).expect_refusal("directory");
    let link = scene.path("link");
    std::os::unix::fs::symlink(&scene.trace, &link).expect("the directory is writable");
    symbolize(&link, [""; 0]).expect_refusal("symbolic link");
}

#[test]
fn ctrl_c_leaves_the_trace_as_it_was() {
    let _turn = Turn::with_others();
    let scene = Scene::of(&perf_samples());
    // Something to read for seconds, which takes no room on the disk: a field that no reader knows, of 32 GiB.
    let field = [0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    let mut file = fs::OpenOptions::new().append(true).open(&scene.trace).expect("it is there");
    file.write_all(&field).expect("it is writable");
    let length = file.metadata().expect("it is there").len() + (32 << 30);
    file.set_len(length).expect("it may be sparse");
    let mut command = command(&scene.trace);
    let mut process = Guard::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
    thread::sleep(Duration::from_millis(300));
    process.signal(Signal::INT);
    let status = process.wait(DEADLINE);
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(fs::metadata(&scene.trace).expect("it is there").len(), length);
}

/// `BuiltinClock`s.
const MONOTONIC: u32 = 3;
const MONOTONIC_COARSE: u32 = 4;
const BOOTTIME: u32 = 6;

/// Functions of the traces that are made up here.
const FUNCTIONS: usize = 3;

fn program_path() -> String {
    let path = program!("stack-burner").canonicalize().expect("it is there");
    path.to_str().expect("a plain path").to_owned()
}

/// Addresses within functions of `stack-burner`.
fn functions() -> Vec<(u64, String)> {
    let (mut symbols, path) = (Symbols::new(), program_path());
    let start = polletto_tests::symbols::entry_point(Path::new(&path)).expect("it is a program");
    let mut found: Vec<(u64, String)> = Vec::new();
    for address in (start..).step_by(8).take(1 << 20) {
        match symbols.function(&path, address) {
            Some(name) if found.iter().all(|(_, known)| known != name) => found.push((address, name.to_owned())),
            _ => {}
        }
        if found.len() == FUNCTIONS {
            return found;
        }
    }
    panic!("{path} has no functions");
}

fn string(iid: u64, text: &[u8]) -> InternedString {
    let mut string = InternedString::new();
    string.set_iid(iid);
    string.set_str(text.to_vec());
    string
}

/// `stack-burner` mapped, three of its functions without names, an address that is none, and one function with a name.
fn interned() -> InternedData {
    let (path, mut data) = (program_path(), InternedData::new());
    let id = build_id(Path::new(&path));
    let id: Vec<u8> = (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
    data.build_ids.push(string(1, &id));
    let mut mapping = Mapping::new();
    mapping.set_iid(1);
    mapping.set_build_id(1);
    (mapping.start, mapping.end) = (Some(0x1000), Some(1 << 30));
    for (part, iid) in path.split('/').skip(1).zip(2..) {
        data.mapping_paths.push(string(iid, part.as_bytes()));
        mapping.path_string_ids.push(iid);
    }
    data.mappings.push(mapping);
    data.function_names.push(string(1, b"named"));
    let addresses = functions().into_iter().map(|(address, _)| (address, 0)).chain([(1 << 40, 0), (2 << 40, 1)]);
    let mut callstack = Callstack::new();
    callstack.set_iid(1);
    for ((address, name), iid) in addresses.zip(1..) {
        let mut frame = Frame::new();
        frame.set_iid(iid);
        frame.set_mapping_id(1);
        frame.set_rel_pc(address);
        frame.set_function_name_id(name);
        data.frames.push(frame);
        callstack.frame_ids.push(iid);
    }
    data.callstacks.push(callstack);
    // A reader never sees those of stacks that nothing uses, and names for them would be an error.
    let mut unused = Frame::new();
    (unused.iid, unused.mapping_id, unused.rel_pc) = (Some(99), Some(1), Some(functions()[0].0 + 1));
    data.frames.push(unused);
    data
}

/// Clocks, a packet that clears the state and says what is interned, and one more.
fn serialized(data: InternedData, fill: impl FnOnce(&mut TracePacket)) -> Vec<u8> {
    let packet = |flags| {
        let mut packet = TracePacket::new();
        packet.set_trusted_packet_sequence_id(3);
        packet.set_sequence_flags(flags);
        packet.set_timestamp(1_000_000);
        packet
    };
    let (mut clocks, mut first, mut second) = (packet(0), packet(1), packet(2));
    clocks.set_clock_snapshot(clock_snapshot());
    first.set_thread_descriptor(thread());
    first.interned_data = Some(data).into();
    fill(&mut second);
    let mut trace = TraceMessage::new();
    trace.packet = vec![clocks, first, second];
    trace.write_to_bytes().expect("it can be encoded")
}

/// The clocks that profiles are timed by, all the same.
fn clock_snapshot() -> ClockSnapshot {
    let mut snapshot = ClockSnapshot::new();
    for id in [MONOTONIC, MONOTONIC_COARSE, BOOTTIME] {
        let mut clock = Clock::new();
        (clock.clock_id, clock.timestamp) = (Some(id), Some(1_000));
        snapshot.clocks.push(clock);
    }
    snapshot
}

/// Streaming samples are timed from here on. A reader takes symbols, which have no time, for as late as the latest packet
/// before them: samples that are later still it would not know yet.
fn thread() -> ThreadDescriptor {
    let mut thread = ThreadDescriptor::new();
    (thread.pid, thread.tid, thread.reference_timestamp_us) = (Some(7), Some(7), Some(500));
    thread
}

fn perf_sample() -> PerfSample {
    let mut sample = PerfSample::new();
    (sample.pid, sample.tid, sample.cpu) = (Some(7), Some(7), Some(0));
    sample.set_callstack_iid(1);
    sample
}

fn perf_samples() -> Vec<u8> {
    serialized(interned(), |packet| packet.set_perf_sample(perf_sample()))
}

fn streaming_profile() -> Vec<u8> {
    serialized(interned(), |packet| {
        let mut profile = StreamingProfilePacket::new();
        profile.callstack_iid.push(1);
        profile.timestamp_delta_us.push(1);
        packet.set_streaming_profile_packet(profile);
    })
}

/// A dump with one sample of the only stack.
fn dump() -> ProcessHeapSamples {
    let (mut dump, mut sample) = (ProcessHeapSamples::new(), HeapSample::new());
    (sample.callstack_id, sample.self_allocated, sample.alloc_count) = (Some(1), Some(100), Some(1));
    (dump.pid, dump.timestamp, dump.heap_name) = (Some(7), Some(1_000_000), Some("malloc".into()));
    dump.samples.push(sample);
    dump
}

fn heap_profile() -> Vec<u8> {
    serialized(interned(), |packet| {
        let mut profile = ProfilePacket::new();
        profile.process_dumps.push(dump());
        packet.set_profile_packet(profile);
    })
}

/// With tables of its own, as Android 10 wrote it.
fn old_heap_profile() -> Vec<u8> {
    let data = interned();
    let mut profile = ProfilePacket::new();
    let renumbered = |strings: Vec<InternedString>, from| {
        strings.into_iter().map(move |entry| string(entry.iid() + from, entry.str()))
    };
    profile.strings.extend(renumbered(data.build_ids, 0));
    profile.strings.extend(renumbered(data.mapping_paths, 0));
    profile.strings.extend(renumbered(data.function_names, 1000));
    profile.mappings = data.mappings;
    // Frames of these tables count without being used.
    profile.frames = data.frames.into_iter().filter(|frame| frame.iid() != 99).collect();
    for frame in &mut profile.frames {
        if frame.function_name_id() != 0 {
            frame.set_function_name_id(1001);
        }
    }
    profile.callstacks = data.callstacks;
    profile.process_dumps.push(dump());
    serialized(InternedData::new(), |packet| packet.set_profile_packet(profile))
}

fn deflated(packets: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(packets).expect("memory takes everything");
    let mut packet = TracePacket::new();
    packet.set_compressed_packets(encoder.finish().expect("memory takes everything"));
    let mut trace = TraceMessage::new();
    trace.packet.push(packet);
    trace.write_to_bytes().expect("it can be encoded")
}
