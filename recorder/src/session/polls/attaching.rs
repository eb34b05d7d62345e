//! Where a process has its probes, and where its polls have been seen to return.

use std::{fs::File, sync::Arc};

use polletto_common::{
    id::Tgid,
    poll::{ReturnKey, Site, Way},
};
use rustc_hash::FxHashSet;

use super::{
    Probing,
    checking::Checking,
    file::Polling,
    process::{Wanted, Window},
};
use crate::{
    code::AfterReturn,
    kernel::PollLink,
    session::{changes::Code, modules::ModuleFile},
    target::image::{Bytes, Contents},
};

impl Probing {
    /// Attaches probes to where polls have been seen to return.
    pub(super) fn learn(&mut self) {
        // If that can't be read, nothing is learnt, and the summary tells of polls without an end.
        let count = self.probes.new_returns().unwrap_or(self.returns_seen);
        self.learns = count != self.returns_seen;
        if !self.learns {
            return;
        }
        self.returns_seen = count;
        for key in self.probes.unknown_returns() {
            self.follow(key);
        }
    }

    /// Attaches a probe behind an address that polls return to.
    fn follow(&mut self, key: ReturnKey) {
        let Some(probed) = self.processes.get(&key.tgid) else { return };
        if probed.refused.contains(&key.address) {
            return;
        }
        if let Err(reason) = self.try_follow(key) {
            if let Some(probed) = self.processes.get_mut(&key.tgid) {
                probed.refused.insert(key.address);
            }
            if let Some(reason) = reason {
                self.summary.refuse(1, &format!("where polls return to: {reason}"));
            }
        }
    }

    /// The reason may have been told.
    fn try_follow(&mut self, key: ReturnKey) -> Result<(), Option<String>> {
        let mut files = self.processes[&key.tgid].files.iter().map(|(code, _)| code);
        let code = files.find(|code| code.addresses.contains(&key.address)).cloned();
        let code = code.ok_or_else(|| Some("it is in a file that polls nothing itself".to_owned()))?;
        let polling = code.file.as_ref().and_then(|file| self.files.get(&file.index)).ok_or(None)?;
        match polling.after_return(&code, key.address)? {
            AfterReturn::Outwards { bytes } => {
                self.probes.set_way(key, Way::outwards(bytes)).map_err(|error| Some(format!("{error:#}")))
            }
            AfterReturn::Place(place) => {
                let site = Site::End { return_address: key.address, popped: place.moved };
                let is_attached = self.attach(key.tgid, &code, vec![Wanted { place, site }]);
                if is_attached { Ok(()) } else { Err(None) }
            }
        }
    }

    /// Attaches probes to a process's code, where it is what the file has, and remembers them for when they are attached
    /// again: all of them where the process must not have any now. False if none can be.
    pub(super) fn attach(&mut self, process: Tgid, code: &Code, mut wanted: Vec<Wanted>) -> bool {
        // The kernel makes one after another. A poll whose end has no probe yet when it comes to it would seem to last.
        wanted.sort_by_key(|wanted| !matches!(wanted.site, Site::End { .. }));
        if let Some(probed) = self.processes.get_mut(&process)
            && !matches!(probed.window, Window::Open(_))
        {
            probed.remember(code, wanted);
            return true;
        }
        let Some(Polling { file, .. }) = code.file.as_ref().and_then(|file| self.files.get(&file.index)) else {
            return false;
        };
        let (file, probed) = (Arc::clone(file), &self.processes[&process]);
        let (Bytes::File(descriptor), Some(image)) = (&file.source, &file.image) else { return false };
        let memory = match File::open(format!("/proc/{process}/mem")) {
            Ok(memory) => memory,
            // It has ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => return false,
            Err(error) => {
                self.summary.refuse(wanted.len(), &format!("the memory of its process can't be read: {error}"));
                return false;
            }
        };
        let (contents, patched) = (Contents::new(image, &file.source), self.places_in(&file));
        let checking = Checking { image, contents, memory, bias: code.bias, patched };
        let (mut probes, mut kept, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in wanted {
            let address = wanted.place.address.wrapping_add(code.bias);
            if !code.addresses.contains(&address) || probed.places.contains(&address) {
                continue;
            }
            match checking.probe(&wanted) {
                Ok(probe) => {
                    probes.push(probe);
                    kept.push(wanted);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.into_iter().for_each(|reason| self.summary.refuse(1, reason));
        if probes.is_empty() {
            return false;
        }
        match self.probes.attach(process, descriptor, &probes) {
            Ok(link) => {
                self.attached(process, code, link, kept);
                true
            }
            Err(error) => {
                self.summary.refuse(probes.len(), &format!("the kernel attached no probe: {error}"));
                false
            }
        }
    }

    /// These probes of a process are there now.
    fn attached(&mut self, process: Tgid, code: &Code, link: PollLink, wanted: Vec<Wanted>) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        if let Window::Open(links) = &mut probed.window {
            links.push(link);
        }
        for wanted in &wanted {
            let address = wanted.place.address.wrapping_add(code.bias);
            probed.places.insert(address);
            if probed.ever.insert(address) {
                self.summary.count(wanted.site);
            }
            if let Site::End { return_address, .. } = wanted.site {
                let key = ReturnKey { address: return_address, tgid: process, reserved: 0 };
                // Without room, polls that return there are counted as without an end.
                self.probes.set_way(key, Way::PROBE).ok();
            }
        }
        probed.remember(code, wanted);
    }

    /// The file's own addresses at which any process has probes: one that was forked from it has them in its memory.
    fn places_in(&self, file: &ModuleFile) -> FxHashSet<u64> {
        let of = |code: &Code, address: u64| {
            let is_own = code.file.as_ref().is_some_and(|own| own.index == file.index);
            (is_own && code.addresses.contains(&address)).then(|| address.wrapping_sub(code.bias))
        };
        let places = self.processes.values().flat_map(|probed| {
            let owns = |&address: &u64| probed.files.iter().find_map(|(code, _)| of(code, address));
            probed.places.iter().filter_map(owns)
        });
        places.collect()
    }
}
