//! The scheduling events of one CPU between two flushes, in columns.

use polletto_common::id::Tid;
use polletto_protos::{FtraceEvent, FtraceEventBundle, ftrace_event::Event};
use prost::Message;
use rustc_hash::FxHashMap;

use super::{PacketBuffer, columns::Columns, wire::append_bytes};

/// Events at which a bundle is written even before the next flush. As a packet it stays well below a batch.
const FULL: usize = 8 * 1024;

/// `FtraceEventBundle.compact_sched`
const COMPACT_SCHED: u32 = 4;

/// Columns of one CPU. Times never go back: an event that seems to come before the one in front of it is given its time.
#[derive(Debug)]
pub struct SchedBundle {
    cpu: u32,
    columns: Columns,
    events: Vec<FtraceEvent>,
    /// Where the thread's name stands in the bundle's table.
    name_of: FxHashMap<Tid, u32>,
    /// Where a name stands there: threads of the same name share an entry, since an index that says what the thread's id
    /// says already would cost more than a byte an event.
    names: FxHashMap<String, u32>,
    /// CLOCK_BOOTTIME nanoseconds, over all bundles.
    last_switch_ns: u64,
    last_waking_ns: u64,
    lost: bool,
}

impl SchedBundle {
    /// An empty one.
    pub fn new(cpu: u32) -> SchedBundle {
        SchedBundle {
            cpu,
            columns: Columns::new(),
            events: Vec::new(),
            name_of: FxHashMap::default(),
            names: FxHashMap::default(),
            last_switch_ns: 0,
            last_waking_ns: 0,
            lost: false,
        }
    }

    /// The CPU goes to `next`; the thread that ran until then leaves in `prev_state`, in the encoding of the kernel's
    /// `sched_switch` tracepoint.
    pub fn switch(&mut self, time_ns: u64, prev_state: i64, next: Tid, prio: u16, name: impl FnOnce() -> String) {
        let comm = self.name(next, name);
        self.last_switch_ns = time_ns.max(self.last_switch_ns);
        self.columns.switch(self.last_switch_ns, prev_state, next.0, prio, comm);
    }

    /// The thread that runs on this CPU makes `wakee` runnable.
    pub fn waking(&mut self, time_ns: u64, wakee: Tid, target_cpu: u16, prio: u16, name: impl FnOnce() -> String) {
        let comm = self.name(wakee, name);
        self.last_waking_ns = time_ns.max(self.last_waking_ns);
        self.columns.waking(self.last_waking_ns, wakee.0, target_cpu, prio, comm);
    }

    /// Anything rarer, done by thread `by`.
    pub fn event(&mut self, time_ns: u64, by: Tid, event: Event) {
        self.events.push(FtraceEvent { timestamp: Some(time_ns), pid: Some(by.0), event: Some(event) });
    }

    /// Events are missing since the last bundle of this CPU.
    pub fn mark_lost(&mut self) {
        self.lost = true;
    }

    /// The thread's name is another from now on.
    pub fn forget_name(&mut self, tid: Tid) {
        self.name_of.remove(&tid);
    }

    /// Whether it should be written now.
    pub fn is_full(&self) -> bool {
        self.columns.events() + self.events.len() >= FULL
    }

    /// Writes what there is as one packet, and starts again.
    pub fn write(&mut self, out: &mut PacketBuffer) {
        if self.columns.events() == 0 && self.events.is_empty() && !self.lost {
            return;
        }
        let rare = FtraceEventBundle {
            cpu: Some(self.cpu),
            event: std::mem::take(&mut self.events),
            lost_events: std::mem::take(&mut self.lost).then_some(true),
            compact_sched: None,
        };
        let mut bundle = rare.encode_to_vec();
        let mut columns = Vec::new();
        self.columns.append_to(&mut columns);
        if !columns.is_empty() {
            append_bytes(&mut bundle, COMPACT_SCHED, &columns);
        }
        out.push_ftrace_events(&bundle);
        self.name_of.clear();
        self.names.clear();
    }

    fn name(&mut self, tid: Tid, name: impl FnOnce() -> String) -> u32 {
        let SchedBundle { name_of, names, columns, .. } = self;
        *name_of.entry(tid).or_insert_with(|| *names.entry(name()).or_insert_with_key(|name| columns.name(name)))
    }
}

#[cfg(test)]
mod tests {
    use polletto_protos::{Trace, trace_packet::Data};

    use super::*;

    fn written(bundle: &mut SchedBundle) -> Vec<FtraceEventBundle> {
        let mut out = PacketBuffer::default();
        bundle.write(&mut out);
        let batches: Vec<_> = out.take_all().collect();
        let packets = batches.iter().flat_map(|batch| Trace::decode(batch.bytes()).unwrap().packet);
        packets
            .map(|packet| match packet.data {
                Some(Data::FtraceEvents(bundle)) => bundle,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn times_are_deltas_that_start_anew_in_each_bundle() {
        let mut bundle = SchedBundle::new(3);
        for time_ns in [1_000, 1_500, 1_700] {
            bundle.switch(time_ns, 1, Tid(7), 120, || "a".into());
        }
        let first = written(&mut bundle).remove(0);
        assert_eq!(first.cpu(), 3);
        assert_eq!(first.compact_sched.unwrap().switch_timestamp, [1_000, 500, 200]);
        bundle.switch(2_000, 1, Tid(7), 120, || "a".into());
        let second = written(&mut bundle).remove(0).compact_sched.unwrap();
        assert_eq!(second.switch_timestamp, [2_000]);
        assert_eq!(second.intern_table, ["a"]);
    }

    #[test]
    fn time_never_goes_back_on_a_cpu() {
        let mut bundle = SchedBundle::new(0);
        bundle.switch(1_000, 0, Tid(1), 120, String::new);
        bundle.switch(999, 0, Tid(2), 120, String::new);
        let columns = written(&mut bundle).remove(0).compact_sched.unwrap();
        assert_eq!(columns.switch_timestamp, [1_000, 0]);
    }

    #[test]
    fn a_name_is_written_once_and_again_when_it_changed() {
        let mut bundle = SchedBundle::new(0);
        bundle.switch(1, 0, Tid(1), 120, || "old".into());
        bundle.waking(2, Tid(1), 0, 120, || unreachable!());
        bundle.forget_name(Tid(1));
        bundle.switch(3, 0, Tid(1), 120, || "new".into());
        let columns = written(&mut bundle).remove(0).compact_sched.unwrap();
        assert_eq!(columns.intern_table, ["old", "new"]);
        assert_eq!(columns.switch_next_comm_index, [0, 1]);
        assert_eq!(columns.waking_comm_index, [0]);
    }

    #[test]
    fn threads_of_the_same_name_share_it() {
        let mut bundle = SchedBundle::new(0);
        for tid in 1..=3 {
            bundle.switch(1, 0, Tid(tid), 120, || "worker".into());
        }
        let columns = written(&mut bundle).remove(0).compact_sched.unwrap();
        assert_eq!(columns.intern_table, ["worker"]);
        assert_eq!(columns.switch_next_comm_index, [0, 0, 0]);
    }

    #[test]
    fn an_empty_bundle_is_not_written_unless_something_was_lost() {
        let mut bundle = SchedBundle::new(0);
        assert!(written(&mut bundle).is_empty());
        bundle.mark_lost();
        assert!(written(&mut bundle)[0].lost_events());
    }
}
