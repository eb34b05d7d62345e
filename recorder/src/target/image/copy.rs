//! All of a file's bytes, in memory of the recorder's own.

use std::{io, ops::Deref};

use memmap2::MmapMut;

use super::{Bytes, ImageError, Source};
use crate::target::spare_memory;

/// All of a file's bytes, or as many as there may be, copied: a file that is mapped can lose its end while it is read.
#[derive(Debug)]
pub struct FileCopy {
    memory: MmapMut,
    /// How many bytes the file had when it was read.
    count: usize,
}

impl Bytes {
    /// Copies all of them, but no more than `limit`, nor than there is memory to spare for: holes of a file take none on its
    /// disk.
    pub fn read_whole(&self, limit: u64) -> Result<FileCopy, ImageError> {
        let expected = match self {
            Bytes::File(file) => file.metadata().map_err(ImageError::Unreadable)?.len(),
            Bytes::Memory(memory) => memory.len() as u64,
        };
        let room = usize::try_from(expected.min(limit).min(spare_memory()))
            .map_err(|_| ImageError::Unreadable(io::ErrorKind::OutOfMemory.into()))?;
        let mut memory = MmapMut::map_anon(room).map_err(ImageError::Unreadable)?;
        let mut count = 0;
        while count < room {
            match self.read_at(count as u64, &mut memory[count..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::Unreadable(error)),
                Ok(0) => break,
                Ok(more) => count += more,
            }
        }
        Ok(FileCopy { memory, count })
    }
}

impl Deref for FileCopy {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_copy_has_all_bytes_and_no_more_than_the_limit() {
        let path = std::env::current_exe().unwrap();
        let expected = std::fs::read(&path).unwrap();
        let file = || Bytes::File(File::open(&path).unwrap());
        assert!(*file().read_whole(u64::MAX).unwrap() == expected);
        assert!(*file().read_whole(4_097).unwrap() == expected[..4_097]);
        assert_eq!(*Bytes::Memory(b"vdso".to_vec()).read_whole(100).unwrap(), *b"vdso");
        assert_eq!(*Bytes::Memory(Vec::new()).read_whole(100).unwrap(), *b"");
    }
}
