//! The tracks on which polls are shown, one for each worker of each runtime, and those on which tasks are, by their futures.
//!
//! A worker is not a thread: it goes to another when its own has to block. Tasks of one future that live at the same time
//! have several tracks of the same name, which a reader shows as one.

use std::collections::BTreeSet;

use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
};
use polletto_protos::{
    CounterDescriptor, ProcessDescriptor, TrackDescriptor, counter_descriptor::Unit,
    track_descriptor::ChildTracksOrdering,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::runtimes::RuntimeCounter;
use crate::{families::FamilyName, trace::PacketBuffer};

/// "tokio" in ASCII. Tracks count up from here.
const FIRST: u64 = 0x746f_6b69_6f00_0000;

/// In place of the runtime's address, of workers that are told by their names. No runtime is there.
const NAMED: u64 = 1;

/// What is on a group's track of findings, for who sees it.
const FINDINGS: &str =
    "What was wrong with more than one worker. Polls that lasted too long are marked on their workers' own.";

/// What polls: a worker, or a thread of which it is not known whose worker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Poller {
    /// One of a runtime's workers.
    Worker {
        /// The process.
        tgid: Tgid,
        /// [`Polled::runtime`].
        runtime: u64,
        /// [`Polled::worker`].
        index: u64,
    },
    /// A thread of which nothing but its name tells that it is a worker.
    Named {
        /// The process.
        tgid: Tgid,
        /// See [`super::named_workers::NamedWorkers`].
        index: u64,
    },
    /// A thread by itself.
    Thread {
        /// The process.
        tgid: Tgid,
        /// The thread.
        tid: Tid,
    },
}

impl Poller {
    /// Who polls this on that thread.
    pub fn of(tgid: Tgid, tid: Tid, polled: &Polled) -> Poller {
        match polled.runtime {
            0 => Poller::Thread { tgid, tid },
            runtime => Poller::Worker { tgid, runtime, index: polled.worker },
        }
    }

    /// What its track is called.
    pub fn name(&self) -> String {
        match *self {
            Poller::Worker { index: Polled::ONLY_WORKER, .. } => "current thread".to_owned(),
            Poller::Worker { index, .. } | Poller::Named { index, .. } => format!("worker {index}"),
            Poller::Thread { tid, .. } => format!("thread {tid}"),
        }
    }

    /// The process.
    pub fn tgid(&self) -> Tgid {
        match *self {
            Poller::Worker { tgid, .. } | Poller::Named { tgid, .. } | Poller::Thread { tgid, .. } => tgid,
        }
    }
}

/// A group of tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its own.
    pub track: u64,
    /// What it is called.
    pub name: String,
}

/// A process's groups of tracks.
#[derive(Debug, Default)]
struct Process {
    /// Its own track.
    track: u64,
    /// By runtime, in the order in which they were seen: the group of its workers.
    runtimes: FxHashMap<u64, Group>,
    /// The group of its tasks; 0 before there is one.
    tasks: u64,
    /// By the name of a future: until when each of its tracks is taken, and the track.
    futures: FxHashMap<String, BTreeSet<(u64, u64)>>,
}

/// Tracks, described when they are first needed.
#[derive(Debug, Default)]
pub struct TokioTracks {
    described: u64,
    processes: FxHashMap<Tgid, Process>,
    /// Those that have had several runtimes, or have: what was found in them is told at the end.
    of_several_runtimes: FxHashSet<Tgid>,
    tracks: FxHashMap<Poller, u64>,
    /// By group, of what is wrong with more than one of its workers: until when each is taken, and the track.
    findings: FxHashMap<u64, BTreeSet<(u64, u64)>>,
}

impl TokioTracks {
    /// The poller's track, which polls tasks of this family. `since_ns` is when it is first seen to be one.
    pub fn track(&mut self, poller: Poller, family: FamilyName, since_ns: u64, out: &mut PacketBuffer) -> u64 {
        if let Some(&track) = self.tracks.get(&poller) {
            return track;
        }
        let runtime = match poller {
            Poller::Worker { runtime, .. } => runtime,
            Poller::Named { .. } => NAMED,
            Poller::Thread { .. } => 0,
        };
        let parent_uuid = Some(self.group((poller.tgid(), runtime), family, since_ns, out));
        let rank = match poller {
            Poller::Worker { index: Polled::ONLY_WORKER, .. } => 0,
            Poller::Worker { index, .. } | Poller::Named { index, .. } => i32::try_from(index).unwrap_or(i32::MAX),
            Poller::Thread { .. } => i32::MAX,
        };
        let track = self.next();
        let sibling_order_rank = Some(rank);
        let descriptor = TrackDescriptor {
            uuid: Some(track),
            parent_uuid,
            name: Some(poller.name()),
            sibling_order_rank,
            ..TrackDescriptor::default()
        };
        out.push_thread_track(since_ns, descriptor);
        self.tracks.insert(poller, track);
        track
    }

    /// A track for a number about a runtime, below those of its workers.
    pub fn counter(
        &mut self,
        (tgid, runtime): (Tgid, u64),
        counter: RuntimeCounter,
        since_ns: u64,
        out: &mut PacketBuffer,
    ) -> u64 {
        let parent_uuid = Some(self.group((tgid, runtime), FamilyName::Tokio, since_ns, out));
        let track = self.next();
        let descriptor = TrackDescriptor {
            uuid: Some(track),
            parent_uuid,
            name: Some(counter.name()),
            counter: Some(CounterDescriptor { unit: Some(Unit::Count as i32) }),
            description: Some(counter.description().to_owned()),
            sibling_order_rank: Some(counter.rank()),
            ..TrackDescriptor::default()
        };
        out.push_thread_track(since_ns, descriptor);
        track
    }

    /// The group of a runtime's workers, if there is one.
    pub fn group_of(&self, (tgid, runtime): (Tgid, u64)) -> Option<Group> {
        self.processes.get(&tgid)?.runtimes.get(&runtime).cloned()
    }

    /// A group's track for what was wrong with more than one of its workers from then to then.
    pub fn findings(&mut self, group: u64, (since_ns, until_ns): (u64, u64), out: &mut PacketBuffer) -> u64 {
        let tracks = self.findings.entry(group).or_default();
        if let Some(track) = take_free(tracks, (since_ns, until_ns)) {
            return track;
        }
        let track = self.next();
        let descriptor = TrackDescriptor {
            uuid: Some(track),
            parent_uuid: Some(group),
            name: Some("findings".to_owned()),
            description: Some(FINDINGS.to_owned()),
            // Above its workers.
            sibling_order_rank: Some(-1),
            ..TrackDescriptor::default()
        };
        out.push_thread_track(since_ns, descriptor);
        self.findings.entry(group).or_default().insert((until_ns, track));
        track
    }

    /// Whether it is to be said of which runtime a worker of this process is.
    pub fn has_several_runtimes(&self, tgid: Tgid) -> bool {
        self.of_several_runtimes.contains(&tgid)
    }

    /// The group that a poller's track is in, if it has one.
    pub fn group_of_poller(&self, poller: Poller) -> Option<Group> {
        match poller {
            Poller::Worker { tgid, runtime, .. } => self.group_of((tgid, runtime)),
            Poller::Named { tgid, .. } => self.group_of((tgid, NAMED)),
            Poller::Thread { tgid, .. } => self.group_of((tgid, 0)),
        }
    }

    /// A track of this future's on which a task fits that lived from then to then. A reader takes what begins when another
    /// ends for a part of that.
    pub fn life(&mut self, tgid: Tgid, future: &str, (since_ns, until_ns): (u64, u64), out: &mut PacketBuffer) -> u64 {
        let tracks = self.processes.get_mut(&tgid).and_then(|process| process.futures.get_mut(future));
        if let Some(track) = tracks.and_then(|tracks| take_free(tracks, (since_ns, until_ns))) {
            return track;
        }
        let parent_uuid = Some(self.tasks(tgid, since_ns, out));
        let track = self.next();
        let name = Some(future.to_owned());
        let descriptor = TrackDescriptor { uuid: Some(track), parent_uuid, name, ..TrackDescriptor::default() };
        out.push_thread_track(since_ns, descriptor);
        let process = self.processes.entry(tgid).or_default();
        process.futures.entry(future.to_owned()).or_default().insert((until_ns, track));
        track
    }

    /// The process has ended, or runs another program: what its runtimes were is past.
    pub fn forget_process(&mut self, tgid: Tgid) {
        for group in self.processes.remove(&tgid).into_iter().flat_map(|process| process.runtimes.into_values()) {
            self.findings.remove(&group.track);
        }
        self.tracks.retain(|poller, _| poller.tgid() != tgid);
    }

    /// The group of a runtime's workers, or of threads without a known runtime.
    fn group(
        &mut self,
        (tgid, runtime): (Tgid, u64),
        family: FamilyName,
        since_ns: u64,
        out: &mut PacketBuffer,
    ) -> u64 {
        if let Some(group) = self.processes.get(&tgid).and_then(|process| process.runtimes.get(&runtime)) {
            return group.track;
        }
        let process = self.process(tgid, since_ns, out);
        let group = self.next();
        let runtimes = self.processes.entry(tgid).or_default();
        let name = match (runtime, runtimes.runtimes.keys().filter(|&&runtime| runtime != 0).count()) {
            (0, _) => format!("{family} threads"),
            (_, 0) => format!("{family} workers"),
            (_, before) => {
                self.of_several_runtimes.insert(tgid);
                format!("{family} workers, runtime {}", before + 1)
            }
        };
        runtimes.runtimes.insert(runtime, Group { track: group, name: name.clone() });
        let descriptor = TrackDescriptor {
            uuid: Some(group),
            parent_uuid: Some(process),
            name: Some(name),
            child_ordering: Some(ChildTracksOrdering::Explicit as i32),
            ..TrackDescriptor::default()
        };
        out.push_thread_track(since_ns, descriptor);
        group
    }

    /// The group of a process's tasks.
    fn tasks(&mut self, tgid: Tgid, since_ns: u64, out: &mut PacketBuffer) -> u64 {
        let process = self.process(tgid, since_ns, out);
        if let Some(group) = self.processes.get(&tgid).map(|process| process.tasks).filter(|&group| group != 0) {
            return group;
        }
        let group = self.next();
        let descriptor = TrackDescriptor {
            uuid: Some(group),
            parent_uuid: Some(process),
            name: Some("Tokio tasks".to_owned()),
            child_ordering: Some(ChildTracksOrdering::Lexicographic as i32),
            ..TrackDescriptor::default()
        };
        out.push_thread_track(since_ns, descriptor);
        self.processes.entry(tgid).or_default().tasks = group;
        group
    }

    /// The process's own track.
    fn process(&mut self, tgid: Tgid, since_ns: u64, out: &mut PacketBuffer) -> u64 {
        if let Some(process) = self.processes.get(&tgid) {
            return process.track;
        }
        let track = self.next();
        let process = ProcessDescriptor { pid: Some(tgid.0 as i32) };
        let descriptor = TrackDescriptor { uuid: Some(track), process: Some(process), ..TrackDescriptor::default() };
        out.push_thread_track(since_ns, descriptor);
        self.processes.insert(tgid, Process { track, ..Process::default() });
        track
    }

    fn next(&mut self) -> u64 {
        self.described += 1;
        FIRST + self.described
    }
}

/// One of these tracks that was free from then on, taken until then.
fn take_free(tracks: &mut BTreeSet<(u64, u64)>, (since_ns, until_ns): (u64, u64)) -> Option<u64> {
    let &(free_ns, track) = tracks.range(..(since_ns, 0)).next_back()?;
    tracks.remove(&(free_ns, track));
    tracks.insert((until_ns, track));
    Some(track)
}
