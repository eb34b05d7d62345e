//! A timeline whose trace is read: for stacks, and what tells of tasks.

use std::collections::HashMap;

use polletto_common::{
    polled::Polled,
    record::{Blocked, Sample, Stack, StackEnding},
};
use polletto_protos::{
    DebugAnnotation, Frame, InternedData, Mapping, StackSample, TrackDescriptor, TrackEvent, debug_annotation,
    frame::Kind, stack_sample::TaskContext,
};

use super::*;

pub(super) const PROCESS: Tgid = Tgid(10);
pub(super) const CHILD: Tgid = Tgid(20);
pub(super) const MAIN: u64 = 0x5000_1000;
pub(super) const ANON: u64 = 0x7000_1000;
pub(super) const NOWHERE: u64 = 0x9000_0000;
/// Tracks of workers and their groups begin with these letters.
const TOKIO: u64 = 0x74_6f6b;

#[derive(Debug)]
struct Symbols;

impl KernelSymbols for Symbols {
    fn find(&self, address: u64) -> Option<KernelSymbol<'_>> {
        match address {
            0xffff_0100..=0xffff_01ff => Some(KernelSymbol { name: "schedule", module: None }),
            0xffff_0000..=0xffff_000f => Some(KernelSymbol { name: "bpf_prog_1_sched_switch", module: Some("bpf") }),
            0xffff_0010..=0xffff_001f => Some(KernelSymbol { name: "bpf_trace_run4", module: None }),
            0xffff_0200..=0xffff_02ff => Some(KernelSymbol { name: "ext4_sync", module: Some("ext4") }),
            _ => None,
        }
    }
}

pub(super) fn program(tgid: Tgid) -> Mapped {
    let module = Module { path: "/usr/bin/my program".into(), build_id: vec![0xab, 0xcd], load_bias: 0x200 };
    Mapped {
        tgid,
        start: 0x5000_0000,
        end: 0x5010_0000,
        file_offset: 0x4000,
        module: Some(Arc::new(module)),
        bias: 0x5000_0000 - 0x4200,
    }
}

pub(super) fn anonymous(tgid: Tgid) -> Mapped {
    Mapped { tgid, start: 0x7000_0000, end: 0x7001_0000, file_offset: 0, module: None, bias: 0 }
}

/// A timeline, and what a reader makes of its packets.
pub(super) struct Recording {
    pub(super) timeline: Timeline,
    pub(super) out: PacketBuffer,
}

/// Everything that was interned, and what refers to it.
#[derive(Default)]
pub(super) struct Read {
    pub(super) interned: InternedData,
    pub(super) samples: Vec<(u64, StackSample)>,
    pub(super) events: Vec<(u64, TrackEvent)>,
    pub(super) tracks: HashMap<u64, TrackDescriptor>,
    pub(super) threads: HashMap<u64, (i32, i64)>,
}

impl Recording {
    pub(super) fn new() -> Recording {
        let mut out = PacketBuffer::with_stack_samples();
        let mut timeline = Timeline::new(View::Recorded, 1, &mut out);
        timeline.push(&task(10, 10, "a"), &mut out);
        timeline.map(program(PROCESS));
        timeline.map(anonymous(PROCESS));
        timeline.name_kernel_frames(Arc::new(Symbols));
        Recording { timeline, out }
    }

    pub(super) fn push(&mut self, record: Record) {
        self.timeline.push(&Record::decode(record.encode()).unwrap(), &mut self.out);
    }

    pub(super) fn stack(
        &mut self,
        id: u64,
        tgid: Tgid,
        kernel: &[u64],
        program: &[u64],
        ending: StackEnding,
        flags: u32,
    ) {
        let stack = Stack {
            header: header::<Stack>(50, flags),
            id,
            tgid,
            kernel_frames: kernel.len() as u16,
            user_frames: program.len() as u16,
            ending,
            reserved: 0,
        };
        self.timeline.push_stack(&stack, &[kernel, program].concat(), &mut self.out);
    }

    pub(super) fn sample(&mut self, time_ns: u64, stack: u64, tgid: Tgid) {
        let header = header::<Sample>(time_ns, 0);
        self.push(Record::Sample(Sample {
            header,
            stack,
            tid: tgid.leader(),
            tgid,
            period_ns: 1_000,
            polled: Polled::default(),
        }));
    }

    pub(super) fn blocked(&mut self, returned_ns: u64, stack: u64, left_ns: u64, tid: u32, waker: u32) {
        self.push(Record::Blocked(Blocked {
            header: header::<Blocked>(returned_ns, 0),
            stack,
            left_ns,
            woken_ns: returned_ns - 10,
            tid: Tid(tid),
            tgid: PROCESS,
            waker_tid: Tid(waker),
            prev_state: 0x2002,
            system_call: -1,
            reserved: 0,
            argument: 0,
            polled: Polled::default(),
        }));
    }

    pub(super) fn fork(&mut self, tid: u32, tgid: Tgid) {
        self.push(Record::Fork(Fork {
            header: header::<Fork>(60, 0),
            parent_tid: Tid(10),
            parent_tgid: PROCESS,
            tid: Tid(tid),
            tgid,
            comm: comm("new"),
            thread_pointer: 0,
        }));
    }

    pub(super) fn read(&mut self) -> Read {
        let mut read = Read::default();
        for packet in self.out.take_all().flat_map(|batch| Trace::decode(batch.bytes()).unwrap().packet) {
            if let Some(new) = &packet.interned_data {
                read.interned.merge(new.encode_to_vec().as_slice()).unwrap();
            }
            match packet.data {
                Some(Data::StackSample(sample)) => read.samples.push((packet.timestamp.unwrap(), sample)),
                Some(Data::TrackEvent(event)) => read.events.push((packet.timestamp.unwrap(), event)),
                Some(Data::TrackDescriptor(track)) => {
                    let is_apart = packet.trusted_packet_sequence_id != Some(1);
                    let is_theirs = track.thread.is_some() || track.uuid() >> 40 == TOKIO;
                    assert_eq!(is_apart, is_theirs, "a sequence's other events are not this thread's");
                    let thread = track.thread.as_ref().map(|thread| (thread.pid(), thread.tid()));
                    read.threads.extend(thread.map(|thread| (track.uuid(), thread)));
                    read.tracks.insert(track.uuid(), track);
                }
                _ => {}
            }
        }
        read
    }
}

pub(super) fn text(entries: &[polletto_protos::InternedString], iid: u64) -> String {
    let found: Vec<_> = entries.iter().filter(|entry| entry.iid() == iid).collect();
    assert_eq!(found.len(), 1, "{iid} of {entries:?}");
    String::from_utf8(found[0].str().to_vec()).unwrap()
}

impl Read {
    pub(super) fn mapping(&self, iid: u64) -> &Mapping {
        self.interned.mappings.iter().find(|mapping| mapping.iid() == iid).unwrap()
    }

    pub(super) fn path(&self, mapping: &Mapping) -> String {
        let parts = mapping.path_string_ids.iter();
        parts.map(|&iid| format!("/{}", text(&self.interned.mapping_paths, iid))).collect()
    }

    /// Frames of a callstack, the outermost first.
    pub(super) fn frames(&self, callstack: u64) -> Vec<&Frame> {
        let callstacks: Vec<_> = self.interned.callstacks.iter().filter(|entry| entry.iid() == callstack).collect();
        assert_eq!(callstacks.len(), 1);
        let frame = |&iid| self.interned.frames.iter().find(|frame| frame.iid() == iid).unwrap();
        callstacks[0].frame_ids.iter().map(frame).collect()
    }

    /// Each frame by its name, or by its file and the address in it.
    pub(super) fn shown(&self, callstack: u64) -> Vec<String> {
        let show = |frame: &&Frame| match frame.function_name_id {
            Some(name) if frame.kind() != Kind::Jit => text(&self.interned.function_names, name),
            _ => format!("{}+{:#x}", self.path(self.mapping(frame.mapping_id())), frame.rel_pc()),
        };
        self.frames(callstack).iter().map(show).collect()
    }

    pub(super) fn shown_samples(&self) -> Vec<Vec<String>> {
        self.samples.iter().map(|(_, sample)| self.shown(sample.callstack_iid())).collect()
    }

    pub(super) fn task(&self, sample: &StackSample) -> &TaskContext {
        let mut contexts = self.interned.stack_sample_task_contexts.iter();
        contexts.find(|context| context.iid() == sample.task_context_iid()).unwrap()
    }

    pub(super) fn argument(&self, argument: &DebugAnnotation) -> (String, String) {
        let Some(debug_annotation::NameField::NameIid(iid)) = argument.name_field else { panic!("{argument:?}") };
        let names = &self.interned.debug_annotation_names;
        let name = names.iter().find(|name| name.iid() == iid).unwrap().name().to_owned();
        let value = match argument.value.as_ref().unwrap() {
            debug_annotation::Value::UintValue(number) => number.to_string(),
            debug_annotation::Value::StringValueIid(iid) => text(&self.interned.debug_annotation_string_values, *iid),
            other => panic!("{other:?}"),
        };
        (name, value)
    }

    pub(super) fn blocked(&self) -> impl Iterator<Item = &(u64, TrackEvent)> {
        self.events.iter().filter(|(_, event)| self.threads.contains_key(&event.track_uuid()))
    }
}
