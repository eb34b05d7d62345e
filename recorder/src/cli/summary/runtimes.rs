//! What was found to be wrong with runtimes as a whole.

use std::fmt;

use serde::Serialize;

use crate::timeline::RuntimeFinding;

/// One of these. `polletto report --json` has the same, but for when it began.
#[derive(Debug, Serialize)]
pub struct RuntimeFound {
    /// `blocking pool full`, `worker never parks` or `one busy worker`.
    kind: &'static str,
    pid: u32,
    /// The group of its workers' tracks.
    runtime: String,
    /// Which one, if it is about one.
    worker: Option<String>,
    /// When it began, CLOCK_BOOTTIME nanoseconds, as in the trace; null if it was so all the time.
    since_ns: Option<u64>,
    duration_ns: u64,
    /// In words.
    detail: String,
}

impl RuntimeFound {
    pub fn of(finding: &RuntimeFinding) -> RuntimeFound {
        RuntimeFound {
            kind: finding.fault.name(),
            pid: finding.tgid.0,
            runtime: finding.runtime.clone(),
            worker: finding.worker_name(),
            since_ns: finding.since_ns,
            duration_ns: finding.duration_ns,
            detail: finding.fault.to_string(),
        }
    }
}

impl fmt::Display for RuntimeFound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuntimeFound { kind, pid, runtime, worker, duration_ns, detail, .. } = self;
        let (seconds, who) = (*duration_ns as f64 / 1e9, super::InBrackets([worker.as_deref(), None]));
        write!(out, "{kind}{who} for {seconds:.1} s: {detail}; {runtime}, process {pid}")
    }
}

#[cfg(test)]
mod tests {
    use polletto_common::id::Tgid;

    use super::*;
    use crate::timeline::RuntimeFault;

    #[test]
    fn a_finding_is_a_line() {
        let finding = RuntimeFinding {
            fault: RuntimeFault::NeverParks { share: 0.998 },
            tgid: Tgid(7),
            runtime: "Tokio workers".to_owned(),
            worker: Some(1),
            since_ns: None,
            duration_ns: 2_340_000_000,
        };
        let lines = [
            "worker never parks (worker 1) for 2.3 s: busy for 99.8 % of the time; Tokio workers, process 7",
            "blocking pool full for 2.3 s: up to 4 waited for a thread; Tokio workers, process 7",
        ];
        let full = RuntimeFinding { fault: RuntimeFault::PoolFull { waiting: 4 }, worker: None, ..finding.clone() };
        assert_eq!([finding, full].map(|finding| RuntimeFound::of(&finding).to_string()), lines);
    }
}
