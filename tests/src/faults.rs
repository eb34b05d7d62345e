//! What is wrong with the demo server, as `src/bin/demo-server/faults.json` lists it.

use std::fs;

use serde_json::Value;

use crate::check::workspace;

/// A fault, and what must be found of it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The last part of the path at which it is asked for.
    pub endpoint: String,
    /// As findings are called.
    pub kind: String,
    /// What is slept for, if that is it.
    pub waited_for: Option<String>,
    /// How the name of the task's future begins.
    future: String,
    /// The name of the source file.
    file: String,
    /// What stands in one of its lines, and in no other: the line that keeps the worker, or that begins the task which has to
    /// wait.
    code: String,
    /// The function that is the task, if it is one of the demo server's own. Else it is axum's, which serves a connection.
    async_fn: Option<String>,
}

/// Where the task is written that serves a connection.
const OF_CONNECTIONS: &str = "/src/serve/mod.rs:";

impl Fault {
    /// All of them.
    pub fn all() -> Vec<Fault> {
        let listed: Vec<Value> =
            serde_json::from_str(include_str!("bin/demo-server/faults.json")).expect("a list of faults");
        listed.iter().map(Fault::read).collect()
    }

    fn read(of: &Value) -> Fault {
        let text = |name: &str| of[name].as_str().map(str::to_owned);
        let said = |name: &str| text(name).unwrap_or_else(|| panic!("{name} of {of}"));
        Fault {
            endpoint: said("endpoint"),
            kind: said("kind"),
            waited_for: text("waited_for"),
            future: said("future"),
            file: said("file"),
            code: said("code"),
            async_fn: text("async_fn"),
        }
    }

    /// How paths to the source file end.
    pub fn path(&self) -> String {
        format!("demo-server/endpoints/{}", self.file)
    }

    /// Its line.
    pub fn line(&self) -> usize {
        self.line_of(&self.code)
    }

    /// Whether a future is called as the task's, by its type or, in a stripped program, by the place of its code.
    pub fn is_future(&self, name: &str, is_stripped: bool) -> bool {
        match &self.async_fn {
            _ if !is_stripped => name.starts_with(&self.future),
            Some(function) => {
                let line = self.line_of(&format!("async fn {function}("));
                name.ends_with(&format!("{}:{line}", self.path()))
            }
            None => name.starts_with("axum-") && name.contains(OF_CONNECTIONS),
        }
    }

    /// What a recording's summary tells of it: a place of the same kind, of the same future, at its line. Where the server is
    /// not stripped.
    pub fn found<'s>(&self, summary: &'s Value) -> Option<&'s Value> {
        let line = self.line();
        let is_there = |place: &Value| match place["own"]["file"].as_str() {
            Some(file) => file.ends_with(&self.path()) && place["own"]["line"] == line,
            // What has not run yet is nowhere but where it is written.
            None => place["written_at"].as_str().is_some_and(|at| at.ends_with(&format!("{}:{line}", self.path()))),
        };
        let is_it = |place: &&Value| {
            place["kind"] == self.kind.as_str()
                && place["waited_for"].as_str() == self.waited_for.as_deref()
                && place["future"].as_str().is_some_and(|future| self.is_future(future, false))
                && is_there(place)
        };
        summary["findings"]["places"].as_array()?.iter().find(is_it)
    }

    fn line_of(&self, code: &str) -> usize {
        let path = workspace().join("tests/src/bin").join(self.path());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines().enumerate().filter(|(_, line)| line.contains(code)).map(|(index, _)| index + 1);
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            found => panic!("{code} stands in lines {found:?} of {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_stands_in_a_line_of_its_own() {
        // Who stands at a lock is found, and all who do.
        let at = |fault: &Fault| (fault.path(), fault.line(), fault.kind == "lock convoy");
        let mut lines: Vec<(String, usize, bool)> = Fault::all().iter().map(at).collect();
        let count = lines.len();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), count, "{lines:?}");
    }

    #[test]
    fn what_is_found_has_the_same_kind_future_and_line() {
        let faults = Fault::all();
        let fault = faults.iter().find(|fault| fault.waited_for.as_deref() == Some("lock")).expect("one is a lock");
        let place = |kind: &str, wait: &str, future: &str, line: usize| {
            let own = json!({ "file": format!("/there/{}", fault.path()), "line": line });
            json!({ "kind": kind, "waited_for": wait, "future": future, "own": own })
        };
        let future = "demo_server::endpoints::mutex::part::{async}";
        let right = place("slept in poll", "lock", future, fault.line());
        let summary = |place: &Value| json!({ "findings": { "places": [place] } });
        assert_eq!(fault.found(&summary(&right)), Some(&right));
        for wrong in [
            place("long poll", "lock", future, fault.line()),
            place("slept in poll", "timer", future, fault.line()),
            place("slept in poll", "lock", "demo_server::endpoints::mutex::count::{async}", fault.line()),
            place("slept in poll", "lock", future, fault.line() + 1),
        ] {
            assert_eq!(fault.found(&summary(&wrong)), None, "{wrong}");
        }
        assert_eq!(fault.found(&json!({})), None);
    }

    #[test]
    fn a_stripped_servers_future_is_known_by_its_place() {
        let faults = Fault::all();
        let of_connection = faults.iter().find(|fault| fault.endpoint == "hash").expect("there is /hash");
        let of_server = faults.iter().find(|fault| fault.endpoint == "starvation").expect("there is /starvation");
        let own = format!("tests/src/bin/{}:{}", of_server.path(), of_server.line());
        assert!(of_connection.is_future("axum-0.8.9/src/serve/mod.rs:389", true));
        assert!(of_server.is_future(&own, true));
        assert!(!of_connection.is_future(&own, true) && !of_server.is_future("axum-0.8.9/src/serve/mod.rs:389", true));
    }
}
