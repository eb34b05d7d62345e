//! The code of processes, beside that of the files that they have it from: whoever patches it leaves a difference.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
};

/// Bytes that are compared at once.
const CHUNK: usize = 1 << 20;

/// Code that a process has from a file.
struct Mapped {
    addresses: Range<u64>,
    file_offset: u64,
    file: File,
}

/// Addresses at which a process has other code than its files. None if it has ended, or begins another program.
pub fn patched(pid: i32) -> Option<Vec<u64>> {
    // Opened first: if the process executes another program, nothing can be read by it any more.
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let code = maps.lines().filter_map(|line| mapped(pid, line).transpose()).collect::<io::Result<Vec<_>>>().ok()?;
    let patched = code.iter().map(|mapped| mapped.differences(&memory)).collect::<io::Result<Vec<_>>>().ok()?;
    (!code.is_empty()).then(|| patched.concat())
}

/// The processes that a process has started and not waited for.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let children: Vec<String> = children.collect();
    children.iter().flat_map(|ids| ids.split_ascii_whitespace()).map(|id| id.parse().expect("an id")).collect()
}

/// Panics if a process, or one that it has started, has other code than its files. Those that have ended have none.
pub fn assert_untouched(pid: i32, when: &str) {
    for process in [vec![pid], children(pid)].concat() {
        let patched = patched(process).unwrap_or_default();
        assert!(patched.is_empty(), "process {process} has been changed at {patched:#x?} {when}");
    }
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`; `None` if it is no code from a file.
fn mapped(pid: i32, line: &str) -> io::Result<Option<Mapped>> {
    let mut fields = line.split_ascii_whitespace();
    let mut field = || fields.next().ok_or(io::ErrorKind::InvalidData);
    let (place, permissions, file_offset, _device, inode) = (field()?, field()?, field()?, field()?, field()?);
    if !permissions.contains('x') || inode == "0" {
        return Ok(None);
    }
    let number = |text| u64::from_str_radix(text, 16).map_err(io::Error::other);
    let (start, end) = place.split_once('-').ok_or(io::ErrorKind::InvalidData)?;
    let file = File::open(format!("/proc/{pid}/map_files/{place}"))?;
    Ok(Some(Mapped { addresses: number(start)?..number(end)?, file_offset: number(file_offset)?, file }))
}

impl Mapped {
    fn differences(&self, memory: &File) -> io::Result<Vec<u64>> {
        let (mut there, mut own) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut differences = Vec::new();
        for start in self.addresses.clone().step_by(CHUNK) {
            let size = usize::try_from(self.addresses.end - start).map_or(CHUNK, |rest| rest.min(CHUNK));
            memory.read_exact_at(&mut there[..size], start)?;
            let kept = read_at_most(&self.file, &mut own[..size], self.file_offset + start - self.addresses.start)?;
            // The rest of a file's last page is zeroes.
            own[kept..size].fill(0);
            let both = (start..).zip(there[..size].iter().zip(&own[..size]));
            differences.extend(both.filter(|(_, (there, own))| there != own).map(|(address, _)| address));
        }
        Ok(differences)
    }
}

/// Reads until the bytes are full or the file ends.
fn read_at_most(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64)? {
            0 => break,
            count => read += count,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nobody_has_patched_has_the_code_of_its_files() {
        let own = i32::try_from(std::process::id()).expect("an id");
        assert_eq!(patched(own), Some(Vec::new()));
    }

    #[test]
    fn a_process_that_is_not_there_has_none() {
        assert_eq!(patched(i32::MAX), None);
    }
}
