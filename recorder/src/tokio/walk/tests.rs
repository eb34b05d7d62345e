//! Walks through memory that was written for them.

use super::*;
use crate::target::Excerpt;

const CONTEXT: i64 = -0x100;
const THREAD: u64 = 0x7000;
const HANDLE: u64 = 0x1_0000;
const SHARDS: u64 = 0x2_0000;
const REMOTES: u64 = 0x3_0000;
const QUEUES: u64 = 0x4_0000;
const POOL: u64 = 0x5_0000;
const OWNER: u64 = 77;

/// Its tasks are small, and those of the other one large.
const SMALL: u64 = 0x5000;
const LARGE: u64 = 0x6000;
const SHAPES: [(u64, TaskShape); 2] =
    [(SMALL, TaskShape { id: 40, trailer: 200 }), (LARGE, TaskShape { id: 72, trailer: 5000 })];

const IDLE: u64 = 0xc0;
const NOTIFIED: u64 = 0xc4;

fn layout() -> Layout {
    let mut layout = Layout::default();
    let context = &mut layout.context;
    (context.size, context.entered, context.not_entered) = (Some(64), Some(8), Some(2));
    (context.handle_kind, context.handle) = (Some(16), Some(24));
    let kinds = &mut layout.handle_kinds;
    (kinds.tag_size, kinds.current_thread, kinds.multi_thread) = (Some(8), Some(0), Some(1));
    let handle = &mut layout.multi_thread;
    (handle.size, handle.shards, handle.shard_count) = (Some(128), Some(16), Some(24));
    (handle.tasks, handle.spawned, handle.owner_id) = (Some(32), Some(40), Some(48));
    (handle.remotes, handle.remote_count, handle.idle) = (Some(56), Some(64), Some(80));
    (handle.injected, handle.blocking_pool) = (Some(72), Some(88));
    (layout.shard.size, layout.shard.head) = (Some(24), Some(8));
    (layout.remote.size, layout.remote.steal) = (Some(16), Some(8));
    (layout.queue.head, layout.queue.head_size, layout.queue.tail) = (Some(16), Some(8), Some(24));
    let pool = &mut layout.blocking_pool;
    (pool.threads, pool.idle_threads, pool.queued, pool.thread_cap) = (Some(16), Some(24), Some(32), Some(40));
    (layout.header.state, layout.header.vtable, layout.header.owner_id) = (Some(0), Some(16), Some(24));
    layout.trailer.next = Some(8);
    layout
}

/// A process's memory, as a map of bytes. What is not in it is not there.
#[derive(Clone, Default)]
struct Bytes(FxHashMap<u64, u8>);

impl Memory for Bytes {
    fn read_each(&self, excerpts: &mut [Excerpt]) {
        for excerpt in excerpts {
            let byte = |offset: usize| self.0.get(&excerpt.address.wrapping_add(offset as u64)).copied();
            let bytes: Option<Vec<u8>> = (0..excerpt.bytes.len()).map(byte).collect();
            excerpt.is_read = bytes.is_some();
            excerpt.bytes = bytes.unwrap_or_default();
        }
    }
}

impl Bytes {
    fn set(&mut self, address: u64, word: u64) {
        self.0.extend((address..).zip(word.to_le_bytes()));
    }

    fn zero(&mut self, address: u64, length: u64) {
        self.0.extend((address..address + length).map(|address| (address, 0)));
    }

    fn task(&mut self, at: u64, vtable: u64, id: u64, state: u64, next: u64) {
        let shape = SHAPES.iter().find(|known| known.0 == vtable).map_or(SHAPES[0].1, |known| known.1);
        self.zero(at, 80);
        self.set(at, state);
        self.set(at + 16, vtable);
        self.set(at + 24, OWNER);
        self.set(at + shape.id, id);
        self.set(at + shape.trailer + 8, next);
    }

    fn head(&mut self, shard: u64, task: u64) {
        self.set(SHARDS + shard * 24 + 8, task);
    }
}

/// A thread in a runtime of two workers, with two lists: of the tasks 1, 2 and 3, and of 4.
fn process() -> Bytes {
    let mut memory = Bytes::default();
    memory.zero(THREAD - 0x100, 0x100);
    memory.set(THREAD - 0x100 + 16, 1);
    memory.set(THREAD - 0x100 + 24, HANDLE);
    memory.0.insert(THREAD - 0x100 + 64, 1);
    for (offset, word) in [4, 1, SHARDS, 2, 4, 9, OWNER, REMOTES, 2, 5, (1 << 16) | 1, POOL].into_iter().enumerate() {
        memory.set(HANDLE + 8 * offset as u64, word);
    }
    memory.zero(HANDLE + 96, 32);
    memory.zero(SHARDS, 48);
    memory.head(0, 0x8_1000);
    memory.head(1, 0x8_8000);
    memory.task(0x8_1000, SMALL, 1, IDLE, 0x8_2000);
    memory.task(0x8_2000, LARGE, 2, NOTIFIED, 0x8_4000);
    memory.task(0x8_4000, LARGE, 3, IDLE | 0b1, 0);
    memory.task(0x8_8000, SMALL, 4, NOTIFIED, 0);
    for (worker, (head, tail)) in [((3 << 32) | 5, 12_u64), (u64::from(u32::MAX), 1)].into_iter().enumerate() {
        let queue = QUEUES + 64 * worker as u64;
        memory.set(REMOTES + 16 * worker as u64, 0);
        memory.set(REMOTES + 16 * worker as u64 + 8, queue);
        memory.set(queue + 16, head);
        memory.set(queue + 24, tail);
    }
    for (offset, word) in [(0, 3), (8, 1), (16, 5), (24, 2), (32, 6), (40, 514)] {
        memory.set(POOL + offset, word);
    }
    memory
}

/// Changes something that is right.
type Spoil = fn(&mut Bytes);

fn walker(layouts: Vec<Layout>) -> Walker {
    let layouts = layouts.into_iter().map(|layout| (CONTEXT, layout)).collect();
    Walker::new(Places { layouts, vtables: SHAPES.into_iter().collect() })
}

fn walk_with(walker: &mut Walker, memory: &Bytes, tasks: usize) -> Walk {
    walker.walk(memory, &[THREAD], &[], &mut Allowance { tasks, goes_on: &|| true })
}

fn walk(walker: &mut Walker, memory: &Bytes) -> Walk {
    walk_with(walker, memory, 1000)
}

fn ids(walk: &RuntimeWalk) -> Vec<u64> {
    let mut ids: Vec<u64> = walk.tasks.iter().map(|task| task.id).collect();
    ids.sort_unstable();
    ids
}

fn given_up(walk: &RuntimeWalk) -> u64 {
    match walk.lists {
        Lists::Walked { given_up, .. } => given_up,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thread_leads_to_its_runtime_and_that_to_its_numbers() {
    let walk = walk(&mut walker(vec![layout()]), &process());
    let [runtime] = &walk.runtimes[..] else { panic!("{walk:?}") };
    let expected = RuntimeState {
        live_tasks: 4,
        spawned_tasks: 9,
        injected: 5,
        workers: Some(Workers { queues: vec![7, 2], searching: 1, parked: 1 }),
        blocking: Ok(BlockingThreads { threads: 3, idle: 2, queued: 6 }),
    };
    assert_eq!(runtime.at, RuntimeAt { address: HANDLE, kind: RuntimeKind::MultiThread });
    assert_eq!((&runtime.state, walk.doubt), (&expected, None));
}

#[test]
fn all_lists_are_followed_whatever_the_size_of_their_tasks() {
    let walk = walk(&mut walker(vec![layout()]), &process());
    let states = TaskStates { idle: 1, notified: 2, running: 1, ..TaskStates::default() };
    assert_eq!(walk.runtimes[0].lists, Lists::Walked { states, given_up: 0, at_once: true });
    assert_eq!(ids(&walk.runtimes[0]), [1, 2, 3, 4]);
    let large: Vec<_> = walk.runtimes[0].tasks.iter().filter(|task| task.vtable == LARGE).collect();
    assert!(large.iter().all(|task| [2, 3].contains(&task.id)) && large.len() == 2, "{large:?}");
}

#[test]
fn a_task_is_told_once_and_then_that_it_is_gone() {
    let (mut walker, mut memory) = (walker(vec![layout()]), process());
    walk(&mut walker, &memory);
    memory.task(0x8_a000, SMALL, 5, IDLE, 0x8_1000);
    memory.head(0, 0x8_a000);
    memory.head(1, 0);
    let walk = walk(&mut walker, &memory);
    assert_eq!((ids(&walk.runtimes[0]), &walk.runtimes[0].gone[..]), (vec![5], &[4][..]));
}

#[test]
fn a_walk_that_is_cut_short_is_taken_up_by_the_next() {
    let (mut walker, memory) = (walker(vec![layout()]), process());
    let mut found = Vec::new();
    for lists in [Lists::CutShort, Lists::CutShort, Lists::CutShort] {
        let walk = walk_with(&mut walker, &memory, 1);
        assert_eq!((walk.runtimes[0].lists, &walk.runtimes[0].gone[..]), (lists, &[][..]));
        found.extend(ids(&walk.runtimes[0]));
    }
    let last = walk_with(&mut walker, &memory, 1);
    assert!(matches!(last.runtimes[0].lists, Lists::Walked { given_up: 0, at_once: false, .. }));
    found.extend(ids(&last.runtimes[0]));
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 4]);
    assert_eq!(walk_with(&mut walker, &memory, 0).runtimes[0].lists, Lists::NotWalked);
}

#[test]
fn a_list_without_an_end_or_with_strange_tasks_is_given_up() {
    let wrong: [(&str, Spoil, &[u64]); 7] = [
        ("leads back into itself", |memory| memory.task(0x8_4000, LARGE, 3, IDLE, 0x8_1000), &[1, 2, 3, 4]),
        ("leads to itself", |memory| memory.task(0x8_1000, SMALL, 1, IDLE, 0x8_1000), &[1, 4]),
        ("leads into the other", |memory| memory.task(0x8_4000, LARGE, 3, IDLE, 0x8_8000), &[1, 2, 3, 4]),
        ("leads nowhere", |memory| memory.task(0x8_4000, LARGE, 3, IDLE, u64::MAX - 3), &[1, 2, 3, 4]),
        ("has another's task", |memory| memory.set(0x8_2000 + 24, OWNER + 1), &[1, 4]),
        ("has a task of no vtable", |memory| memory.set(0x8_2000 + 16, 0x4141), &[1, 4]),
        ("begins nowhere", |memory| memory.head(0, 0x41), &[4]),
    ];
    for (what, spoil, expected) in wrong {
        let mut memory = process();
        spoil(&mut memory);
        let walk = walk(&mut walker(vec![layout()]), &memory);
        assert_eq!((ids(&walk.runtimes[0]), given_up(&walk.runtimes[0])), (expected.to_vec(), 1), "{what}");
    }
}

#[test]
fn a_runtime_that_contradicts_itself_is_not_believed() {
    let wrong: [(&str, Spoil); 13] = [
        ("no references", |memory| memory.set(HANDLE, 0)),
        ("no lists", |memory| memory.set(HANDLE + 16, 0)),
        ("three lists", |memory| memory.set(HANDLE + 24, 3)),
        ("lists without number", |memory| memory.set(HANDLE + 24, 1 << 63)),
        ("no owner", |memory| memory.set(HANDLE + 48, 0)),
        ("another owner", |memory| memory.set(HANDLE + 48, OWNER + 1)),
        ("lists elsewhere", |memory| memory.set(HANDLE + 16, 8)),
        ("no workers", |memory| memory.set(HANDLE + 64, 0)),
        ("workers without number", |memory| memory.set(HANDLE + 64, u64::MAX)),
        ("more awake than there are", |memory| memory.set(HANDLE + 80, 3 << 16)),
        ("a full queue", |memory| memory.set(QUEUES + 24, 5 + 257)),
        ("no queue", |memory| memory.set(REMOTES + 8, 0)),
        ("an odd handle", |memory| memory.set(THREAD - 0x100 + 24, HANDLE + 1)),
    ];
    for (what, spoil) in wrong {
        let mut memory = process();
        spoil(&mut memory);
        let walk = walk(&mut walker(vec![layout()]), &memory);
        assert!(walk.runtimes.is_empty() && walk.doubt.is_some(), "{what}: {walk:?}");
    }
}

#[test]
fn a_pool_that_can_t_be_one_is_not_told_and_no_runtime_is_by_it_at_first() {
    let wrong: [(&str, Spoil); 6] = [
        ("more idle threads than threads", |memory| memory.set(POOL + 24, 6)),
        ("more threads than allowed", |memory| memory.set(POOL + 40, 4)),
        ("fewer threads than workers", |memory| memory.set(POOL + 16, 1)),
        ("none allowed but workers", |memory| [16, 40].into_iter().for_each(|at| memory.set(POOL + at, 2))),
        ("no pool but a pointer", |memory| memory.set(POOL, 0x7f12_3456_7890)),
        ("a pointer for a number of threads", |memory| memory.set(POOL + 40, 0x7f12_3456_7890)),
    ];
    for (what, spoil) in wrong {
        let mut memory = process();
        spoil(&mut memory);
        let mut own = walker(vec![layout()]);
        assert!((0..3).all(|_| walk(&mut own, &memory).runtimes.is_empty()), "{what}");
        assert!(walk(&mut own, &process()).runtimes[0].state.blocking.is_ok(), "{what}: its own layout is right");

        let mut unknown = layout();
        unknown.queue.head = None;
        let mut walker = walker(vec![layout(), unknown]);
        let first = walk(&mut walker, &memory);
        assert!(first.runtimes.is_empty() && first.doubt.is_some(), "{what}: {first:?}");
        let later = walk(&mut walker, &memory);
        assert!(matches!(later.runtimes[0].state.blocking, Err(Doubt::Implausible(_))), "{what}: {later:?}");
        let never = walk(&mut walker, &process());
        assert!(never.runtimes[0].state.blocking.is_err(), "{what}: it was wrong twice");
    }

    let mut walker = walker(vec![layout()]);
    let blocking = |walker: &mut Walker, memory: &Bytes| walk(walker, memory).runtimes[0].state.blocking;
    assert!(blocking(&mut walker, &process()).is_ok());
    let mut ending = process();
    ending.set(POOL + 16, 1);
    assert!(blocking(&mut walker, &ending).is_err(), "a runtime that ends is still one");
    assert!(blocking(&mut walker, &process()).is_ok());
}

/// As in a program that has `parking_lot` for its own use, and a Tokio that was built without.
#[test]
fn a_pool_of_which_layouts_say_different_things_that_may_all_be_is_not_told() {
    let mut moved = layout();
    let pool = &mut moved.blocking_pool;
    // What can't be less than the number of threads stands in front of it, and is that number if one begins later.
    (pool.thread_cap, pool.threads, pool.idle_threads, pool.queued) = (Some(16), Some(24), Some(32), Some(48));
    let mut memory = process();
    for (offset, word) in [(16, 7), (24, 4), (32, 0), (40, 514), (48, 266)] {
        memory.set(POOL + offset, word);
    }
    let mut walker = walker(vec![moved, layout()]);
    for _ in 0..3 {
        let walk = walk(&mut walker, &memory);
        assert_eq!(walk.runtimes[0].state.blocking, Err(Doubt::NotDescribed(runtimes::BLOCKING_THREADS)));
    }
    // All but one of the threads are busy: if only two workers were threads, this could not be.
    memory.set(POOL + 24, 1);
    let blocking: Vec<_> = (0..3).map(|_| walk(&mut walker, &memory).runtimes[0].state.blocking).collect();
    assert_eq!(blocking, [Ok(BlockingThreads { threads: 5, idle: 1, queued: 0 }); 3]);
    memory.set(POOL + 24, 4);
    assert_eq!(walk(&mut walker, &memory).runtimes[0].state.blocking.map(|pool| pool.idle), Ok(4), "it is known now");
}

#[test]
fn a_context_that_can_t_be_one_is_a_doubt_and_one_that_was_not_begun_is_not() {
    let wrong: [(Spoil, bool); 5] = [
        (|memory| memory.0.extend([(THREAD - 0x100 + 64, 3)]), true),
        (|memory| memory.set(THREAD - 0x100 + 8, 3), true),
        (|memory| memory.set(THREAD - 0x100 + 16, 99), true),
        (|memory| memory.set(THREAD - 0x100 + 16, 2), false),
        (|memory| memory.0.extend([(THREAD - 0x100 + 64, 0)]), false),
    ];
    for (index, (spoil, is_doubtful)) in wrong.into_iter().enumerate() {
        let mut memory = process();
        spoil(&mut memory);
        let walk = walk(&mut walker(vec![layout()]), &memory);
        assert_eq!((walk.runtimes.len(), walk.doubt.is_some()), (0, is_doubtful), "{index}");
    }
}

#[test]
fn of_several_layouts_the_one_counts_by_which_a_runtime_is_plausible() {
    let mut wrong = layout();
    wrong.multi_thread.blocking_pool = Some(72);
    let mut unknown = layout();
    unknown.queue.head = None;
    let mut walker = walker(vec![wrong, unknown, layout()]);
    assert_eq!(walk(&mut walker, &process()).runtimes.len(), 1);
    assert_eq!(walker.trials.chosen(), Some(2));
}

#[test]
fn what_a_layout_does_not_tell_is_the_reason() {
    let mut unknown = layout();
    unknown.multi_thread.shards = None;
    let walk = walk(&mut walker(vec![unknown]), &process());
    let reason = walk.doubt.map(|doubt| doubt.to_string());
    assert_eq!(reason.as_deref(), Some("it is unknown where its Tokio keeps a runtime's handle"));
}

#[test]
fn a_runtime_is_found_by_being_told_of_and_has_ended_when_it_is_not_there_again() {
    let (mut walker, memory) = (walker(vec![layout()]), process());
    let at = RuntimeAt { address: HANDLE, kind: RuntimeKind::MultiThread };
    let mut walk = |memory: &Bytes, told: &[RuntimeAt]| {
        walker.walk(memory, &[], told, &mut Allowance { tasks: 10, goes_on: &|| true })
    };
    assert_eq!(walk(&memory, &[]).runtimes.len(), 0);
    assert_eq!(walk(&memory, &[at]).runtimes.len(), 1);
    assert_eq!(walk(&memory, &[]).runtimes.len(), 1);
    assert_eq!(walk(&Bytes::default(), &[]).ended, []);
    let mut ended = walk(&Bytes::default(), &[]).ended;
    ended[0].1.sort_unstable();
    assert_eq!(ended, [(at, vec![1, 2, 3, 4])]);
}
