//! Processes and threads as the trace's tree names them.

use polletto_common::id::{Tgid, Tid};
use polletto_protos::{
    ProcessTree,
    process_tree::{Process, Thread},
    trace_packet::Data,
};

use super::pseudo;
use crate::trace::PacketBuffer;

/// Entries of one packet, so that ten thousand threads do not become one huge one.
const ENTRIES_PER_PACKET: usize = 1000;

/// What a process is, as far as it could be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessDescription {
    /// Its id.
    pub tgid: Tgid,
    /// Since when this is true, CLOCK_BOOTTIME nanoseconds: see [`Undescribed`].
    pub since_ns: u64,
    /// The process that made it.
    pub parent: Tgid,
    /// Its arguments, the program first; empty for a kernel thread and for one that is ending.
    pub command_line: Vec<String>,
    /// The name of its first thread.
    pub name: String,
    /// Its user, if that is known.
    pub uid: Option<u32>,
    /// When it started, CLOCK_BOOTTIME nanoseconds, if that is known.
    pub started_ns: Option<u64>,
    /// It belongs to the kernel.
    pub is_kernel_thread: bool,
}

/// A process of which only the id is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undescribed {
    /// Its id.
    pub tgid: Tgid,
    /// When it became what it is, CLOCK_BOOTTIME nanoseconds.
    pub since_ns: u64,
    /// When it started, if that was before the recording; else the trace tells it already.
    pub started_ns: Option<u64>,
}

/// Collects what is new, to be written with the next flush.
///
/// Each entry is written with the time at which it became true, however late it was found out: a reader that sorts by
/// time then finds the thread alive, and does not take its id for a new thread of the same number.
#[derive(Debug, Default)]
pub struct ProcessTreeWriter {
    entries: Vec<(u64, ProcessTree)>,
}

impl ProcessTreeWriter {
    /// A process is there, or is another program now.
    pub fn process(&mut self, process: ProcessDescription) {
        let has_arguments = !process.command_line.is_empty();
        self.at(process.since_ns).processes.push(Process {
            pid: Some(process.tgid.0 as i32),
            ppid: Some(process.parent.0 as i32),
            cmdline: if has_arguments { process.command_line } else { vec![process.name] },
            uid: process.uid.map(|uid| uid as i32),
            process_start_from_boot: process.started_ns,
            is_kthread: process.is_kernel_thread.then_some(true),
            cmdline_is_comm: (!has_arguments).then_some(true),
        });
    }

    /// A thread is there, or has another name now.
    pub fn thread(&mut self, tid: Tid, tgid: Tgid, name: String, since_ns: u64) {
        let thread = Thread { tid: Some(tid.0 as i32), name: Some(name), tgid: Some(tgid.0 as i32) };
        self.at(since_ns).threads.push(thread);
    }

    /// A thread that stands for others is used for the first time.
    pub fn pseudo_thread(&mut self, tid: Tid, since_ns: u64) {
        let (Some(name), Some((tgid, cmdline))) = (pseudo::name(tid), pseudo::process(tid)) else { return };
        let cmdline = cmdline.map(str::to_owned).to_vec();
        let process = Process { pid: Some(tgid.0 as i32), ppid: Some(0), cmdline, ..Process::default() };
        self.at(since_ns).processes.push(process);
        self.thread(tid, tgid, name.to_owned(), since_ns);
    }

    /// Writes what is new.
    pub fn write(&mut self, out: &mut PacketBuffer) {
        for (since_ns, tree) in self.entries.drain(..) {
            out.push(Some(since_ns), Data::ProcessTree(tree));
        }
    }

    /// The packet for entries of this time.
    fn at(&mut self, since_ns: u64) -> &mut ProcessTree {
        let has_room = |tree: &ProcessTree| tree.processes.len() + tree.threads.len() < ENTRIES_PER_PACKET;
        if !self.entries.last().is_some_and(|(time_ns, tree)| *time_ns == since_ns && has_room(tree)) {
            self.entries.push((since_ns, ProcessTree::default()));
        }
        let last = self.entries.len() - 1;
        &mut self.entries[last].1
    }
}
