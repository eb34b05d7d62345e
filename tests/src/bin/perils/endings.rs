//! Ends that come in the middle of a poll, and one that never comes by itself.

use std::{future::pending, hint::black_box, process, time::Duration};

use tokio::time::sleep;

use crate::tasks::{all_kinds, runtime};

/// How long tasks are polled before.
const BEFORE: Duration = Duration::from_millis(30);

/// Panics while another panic unwinds.
struct PanicsToo;

impl Drop for PanicsToo {
    fn drop(&mut self) {
        panic!("another");
    }
}

/// Needs more stack than there is.
fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 512]);
    if room[0] == u64::MAX { 0 } else { overflow(depth + 1) + room[1] }
}

async fn end(how: &str) {
    sleep(BEFORE).await;
    match how {
        "abort" => process::abort(),
        "panic-twice" => {
            let _panics_too = PanicsToo;
            panic!("one");
        }
        "overflow" => drop(black_box(overflow(0))),
        "exit" => process::exit(9),
        _ => panic!("no such end: {how}"),
    }
}

/// One task ends the process while others are polled.
pub fn ends_in_a_poll(how: &str) {
    let how = how.to_owned();
    let others = runtime(2);
    others.spawn(all_kinds());
    // Its only worker always comes to it by the same calls, which a backtrace shows.
    let worker = runtime(1);
    worker.block_on(worker.spawn(async move { end(&how).await })).expect("the process ends first");
}

/// Until the process is killed, tasks are polled, spawned and aborted.
pub fn endless() {
    runtime(2).block_on(async {
        tokio::spawn(all_kinds());
        loop {
            let tasks = [tokio::spawn(all_kinds()), tokio::spawn(pending())];
            sleep(Duration::from_millis(1)).await;
            tasks.iter().for_each(|task| task.abort());
        }
    });
}
