//! What the recorder and its worker say to each other, over pipes: messages with their length in front.

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use prost::Message;

use super::request::{Function, Missing, ModuleReport, Symbols};

/// The largest message. Only our own process is at the other end, but what it says may come from a damaged one.
const MAX_BYTES: u32 = 1 << 30;

/// A module to name.
#[derive(Clone, PartialEq, Message)]
pub struct Question {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(bytes = "vec", tag = "2")]
    pub build_id: Vec<u8>,
    /// Where the worker finds the file open in the recorder.
    #[prost(string, optional, tag = "3")]
    pub open_at: Option<String>,
    /// What is open there is a list, and no binary.
    #[prost(bool, tag = "10")]
    pub is_list: bool,
    /// The file itself.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub bytes: Option<Vec<u8>>,
    #[prost(uint64, repeated, tag = "5")]
    pub addresses: Vec<u64>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub debug_directories: Vec<Vec<u8>>,
    #[prost(bool, tag = "7")]
    pub debug_information: bool,
    #[prost(uint64, tag = "8")]
    pub memory_bytes: u64,
    #[prost(bool, tag = "9")]
    pub debuginfod: bool,
}

/// Names that were found, or how it went: then the module is done. Or nothing: something is being waited for.
#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    #[prost(message, repeated, tag = "1")]
    pub symbols: Vec<SymbolsMessage>,
    #[prost(message, optional, tag = "2")]
    pub report: Option<ReportMessage>,
    /// The most memory that the worker has had until now.
    #[prost(uint64, tag = "3")]
    pub peak_memory_bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct SymbolsMessage {
    #[prost(uint64, tag = "1")]
    address: u64,
    #[prost(message, repeated, tag = "2")]
    functions: Vec<FunctionMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FunctionMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "2")]
    file: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    line: Option<u32>,
    #[prost(bool, tag = "4")]
    is_of_built_package: bool,
}

impl From<Function> for FunctionMessage {
    fn from(function: Function) -> FunctionMessage {
        let Function { name, file, line, is_of_built_package } = function;
        FunctionMessage { name, file, line, is_of_built_package }
    }
}

impl From<FunctionMessage> for Function {
    fn from(message: FunctionMessage) -> Function {
        let FunctionMessage { name, file, line, is_of_built_package } = message;
        Function { name, file, line, is_of_built_package }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct ReportMessage {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint64, tag = "2")]
    addresses: u64,
    #[prost(uint64, tag = "3")]
    named: u64,
    #[prost(uint64, tag = "4")]
    with_lines: u64,
    #[prost(uint32, tag = "5")]
    missing: u32,
    #[prost(string, tag = "6")]
    reason: String,
}

impl Question {
    pub fn debug_directories(&self) -> Vec<PathBuf> {
        self.debug_directories.iter().map(|bytes| PathBuf::from(OsStr::from_bytes(bytes))).collect()
    }
}

impl From<Symbols> for SymbolsMessage {
    fn from(symbols: Symbols) -> SymbolsMessage {
        SymbolsMessage { address: symbols.address, functions: symbols.functions.into_iter().map(Into::into).collect() }
    }
}

impl From<SymbolsMessage> for Symbols {
    fn from(message: SymbolsMessage) -> Symbols {
        Symbols { address: message.address, functions: message.functions.into_iter().map(Into::into).collect() }
    }
}

impl From<ModuleReport> for ReportMessage {
    fn from(report: ModuleReport) -> ReportMessage {
        let ModuleReport { path, addresses, named, with_lines, missing } = report;
        let (missing, reason) = match missing {
            None => (0, String::new()),
            Some(Missing::File(reason)) => (1, reason),
            Some(Missing::Symbols) => (2, String::new()),
            Some(Missing::DebugInformation) => (3, String::new()),
            Some(Missing::Damaged(reason)) => (4, reason),
            Some(Missing::Described) => (5, String::new()),
            Some(Missing::Interrupted) => (6, String::new()),
            Some(Missing::NotFetched(reason)) => (7, reason),
            Some(Missing::List) => (8, String::new()),
            Some(Missing::Refused(reason)) => (9, reason),
            Some(Missing::Split(path)) => (10, path),
        };
        ReportMessage { path, addresses, named, with_lines, missing, reason }
    }
}

impl From<ReportMessage> for ModuleReport {
    fn from(message: ReportMessage) -> ModuleReport {
        let ReportMessage { path, addresses, named, with_lines, missing, reason } = message;
        let missing = match missing {
            0 => None,
            1 => Some(Missing::File(reason)),
            2 => Some(Missing::Symbols),
            3 => Some(Missing::DebugInformation),
            4 => Some(Missing::Damaged(reason)),
            6 => Some(Missing::Interrupted),
            7 => Some(Missing::NotFetched(reason)),
            8 => Some(Missing::List),
            9 => Some(Missing::Refused(reason)),
            10 => Some(Missing::Split(reason)),
            _ => Some(Missing::Described),
        };
        ModuleReport { path, addresses, named, with_lines, missing }
    }
}

/// Sends a message.
pub fn send(to: &mut impl Write, message: &impl Message) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).ok().filter(|&length| length <= MAX_BYTES);
    to.write_all(&length.ok_or(io::ErrorKind::FileTooLarge)?.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// Receives a message; none when the other side has ended.
pub fn receive<M: Message + Default>(from: &mut impl Read) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    Ok(Some(M::decode(bytes.as_slice())?))
}
