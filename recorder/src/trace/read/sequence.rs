//! Packets, and the writers that they are of.

use rustc_hash::FxHashMap;

use super::{
    Compressed, TracedModule,
    budget::Budget,
    error::ReadError,
    fields::{Malformed, Message, Value},
    interned::Interned,
    modules::Modules,
    profile::Profile,
};

/// `SEQ_INCREMENTAL_STATE_CLEARED`, `SEQ_NEEDS_INCREMENTAL_STATE`
const CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;

/// Those fields of a `TracePacket` that matter here.
#[derive(Debug, Default)]
pub(super) struct Packet<'a> {
    pub compressed: Option<Compressed<'a>>,
    sequence: u64,
    flags: u64,
    /// Writers that are older than `flags` say it so.
    is_cleared: bool,
    /// Packets before it were lost.
    is_behind_loss: bool,
    interned: Option<Message<'a>>,
    content: Option<Content<'a>>,
}

/// What refers to stacks, or names their addresses.
#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    TrackEvent(Message<'a>),
    StackSample(Message<'a>),
    PerfSample(Message<'a>),
    StreamingProfile(Message<'a>),
    Profile(Message<'a>),
    ModuleSymbols(Message<'a>),
}

impl<'a> Packet<'a> {
    pub fn read(message: Message<'a>) -> Result<Packet<'a>, Malformed> {
        let mut packet = Packet::default();
        for field in message.fields() {
            let field = field?;
            let (number, message) = (field.value.number(), field.value.message());
            match field.number {
                10 => packet.sequence = number,
                11 => packet.content = Some(Content::TrackEvent(message)),
                12 => packet.interned = Some(message),
                13 => packet.flags = number,
                37 => packet.content = Some(Content::Profile(message)),
                41 => packet.is_cleared = number != 0,
                42 => packet.is_behind_loss = number != 0,
                50 => packet.compressed = Some(Compressed::Deflate(message)),
                54 => packet.content = Some(Content::StreamingProfile(message)),
                61 => packet.content = Some(Content::ModuleSymbols(message)),
                66 => packet.content = Some(Content::PerfSample(message)),
                133 => packet.compressed = Some(Compressed::Zstd(message)),
                135 => packet.content = Some(Content::StackSample(message)),
                _ => {}
            }
        }
        Ok(packet)
    }
}

/// What is known of all writers so far, and the addresses.
pub(super) struct Sequences {
    all: FxHashMap<u64, Sequence>,
    modules: Modules,
    budget: Budget,
}

/// What a writer's packets refer to.
#[derive(Debug, Default)]
struct Sequence {
    /// Whether its state began, and no packet was lost since.
    is_valid: bool,
    interned: Interned,
    profile: Profile,
}

impl Sequences {
    pub fn new(kept_bytes: u64) -> Sequences {
        Sequences { all: FxHashMap::default(), modules: Modules::default(), budget: Budget::new(kept_bytes) }
    }

    /// The files so far.
    pub fn into_modules(self) -> Vec<TracedModule> {
        self.modules.into_sorted()
    }

    /// Takes what matters of a packet. What a reader would leave out is left out here: names for it would be an error.
    pub fn learn(&mut self, packet: &Packet<'_>) -> Result<(), ReadError> {
        let is_cleared = packet.is_cleared || packet.flags & CLEARED != 0;
        let has_state = packet.sequence != 0;
        if has_state && (is_cleared || packet.is_behind_loss) {
            self.begin(packet.sequence, is_cleared)?;
        }
        if packet.interned.is_none() && packet.content.is_none() {
            return Ok(());
        }
        let Sequences { all, modules, budget } = self;
        if !all.contains_key(&packet.sequence) {
            budget.take(size_of::<Sequence>() as u64, 0)?;
        }
        let sequence = all.entry(packet.sequence).or_default();
        if let (Some(interned), true) = (packet.interned, sequence.is_valid) {
            sequence.interned.learn(interned, budget)?;
        }
        match packet.content {
            Some(content) if sequence.is_valid || packet.flags & NEEDS_STATE == 0 => {
                sequence.use_content(content, modules, budget)
            }
            _ => Ok(()),
        }
    }

    /// Forgets what the writer said until now.
    fn begin(&mut self, sequence: u64, is_valid: bool) -> Result<(), ReadError> {
        let new = Sequence { is_valid, ..Sequence::default() };
        match self.all.insert(sequence, new) {
            Some(old) => self.budget.give_back(old.interned.taken() + old.profile.taken()),
            None => {
                self.budget.take(size_of::<Sequence>() as u64, 0)?;
            }
        }
        Ok(())
    }
}

impl Sequence {
    fn use_content(
        &mut self,
        content: Content<'_>,
        modules: &mut Modules,
        budget: &mut Budget,
    ) -> Result<(), ReadError> {
        let mut use_callstacks = |message: Message<'_>, callstacks: Value<'_>| {
            for callstack in callstacks.numbers() {
                self.interned.use_callstack(callstack?, modules, budget, message.offset)?;
            }
            Ok(())
        };
        match content {
            Content::TrackEvent(message) => use_callstacks(message, last(message, 56)?),
            Content::StackSample(message) => use_callstacks(message, last(message, 6)?),
            Content::PerfSample(message) => {
                let [callstack, records_lost, producer_event] =
                    [last(message, 4)?, last(message, 17)?, last(message, 19)?];
                let is_sample = records_lost.number() == 0 && matches!(producer_event, Value::Number(_));
                if is_sample { use_callstacks(message, callstack) } else { Ok(()) }
            }
            Content::StreamingProfile(message) => {
                for field in message.fields() {
                    let field = field?;
                    if field.number == 1 {
                        use_callstacks(message, field.value)?;
                    }
                }
                Ok(())
            }
            Content::Profile(message) => self.profile.learn(message, &mut self.interned, modules, budget),
            Content::ModuleSymbols(symbols) => Ok(modules.learn(symbols)?),
        }
    }
}

/// What stands last in a field; 0, which no number refers to, if nothing does.
fn last<'a>(message: Message<'a>, number: u32) -> Result<Value<'a>, Malformed> {
    let mut value = Value::Number(0);
    for field in message.fields() {
        let field = field?;
        if field.number == number {
            value = field.value;
        }
    }
    Ok(value)
}
