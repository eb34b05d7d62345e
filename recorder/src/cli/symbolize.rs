//! `polletto symbolize`

mod naming;
mod summary;

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};

use self::{naming::Naming, summary::Summary};
use super::{arguments::SymbolizeArguments, print_json, status::ProgressLine, tell};
use crate::{
    session::Signals,
    symbols,
    trace::{
        Compression, TraceFile, TraceInput,
        read::{self, Limits, TracedCode},
    },
};

/// Bytes of a trace that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Names the addresses of a trace, and returns the exit status.
pub fn run(arguments: &SymbolizeArguments) -> ExitCode {
    match symbolize(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Someone at a terminal: is told how it goes, and may lose patience.
struct User {
    signals: Signals,
    is_impatient: Cell<bool>,
    line: ProgressLine,
}

impl User {
    fn is_impatient(&self) -> bool {
        if self.signals.take().is_some() {
            self.is_impatient.set(true);
        }
        self.is_impatient.get()
    }
}

/// False if it was interrupted.
fn symbolize(arguments: &SymbolizeArguments) -> Result<bool> {
    let mut user = User {
        signals: Signals::catch().context("could not catch signals")?,
        is_impatient: Cell::new(false),
        line: ProgressLine::new(!arguments.quiet),
    };
    let (input, mut file) = open(arguments)?;
    let (code, is_gzip) = read(&arguments.trace, &input, &mut user)?;
    if is_gzip && arguments.output.is_none() {
        bail!(
            "{} is compressed as a whole, so nothing can be appended to it: -o FILE writes a copy that is not",
            arguments.trace.display()
        );
    }
    let compression = compression(arguments.compression, code.compression)?;
    let path = arguments.output.as_ref().unwrap_or(&arguments.trace);
    if arguments.output.is_some() {
        file = Some(copy(&input, code.whole_bytes, path, arguments.force, &mut user)?);
    }
    let file = file.context("a trace is copied or appended to")?;
    let mut summary = Summary::new(path, &code);
    let options = arguments.names.options()?;
    let mut naming = Naming::new(code, file, compression, &mut user);
    let (requests, refused) = naming.requests();
    let resolved = symbols::resolve(requests, &options, &mut naming);
    // What was found before an error counts too.
    let written = naming.finish().with_context(|| format!("could not write to {}", path.display()))?;
    user.line.clear();
    let reports = resolved.with_context(|| format!("{} has the names that were found before", path.display()))?;
    summary.finish(reports.into_iter().chain(refused), &written, user.is_impatient());
    if arguments.json {
        print_json(&summary, &mut io::stdout().lock())?;
    } else if !arguments.quiet {
        tell(&summary);
    }
    Ok(!user.is_impatient())
}

/// How names are compressed. A reader refuses a trace that mixes zstd with deflate.
fn compression(asked: Option<Compression>, present: Option<Compression>) -> Result<Compression> {
    match (asked, present) {
        (Some(Compression::None), _) => Ok(Compression::None),
        (Some(asked), Some(present)) if asked != present => {
            bail!("the trace holds packets in another compression, which no reader takes both: leave --compression out")
        }
        (asked, present) => Ok(asked.or(present).unwrap_or_default()),
    }
}

/// The trace to read, and the file to append to if it is the same.
fn open(arguments: &SymbolizeArguments) -> Result<(TraceInput, Option<TraceFile>)> {
    match &arguments.output {
        None => {
            let file = TraceFile::open(&arguments.trace)?;
            Ok((file.reader()?, Some(file)))
        }
        Some(output) => {
            let input = TraceInput::open(&arguments.trace)?;
            ensure!(
                !input.is(output)?,
                "{} is the trace itself: without -o, names are appended to it",
                output.display()
            );
            Ok((input, None))
        }
    }
}

/// What the trace holds, and whether the file is compressed as a whole.
fn read(path: &Path, input: &TraceInput, user: &mut User) -> Result<(TracedCode, bool)> {
    let of = input.length()?;
    let read = Watched { input: input.again()?, done: 0, of, user };
    let read = read::open(read).and_then(|(input, is_gzip)| {
        let code = read::read_code(input, &Limits::default())?;
        Ok((code, is_gzip))
    });
    user.line.clear();
    if user.is_impatient() {
        bail!("interrupted: {} is as it was", path.display());
    }
    let (code, is_gzip) = read.with_context(|| format!("{} can't be read as a Perfetto trace", path.display()))?;
    ensure!(code.packets > 0, "{} can't be read as a Perfetto trace: it holds no complete packet", path.display());
    Ok((code, is_gzip))
}

/// Copies what is whole of the trace, decompressed if it is compressed as a whole.
fn copy(input: &TraceInput, whole: u64, path: &Path, overwrite: bool, user: &mut User) -> Result<TraceFile> {
    let mut file = TraceFile::create(path, overwrite)?;
    let copied = copy_to(&mut file, input, whole, user);
    user.line.clear();
    if copied.is_err() || user.is_impatient() {
        // A part of a trace that is there elsewhere helps nobody. That it can't be removed matters less than why.
        std::fs::remove_file(path).ok();
    }
    ensure!(!user.is_impatient(), "interrupted: nothing was written");
    copied.with_context(|| format!("could not copy to {}", path.display()))?;
    Ok(file)
}

fn copy_to(file: &mut TraceFile, input: &TraceInput, whole: u64, user: &mut User) -> Result<()> {
    let of = input.length()?;
    let (input, _) = read::open(Watched { input: input.again()?, done: 0, of, user })?;
    let mut input = input.take(whole);
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        let count = bytes.len().min(COPY_BYTES);
        file.append(&bytes[..count])?;
        input.consume(count);
    }
    ensure!(file.length() == whole, "the trace has changed meanwhile");
    Ok(())
}

/// A trace that is being read, and someone who waits for it.
struct Watched<'a> {
    input: TraceInput,
    done: u64,
    of: u64,
    user: &'a mut User,
}

impl Read for Watched<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.user.is_impatient() {
            return Err(io::Error::other("interrupted"));
        }
        let count = self.input.read(bytes)?;
        self.done += count as u64;
        self.user.line.show("reading", self.done, self.of);
        Ok(count)
    }
}
