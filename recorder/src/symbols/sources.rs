//! The files that names come from: the one that ran, and those that its debug information was moved to.

use std::{
    cell::OnceCell,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    debuginfod,
    file::{ElfObject, Mapped},
    module::Means,
    request::{Missing, NamesIn, Request},
};
use crate::target::{
    self,
    image::{BuildId, Bytes},
};

/// What a compressed symbol table may grow to, bytes. Those that there are have a few hundred thousand.
const MAX_SMALL_SYMBOLS: usize = 256 << 20;

/// Files that there are for a module.
#[derive(Debug, Default)]
pub struct Sources {
    /// The one that ran.
    pub binary: Option<Mapped>,
    /// Debug information, and mostly symbols, that were taken out of it.
    pub debug: Option<Mapped>,
    /// What several files' debug information has in common.
    pub shared: Option<Mapped>,
    /// Debug information that the compiler had split off, packed into one file.
    pub package: Option<Mapped>,
    /// The symbol table of its own functions that a stripped file kept in compressed form.
    pub small_symbols: Option<Mapped>,
    /// Why servers could not even be asked, if they were to be.
    pub not_fetched: Option<String>,
    /// The first file that was where debug information should be, and why it was not used.
    pub refused: Option<String>,
}

/// Opens files in which debug information may be, and remembers the first that is something else.
#[derive(Default)]
struct Candidates {
    refused: OnceCell<String>,
}

impl Candidates {
    /// The file, if it is of this build.
    fn open_if(&self, path: &Path, build_id: &BuildId) -> Option<Mapped> {
        let file = match target::open_regular(path) {
            Ok(file) => file,
            // Most places are empty.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return None;
            }
            Err(error) => return self.refuse(path, error.to_string()),
        };
        Mapped::map(&file)
            .and_then(|file| check(file, Some(build_id)))
            .map_or_else(|reason| self.refuse(path, reason), Some)
    }

    fn refuse(&self, path: &Path, reason: String) -> Option<Mapped> {
        self.refused.get_or_init(|| format!("{}: {reason}", path.display()));
        None
    }
}

impl Sources {
    /// Looks for all of them, and calls `waiting` while that takes long. An error says why there is not even one.
    pub fn find(request: &Request, means: &Means, waiting: &dyn Fn()) -> Result<Sources, Missing> {
        let debug_directories = &means.debug_directories;
        let binary = open_binary(request).map_err(|reason| format!("{}: {reason}", request.path));
        let mut sources = Sources::default();
        let candidates = Candidates::default();
        let mut build_id = request.build_id.clone();
        let mut needs_debug = true;
        let mut link = None;
        let mut problem = None;
        match binary {
            Err(reason) => problem = Some(reason),
            Ok(binary) => {
                let object =
                    ElfObject::parse(&binary).map_err(|reason| Missing::File(format!("{}: {reason}", request.path)))?;
                build_id = build_id.or_else(|| object.build_id());
                needs_debug = !object.has_debug_information();
                link = object.debug_link().map(|link| (PathBuf::from(OsStr::from_bytes(link.name)), link.crc));
                sources.small_symbols = object.small_symbols().and_then(decompress).map(Mapped::Memory);
                sources.binary = Some(binary);
            }
        }
        if needs_debug {
            sources.debug = separate(request, build_id.as_ref(), link, debug_directories, &candidates);
        }
        if needs_debug
            && sources.debug.is_none()
            && means.debuginfod
            && let Some(build_id) = &build_id
        {
            match debuginfod::find(build_id, waiting) {
                Ok(path) => sources.debug = path.and_then(|path| candidates.open_if(&path, build_id)),
                Err(reason) if sources.binary.is_none() => problem = Some(reason),
                Err(reason) => sources.not_fetched = Some(reason),
            }
        }
        if sources.binary.is_none() && sources.debug.is_none() {
            let reasons = problem.into_iter().chain(candidates.refused.into_inner());
            return Err(Missing::File(reasons.collect::<Vec<_>>().join("; ")));
        }
        sources.package = package(request, build_id.as_ref());
        sources.shared = sources.shared(request, debug_directories, &candidates);
        sources.refused = candidates.refused.into_inner();
        Ok(sources)
    }

    /// What the debug information shares with that of other files.
    fn shared(&self, request: &Request, debug_directories: &[PathBuf], candidates: &Candidates) -> Option<Mapped> {
        let object = ElfObject::parse(self.debug.as_ref().or(self.binary.as_ref())?).ok()?;
        let (name, build_id) = object.alternate_link()?;
        let name = Path::new(OsStr::from_bytes(name));
        let beside = Path::new(&request.path).parent().unwrap_or(Path::new("/")).join(name);
        let by_build_id = debug_directories.iter().filter_map(|directory| path_by_build_id(directory, &build_id));
        by_build_id.chain([beside]).find_map(|path| candidates.open_if(&path, &build_id))
    }
}

/// The file that ran: still open, or at its path and of the same build.
fn open_binary(request: &Request) -> Result<Mapped, String> {
    match &request.names_in {
        NamesIn::Binary(Bytes::Memory(bytes)) => Ok(Mapped::Memory(bytes.clone())),
        NamesIn::Binary(Bytes::File(file)) => check(Mapped::map(file)?, request.build_id.as_ref()),
        NamesIn::List(_) => Err("it is a list".to_owned()),
        NamesIn::Path => {
            let wanted = request.build_id.as_ref().ok_or("the trace has no build id to know it by")?;
            let file = target::open_regular(Path::new(&request.path)).map_err(|error| explain(&error))?;
            check(Mapped::map(&file)?, Some(wanted))
        }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not on this machine".to_owned(),
        _ => error.to_string(),
    }
}

/// Refuses a file that is another build's.
fn check(file: Mapped, wanted: Option<&BuildId>) -> Result<Mapped, String> {
    let found = ElfObject::parse(&file)?.build_id();
    match (wanted, found) {
        (Some(wanted), Some(found)) if *wanted != found => {
            Err(format!("the file has build id {found}, and the one that ran had {wanted}"))
        }
        (Some(wanted), None) => Err(format!("the file has no build id, and the one that ran had {wanted}")),
        _ => Ok(file),
    }
}

/// Debug information in a file of its own: by build id, or by the name that the file itself gives for it.
fn separate(
    request: &Request,
    build_id: Option<&BuildId>,
    link: Option<(PathBuf, u32)>,
    debug_directories: &[PathBuf],
    candidates: &Candidates,
) -> Option<Mapped> {
    if let Some(build_id) = build_id {
        let mut paths = debug_directories.iter().filter_map(|directory| path_by_build_id(directory, build_id));
        if let Some(file) = paths.find_map(|path| candidates.open_if(&path, build_id)) {
            return Some(file);
        }
        // People collect files with symbols in a folder, under their own names.
        let name = Path::new(&request.path).file_name()?;
        let plain = debug_directories
            .iter()
            .flat_map(|directory| [directory.join(name), directory.join(format!("{}.debug", name.display()))]);
        if let Some(file) = plain.into_iter().find_map(|path| candidates.open_if(&path, build_id)) {
            return Some(file);
        }
    }
    let (name, crc) = link?;
    // It is a name and no way into other directories.
    let name = name.file_name()?;
    let directory = Path::new(&request.path).parent()?;
    let inside = directory.strip_prefix("/").unwrap_or(directory);
    let beside = [directory.join(name), directory.join(".debug").join(name)];
    let elsewhere = debug_directories.iter().map(|debug| debug.join(inside).join(name));
    beside.into_iter().chain(elsewhere).find_map(|path| match build_id {
        Some(build_id) => candidates.open_if(&path, build_id),
        None => {
            let file = Mapped::map(&target::open_regular(&path).ok()?).ok()?;
            let is_own = crc32fast::hash(&file) == crc;
            if is_own { Some(file) } else { candidates.refuse(&path, "it is of another build".to_owned()) }
        }
    })
}

/// Split debug information beside the file that ran.
fn package(request: &Request, build_id: Option<&BuildId>) -> Option<Mapped> {
    let mut name = Path::new(&request.path).file_name()?.to_owned();
    name.push(".dwp");
    let file = Mapped::map(&target::open_regular(&Path::new(&request.path).with_file_name(name)).ok()?).ok()?;
    // Which of its units belong to the file is decided for each by its own id; most have no build id.
    let object = ElfObject::parse(&file).ok()?;
    let is_other = matches!((object.build_id(), build_id), (Some(found), Some(wanted)) if found != *wanted);
    (!is_other).then_some(file)
}

/// `DIRECTORY/.build-id/ab/cdef….debug`
fn path_by_build_id(directory: &Path, build_id: &BuildId) -> Option<PathBuf> {
    let digits = build_id.to_string();
    let (first, rest) = digits.split_at_checked(2).filter(|(_, rest)| !rest.is_empty())?;
    Some(directory.join(".build-id").join(first).join(format!("{rest}.debug")))
}

fn decompress(bytes: &[u8]) -> Option<Vec<u8>> {
    /// Takes no more than [`MAX_SMALL_SYMBOLS`].
    struct Bounded(Vec<u8>);

    impl io::Write for Bounded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() + bytes.len() > MAX_SMALL_SYMBOLS {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut small = Bounded(Vec::new());
    lzma_rs::xz_decompress(&mut io::BufReader::new(bytes), &mut small).ok()?;
    Some(small.0)
}
