//! The thread that compresses and writes, so that whoever fills batches never waits for a disk, until the disk has
//! fallen far behind.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    compression::{Compression, Compressor},
    file::TraceFile,
    packets::Batch,
};

/// Batches that may wait for the disk. With those being filled and written this bounds the memory of a recording.
const QUEUED_BATCHES: usize = 32;

/// Where batches are sent.
#[derive(Debug)]
pub struct Output {
    queue: SyncSender<Batch>,
    bytes: Arc<AtomicU64>,
    writer: JoinHandle<io::Result<Written>>,
}

/// The writer has stopped; [`Output::close`] tells why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputClosed;

/// What a closed output had written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file's size.
    pub bytes: u64,
    /// What it would be without compression.
    pub uncompressed_bytes: u64,
}

impl Output {
    /// Starts the thread that writes to `file`.
    pub fn start(file: TraceFile, compression: Compression) -> io::Result<Output> {
        let (queue, batches) = sync_channel(QUEUED_BATCHES);
        let bytes = Arc::new(AtomicU64::new(0));
        let written = Arc::clone(&bytes);
        let compressor = Compressor::new(compression)?;
        let writer = std::thread::Builder::new()
            .name("polletto-write".into())
            .spawn(move || write(file, compressor, &batches, &written))?;
        Ok(Output { queue, bytes, writer })
    }

    /// Hands over a batch. Waits while too many are queued already.
    pub fn send(&self, batch: Batch) -> Result<(), OutputClosed> {
        self.queue.send(batch).map_err(|_| OutputClosed)
    }

    /// A count, shared with the writer, of the bytes in the file so far.
    pub fn bytes_written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// Writes what is queued and closes the file. An error says why not everything could be written; what was written
    /// before it stands in the file and can be opened.
    pub fn close(self) -> io::Result<Written> {
        drop(self.queue);
        self.writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn write(
    mut file: TraceFile,
    mut compressor: Compressor,
    batches: &Receiver<Batch>,
    written: &AtomicU64,
) -> io::Result<Written> {
    let mut file_bytes = Vec::new();
    let mut uncompressed_bytes = 0;
    for batch in batches {
        uncompressed_bytes += batch.bytes().len() as u64;
        file_bytes.clear();
        compressor.append(&batch, &mut file_bytes)?;
        file.append(&file_bytes)?;
        written.store(file.length(), Ordering::Relaxed);
    }
    file.close()?;
    Ok(Written { bytes: written.load(Ordering::Relaxed), uncompressed_bytes })
}
