//! `CompactSched`, encoded as it is filled.
//!
//! Nearly every byte of a trace is one of these columns. Kept as numbers and encoded by prost they took a third of the
//! time of the thread that drains the rings; as varints from the beginning, they take a tenth.

use super::wire::{append_bytes, push_varint};

/// A packed field of a protobuf message.
#[derive(Debug)]
struct Column {
    field: u32,
    varints: Vec<u8>,
}

impl Column {
    const fn new(field: u32) -> Column {
        Column { field, varints: Vec::new() }
    }

    fn push(&mut self, value: u64) {
        push_varint(&mut self.varints, value);
    }

    fn append_to(&mut self, message: &mut Vec<u8>) {
        if !self.varints.is_empty() {
            append_bytes(message, self.field, &self.varints);
            self.varints.clear();
        }
    }
}

/// Times as differences, the first of them to 0.
#[derive(Debug)]
struct Times {
    column: Column,
    last_ns: u64,
}

impl Times {
    fn push(&mut self, time_ns: u64) {
        self.column.push(time_ns - self.last_ns);
        self.last_ns = time_ns;
    }
}

/// The columns of switches and wakings, and the names that they refer to.
#[derive(Debug)]
pub(super) struct Columns {
    switch_times: Times,
    switch_prev_state: Column,
    switch_next_pid: Column,
    switch_next_prio: Column,
    switch_next_comm_index: Column,
    waking_times: Times,
    waking_pid: Column,
    waking_target_cpu: Column,
    waking_prio: Column,
    waking_comm_index: Column,
    waking_common_flags: Column,
    /// `intern_table`, encoded.
    names: Vec<u8>,
    name_count: u32,
    events: usize,
}

const INTERN_TABLE: u32 = 5;

impl Columns {
    pub(super) fn new() -> Columns {
        let times = |field| Times { column: Column::new(field), last_ns: 0 };
        Columns {
            switch_times: times(1),
            switch_prev_state: Column::new(2),
            switch_next_pid: Column::new(3),
            switch_next_prio: Column::new(4),
            switch_next_comm_index: Column::new(6),
            waking_times: times(7),
            waking_pid: Column::new(8),
            waking_target_cpu: Column::new(9),
            waking_prio: Column::new(10),
            waking_comm_index: Column::new(11),
            waking_common_flags: Column::new(12),
            names: Vec::new(),
            name_count: 0,
            events: 0,
        }
    }

    /// `time_ns` is not before the last switch's; `prev_state` is not negative.
    pub(super) fn switch(&mut self, time_ns: u64, prev_state: i64, next_pid: u32, next_prio: u16, comm: u32) {
        self.events += 1;
        self.switch_times.push(time_ns);
        self.switch_prev_state.push(prev_state as u64);
        self.switch_next_pid.push(u64::from(next_pid));
        self.switch_next_prio.push(u64::from(next_prio));
        self.switch_next_comm_index.push(u64::from(comm));
    }

    /// `time_ns` is not before the last waking's.
    pub(super) fn waking(&mut self, time_ns: u64, pid: u32, target_cpu: u16, prio: u16, comm: u32) {
        self.events += 1;
        self.waking_times.push(time_ns);
        self.waking_pid.push(u64::from(pid));
        self.waking_target_cpu.push(u64::from(target_cpu));
        self.waking_prio.push(u64::from(prio));
        self.waking_comm_index.push(u64::from(comm));
        self.waking_common_flags.push(0);
    }

    /// Adds a name and returns its index.
    pub(super) fn name(&mut self, name: &str) -> u32 {
        append_bytes(&mut self.names, INTERN_TABLE, name.as_bytes());
        self.name_count += 1;
        self.name_count - 1
    }

    /// Switches and wakings.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Appends the message's fields, and starts again.
    pub(super) fn append_to(&mut self, message: &mut Vec<u8>) {
        message.append(&mut self.names);
        for column in [
            &mut self.switch_times.column,
            &mut self.switch_prev_state,
            &mut self.switch_next_pid,
            &mut self.switch_next_prio,
            &mut self.switch_next_comm_index,
            &mut self.waking_times.column,
            &mut self.waking_pid,
            &mut self.waking_target_cpu,
            &mut self.waking_prio,
            &mut self.waking_comm_index,
            &mut self.waking_common_flags,
        ] {
            column.append_to(message);
        }
        self.switch_times.last_ns = 0;
        self.waking_times.last_ns = 0;
        self.name_count = 0;
        self.events = 0;
    }
}
