//! Streams of records, replayed: what a reader of the trace would see.

use polletto_common::{
    limits::COMM_BYTES,
    polled::Polled,
    record::{Current, Exec, Exit, Fork, Header, Layout, Lost, Rename, Sample, Switch, Task, Waking},
};
use polletto_protos::{
    FtraceEventBundle, Trace, TracePacket, ftrace_event::Event, trace_packet::Data, track_event::NameField,
};
use prost::Message;

use super::*;

mod blocking;
mod code;
mod convoys;
mod findings;
mod named_workers;
mod polls;
mod recording;
mod runtime_findings;
mod runtimes;
mod stacks;
mod task_lives;
mod wakes;

const OURS: u32 = flags::PREV_RECORDED | flags::NEXT_RECORDED;
const SLEEPS: u32 = 1;
const DEAD: u32 = 0x80;

fn header<R: Layout>(time_ns: u64, flags: u32) -> Header {
    Header { time_ns, kind: R::KIND, cpu: 0, flags }
}

fn comm(name: &str) -> [u8; COMM_BYTES] {
    let mut comm = [0; COMM_BYTES];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

fn current(time_ns: u64, tid: u32, flags: u32) -> Record {
    Record::Current(Current { header: header::<Current>(time_ns, flags), tid: Tid(tid), prio: 120 })
}

fn switch(time_ns: u64, prev: u32, prev_state: u32, next: u32, flags: u32) -> Record {
    Record::Switch(Switch {
        header: header::<Switch>(time_ns, flags),
        prev_tid: Tid(prev),
        next_tid: Tid(next),
        prev_state,
        prev_exit_state: if prev_state == DEAD { 0x20 } else { 0 },
        next_prio: 120,
    })
}

fn task(tid: u32, tgid: u32, name: &str) -> Record {
    Record::Task(Task {
        header: header::<Task>(1, flags::RECORDED),
        started_ns: 1,
        tid: Tid(tid),
        tgid: Tgid(tgid),
        exec_id: 0,
        thread_pointer: 0,
        parent_tgid: Tgid(1),
        reserved: 0,
        comm: comm(name),
    })
}

/// What a timeline makes of records.
struct Replay {
    timeline: Timeline,
    packets: Vec<TracePacket>,
}

fn replay(view: View, records: &[Record]) -> Replay {
    let mut out = PacketBuffer::default();
    let mut timeline = Timeline::new(view, 1, &mut out);
    for record in records {
        // As the recorder gets them: through the bytes of a ring.
        timeline.push(&Record::decode(record.encode()).unwrap(), &mut out);
    }
    timeline.finish(10_000, &mut out);
    let packets = out.take_all().flat_map(|batch| Trace::decode(batch.bytes()).unwrap().packet).collect();
    Replay { timeline, packets }
}

impl Replay {
    fn bundles(&self) -> impl Iterator<Item = &FtraceEventBundle> {
        self.packets.iter().filter_map(|packet| match &packet.data {
            Some(Data::FtraceEvents(bundle)) => Some(bundle),
            _ => None,
        })
    }

    /// [`Replay::slices_of`] the first CPU.
    fn slices(&self) -> Vec<(u64, u32, i64)> {
        self.slices_of(0)
    }

    /// `(start, thread, state in which it left)` of every slice that a reader makes of the CPU's switches.
    fn slices_of(&self, cpu: u32) -> Vec<(u64, u32, i64)> {
        let mut switches = Vec::new();
        let of_cpu = self.bundles().filter(|bundle| bundle.cpu == Some(cpu));
        for columns in of_cpu.filter_map(|bundle| bundle.compact_sched.as_ref()) {
            let mut time_ns = 0;
            for (at, delta) in columns.switch_timestamp.iter().enumerate() {
                time_ns += delta;
                switches.push((time_ns, columns.switch_next_pid[at] as u32, columns.switch_prev_state[at]));
            }
        }
        // The first switch of a CPU only says what ran before the second.
        switches.windows(2).skip(1).map(|pair| (pair[0].0, pair[0].1, pair[1].2)).collect()
    }

    fn events(&self) -> Vec<(u64, &Event)> {
        let events = self.bundles().flat_map(|bundle| &bundle.event);
        events.map(|event| (event.timestamp(), event.event.as_ref().unwrap())).collect()
    }

    /// When events of this name begin on the recorder's own tracks.
    fn marks(&self, name: &str) -> Vec<u64> {
        let mark = |packet: &TracePacket| match &packet.data {
            Some(Data::TrackEvent(event)) if event.name_field == Some(NameField::Name(name.to_owned())) => {
                Some(packet.timestamp())
            }
            _ => None,
        };
        self.packets.iter().filter_map(mark).collect()
    }

    fn names(&self) -> Vec<&str> {
        let names = self.bundles().filter_map(|bundle| bundle.compact_sched.as_ref());
        names.flat_map(|columns| &columns.intern_table).map(String::as_str).collect()
    }
}

#[test]
fn a_thread_that_already_runs_is_shown_from_the_beginning() {
    let records = [task(10, 10, "a"), current(100, 10, OURS), switch(300, 10, SLEEPS, 0, flags::PREV_RECORDED)];
    assert_eq!(replay(View::Recorded, &records).slices(), [(100, 10, 1)]);
}

#[test]
fn other_programs_have_no_name_unless_the_whole_machine_is_recorded() {
    let records = [
        task(10, 10, "ours"),
        current(100, 77, 0),
        switch(200, 77, 0, 10, flags::NEXT_RECORDED),
        switch(300, 10, SLEEPS, 78, flags::PREV_RECORDED),
        switch(400, 78, SLEEPS, 0, 0),
    ];
    let recorded = replay(View::Recorded, &records);
    let other = pseudo::other(0).0;
    assert_eq!(recorded.slices(), [(100, other, 1), (200, 10, 1), (300, other, 1)]);
    assert_eq!(recorded.names(), ["swapper", "other", "ours"]);
    assert_eq!(replay(View::System, &records).slices(), [(100, 77, 0), (200, 10, 1), (300, 78, 1)]);
}

#[test]
fn lost_records_become_a_gap_in_which_nothing_is_claimed() {
    let lost = Lost { header: header::<Lost>(250, 0), until_ns: 390, count: 5 };
    let records = [
        task(10, 10, "a"),
        task(11, 10, "b"),
        current(100, 10, OURS),
        Record::Lost(lost),
        switch(400, 11, SLEEPS, 0, flags::PREV_RECORDED),
        switch(500, 0, 0, 10, flags::NEXT_RECORDED),
    ];
    let replay = replay(View::Recorded, &records);
    let unobserved = pseudo::unobserved(0).0;
    // Thread 11 left at 400, so it must have been there, for nobody knows how long.
    assert_eq!(replay.slices(), [(100, 10, 0x40), (250, unobserved, 1), (400, 11, 1), (400, 0, 0)]);
    assert!(replay.bundles().any(|bundle| bundle.lost_events()));
    assert_eq!(replay.timeline.seen().lost, 5);
    assert_eq!(replay.timeline.seen().unreported, 0);
    assert_eq!(replay.marks("records lost"), [250]);
}

#[test]
fn lost_records_of_threads_leave_no_gap_among_switches() {
    let lost = Lost { header: header::<Lost>(250, flags::TASKS_LOST), until_ns: 390, count: 5 };
    let records = [
        task(10, 10, "a"),
        current(100, 10, OURS),
        Record::Lost(lost),
        switch(400, 10, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    let replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices(), [(100, 10, 1)]);
    assert_eq!(replay.marks("records lost"), [250]);
    assert_eq!(replay.timeline.seen().lost, 5);
}

#[test]
fn lost_samples_are_marked_and_say_nothing_about_switches() {
    let lost = Lost { header: header::<Lost>(250, flags::SAMPLES_LOST), until_ns: 390, count: 5 };
    let records = [
        task(10, 10, "a"),
        current(100, 10, OURS),
        Record::Lost(lost),
        switch(400, 10, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    let mut replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices(), [(100, 10, 1)]);
    assert_eq!(replay.marks("samples lost"), [250]);
    assert!(replay.marks("records lost").is_empty());
    assert_eq!((replay.timeline.seen().samples_lost, replay.timeline.seen().lost), (5, 0));
    assert!(!replay.bundles().any(|bundle| bundle.lost_events()));
    assert!(!replay.timeline.take_listing_wanted());
}

#[test]
fn a_loss_asks_for_the_threads_to_be_listed_again() {
    let lost = Record::Lost(Lost { header: header::<Lost>(250, 0), until_ns: 390, count: 1 });
    let mut timeline = replay(View::Recorded, &[lost]).timeline;
    assert!(timeline.take_listing_wanted());
    assert!(!timeline.take_listing_wanted());
}

#[test]
fn a_switch_that_the_kernel_did_not_report_is_counted_and_corrected() {
    let records = [
        task(10, 10, "a"),
        task(11, 10, "b"),
        current(100, 10, OURS),
        switch(200, 0, 0, 11, flags::NEXT_RECORDED),
        switch(300, 11, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    let replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices(), [(100, 10, 0x40), (200, 0, 0), (200, 11, 1)]);
    assert_eq!(replay.timeline.seen().unreported, 1);
    assert_eq!(replay.marks("switch not reported"), [200]);
}

#[test]
fn a_thread_that_the_timer_finds_runs_whatever_the_switches_say() {
    let found = Sample {
        header: header::<Sample>(250, 0),
        stack: 1,
        tid: Tid(10),
        tgid: Tgid(10),
        period_ns: 10,
        polled: Polled::default(),
    };
    let records = [
        task(10, 10, "a"),
        current(100, 10, OURS),
        switch(200, 10, 0, 77, flags::PREV_RECORDED),
        Record::Sample(found),
        Record::Sample(Sample { header: header::<Sample>(270, 0), ..found }),
        switch(300, 10, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    let replay = replay(View::Recorded, &records);
    let other = pseudo::other(0).0;
    assert_eq!(replay.slices(), [(100, 10, 0), (200, other, task_state::ASLEEP), (250, 10, 1)]);
    assert_eq!((replay.timeline.seen().unreported, replay.marks("switch not reported")), (1, vec![250]));
}

#[test]
fn a_beginning_that_the_kernel_did_not_report_is_counted_and_nothing_is_made_up() {
    let records =
        [task(10, 10, "a"), current(100, 0, 0), switch(200, 10, SLEEPS, 0, flags::PREV_RECORDED), current(300, 0, 0)];
    let replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices(), [(100, 0, 0), (200, 10, 1)]);
    assert_eq!(replay.timeline.seen().unreported, 1);
}

#[test]
fn siblings_that_follow_each_other_unreported_do_not_end() {
    let records = [
        task(10, 10, "a"),
        task(11, 10, "b"),
        current(100, 11, OURS),
        switch(200, 10, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    assert_eq!(replay(View::Recorded, &records).slices(), [(100, 11, 0x40), (200, 10, 1)]);
}

#[test]
fn a_switch_between_taking_the_leader_s_id_and_the_exec_is_no_contradiction() {
    let records = [
        task(10, 10, "a"),
        task(11, 10, "b"),
        current(100, 10, OURS),
        switch(200, 10, DEAD, 11, OURS),
        switch(300, 10, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    let replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices(), [(100, 10, 0x20), (200, 11, 0x10), (300, 10, 1)]);
    assert_eq!(replay.timeline.seen().unreported, 0);
}

#[test]
fn a_leader_that_leaves_under_the_id_of_the_thread_that_took_its_own_is_no_contradiction() {
    let on = |cpu: u16, mut record: Record| {
        match &mut record {
            Record::Current(current) => current.header.cpu = cpu,
            Record::Switch(switch) => switch.header.cpu = cpu,
            Record::Exec(exec) => exec.header.cpu = cpu,
            _ => panic!("it is of no CPU"),
        }
        record
    };
    let exec = Record::Exec(Exec { header: header::<Exec>(300, 0), tid: Tid(10), old_tid: Tid(11), exec_id: 1 });
    let records = [
        task(10, 10, "a"),
        task(11, 10, "b"),
        on(0, current(100, 10, OURS)),
        on(1, current(110, 11, OURS)),
        on(0, switch(200, 11, DEAD, 0, flags::PREV_RECORDED)),
        on(1, exec),
        on(1, switch(400, 10, SLEEPS, 0, flags::PREV_RECORDED)),
    ];
    let replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices_of(0), [(100, 10, 0x20)]);
    assert_eq!(replay.slices_of(1), [(110, 11, 0x10), (300, 10, 1)]);
    assert_eq!(replay.timeline.seen().unreported, 0);
}

#[test]
fn a_process_begins_when_it_is_forked_and_asks_for_its_description() {
    let fork = Fork {
        header: header::<Fork>(150, 0),
        parent_tid: Tid(10),
        parent_tgid: Tgid(10),
        tid: Tid(20),
        tgid: Tgid(20),
        comm: comm("a"),
        thread_pointer: 0,
    };
    let mut replay = replay(View::Recorded, &[task(10, 10, "a"), current(100, 10, OURS), Record::Fork(fork)]);
    assert!(matches!(replay.events()[..], [(150, Event::TaskNewtask(new))] if new.clone_flags() == 0));
    let undescribed = replay.timeline.take_undescribed();
    assert_eq!(undescribed[1], Undescribed { tgid: Tgid(20), since_ns: 151, started_ns: None });
}

#[test]
fn an_exec_from_another_thread_goes_on_under_the_leader_s_id() {
    let exec = Exec { header: header::<Exec>(200, 0), tid: Tid(10), old_tid: Tid(11), exec_id: 1 };
    let records = [
        task(10, 10, "old"),
        task(11, 10, "old"),
        current(100, 11, OURS),
        Record::Exec(exec),
        switch(300, 10, SLEEPS, 0, flags::PREV_RECORDED),
    ];
    let replay = replay(View::Recorded, &records);
    assert_eq!(replay.slices(), [(100, 11, 0x10), (200, 10, 1)]);
    assert!(
        replay.events().iter().any(|(_, event)| matches!(event, Event::SchedProcessFree(gone) if gone.pid() == 11))
    );
    assert_eq!(replay.timeline.seen().unreported, 0);
}

#[test]
fn the_last_thread_s_end_is_its_process_s_end() {
    let exit = |tid| Record::Exit(Exit { header: header::<Exit>(250, 0), tid: Tid(tid), tgid: Tgid(10) });
    let records = [
        task(10, 10, "a"),
        task(11, 10, "b"),
        current(100, 10, OURS),
        exit(10),
        switch(300, 10, DEAD, 11, OURS),
        exit(11),
        switch(400, 11, DEAD, 0, flags::PREV_RECORDED),
    ];
    let mut replay = replay(View::Recorded, &records);
    let freed = |(time_ns, event): (u64, &Event)| match event {
        Event::SchedProcessFree(gone) => Some((time_ns, gone.pid())),
        _ => None,
    };
    assert_eq!(replay.events().into_iter().filter_map(freed).collect::<Vec<_>>(), [(400, 11), (400, 10)]);
    assert_eq!(replay.timeline.take_ended(), [Tgid(10)]);
    assert_eq!(replay.timeline.live_threads(), 0);
}

#[test]
fn what_has_ended_before_it_was_listed_does_not_live() {
    let listed = |tid, ended| match task(tid, 10, "a") {
        Record::Task(mut task) => {
            task.header.flags |= if ended { flags::ENDED } else { 0 };
            task
        }
        other => panic!("{other:?}"),
    };
    let mut replay = replay(View::Recorded, &[]);
    let mut out = PacketBuffer::default();
    for (leader_ended, other_ended, living) in [(true, true, 0), (true, false, 1), (true, true, 0), (false, false, 2)] {
        replay.timeline.list(&[listed(10, leader_ended), listed(11, other_ended)], 100, &mut out);
        assert_eq!(replay.timeline.live_threads(), living);
    }
    // The first thread's id is kept until the last has ended.
    replay.timeline.list(&[listed(10, true), listed(11, false)], 200, &mut out);
    assert!(replay.timeline.has_process(Tgid(10)));
    replay.timeline.list(&[listed(10, true), listed(11, true)], 300, &mut out);
    assert!(!replay.timeline.has_process(Tgid(10)));
}

#[test]
fn a_new_name_is_used_from_its_time_on() {
    let rename = Rename { header: header::<Rename>(150, 0), tid: Tid(10), tgid: Tgid(10), comm: comm("after") };
    let records = [
        task(10, 10, "before"),
        current(100, 10, OURS),
        Record::Rename(rename),
        switch(200, 10, SLEEPS, 0, flags::PREV_RECORDED),
        switch(300, 0, 0, 10, flags::NEXT_RECORDED),
    ];
    assert_eq!(replay(View::Recorded, &records).names(), ["swapper", "before", "after"]);
}

#[test]
fn a_waking_needs_to_know_its_waker() {
    let waking = |time_ns| {
        let header = header::<Waking>(time_ns, 0);
        Record::Waking(Waking { header, tid: Tid(10), prio: 120, target_cpu: 0 })
    };
    let replay = replay(View::Recorded, &[task(10, 10, "a"), waking(50), current(100, 0, 0), waking(150)]);
    let columns = replay.bundles().next().unwrap().compact_sched.as_ref().unwrap();
    assert_eq!(columns.waking_timestamp, [150]);
    assert_eq!(replay.timeline.seen().wakings, 2);
}
