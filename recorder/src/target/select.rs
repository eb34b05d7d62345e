//! From a name to the process that the user means.

use std::{borrow::Cow, collections::HashMap, error, fmt, fs::File, io::Read, time::Duration};

use polletto_common::id::Tgid;
use rustix::time::{ClockId, clock_gettime};

#[cfg(doc)]
use super::naming::NAME_RULE;
use super::{
    naming::{Naming, names},
    printable,
    process::{self, Error, Kind, Process},
};

/// How wide the table of candidates may be, in characters.
const TABLE_WIDTH: usize = 100;

/// Rows of the table. What an even longer list would tell is that the name is a bad one.
const TABLE_ROWS: usize = 20;

/// What is read of the list of users, in bytes.
const USERS_BYTES: u64 = 1 << 20;

/// Processes that go by `name`, as [`NAME_RULE`] says. Oldest first; without kernel threads, zombies, and this process.
pub fn find_by_name(name: &str) -> Result<Vec<Process>, Error> {
    Ok(named(&visible()?, name))
}

/// The one process that goes by `name`, see [`find_by_name`].
pub fn select(name: &str) -> Result<Process, SelectError> {
    select_among(&visible().map_err(SelectError::Unreadable)?, name)
}

/// Why a name does not stand for one process. Prints as the candidates and what to do.
#[derive(Debug)]
pub enum SelectError {
    /// No process goes by this name.
    None {
        /// The name.
        name: String,
        /// Processes that it may have been meant for.
        similar: Vec<Process>,
    },
    /// More than one process goes by this name.
    Ambiguous {
        /// The name.
        name: String,
        /// Those that do.
        candidates: Vec<Process>,
    },
    /// The list of processes could not be read.
    Unreadable(Error),
}

fn visible() -> Result<Vec<Process>, Error> {
    let own = Tgid(std::process::id());
    let others = process::all()?.filter(|process| process.kind == Kind::Program && process.tgid != own);
    let mut processes: Vec<_> = others.collect();
    processes.sort_by_key(|process| (process.started, process.tgid));
    Ok(processes)
}

fn named(processes: &[Process], name: &str) -> Vec<Process> {
    let naming = Naming::new(name);
    processes.iter().filter(|process| naming.is_of(process)).cloned().collect()
}

fn select_among(processes: &[Process], name: &str) -> Result<Process, SelectError> {
    let mut candidates = named(processes, name);
    match candidates.len() {
        0 => {
            let similar = processes.iter().filter(|process| names(process).any(|other| resemble(&other, name)));
            Err(SelectError::None { name: name.to_owned(), similar: similar.cloned().collect() })
        }
        1 => Ok(candidates.remove(0)),
        _ => Err(SelectError::Ambiguous { name: name.to_owned(), candidates }),
    }
}

/// Whether one may have been typed for the other: a part of it, or a slip of one or two letters.
fn resemble(name: &str, typed: &str) -> bool {
    let (name, typed) = (name.to_lowercase(), typed.to_lowercase());
    let shorter = name.chars().count().min(typed.chars().count());
    match shorter {
        0..3 => false,
        3..5 => name.contains(&typed) || typed.contains(&name) || edits(&name, &typed) <= 1,
        5.. => name.contains(&typed) || typed.contains(&name) || edits(&name, &typed) <= 2,
    }
}

/// How many letters must be put in, left out or exchanged to make one of the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for column in 0..other.len() {
            let exchanged = diagonal + usize::from(other[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

impl fmt::Display for SelectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SelectError::None { name, similar } => {
                write!(out, "no process is called `{}`", printable(name))?;
                match similar.as_slice() {
                    [] => write!(out, "; `ps -e` lists all, and -p PID takes one"),
                    similar => {
                        writeln!(out, ". Did you mean one of these?")?;
                        write_table(out, similar)?;
                        write!(out, "take one with -p PID")
                    }
                }
            }
            SelectError::Ambiguous { name, candidates } => {
                writeln!(out, "{} processes are called `{}`:", candidates.len(), printable(name))?;
                write_table(out, candidates)?;
                write!(out, "choose one with -p PID; `record` takes several, each with its own -p")
            }
            SelectError::Unreadable(_) => write!(out, "cannot list the machine's processes"),
        }
    }
}

impl error::Error for SelectError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            SelectError::Unreadable(source) => Some(source),
            _ => None,
        }
    }
}

fn write_table(out: &mut fmt::Formatter<'_>, processes: &[Process]) -> fmt::Result {
    let users = users();
    let now = since_boot();
    writeln!(out, "{:>9}  {:<12} {:>6}  COMMAND", "PID", "USER", "AGE")?;
    for process in processes.iter().take(TABLE_ROWS) {
        let user = users.get(&process.uid).cloned().unwrap_or_else(|| process.uid.to_string());
        let start = format!("{:>9}  {:<12} {:>6}  ", process.tgid, user, age(now.saturating_sub(process.started)));
        let command = match process.command_line.as_slice() {
            [] => format!("[{}]", process.name),
            arguments => arguments.join(" "),
        };
        let room = TABLE_WIDTH.saturating_sub(start.chars().count());
        writeln!(out, "{start}{}", cut(&printable(&command).to_string(), room))?;
    }
    match processes.len().saturating_sub(TABLE_ROWS) {
        0 => Ok(()),
        more => writeln!(out, "{:>9}  and {more} more", ""),
    }
}

fn cut(text: &str, characters: usize) -> Cow<'_, str> {
    if text.chars().count() <= characters {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(characters.saturating_sub(1)).collect();
    Cow::Owned(kept + "…")
}

/// A duration in its largest unit that is not 0.
fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Names of the local users, by id. Empty if they cannot be read: then ids are shown.
fn users() -> HashMap<u32, String> {
    let mut text = Vec::new();
    let read = File::open("/etc/passwd").and_then(|file| file.take(USERS_BYTES).read_to_end(&mut text));
    match read {
        Ok(_) => parse_users(&String::from_utf8_lossy(&text)),
        Err(_) => HashMap::new(),
    }
}

fn parse_users(passwd: &str) -> HashMap<u32, String> {
    let entries = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, printable(name).to_string()))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::{super::example::Example, *};

    fn process(tgid: u32, name: &str, executable: &str, command_line: &[&str]) -> Process {
        Process {
            tgid: Tgid(tgid),
            parent: Tgid(1),
            name: name.to_owned(),
            kind: Kind::Program,
            executable: (!executable.is_empty()).then(|| executable.into()),
            command_line: command_line.iter().map(|&argument| argument.to_owned()).collect(),
            uid: u32::MAX - 1,
            started: Duration::ZERO,
        }
    }

    fn machine() -> Vec<Process> {
        vec![
            process(10, "main", "/srv/bin/server", &["./server", "--port", "80"]),
            process(11, "server", "/srv/old/server", &["server", "--port", "81"]),
            process(12, "a-long-name-tha", "", &["/opt/a-long-name-that-goes-on", "x\ny"]),
            process(13, "Postgres", "/usr/bin/postgres", &["postgres: writer"]),
        ]
    }

    #[test]
    fn a_process_goes_by_its_name_its_program_or_its_first_argument() {
        for (name, expected) in [
            ("main", &[10][..]),
            ("server", &[10, 11]),
            ("/srv/bin/server", &[10]),
            ("a-long-name-tha", &[12]),
            ("a-long-name-that-goes-on", &[12]),
            ("postgres", &[13]),
            ("serve", &[]),
            ("", &[]),
        ] {
            let found: Vec<u32> = named(&machine(), name).iter().map(|process| process.tgid.0).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_name_of_one_process_selects_it() {
        assert_eq!(select_among(&machine(), "postgres").unwrap().tgid, Tgid(13));
    }

    #[test]
    fn a_name_of_several_processes_lists_them_and_says_what_to_do() {
        let error = select_among(&machine(), "server").unwrap_err();
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "2 processes are called `server`:");
        assert_eq!(lines[1], "      PID  USER            AGE  COMMAND");
        assert!(lines[2].starts_with("       10  4294967294") && lines[2].ends_with("  ./server --port 80"), "{error}");
        assert!(lines[3].starts_with("       11  ") && lines[3].ends_with("  server --port 81"), "{error}");
        assert_eq!(lines[4], "choose one with -p PID; `record` takes several, each with its own -p");
    }

    #[test]
    fn a_slip_of_the_hand_is_recognized() {
        for (typed, expected) in [
            ("sevrer", &[10, 11][..]),
            ("SERVER", &[10, 11]),
            ("postgre", &[13]),
            ("mian", &[]),
            ("mai", &[10]),
            ("maim", &[10]),
            ("nginx", &[]),
            ("e", &[]),
        ] {
            match select_among(&machine(), typed) {
                Err(SelectError::None { similar, .. }) => {
                    assert_eq!(similar.iter().map(|process| process.tgid.0).collect::<Vec<_>>(), expected, "{typed}");
                }
                other => panic!("{typed}: {other:?}"),
            }
        }
        let error = select_among(&machine(), "nginx").unwrap_err().to_string();
        assert_eq!(error, "no process is called `nginx`; `ps -e` lists all, and -p PID takes one");
    }

    #[test]
    fn a_table_is_bounded_and_on_one_line_each() {
        let long = "x".repeat(3000);
        let processes: Vec<_> = (0..50).map(|id| process(id, "p", "/p", &["p\n\x1b[2J", &long])).collect();
        let text = select_among(&processes, "p").unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1 + 1 + TABLE_ROWS + 1 + 1);
        assert!(text.lines().all(|line| line.chars().count() <= TABLE_WIDTH), "{text}");
        assert!(text.contains("and 30 more") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, expected) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")] {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn users_are_known_by_their_id() {
        let users = parse_users("root:x:0:0::/root:/bin/sh\nbroken\na:x:b:\nmona:x:1000:1000::/:/bin/sh\n");
        assert_eq!(users, HashMap::from([(0, "root".to_owned()), (1000, "mona".to_owned())]));
    }

    #[test]
    fn a_running_process_is_found_and_we_are_not() {
        let own = Process::read(Tgid(std::process::id())).unwrap();
        let found = find_by_name(own.executable.unwrap().to_str().unwrap()).unwrap();
        assert!(found.iter().all(|process| process.tgid.0 != std::process::id()));

        let example = Example::run("cat", &[]);
        let found = find_by_name("cat").unwrap();
        assert!(found.iter().any(|process| process.tgid == example.tgid()), "{found:?}");
    }
}
