//! Servers on Tokio that nobody here wrote or built in a way of his own, under load.
//!
//! These scenarios need root and a kernel that takes BPF programs, and programs from the registry. They fail without.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    ops::{Bound, RangeBounds},
    process::Command,
};

use polletto_tests::{
    program,
    published::{FILE_SERVER, PROXY},
    recorder::{Outcome, Record},
    served::{Server, free_address},
    trace::{Trace, the_text},
    turn::Turn,
};
use tempfile::TempDir;

/// Requests for the only file, a thousand a second.
const LOAD: [&str; 4] = ["--rate", "1000", "--mix", "file.txt=1"];

/// How long they go on, in seconds: longer than the recording.
const SECONDS: u64 = 3;

/// Polls that must have the name of their future, in percent.
const NAMED_PERCENT: usize = 95;

/// A proxy, and the file server behind it. Each request passes both.
struct Both {
    proxy: Server,
    files: Server,
    _directory: TempDir,
}

impl Both {
    fn start() -> Both {
        let directory = tempfile::tempdir().expect("a directory to serve");
        fs::write(directory.path().join("file.txt"), "content".repeat(100)).expect("it can be written");
        let (behind, before) = (free_address(), free_address());
        let port = |address: &str| address.rsplit_once(':').expect("an address has a port").1.to_owned();
        let mut command = Command::new(FILE_SERVER.program());
        command.args(["--silent", "--ip", "127.0.0.1", "--port", &port(&behind)]).arg(directory.path());
        let files = Server::listening(&mut command, &behind);
        let mut command = Command::new(PROXY.program());
        command.args([&behind, "--bind", "127.0.0.1", "--local-port", &port(&before)]);
        let proxy = Server::listening(&mut command, &before);
        Both { proxy, files, _directory: directory }
    }

    /// Records one of them while each request is answered.
    fn recorded(&self, of: &Server, arguments: &[&str]) -> Outcome {
        let recording = Record::new().process(of.pid()).arguments(["-d", "1.5"]).arguments(arguments).start();
        let answers = self.proxy.asked(program!("demo-load"), &LOAD, SECONDS);
        println!("{}", answers.report);
        recording.wait().expect_success()
    }
}

/// Polls are those of workers and of named futures, one of which is called so. So many of them are told from begin to end.
fn assert_recognised(trace: &Trace, future: &str, exact: impl RangeBounds<usize> + Debug) {
    let polls: Vec<_> = trace.slices_of("poll").collect();
    let mut futures = BTreeMap::<(&str, &str), usize>::new();
    polls.iter().for_each(|poll| {
        *futures.entry((the_text(poll.arguments, "future"), the_text(poll.arguments, "name_tier"))).or_default() += 1
    });
    let tracks: BTreeSet<_> = polls.iter().map(|poll| trace.tracks[&poll.track].name.as_str()).collect();
    println!("{} polls on {tracks:?}: {futures:#?}", polls.len());
    let named = polls.iter().filter(|poll| the_text(poll.arguments, "name_tier") != "vtable").count();
    assert!(named * 100 >= polls.len() * NAMED_PERCENT, "{named} of {} polls are named: {futures:#?}", polls.len());
    assert!(futures.keys().any(|(name, _)| name.contains(future)), "no {future} among {futures:#?}");
    assert!(tracks.iter().any(|track| track.starts_with("worker ")), "no workers: {tracks:?}");
    let told = polls.iter().filter(|poll| the_text(poll.arguments, "extent") == "exact").count();
    assert!(exact.contains(&told), "{told} of {} polls are exact, not {exact:?}", polls.len());
    assert!(polls.len() > 10, "only {} polls", polls.len());
}

fn is_recognised(of: impl Fn(&Both) -> &Server, future: &str) {
    let both = Both::start();
    let _turn = Turn::alone();
    let none = (Bound::Included(0), Bound::Included(0));
    let any = (Bound::Unbounded, Bound::Unbounded);
    let most = (Bound::Included(1000), Bound::Unbounded);
    for (arguments, exact) in
        [(&["--polls", "all"][..], most), (&["--polls", "off", "-F", "999"], none), (&["-F", "999"], any)]
    {
        let outcome = both.recorded(of(&both), arguments);
        println!("{arguments:?}: {}", outcome.summary());
        assert_recognised(&outcome.trace(), future, exact);
    }
}

#[test]
fn a_file_server_is_recognised() {
    is_recognised(|both| &both.files, "axum");
}

#[test]
fn a_proxy_is_recognised() {
    is_recognised(|both| &both.proxy, "tcpproxy");
}
