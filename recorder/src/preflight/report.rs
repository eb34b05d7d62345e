//! What the checks found, for people and for scripts.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// All checks of one machine, in the order in which they matter.
///
/// Serializes as `{"ok": true, "checks": [{"name": "kernel", "outcome": "ok", "detail": "6.18.44"}, …]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two. Scripts may rely on it.
    pub name: &'static str,
    /// How it is.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a thing that was looked at is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be, or of no harm.
    Ok {
        /// What was found.
        detail: String,
    },
    /// A recording works, but lacks something.
    Warning {
        /// What was found, and what it means.
        what: String,
        /// A command that mends it.
        remedy: String,
    },
    /// No recording is possible.
    Fatal {
        /// What was found, and what it means.
        what: String,
        /// A command that mends it.
        remedy: String,
    },
}

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Report {
        Report { checks }
    }

    /// Every check that applies to the machine.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The first reason why no recording is possible.
    pub fn first_fatal(&self) -> Option<&Check> {
        self.checks.iter().find(|check| matches!(check.outcome, Outcome::Fatal { .. }))
    }

    /// What a recording will lack.
    pub fn warnings(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Warning { .. }))
    }

    /// Whether a recording is possible.
    pub fn is_ok(&self) -> bool {
        self.first_fatal().is_none()
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 2)?;
        report.serialize_field("ok", &self.is_ok())?;
        report.serialize_field("checks", &self.checks)?;
        report.end()
    }
}

/// A line per check, each ended.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(out, "{check}"))
    }
}

/// A line, and a second one for the remedy; the last is not ended.
impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match &self.outcome {
            Outcome::Ok { detail } => write!(out, "ok   {name}: {detail}"),
            Outcome::Warning { what, remedy } => write!(out, "warn {name}: {what}\n     → {remedy}"),
            Outcome::Fatal { what, remedy } => write!(out, "FAIL {name}: {what}\n     → {remedy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let (what, remedy) = (|| "broken".to_owned(), || "sudo mend".to_owned());
        Report::new(vec![
            Check { name: "kernel", outcome: Outcome::Ok { detail: "6.18.44".to_owned() } },
            Check { name: "memory", outcome: Outcome::Warning { what: what(), remedy: remedy() } },
            Check { name: "btf", outcome: Outcome::Fatal { what: what(), remedy: remedy() } },
            Check { name: "bpf", outcome: Outcome::Fatal { what: what(), remedy: remedy() } },
        ])
    }

    #[test]
    fn a_report_reads_as_a_line_per_check_and_its_remedy() {
        let expected = "ok   kernel: 6.18.44\nwarn memory: broken\n     → sudo mend\nFAIL btf: broken\n     → sudo mend\n\
                        FAIL bpf: broken\n     → sudo mend\n";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn the_first_fatal_check_decides() {
        let report = report();
        assert_eq!(report.first_fatal().map(|check| check.name), Some("btf"));
        assert_eq!(report.warnings().map(|check| check.name).collect::<Vec<_>>(), ["memory"]);
        assert!(!report.is_ok());
        assert!(Report::new(report.checks()[..2].to_vec()).is_ok());
    }

    #[test]
    fn scripts_read_the_outcome_by_name() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][0], serde_json::json!({"name": "kernel", "outcome": "ok", "detail": "6.18.44"}));
        let warning =
            serde_json::json!({"name": "memory", "outcome": "warning", "what": "broken", "remedy": "sudo mend"});
        assert_eq!(json["checks"][1], warning);
        assert_eq!(json["checks"][2]["outcome"], "fatal");
    }
}
