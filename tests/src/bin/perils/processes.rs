//! Polls in processes that become others.

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use polletto_tests::workload::say;
use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::{runtime::Builder, task::yield_now, time::sleep};

use crate::tasks::{all_kinds, runtime};

/// How many children there are, one after another.
const CHILDREN: u8 = 12;

/// How long a child polls.
const LIFE: Duration = Duration::from_millis(200);

/// How long a program polls before it executes itself again.
const BEFORE: Duration = Duration::from_millis(300);

/// Polls for a while.
async fn poll(length: Duration) {
    let others = tokio::spawn(all_kinds());
    sleep(length).await;
    others.abort();
    assert!(others.await.is_err_and(|error| error.is_cancelled()));
}

/// All on the process's only thread: so that a child has whatever it needs.
pub fn forks() {
    // A descriptor that waits for events would be one with the child.
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        for number in 0..CHILDREN {
            let child = if number % 3 == 0 { started(number) } else { forked(number) };
            say(tokio::spawn(child).await.expect("it ends well"));
        }
    });
}

type Child = std::pin::Pin<Box<dyn Future<Output = String> + Send>>;

/// Both go on in the middle of the poll: the child polls its own copy of the runtime, and ends.
fn forked(number: u8) -> Child {
    Box::pin(async move {
        // SAFETY: this process has a single thread, so the child finds no lock held by another.
        match unsafe { libc::fork() } {
            -1 => panic!("{}", io::Error::last_os_error()),
            0 => {
                poll(LIFE).await;
                say(format_args!("child {number} has polled"));
                // SAFETY: ends the process at once, as a child should that has its parent's memory.
                unsafe { libc::_exit(i32::from(number)) }
            }
            child => {
                let child = Pid::from_raw(child).expect("a child");
                let status = loop {
                    if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).expect("it is a child") {
                        break status;
                    }
                    yield_now().await;
                    sleep(Duration::from_millis(1)).await;
                };
                format!("child {number} ended: {status:?}")
            }
        }
    })
}

/// Another program, that polls too. Its parent waits in a poll.
fn started(number: u8) -> Child {
    Box::pin(async move { format!("program {number} ended: {}", start(&["now", "polls"])) })
}

/// What it prints would be taken for its parent's.
fn start(arguments: &[&str]) -> ExitStatus {
    itself(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status().expect("it starts")
}

fn itself(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("a process knows its executable"));
    command.args(arguments);
    command
}

pub fn polls() {
    runtime(2).block_on(poll(LIFE));
}

/// Executes this program again from a poll, while another worker polls. That ends all threads but one.
pub fn executes(times: u32) {
    say(format_args!("{times} times more"));
    let Some(rest) = times.checked_sub(1) else { return };
    let runtime = runtime(2);
    runtime.spawn(all_kinds());
    let executed = runtime.block_on(async move {
        tokio::spawn(async move {
            sleep(BEFORE).await;
            itself(&["now", "executes", &rest.to_string()]).exec()
        })
        .await
    });
    panic!("{executed:?}");
}
