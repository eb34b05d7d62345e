//! A thread that burns a CPU and never blocks.
//!
//! `spinner [--cpu 0] [--give-way] [--exit-after-ms N --code C]`
//!
//! Prints `ready PID TID` when it burns. When standard input closes it prints how long it has run by the kernel's count,
//! and ends. With `--give-way` it runs only where nobody else wants to, which keeps a CPU from going idle. With `--exit-after-ms` the process ends N ms after it became ready, while the thread is in mid-slice.

use std::{io, process, sync::mpsc, thread, time::Duration};

use polletto_tests::workload::{boottime, flag, give_way, option, own_tid, pin_to, say, until_stdin_closes};

fn main() -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    let cpu = option("--cpu", 0);
    thread::Builder::new().name("spinner-burns".to_owned()).spawn(move || {
        pin_to(cpu).expect("the CPU is there");
        if flag("--give-way") {
            give_way().expect("everybody may give way");
        }
        tell.send(own_tid()).expect("the main thread waits");
        loop {
            std::hint::spin_loop();
        }
    })?;
    let tid = told.recv().expect("the thread tells its id");
    say(format_args!("ready {} {tid}", process::id()));
    match option("--exit-after-ms", 0) {
        0 => until_stdin_closes(),
        milliseconds => thread::sleep(Duration::from_millis(milliseconds)),
    }
    let sums = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat"))?;
    let run_ns = sums.split_ascii_whitespace().next().unwrap_or("0");
    say(format_args!(r#"{{"tid":{tid},"run_ns":{run_ns},"at":{}}}"#, boottime()));
    process::exit(option("--code", 0));
}
