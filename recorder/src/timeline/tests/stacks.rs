//! Samples, blocked stretches and their stacks, as a reader of the trace would see them.

use polletto_common::{
    polled::Polled,
    record::{Blocked, StackEnding},
};
use polletto_protos::{frame::Kind, track_event::Type};

use super::{
    recording::{ANON, CHILD, MAIN, NOWHERE, PROCESS, Recording, anonymous, program, text},
    *,
};

#[test]
fn a_callstack_leads_from_the_root_through_the_program_into_the_kernel() {
    let mut recording = Recording::new();
    // The second address is where the call returns to: the first one after its function.
    recording.stack(7, PROCESS, &[0xffff_0200, 0xffff_0200, 0xfff0], &[MAIN + 5, ANON], StackEnding::ROOT, 0);
    recording.sample(100, 7, PROCESS);
    let read = recording.read();
    let expected = ["/[anon:10]+0x70001000", "/usr/bin/my program+0x5205", "[kernel] 0xffef", "schedule", "ext4_sync"];
    assert_eq!(read.shown_samples(), [expected]);
    let frames = read.frames(read.samples[0].1.callstack_iid());
    assert_eq!(text(&read.interned.function_names, frames[0].function_name_id()), "[anon]");
    let kinds = [Kind::Jit, Kind::Native, Kind::Kernel, Kind::Kernel, Kind::Kernel];
    assert_eq!(frames.iter().map(|frame| frame.kind()).collect::<Vec<_>>(), kinds);
    let kernel = [2, 3, 4].map(|at: usize| read.path(read.mapping(frames[at].mapping_id())));
    assert_eq!(kernel, ["/[kernel]", "/[kernel]", "/[ext4]"]);
    let mapping = read.mapping(frames[1].mapping_id());
    assert_eq!((mapping.start(), mapping.end(), mapping.exact_offset()), (0x5000_0000, 0x5010_0000, 0x4000));
    assert_eq!(mapping.load_bias(), 0x200);
    assert_eq!(read.interned.build_ids[0].str(), [0xab, 0xcd]);
    assert_eq!(mapping.build_id(), read.interned.build_ids[0].iid());
}

#[test]
fn a_sample_is_running_time_of_a_thread_on_a_cpu() {
    let mut recording = Recording::new();
    recording.stack(7, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(100, 7, PROCESS);
    recording.sample(200, 7, PROCESS);
    let read = recording.read();
    assert_eq!(read.samples.iter().map(|(time_ns, _)| *time_ns).collect::<Vec<_>>(), [100, 200]);
    let sample = &read.samples[1].1;
    assert_eq!((sample.primary_weight(), &sample.follower_weights[..]), (1_000, &[1_000, 0, 0][..]));
    assert_eq!((read.task(sample).pid(), read.task(sample).tid()), (10, 10));
    assert_eq!(sample.execution_context_iid(), read.interned.stack_sample_execution_contexts[0].iid());
    assert_eq!(sample.unwind_error, None);
    assert_eq!(read.interned.stack_sample_task_contexts.len(), 1);
    assert_eq!(read.interned.stack_sample_execution_contexts.len(), 1);
    assert_eq!(recording.timeline.seen().samples_by_ending.complete(), 2);
}

#[test]
fn a_blocked_stretch_is_a_slice_of_its_thread_and_a_sample_of_its_length() {
    let mut recording = Recording::new();
    recording.stack(7, PROCESS, &[0xffff_0100], &[MAIN], StackEnding::ROOT, 0);
    recording.blocked(1_100, 7, 1_000, 11, 12);
    recording.blocked(1_500, 7, 1_400, 11, 0);
    let read = recording.read();
    let blocked: Vec<_> = read.blocked().collect();
    assert_eq!(blocked.iter().map(|(time_ns, _)| *time_ns).collect::<Vec<_>>(), [1_000, 1_100, 1_400, 1_500]);
    assert_eq!(read.threads.values().collect::<Vec<_>>(), [&(10, 11)]);
    let begin = &blocked[0].1;
    assert_eq!((begin.r#type(), blocked[1].1.r#type()), (Type::SliceBegin, Type::SliceEnd));
    assert_eq!(read.shown(begin.callstack_iid()), ["/usr/bin/my program+0x5200", "schedule"]);
    let arguments: Vec<_> = begin.debug_annotations.iter().map(|argument| read.argument(argument)).collect();
    let expected = [("state", "D"), ("sleep_ns", "90"), ("runqueue_ns", "10"), ("waker_tid", "12")];
    assert_eq!(arguments, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(blocked[2].1.debug_annotations.len(), 3, "nobody is known to have woken it");
    assert_eq!(read.interned.event_names[0].name(), "blocked: page fault");
    assert_eq!(read.interned.event_categories[0].name(), "blocked");

    let (time_ns, sample) = &read.samples[0];
    assert_eq!((*time_ns, sample.execution_context_iid), (1_100, None));
    assert_eq!((sample.primary_weight(), &sample.follower_weights[..]), (100, &[0, 90, 10][..]));
    assert_eq!(recording.timeline.seen().blocked_by_ending.complete(), 2);
}

#[test]
fn a_thread_that_sleeps_on_has_a_slice_without_an_end() {
    let mut recording = Recording::new();
    recording.stack(7, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.push(Record::Blocked(Blocked {
        header: header::<Blocked>(1_100, flags::STILL_ASLEEP),
        stack: 7,
        left_ns: 1_000,
        woken_ns: 0,
        tid: Tid(11),
        tgid: PROCESS,
        waker_tid: Tid::IDLE,
        prev_state: 1,
        system_call: -1,
        reserved: 0,
        argument: 0,
        polled: Polled::default(),
    }));
    let read = recording.read();
    assert_eq!(read.blocked().map(|(time_ns, _)| *time_ns).collect::<Vec<_>>(), [1_000]);
    assert_eq!(&read.samples[0].1.follower_weights[..], &[0, 100, 0]);
}

#[test]
fn what_looks_at_a_switch_is_no_part_of_it() {
    let mut recording = Recording::new();
    recording.stack(1, PROCESS, &[0xffff_0004, 0xffff_0014, 0xffff_0110], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(100, 1, PROCESS);
    assert_eq!(recording.read().shown_samples(), [["/usr/bin/my program+0x5200", "schedule"]]);
}

#[test]
fn where_frame_pointers_lead_out_of_all_code_the_stack_was_at_its_end() {
    let mut recording = Recording::new();
    recording.stack(1, PROCESS, &[], &[MAIN, MAIN, NOWHERE, MAIN], StackEnding::ROOT, flags::BY_FRAME_POINTERS);
    recording.sample(100, 1, PROCESS);
    recording.stack(2, PROCESS, &[], &[NOWHERE, MAIN], StackEnding::ROOT, flags::BY_FRAME_POINTERS);
    recording.sample(200, 2, PROCESS);
    let main = "/usr/bin/my program+0x5200";
    let cut = vec!["[stack incomplete: no unwind information]", main, main];
    assert_eq!(recording.read().shown_samples(), [cut, vec![main, "[unknown mapping]"]]);
    assert_eq!(recording.timeline.seen().samples_by_ending.complete(), 1);
}

#[test]
fn a_stack_that_was_cut_says_so_where_it_was_cut() {
    let cases = [
        (StackEnding::ROOT, 0, None, None),
        (StackEnding::NONE, 0, None, None),
        (StackEnding::ROOT, flags::BY_FRAME_POINTERS, None, Some("by frame pointers, which code need not keep")),
        (StackEnding::UNREADABLE, 0, Some("[stack incomplete: unreadable memory]"), Some("unreadable memory")),
        (
            StackEnding::NO_RULE,
            flags::BY_FRAME_POINTERS,
            Some("[stack incomplete: no unwind information]"),
            Some("no unwind information"),
        ),
        (StackEnding(99), 0, Some("[stack incomplete: unknown reason]"), Some("unknown reason")),
    ];
    for (ending, flags, outermost, unwind_error) in cases {
        let mut recording = Recording::new();
        recording.stack(7, PROCESS, &[], &[MAIN], ending, flags);
        recording.sample(100, 7, PROCESS);
        let read = recording.read();
        let expected: Vec<&str> = outermost.into_iter().chain(["/usr/bin/my program+0x5200"]).collect();
        assert_eq!(read.shown_samples(), [expected], "{ending:?}");
        assert_eq!(read.samples[0].1.unwind_error.as_deref(), unwind_error, "{ending:?}");
        let seen = recording.timeline.seen();
        assert_eq!(seen.samples_by_ending.complete() == 1, outermost.is_none());
        assert_eq!(seen.by_frame_pointers == 1, flags != 0);
        assert_eq!(seen.samples_by_ending.of(ending), 1);
    }
}

#[test]
fn a_stack_without_any_frame_is_still_a_callstack() {
    let mut recording = Recording::new();
    recording.stack(7, PROCESS, &[], &[], StackEnding::NONE, 0);
    recording.sample(100, 7, PROCESS);
    assert_eq!(recording.read().shown_samples(), [["[no frames]"]]);
}

#[test]
fn an_address_outside_of_all_mappings_is_not_given_to_any() {
    let mut recording = Recording::new();
    recording.stack(7, PROCESS, &[], &[NOWHERE, MAIN, NOWHERE + 1], StackEnding::ROOT, 0);
    recording.sample(100, 7, PROCESS);
    let expected = ["[unknown mapping]", "/usr/bin/my program+0x5200", "[unknown mapping]"];
    assert_eq!(recording.read().shown_samples(), [expected]);
}

#[test]
fn a_stack_that_never_came_is_shown_as_lost() {
    let mut recording = Recording::new();
    recording.sample(100, 7, PROCESS);
    recording.blocked(1_100, 8, 1_000, 11, 12);
    recording.stack(7, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(200, 7, PROCESS);
    let read = recording.read();
    assert_eq!(read.shown_samples(), [["[stack lost]"], ["[stack lost]"], ["/usr/bin/my program+0x5200"]]);
    assert_eq!(read.interned.callstacks.len(), 2);
    let seen = recording.timeline.seen();
    assert_eq!((seen.samples, seen.blocked, seen.stacks_lost, seen.samples_by_ending.complete()), (2, 1, 2, 1));
}

#[test]
fn more_stacks_than_can_be_kept_are_never_taken_for_others() {
    let mut recording = Recording::new();
    recording.timeline.stacks = super::super::stacks::Stacks::new(2);
    recording.timeline.map(program(PROCESS));
    for id in 0..4 {
        recording.stack(id, PROCESS, &[], &[MAIN + id], StackEnding::ROOT, 0);
        recording.sample(100 + id, id, PROCESS);
    }
    recording.sample(200, 0, PROCESS);
    let not_kept = "[stack not kept: too many]";
    let [first, second] = ["/usr/bin/my program+0x5200", "/usr/bin/my program+0x5201"];
    assert_eq!(recording.read().shown_samples(), [[first], [second], [not_kept], [not_kept], [first]]);
    let seen = recording.timeline.seen();
    assert_eq!((seen.stacks, seen.stacks_not_kept, seen.stacks_lost), (2, 2, 0));
}

#[test]
fn stacks_of_too_many_frames_are_not_kept_however_few_they_are() {
    // The frames of each stack, and how many stacks are kept of ten.
    for (frames, kept) in [(1, 10), (80, 5), (500, 1)] {
        let mut recording = Recording::new();
        recording.timeline.stacks = super::super::stacks::Stacks::new(100);
        recording.timeline.map(program(PROCESS));
        for id in 0..10 {
            let frames: Vec<u64> = (0..frames).map(|frame| MAIN + 1000 * id + frame).collect();
            recording.stack(id, PROCESS, &[], &frames, StackEnding::ROOT, 0);
            recording.sample(100 + id, id, PROCESS);
        }
        let seen = recording.timeline.seen();
        assert_eq!((seen.stacks, seen.stacks_not_kept, seen.stacks_lost), (kept, 10 - kept, 0), "{frames} frames each");
    }
}

#[test]
fn a_stack_that_comes_from_every_cpu_is_written_once_unless_mappings_have_changed() {
    let mut recording = Recording::new();
    for _ in 0..3 {
        recording.stack(7, PROCESS, &[], &[MAIN, NOWHERE], StackEnding::ROOT, 0);
    }
    recording.sample(100, 7, PROCESS);
    recording.timeline.map(Mapped { start: NOWHERE, end: NOWHERE + 0x1000, ..anonymous(PROCESS) });
    recording.stack(7, PROCESS, &[], &[MAIN, NOWHERE], StackEnding::ROOT, 0);
    recording.sample(200, 7, PROCESS);
    let read = recording.read();
    let shown = |root| [root, "/usr/bin/my program+0x5200"];
    assert_eq!(read.shown_samples(), [shown("[unknown mapping]"), shown("/[anon:10]+0x90000000")]);
    assert_eq!(read.interned.callstacks.len(), 2);
    assert_eq!(recording.timeline.seen().stacks, 2);
}

#[test]
fn a_stack_of_the_same_frames_is_the_same_under_any_number() {
    let mut recording = Recording::new();
    for id in [1, 2] {
        recording.stack(id, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
        recording.sample(id, id, PROCESS);
    }
    let read = recording.read();
    assert_eq!(read.shown_samples(), [["/usr/bin/my program+0x5200"]; 2]);
    assert_eq!((read.interned.callstacks.len(), recording.timeline.seen().stacks), (1, 1));
}

#[test]
fn a_stack_seen_before_other_code_took_its_place_is_told_apart() {
    let mut recording = Recording::new();
    recording.stack(1, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(1, 1, PROCESS);
    recording.timeline.map(program(PROCESS));
    recording.sample(2, 1, PROCESS);
    recording.stack(1, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(3, 1, PROCESS);
    recording.sample(4, 1, CHILD);
    let read = recording.read();
    let errors: Vec<_> = read.samples.iter().map(|(_, sample)| sample.unwind_error.is_some()).collect();
    assert_eq!(errors, [false, true, false, true]);
    assert_eq!(read.shown_samples()[3], ["[stack lost]"]);
}

#[test]
fn a_forked_process_has_its_parent_s_mappings_until_it_replaces_its_program() {
    let mut recording = Recording::new();
    recording.fork(20, CHILD);
    recording.stack(1, CHILD, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(100, 1, CHILD);
    recording.timeline.unmap_all(CHILD);
    recording.stack(2, CHILD, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(200, 2, CHILD);
    recording.stack(3, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(300, 3, PROCESS);
    let ours = "/usr/bin/my program+0x5200";
    assert_eq!(recording.read().shown_samples(), [[ours], ["[unknown mapping]"], [ours]]);
}

#[test]
fn a_process_s_mappings_end_with_it() {
    let mut recording = Recording::new();
    recording.push(current(80, 10, OURS));
    recording.push(switch(90, 10, DEAD, 0, flags::PREV_RECORDED));
    recording.stack(1, PROCESS, &[], &[MAIN], StackEnding::ROOT, 0);
    recording.sample(100, 1, PROCESS);
    assert_eq!(recording.read().shown_samples(), [["[unknown mapping]"]]);
}

#[test]
fn a_thread_that_gets_the_id_of_another_is_not_that_thread() {
    let mut recording = Recording::new();
    recording.fork(11, PROCESS);
    recording.blocked(1_100, 7, 1_000, 11, 12);
    recording.push(current(1_100, 11, OURS));
    recording.push(switch(1_200, 11, DEAD, 0, flags::PREV_RECORDED));
    recording.fork(11, PROCESS);
    recording.blocked(2_100, 7, 2_000, 11, 12);
    let read = recording.read();
    let tracks: Vec<u64> = read.blocked().map(|(_, event)| event.track_uuid()).collect();
    assert_eq!((tracks[0], tracks[2]), (tracks[1], tracks[3]));
    assert_ne!(tracks[0], tracks[2]);
    let contexts: Vec<u64> = read.samples.iter().map(|(_, sample)| sample.task_context_iid()).collect();
    assert_ne!(contexts[0], contexts[1]);
}

#[test]
fn copies_of_instructions_with_probes_are_the_kernels_and_not_the_programs() {
    let mut recording = Recording::new();
    let page = 0x7fff_ffff_e000;
    let (tgid, bias) = (PROCESS, 0);
    // As a list of what the process has mapped tells of it.
    recording.timeline.map(Mapped { tgid, start: page, end: page + 0x1000, file_offset: 0, module: None, bias });
    recording.stack(7, PROCESS, &[], &[page + 0x80, MAIN], StackEnding::ROOT, 0);
    recording.sample(100, 7, PROCESS);
    assert_eq!(recording.read().shown_samples()[0][1], "[uprobes]");
    assert!(recording.timeline.addresses().keys().all(|code| matches!(code, Code::File(_))));
}
