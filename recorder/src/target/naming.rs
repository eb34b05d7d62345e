//! What a process is called, and by what people may call it.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use polletto_common::limits::COMM_BYTES;

use super::process::Process;

/// What a NAME stands for wherever one is taken, for people: [`Naming::is_of`] in words.
pub const NAME_RULE: &str =
    "its own name, the file name or the path of its program, or the file name of its first argument";

/// Bytes of a process's name that the kernel keeps, without the NUL.
const KEPT_BYTES: usize = COMM_BYTES - 1;

/// What somebody has typed to mean a process.
#[derive(Debug)]
pub struct Naming<'n> {
    name: &'n str,
    /// The file that it is the path of, if it is one's.
    file: Option<PathBuf>,
}

impl<'n> Naming<'n> {
    pub fn new(name: &'n str) -> Naming<'n> {
        // Programs are known by their paths from the root on, without links.
        let file = name.contains('/').then(|| fs::canonicalize(name).unwrap_or_else(|_| name.into()));
        Naming { name, file }
    }

    /// Whether a process goes by that.
    pub fn is_of(&self, process: &Process) -> bool {
        let program = process.executable.as_deref();
        let is_path = program.is_some() && (program == self.file.as_deref() || program == Some(Path::new(self.name)));
        is_path || names(process).any(|name| name == self.name)
    }
}

/// What a process can be called by, its full path apart.
pub fn names(process: &Process) -> impl Iterator<Item = Cow<'_, str>> {
    let program = process.executable.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let argument = process.command_line.first().and_then(|first| Path::new(first).file_name());
    [Some(Cow::Borrowed(process.name.as_str())), program, argument.map(|name| name.to_string_lossy())]
        .into_iter()
        .flatten()
}

impl Process {
    /// Its name, whole where the kernel has cut off what its program's file is called.
    pub fn whole_name(&self) -> Cow<'_, str> {
        let program = self.executable.as_deref().and_then(Path::file_name);
        let is_whole =
            |program: &&OsStr| self.name.len() == KEPT_BYTES && program.as_bytes().starts_with(self.name.as_bytes());
        program.filter(is_whole).map_or(Cow::Borrowed(&self.name), OsStr::to_string_lossy)
    }
}

#[cfg(test)]
mod tests {
    use polletto_common::id::Tgid;

    use super::{super::example::Example, *};

    #[test]
    fn a_name_is_whole_where_the_kernel_has_cut_it_off() {
        let own = Process::read(Tgid(std::process::id())).unwrap();
        let called = |name: &str, program: Option<&str>| {
            let process = Process { name: name.to_owned(), executable: program.map(PathBuf::from), ..own.clone() };
            process.whole_name().into_owned()
        };
        for (name, program, expected) in [
            ("simple-http-ser", Some("/srv/simple-http-server"), "simple-http-server"),
            ("simple-http-ser", Some("/srv/simple-http-ser"), "simple-http-ser"),
            ("simple-http-ser", Some("/usr/bin/python3.13"), "simple-http-ser"),
            ("simple-http-ser", None, "simple-http-ser"),
            ("simple", Some("/srv/simple-http-server"), "simple"),
        ] {
            assert_eq!(called(name, program), expected, "{name} {program:?}");
        }
    }

    #[test]
    fn a_path_is_one_however_it_is_written() {
        let example = Example::run("cat", &[]);
        let process = Process::read(example.tgid()).unwrap();
        let (whole, name) = (Example::executable(), process.name.clone());
        assert!(Naming::new(whole.to_str().unwrap()).is_of(&process));
        assert!(Naming::new(&name).is_of(&process));
        assert!(!Naming::new("/nowhere/cat").is_of(&process));
        let dotted = whole.parent().unwrap().join(".").join(whole.file_name().unwrap());
        assert!(Naming::new(dotted.to_str().unwrap()).is_of(&process));
    }
}
