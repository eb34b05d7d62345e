//! What `weights` says of its threads, and what a trace's samples say of them.

use std::{ops::Range, path::Path, time::Duration};

use serde_json::Value;

use crate::{
    program::{DEADLINE, Program},
    recorder::{Outcome, Record},
    trace::{Interval, Nanoseconds, StackSample, State, Tid, Trace},
    workload::Accounting,
};

/// What one thread did, by the kernel's count.
#[derive(Clone, Copy, Debug)]
pub struct Duty {
    /// Who.
    pub tid: Tid,
    /// Its only CPU.
    pub cpu: u32,
    /// How long it ran in each turn, nanoseconds.
    pub spin_ns: u64,
    /// How long it slept in each turn, nanoseconds.
    pub sleep_ns: u64,
    /// How many turns it took.
    pub turns: u64,
    /// When its section began.
    pub begin: Accounting,
    /// When it ended.
    pub end: Accounting,
}

/// Records `weights`, which this is the path of, for as long as it runs.
pub fn recorded(weights: &Path, seconds: &str, threads: &str, arguments: &[&str]) -> (Outcome, Trace, Vec<Duty>) {
    let program = Program::start(weights, &["--seconds", seconds, "--threads", threads]);
    let recording = Record::new().process(program.pid()).arguments(arguments).start();
    let duties = Duty::all_of(program, seconds);
    let outcome = recording.wait().expect_success();
    let trace = outcome.trace();
    (outcome, trace, duties)
}

impl Duty {
    /// Lets `weights` begin, which takes so many seconds, and reads what each of its threads says at the end.
    fn all_of(mut program: Program, seconds: &str) -> Vec<Duty> {
        program.begin();
        let length = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
        program.wait_for_at_most("done", length + DEADLINE);
        program.truth().iter().map(Duty::read).collect()
    }

    fn read(line: &Value) -> Duty {
        let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{of}: {name}"));
        Duty {
            tid: Tid::try_from(number(line, "tid")).expect("an id"),
            cpu: u32::try_from(number(line, "cpu")).expect("a CPU"),
            spin_ns: number(line, "spin_ns"),
            sleep_ns: number(line, "sleep_ns"),
            turns: number(line, "turns"),
            begin: Accounting::read(&line["begin"]),
            end: Accounting::read(&line["end"]),
        }
    }

    /// From its first turn to its last.
    pub fn section(&self) -> Range<Nanoseconds> {
        self.begin.at..self.end.at
    }

    /// How long it ran.
    pub fn ran_ns(&self) -> u64 {
        self.end.run_ns - self.begin.run_ns
    }

    /// How long it slept.
    pub fn slept_ns(&self) -> u64 {
        (self.end.at - self.begin.at).saturating_sub(self.ran_ns() + self.end.wait_ns - self.begin.wait_ns)
    }

    /// What the timer found of it in its section.
    pub fn timer_samples<'trace>(&self, trace: &'trace Trace) -> impl Iterator<Item = &'trace StackSample> {
        self.samples(trace).filter(|sample| !sample.is_blocked())
    }

    /// How it was blocked in stretches that ended in its section.
    pub fn blocked<'trace>(&self, trace: &'trace Trace) -> impl Iterator<Item = &'trace StackSample> {
        self.samples(trace).filter(|sample| sample.is_blocked())
    }

    fn samples<'trace>(&self, trace: &'trace Trace) -> impl Iterator<Item = &'trace StackSample> {
        let (tid, section) = (self.tid, self.section());
        trace.samples.iter().filter(move |sample| sample.tid == tid && section.contains(&sample.at))
    }

    /// The same stretches by the scheduler's data.
    pub fn absences(&self, trace: &Trace) -> Vec<Absence> {
        let section = self.section();
        absences(trace, self.tid).into_iter().filter(|absence| section.contains(&absence.returned)).collect()
    }
}

/// A thread was off its CPU because it had to wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// When it left its CPU.
    pub left: Nanoseconds,
    /// When it was woken.
    pub woken: Nanoseconds,
    /// When it ran again.
    pub returned: Nanoseconds,
    /// Who woke it.
    pub waker: Option<Tid>,
}

impl Absence {
    /// From leaving to returning, nanoseconds.
    pub fn length(&self) -> u64 {
        self.returned - self.left
    }

    /// From leaving to being woken, nanoseconds.
    pub fn slept(&self) -> u64 {
        self.woken - self.left
    }
}

/// All absences of a thread, by the trace's scheduler data alone. Without those whose end the kernel did not report.
pub fn absences(trace: &Trace, tid: Tid) -> Vec<Absence> {
    let intervals: Vec<_> = trace.thread(tid).iter().collect();
    let is_reported = |running: &Interval| running.end != Some(running.start) && !trace.was_not_reported(running.start);
    let absence = |(index, interval): (usize, &&Interval)| {
        let State::Blocked(_) = interval.state else { return None };
        let (woken, waker, running) = match intervals.get(index + 1)? {
            next @ Interval { state: State::Runnable { waker }, .. } => (next.start, *waker, intervals.get(index + 2)?),
            // A waker on another CPU can be ahead of the switch to which it responds.
            next => (interval.start, None, next),
        };
        let has_returned = matches!(running.state, State::Running { .. }) && is_reported(running);
        has_returned.then_some(Absence { left: interval.start, woken, returned: running.start, waker })
    };
    intervals.iter().enumerate().filter_map(absence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::synthetic::{bundle, serialized, switch};

    #[test]
    fn absences_are_those_from_which_a_thread_came_back() {
        let switches = [
            switch(10, 0, 7, "a"),
            switch(20, 1, 0, "idle"),
            switch(60, 0, 7, "a"),
            switch(70, 0, 8, "b"),
            switch(80, 0, 7, "a"),
            switch(90, 2, 8, "b"),
            switch(95, 0, 7, "a"),
            switch(99, 1, 8, "b"),
        ];
        let mut packet = perfetto_protos::trace_packet::TracePacket::new();
        packet.set_ftrace_events(bundle(0, &switches, &[(50, 7, "a")]));
        let trace = Trace::from_bytes(&serialized(&[packet]));
        let slept = Absence { left: 20, woken: 50, returned: 60, waker: Some(0) };
        let not_seen_woken = Absence { left: 90, woken: 90, returned: 95, waker: None };
        assert_eq!(absences(&trace, 7), [slept, not_seen_woken]);
        assert_eq!(slept.length(), 40);
    }
}
