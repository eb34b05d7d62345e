//! Reads files on a thread of its own: a file system that belongs to somebody may never answer.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use polletto_common::id::Tgid;

use crate::target::{
    self, CodeOrigin, CodeRange,
    image::{Bytes, Image, Source},
};

/// How long a file is waited for. While it is, rings are not drained.
const PATIENCE: Duration = Duration::from_millis(200);

/// Threads that are left behind, each waiting for a file system, before no more are started.
const MAX_ABANDONED: usize = 4;

type Read = Result<(Bytes, Image), String>;

/// The thread that reads.
#[derive(Debug, Default)]
pub struct Reader {
    working: Option<Working>,
    abandoned: usize,
}

#[derive(Debug)]
struct Working {
    requests: Sender<(Tgid, CodeRange)>,
    answers: Receiver<Read>,
}

impl Reader {
    /// Opens a file that a process has mapped, and reads what it says of itself.
    pub fn read(&mut self, process: Tgid, range: &CodeRange) -> Read {
        let working = match self.working.take() {
            Some(working) => working,
            None if self.abandoned >= MAX_ABANDONED => {
                return Err("not read, since too many files took too long".to_owned());
            }
            None => start().map_err(|error| error.to_string())?,
        };
        // It ends only with us, or by a panic, which the answer then tells.
        working.requests.send((process, range.clone())).ok();
        match working.answers.recv_timeout(PATIENCE) {
            Ok(read) => {
                self.working = Some(working);
                read
            }
            Err(_) => {
                self.abandoned += 1;
                Err(format!("it could not be read within {} ms", PATIENCE.as_millis()))
            }
        }
    }
}

fn start() -> std::io::Result<Working> {
    let (requests, coming) = channel::<(Tgid, CodeRange)>();
    let (done, answers) = channel();
    std::thread::Builder::new().name("polletto-read".into()).spawn(move || {
        for (process, range) in coming {
            // Nobody waits for an answer that comes too late.
            if done.send(read(process, &range)).is_err() {
                return;
            }
        }
    })?;
    Ok(Working { requests, answers })
}

fn read(process: Tgid, range: &CodeRange) -> Read {
    let source = match range.origin() {
        CodeOrigin::Vdso => target::vdso().map(Bytes::Memory),
        _ => range.open(process).map(Bytes::File),
    };
    let source = source.map_err(|error| error.to_string())?;
    let image = image(&source)?;
    Ok((source, image))
}

fn image(source: &impl Source) -> Result<Image, String> {
    Image::read(source).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_executable_is_read_and_another_file_in_its_place_is_not() {
        let mut reader = Reader::default();
        let executable = CodeRange::of_file(&std::env::current_exe().unwrap()).unwrap();
        let own = Tgid(std::process::id());
        assert!(reader.read(own, &executable).is_ok());
        let replaced = CodeRange { inode: executable.inode + 1, ..executable };
        assert_eq!(reader.read(own, &replaced).unwrap_err(), "another file has taken its place");
    }
}
