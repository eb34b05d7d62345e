//! The process that reads programs' symbols and debug information, for the recorder.
//!
//! These are large, belong to somebody, and may be damaged or change while they are read. Whatever that leads to ends the
//! worker, and no more than what it was just asked for is lost. What memory it took, it gives back by ending.

use std::{fs::File, io, sync::Mutex, thread::available_parallelism};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use super::{
    memory,
    module::{self, Means, Sink},
    request::{NamesIn, Request, Symbols},
    wire::{self, Question, Reply},
};
use crate::target::image::{BuildId, Bytes};

/// What a worker may use besides what it keeps of debug information: symbol tables, compressed sections, answers.
const OTHER_MEMORY: u64 = 1 << 30;

/// Answers questions until there are none.
pub fn work() -> io::Result<()> {
    // Nobody else wants the answers.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut input = io::stdin().lock();
    while let Some(question) = wire::receive::<Question>(&mut input)? {
        limit_memory(question.memory_bytes.saturating_add(OTHER_MEMORY))?;
        let means = Means {
            debug_directories: question.debug_directories(),
            debug_information: question.debug_information,
            debuginfod: question.debuginfod,
            threads: available_parallelism().map_or(1, usize::from),
            memory_bytes: question.memory_bytes,
        };
        let out = Mutex::new(Out { to: io::stdout(), failed: None });
        let report = module::name(&request(question), &means, &out);
        let mut out = out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(error) = out.failed {
            return Err(error);
        }
        wire::send(&mut out.to, &Reply { report: Some(report.into()), ..Reply::of_now() })?;
    }
    Ok(())
}

/// Beyond it, the worker ends.
fn limit_memory(bytes: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Data);
    let bytes = limit.maximum.map_or(bytes, |maximum| maximum.min(bytes));
    Ok(setrlimit(Resource::Data, Rlimit { current: Some(bytes), ..limit })?)
}

fn request(question: Question) -> Request {
    let opened = question.open_at.and_then(|path| File::open(path).ok());
    let names_in = match (question.bytes, opened) {
        (Some(bytes), _) => NamesIn::Binary(Bytes::Memory(bytes)),
        (None, Some(list)) if question.is_list => NamesIn::List(list),
        (None, Some(file)) => NamesIn::Binary(Bytes::File(file)),
        (None, None) => NamesIn::Path,
    };
    Request { path: question.path, build_id: BuildId::new(&question.build_id), names_in, addresses: question.addresses }
}

/// Where answers go, from any thread.
struct Out {
    to: io::Stdout,
    failed: Option<io::Error>,
}

impl Sink for Mutex<Out> {
    fn found(&self, symbols: Vec<Symbols>) {
        reply(self, &Reply { symbols: symbols.into_iter().map(Into::into).collect(), ..Reply::of_now() });
    }

    fn waiting(&self) {
        reply(self, &Reply::of_now());
    }
}

impl Reply {
    /// Says nothing but what this process has used.
    fn of_now() -> Reply {
        Reply { peak_memory_bytes: memory::peak(), ..Reply::default() }
    }
}

fn reply(out: &Mutex<Out>, reply: &Reply) {
    if let Ok(mut out) = out.lock()
        && let Err(error) = wire::send(&mut out.to, reply)
    {
        out.failed = Some(error);
    }
}
