//! Which code a process has in its memory, and the files that it came from.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use polletto_common::id::Tgid;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

/// What is read of a process's list of mappings, in bytes: half a million of them.
const LIST_BYTES: u64 = 64 << 20;

/// Executable memory of a process, and the file that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// First address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// Where in the file it begins, bytes.
    pub file_offset: u64,
    /// The file's device, as `(major, minor)`.
    pub device: (u32, u32),
    /// The file's inode; 0 for memory of no file.
    pub inode: u64,
    /// The file's path as the process sees it, or a name in brackets or behind `//`.
    pub path: PathBuf,
}

/// What code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOrigin {
    /// A file.
    File,
    /// The kernel, which gives every process the same.
    Vdso,
    /// The program itself, which compiles while it runs.
    Anonymous,
}

impl CodeRange {
    /// A file, as it would be if all of it were code and mapped nowhere.
    pub fn of_file(path: &Path) -> io::Result<CodeRange> {
        let path = path.canonicalize()?;
        let facts = path.metadata()?;
        Ok(CodeRange { start: 0, end: 0, file_offset: 0, device: device_of(&facts), inode: facts.ino(), path })
    }

    /// What the code comes from.
    pub fn origin(&self) -> CodeOrigin {
        if self.path == Path::new("[vdso]") {
            CodeOrigin::Vdso
        } else if self.inode != 0 && self.path.is_absolute() && !self.path.as_os_str().as_bytes().starts_with(b"//") {
            CodeOrigin::File
        } else {
            CodeOrigin::Anonymous
        }
    }

    /// The file's path, or what stands for one, without the mark of one that was removed.
    pub fn name(&self) -> &Path {
        match self.path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            Some(name) => Path::new(OsStr::from_bytes(name)),
            None => &self.path,
        }
    }

    /// Opens the very file that the process has mapped, which need not be the one that its path leads to now.
    pub fn open(&self, process: Tgid) -> io::Result<File> {
        // Only while this very range is mapped; but then it leads to the file whatever became of its path.
        let mapped = PathBuf::from(format!("/proc/{process}/map_files/{:x}-{:x}", self.start, self.end));
        if let Ok(file) = open_regular(&mapped) {
            return Ok(file);
        }
        let relative = self.name().strip_prefix("/").unwrap_or(self.name());
        // The process may have ended. Then the path must do, if it leads to the same inode.
        let seen_by_process = PathBuf::from(format!("/proc/{process}/root")).join(relative);
        let is_same = |file: &File| Ok::<_, io::Error>(file.metadata()?.ino() == self.inode);
        let replaced = || io::Error::new(io::ErrorKind::InvalidData, "another file has taken its place");
        if let Ok(file) = open_regular(&seen_by_process) {
            return if is_same(&file)? { Ok(file) } else { Err(replaced()) };
        }
        let file = open_regular(self.name())?;
        let is_same = is_same(&file)? && device_of(&file.metadata()?) == self.device;
        if is_same { Ok(file) } else { Err(replaced()) }
    }
}

fn device_of(facts: &Metadata) -> (u32, u32) {
    (rustix::fs::major(facts.dev()), rustix::fs::minor(facts.dev()))
}

/// The code that a process has in its memory at this moment, by address. None for one that has ended.
pub fn code_of(process: Tgid) -> io::Result<Option<Vec<CodeRange>>> {
    let directory = format!("/proc/{process}/task");
    let leader = format!("{directory}/{process}/maps");
    // A first thread that has ended has no memory any more, while others of its process do.
    let others = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|thread| thread.path().join("maps"));
    for maps in std::iter::once(PathBuf::from(leader)).chain(others) {
        let mut list = Vec::new();
        match File::open(maps).and_then(|maps| maps.take(LIST_BYTES).read_to_end(&mut list)) {
            Ok(0) => {}
            Ok(_) => return Ok(Some(list.split(|&byte| byte == b'\n').filter_map(code_range).collect())),
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn has_ended(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

/// The kernel's own code that it gives to programs, as it stands in our memory.
pub fn vdso() -> io::Result<Vec<u8>> {
    let own = code_of(Tgid(std::process::id()))?.unwrap_or_default();
    let range = own.iter().find(|range| range.origin() == CodeOrigin::Vdso).ok_or(io::ErrorKind::NotFound)?;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&File::open("/proc/self/mem")?, &mut bytes, range.start)?;
    Ok(bytes)
}

/// A line of `/proc/PID/maps`, if it is about code: `START-END PERMISSIONS OFFSET MAJOR:MINOR INODE   PATH`.
fn code_range(line: &[u8]) -> Option<CodeRange> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut field = || str::from_utf8(fields.next()?).ok();
    let (start, end) = field()?.split_once('-')?;
    if field()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let file_offset = u64::from_str_radix(field()?, 16).ok()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    Some(CodeRange {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        file_offset,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode,
        path: PathBuf::from(OsStr::from_bytes(&with_newlines(path))),
    })
}

/// The kernel writes a newline in a path as `\012`, and everything else as it is.
fn with_newlines(path: &[u8]) -> Vec<u8> {
    const ESCAPED: &[u8] = b"\\012";
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        match rest.strip_prefix(ESCAPED) {
            Some(behind) => {
                out.push(b'\n');
                rest = behind;
            }
            None => {
                out.push(byte);
                rest = behind;
            }
        }
    }
    out
}

/// The list that a process writes of the functions that it compiles, if it does. It outlives the process.
pub fn perf_map(process: Tgid) -> Option<File> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    // In a container it has another id, the last one listed, and files of its own.
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let own_id = ids.and_then(|ids| ids.split_whitespace().last()).and_then(|id| id.parse().ok()).unwrap_or(process.0);
    let inside = PathBuf::from(format!("/proc/{process}/root/tmp/perf-{own_id}.map"));
    let outside = PathBuf::from(format!("/tmp/perf-{process}.map"));
    open_regular(&inside).or_else(|_| open_regular(&outside)).ok()
}

/// Opens a file for reading if it is one: not a pipe that would wait, nor a device that would do something.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let seen = File::from(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    if !seen.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(format!("/proc/self/fd/{}", seen.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_code_is_read_whatever_its_path() {
        let line = b"7f00a000-7f00c000 r-xp 00002000 08:1f 131 \t   /tmp/a b\\012c (deleted)";
        let range = code_range(line).unwrap();
        assert_eq!((range.start, range.end, range.file_offset), (0x7f00_a000, 0x7f00_c000, 0x2000));
        assert_eq!((range.device, range.inode, range.name()), ((8, 0x1f), 131, Path::new("/tmp/a b\nc")));
        assert_eq!(range.origin(), CodeOrigin::File);
    }

    #[test]
    fn what_is_not_code_or_no_line_is_left_out() {
        for line in [
            &b"7f00a000-7f00c000 rw-p 00002000 08:1f 131    /tmp/x"[..],
            b"7f00a000-7f00c000 r-xp",
            b"zz-7f00c000 r-xp 00002000 08:1f 131 /tmp/x",
            b"",
        ] {
            assert_eq!(code_range(line), None);
        }
    }

    #[test]
    fn code_of_no_file_is_told_apart() {
        let origin = |path: &str, inode| {
            let line = format!("1000-2000 r-xp 00000000 00:00 {inode} {path}");
            code_range(line.as_bytes()).unwrap().origin()
        };
        assert_eq!(origin("[vdso]", 0), CodeOrigin::Vdso);
        assert_eq!(origin("", 0), CodeOrigin::Anonymous);
        assert_eq!(origin("//anon", 0), CodeOrigin::Anonymous);
        assert_eq!(origin("/usr/bin/x", 5), CodeOrigin::File);
    }

    #[test]
    fn our_own_code_is_found_and_its_file_opened() {
        let own = Tgid(std::process::id());
        let executable = std::env::current_exe().unwrap();
        let code = code_of(own).unwrap().unwrap();
        let range = code.iter().find(|range| range.path == executable).unwrap();
        let opened = range.open(own).unwrap().metadata().unwrap();
        assert_eq!(opened.ino(), std::fs::metadata(executable).unwrap().ino());
        let elsewhere = CodeRange { start: 1, inode: range.inode + 1, ..range.clone() };
        assert!(elsewhere.open(own).is_err());
    }

    #[test]
    fn a_file_is_told_as_its_mappings_tell_it() {
        let executable = std::env::current_exe().unwrap();
        let file = CodeRange::of_file(&executable).unwrap();
        let code = code_of(Tgid(std::process::id())).unwrap().unwrap();
        let range = code.iter().find(|range| range.path == executable).unwrap();
        assert_eq!((file.device, file.inode, file.path), (range.device, range.inode, range.path.clone()));
    }

    #[test]
    fn the_vdso_is_an_elf_file_in_memory() {
        assert!(vdso().unwrap().starts_with(b"\x7fELF"));
    }

    #[test]
    fn a_pipe_or_device_is_not_opened() {
        assert!(open_regular(Path::new("/dev/null")).is_err());
        let directory = std::env::temp_dir().join(format!("polletto-memory-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let pipe = directory.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let result = open_regular(&pipe);
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(result.is_err());
    }
}
