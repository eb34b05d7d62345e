//! From addresses to the frames of a trace, each of which is written once.

use std::{borrow::Cow, fmt, sync::Arc};

use polletto_protos::{Frame, InternedData, Mapping, frame::Kind};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    mappings::{AddressSpace, Code, Region},
    waits::Wait,
};
use crate::{pieces::Piece, trace::InternTable};

/// The names of the kernel's functions.
pub trait KernelSymbols: fmt::Debug + Send + Sync {
    /// The function that this address lies in.
    fn find(&self, address: u64) -> Option<KernelSymbol<'_>>;
}

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// The module that it belongs to; none for the kernel itself.
    pub module: Option<&'a str>,
}

/// Code that belongs to no file.
const ANONYMOUS: &str = "[anon]";

/// An address at which, as far as anyone knows, there is no code.
const UNMAPPED: &str = "[unknown mapping]";

/// Copies of instructions at which there are probes, ours among them: the kernel makes them, and threads run them instead. It is
/// what `/proc/PID/maps` calls them.
const UPROBES: &str = "[uprobes]";

/// Whether the kernel keeps such copies at an address: in the last page that a program of x86_64 may have, with 47 bits or with
/// 56. Nothing else is mapped there.
fn is_of_uprobes(address: u64) -> bool {
    const PAGE: u64 = 4096;
    let last_page = |bits: u32| (1_u64 << bits) - 2 * PAGE..(1_u64 << bits) - PAGE;
    cfg!(target_arch = "x86_64") && [47, 56].into_iter().any(|bits| last_page(bits).contains(&address))
}

/// The mapping of the kernel itself. Its modules have mappings of their own.
const KERNEL: &str = "[kernel]";

/// What stands between the slashes of a path.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// What a trace calls this code. Of what processes compile, each has its own, so that it can be named.
pub fn path_of(code: &Code) -> Cow<'_, str> {
    match code {
        Code::File(module) => Cow::Borrowed(&module.path),
        Code::Compiled(process) => Cow::Owned(format!("[anon:{process}]")),
    }
}

/// A file's path as a reader of the trace puts it together again.
pub fn path_in_trace(path: &str) -> String {
    parts(path).flat_map(|part| ["/", part]).collect()
}

/// Numbers of frames, and of all that they consist of.
#[derive(Debug, Default)]
pub struct Frames {
    paths: InternTable<Vec<u8>>,
    build_ids: InternTable<Vec<u8>>,
    function_names: InternTable<Vec<u8>>,
    mappings: InternTable<MappingKey>,
    frames: InternTable<FrameKey>,
    kernel_symbols: Option<Arc<dyn KernelSymbols>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum MappingKey {
    Program(Region),
    /// By name.
    Kernel(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FrameKey {
    /// Code of a file, or of no file.
    Address { mapping: u64, rel_pc: u64 },
    /// A function of the kernel.
    Kernel { mapping: u64, name: u64 },
    /// What is no code.
    Named(u64),
}

impl Frames {
    /// From now on, frames of the kernel are named by these.
    pub fn name_kernel_frames(&mut self, symbols: Arc<dyn KernelSymbols>) {
        self.kernel_symbols = Some(symbols);
    }

    /// How many frames there are.
    pub fn count(&self) -> usize {
        self.frames.count()
    }

    /// Whether the kernel runs its tracers' code at this address.
    pub fn is_tracing(&self, address: u64) -> bool {
        let symbol = self.kernel_symbols.as_ref().and_then(|symbols| symbols.find(address));
        symbol.is_some_and(|symbol| {
            let starts_with = |prefix| symbol.name.starts_with(prefix);
            symbol.module == Some("bpf")
                || ["bpf_trace_run", "__bpf_trace_", "__traceiter_"].into_iter().any(starts_with)
        })
    }

    /// What a thread waits for that sleeps in these functions of the kernel, the innermost first.
    pub fn wait(&self, kernel: &[u64]) -> Wait {
        let Some(symbols) = &self.kernel_symbols else { return Wait::Other };
        Wait::of(kernel.iter().filter_map(|&address| symbols.find(address)).map(|symbol| symbol.name))
    }

    /// The program's code at each of these addresses.
    pub fn of_program<'a>(
        &'a mut self,
        space: Option<&'a AddressSpace>,
        addresses: &'a [u64],
        new: &'a mut InternedData,
    ) -> impl Iterator<Item = u64> + 'a {
        // Neighbours lie mostly in the same mapping.
        let mut last: Option<(&Region, u64)> = None;
        addresses.iter().map(move |&address| {
            let (region, mapping) = match last.filter(|(region, _)| region.addresses().contains(&address)) {
                Some(same) => same,
                None if is_of_uprobes(address) => return self.named(UPROBES, new),
                None => {
                    let Some(region) = space.and_then(|space| space.find(address)) else {
                        return self.named(UNMAPPED, new);
                    };
                    (region, self.mapping(region, new))
                }
            };
            last = Some((region, mapping));
            let rel_pc = address.wrapping_sub(region.bias);
            let (kind, function_name_id) = match region.code {
                Code::File(_) => (Kind::Native, None),
                // Mostly nobody ever finds a name for it, and a reader would show it as `unknown`.
                Code::Compiled(_) => (Kind::Jit, Some(self.function_name(ANONYMOUS, new))),
            };
            self.frames.iid(&FrameKey::Address { mapping, rel_pc }, |iid| {
                new.frames.push(Frame {
                    iid: Some(iid),
                    function_name_id,
                    mapping_id: Some(mapping),
                    rel_pc: Some(rel_pc),
                    kind: Some(kind as i32),
                });
            })
        })
    }

    /// The program's code that these frames are at, and the addresses there. In files they are those that the file's own
    /// symbols have.
    pub fn code_at(&self, frames: FxHashSet<u32>) -> FxHashMap<u32, (Code, u64)> {
        let codes = self.mappings.iter().filter_map(|(key, iid)| match key {
            MappingKey::Program(region) => Some((iid, &region.code)),
            MappingKey::Kernel(_) => None,
        });
        let codes: FxHashMap<u64, &Code> = codes.collect();
        let code = self.frames.iter().filter_map(|(key, frame)| match *key {
            FrameKey::Address { mapping, rel_pc } => {
                let frame = frame as u32;
                let code = codes.get(&mapping).filter(|_| frames.contains(&frame))?;
                Some((frame, ((*code).clone(), rel_pc)))
            }
            FrameKey::Kernel { .. } | FrameKey::Named(_) => None,
        });
        code.collect()
    }

    /// The addresses of code that these frames are at.
    pub fn addresses(&self, frames: FxHashSet<u32>) -> FxHashMap<Code, Vec<u64>> {
        let mut addresses: FxHashMap<Code, Vec<u64>> = FxHashMap::default();
        for (code, address) in self.code_at(frames).into_values() {
            addresses.entry(code).or_default().push(address);
        }
        // A file that is mapped in several places has an address in each.
        for addresses in addresses.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        addresses
    }

    /// The kernel's code at this address.
    pub fn of_kernel(&mut self, address: u64, new: &mut InternedData) -> u64 {
        let symbols = self.kernel_symbols.clone();
        let symbol = symbols.as_ref().and_then(|symbols| symbols.find(address));
        let mapping = self.kernel_mapping(symbol.and_then(|symbol| symbol.module), new);
        let name = match symbol {
            Some(symbol) => self.function_name(symbol.name, new),
            None => self.function_name(&format!("[kernel] {address:#x}"), new),
        };
        self.frames.iid(&FrameKey::Kernel { mapping, name }, |iid| {
            new.frames.push(Frame {
                iid: Some(iid),
                function_name_id: Some(name),
                mapping_id: Some(mapping),
                rel_pc: Some(0),
                kind: Some(Kind::Kernel as i32),
            });
        })
    }

    /// A frame that is no code but says something about the stack.
    pub fn named(&mut self, name: &str, new: &mut InternedData) -> u64 {
        let name = self.function_name(name, new);
        self.frames.iid(&FrameKey::Named(name), |iid| {
            new.frames.push(Frame { iid: Some(iid), function_name_id: Some(name), ..Frame::default() });
        })
    }

    fn function_name(&mut self, name: &str, new: &mut InternedData) -> u64 {
        self.function_names.string(name.as_bytes(), &mut new.function_names)
    }

    fn mapping(&mut self, region: &Region, new: &mut InternedData) -> u64 {
        let Frames { paths, build_ids, mappings, .. } = self;
        mappings.iid(&MappingKey::Program(region.clone()), |iid| {
            let module = match &region.code {
                Code::File(module) => Some(module),
                Code::Compiled(_) => None,
            };
            let build_id = module.map(|module| &module.build_id).filter(|build_id| !build_id.is_empty());
            let build_id = build_id.map(|build_id| build_ids.string(build_id, &mut new.build_ids));
            let path = path_of(&region.code);
            let names = parts(&path);
            let mapping = Mapping {
                iid: Some(iid),
                build_id,
                exact_offset: Some(region.file_offset),
                start: Some(region.start),
                end: Some(region.end),
                load_bias: module.map(|module| module.load_bias),
                path_string_ids: names.map(|name| paths.string(name.as_bytes(), &mut new.mapping_paths)).collect(),
            };
            new.mappings.push(mapping);
        })
    }

    fn kernel_mapping(&mut self, module: Option<&str>, new: &mut InternedData) -> u64 {
        let Frames { paths, mappings, .. } = self;
        let name = module.map_or_else(|| KERNEL.to_owned(), |module| format!("[{module}]"));
        mappings.iid(&MappingKey::Kernel(name.clone()), |iid| {
            let path_string_ids = vec![paths.string(name.as_bytes(), &mut new.mapping_paths)];
            new.mappings.push(Mapping { iid: Some(iid), path_string_ids, ..Mapping::default() });
        })
    }
}
