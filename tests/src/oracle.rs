//! `task-oracle`, built in several ways, and what it writes down of itself.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    check::workspace,
    program::{DEADLINE, Program},
    recorder::{Outcome, Record},
    trace::{Nanoseconds, Tid},
};

/// The newest version of Tokio whose layout polletto knows.
pub const NEWEST: &str = "~1.54";

/// What brings its C library with it is built for this.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// How the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// A cargo profile: `dev`, or one of those in the program's `Cargo.toml`.
    pub profile: &'static str,
    /// Which version of Tokio, as cargo writes requirements.
    pub tokio: &'static str,
}

/// A task as its spawner wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// As Tokio numbers tasks.
    pub id: u64,
    /// What its future is, in the source.
    pub name: String,
    /// The number of the task that spawned it; 0 for none.
    pub parent: u64,
    /// Shortly before.
    pub at: Nanoseconds,
}

/// A wake as who did it wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The number of the task that was woken.
    pub number: u64,
    /// The number of the task that did it; 0 for none.
    pub by: u64,
    /// The thread.
    pub tid: Tid,
    /// Before it began.
    pub begin: Nanoseconds,
    /// After it was done.
    pub end: Nanoseconds,
}

/// A poll as the task wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The task's number, not its id.
    pub number: u64,
    /// The thread.
    pub tid: Tid,
    /// After it had begun.
    pub begin: Nanoseconds,
    /// Before it ended.
    pub end: Nanoseconds,
}

/// A closure that may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closure {
    /// As Tokio numbers tasks.
    pub id: u64,
    /// The number of the task that spawned it; 0 for none.
    pub parent: u64,
    /// Before that began.
    pub begin: Nanoseconds,
    /// After it was done.
    pub end: Nanoseconds,
    /// Where and when it ran.
    pub ran: Option<Poll>,
}

/// What the program did.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By number.
    pub spawns: HashMap<u64, Spawn>,
    /// In the order in which they ended.
    pub polls: Vec<Poll>,
    /// Not all of them, but those that the program makes itself.
    pub wakes: Vec<Wake>,
    /// Closures that may block, by number.
    pub closures: HashMap<u64, Closure>,
    /// Polls in which a thread blocked in place, by the task's number, and when.
    pub in_place: Vec<Poll>,
}

impl Build {
    /// Builds it, unless that is done.
    ///
    /// Each version of Tokio has a lock file and a directory of its own.
    pub fn program(&self) -> PathBuf {
        let source = workspace().join("tests/oracle");
        let version: String =
            self.tokio.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '.').collect();
        let directory = workspace().join(format!("target/oracle/tokio-{version}"));
        copy(&source.join("src"), &directory.join("src"));
        let manifest = fs::read_to_string(source.join("Cargo.toml")).expect("the program has a manifest");
        let manifest = manifest.replace(r#"version = "1""#, &format!(r#"version = "{}""#, self.tokio));
        write(&directory.join("Cargo.toml"), manifest.as_bytes());
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&directory).args(["build", "--quiet", "--profile", self.profile]);
        let target = if self.profile == "musl" { MUSL } else { "" };
        if !target.is_empty() {
            cargo.args(["--target", target]);
        }
        // Those that the tests themselves are built with say nothing about this program.
        for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_DEBUG"] {
            cargo.env_remove(variable);
        }
        let status = cargo.status().expect("cargo starts");
        assert!(status.success(), "{self:?} does not build");
        let profile = if self.profile == "dev" { "debug" } else { self.profile };
        directory.join("target").join(target).join(profile).join("task-oracle")
    }

    /// Records it from before it does anything until it is done.
    pub fn recorded(&self, arguments: &[&str]) -> (Outcome, Truth) {
        self.recorded_as(&["--seconds", "1"], arguments)
    }

    /// As [`Build::recorded`], with tasks that wake one another.
    pub fn recorded_with_wakes(&self, arguments: &[&str]) -> (Outcome, Truth) {
        self.recorded_as(&["--seconds", "1", "--wakes"], arguments)
    }

    /// As [`Build::recorded`], with closures that may block and tasks that block in place.
    pub fn recorded_with_blocking(&self, arguments: &[&str]) -> (Outcome, Truth) {
        self.recorded_as(&["--seconds", "1", "--blocking"], arguments)
    }

    fn recorded_as(&self, own: &[&str], arguments: &[&str]) -> (Outcome, Truth) {
        let mut program = Program::start(&self.program(), own);
        let recording = Record::new().process(program.pid()).arguments(arguments).start();
        program.begin();
        program.wait_for_at_most("done", Duration::from_secs(30) + DEADLINE);
        let truth = Truth::read(&program.truth());
        (recording.wait().expect_success(), truth)
    }
}

impl Truth {
    fn read(lines: &[Value]) -> Truth {
        let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{of}: {name}"));
        let mut truth = Truth::default();
        for line in lines {
            if let Some(spawn) = line["spawn"].as_u64() {
                let name = line["name"].as_str().expect("a name").to_owned();
                let (id, parent, at) = (number(line, "id"), number(line, "parent"), number(line, "at"));
                truth.spawns.insert(spawn, Spawn { id, name, parent, at });
                continue;
            }
            let (begin, end) = (number(line, "begin"), number(line, "end"));
            if let Some(closure) = line["closure"].as_u64() {
                let (id, parent) = (number(line, "id"), number(line, "parent"));
                truth.closures.insert(closure, Closure { id, parent, begin, end, ran: None });
                continue;
            }
            let tid = Tid::try_from(number(line, "tid")).expect("an id");
            if let Some(woken) = line["wake"].as_u64() {
                truth.wakes.push(Wake { number: woken, by: number(line, "by"), tid, begin, end });
            } else if let Some(closure) = line["ran"].as_u64() {
                let known = truth.closures.get_mut(&closure).expect("it was spawned");
                known.ran = Some(Poll { number: closure, tid, begin, end });
            } else if let Some(number) = line["in_place"].as_u64() {
                truth.in_place.push(Poll { number, tid, begin, end });
            } else {
                truth.polls.push(Poll { number: number(line, "poll"), tid, begin, end });
            }
        }
        truth
    }

    /// The id of the task that is polled.
    pub fn id(&self, poll: &Poll) -> u64 {
        self.spawns[&poll.number].id
    }

    /// The id of the task of this number; none for 0, which is none.
    pub fn id_of(&self, number: u64) -> Option<u64> {
        self.spawns.get(&number).map(|spawn| spawn.id)
    }

    /// The innermost poll that a thread was in at that moment, and `margin` nanoseconds before and after.
    pub fn polled(&self, tid: Tid, at: Nanoseconds, margin: u64) -> Option<&Poll> {
        let of_thread = self.polls.iter().filter(|poll| poll.tid == tid);
        of_thread.filter(|poll| poll.begin + margin <= at && at + margin <= poll.end).max_by_key(|poll| poll.begin)
    }

    /// Whether a thread was in no poll at that moment, nor `margin` nanoseconds before or after.
    pub fn is_idle(&self, tid: Tid, at: Nanoseconds, margin: u64) -> bool {
        !self.polls.iter().any(|poll| poll.tid == tid && poll.begin <= at + margin && at <= poll.end + margin)
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the program has sources") {
        let path = entry.expect("a directory can be read").path();
        let bytes = fs::read(&path).expect("a source can be read");
        write(&to.join(path.file_name().expect("a file")), &bytes);
    }
}

/// Writes a file unless it is so already: cargo goes by the time of its last change.
fn write(path: &Path, bytes: &[u8]) {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return;
    }
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("the directory can be made");
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
