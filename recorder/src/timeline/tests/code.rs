//! Which code is asked names for.

use polletto_common::record::StackEnding;

use super::{super::*, recording::Recording};

const PROCESS: Tgid = Tgid(10);

/// Of each code its path and its addresses.
fn addresses(recording: &Recording) -> Vec<(String, Vec<u64>)> {
    let mut all: Vec<_> = recording
        .timeline
        .addresses()
        .into_iter()
        .map(|(code, addresses)| (path_of(&code).into_owned(), addresses))
        .collect();
    all.sort();
    all
}

#[test]
fn code_is_asked_for_where_files_have_it_and_as_each_process_compiled_it() {
    let mut recording = Recording::new();
    recording.stack(1, PROCESS, &[0xffff_0100], &[0x5000_0010, 0x7000_0020, 0x5000_0000], StackEnding::ROOT, 0);
    recording.stack(2, PROCESS, &[], &[0x5000_0010, 0x1_0000], StackEnding::ROOT, 0);
    assert_eq!(addresses(&recording), []);
    recording.sample(60, 1, PROCESS);
    recording.sample(70, 2, PROCESS);
    let program = ("/usr/bin/my program".to_owned(), vec![0x4200, 0x4210]);
    assert_eq!(addresses(&recording), [program, ("[anon:10]".to_owned(), vec![0x7000_0020])]);
}

#[test]
fn code_of_a_stack_that_no_sample_has_is_not_asked_for() {
    let mut recording = Recording::new();
    recording.stack(1, PROCESS, &[], &[0x5000_0010], StackEnding::ROOT, 0);
    recording.stack(2, PROCESS, &[], &[0x5000_0020], StackEnding::ROOT, 0);
    recording.sample(60, 2, PROCESS);
    recording.sample(61, 3, PROCESS);
    assert_eq!(addresses(&recording), [("/usr/bin/my program".to_owned(), vec![0x4220])]);
}
