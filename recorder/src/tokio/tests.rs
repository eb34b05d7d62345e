//! Claims about programs that are made by hand.

mod code;
mod probes;
mod program;
mod vtable;

use super::{example::*, *};

/// Looks at the programs that a person names.
#[test]
#[ignore = "prints what is found in the files that PROGRAMS names"]
fn real_programs() {
    for path in std::env::var("PROGRAMS").unwrap().split_whitespace() {
        let file = std::fs::File::open(path).unwrap();
        let start = std::time::Instant::now();
        let image = crate::target::image::Image::read(&file).unwrap();
        let vtables = scan(&image, &file).unwrap();
        let scanned = start.elapsed();
        let start = std::time::Instant::now();
        let Some(program) = examine(&image, &file) else {
            println!("{path}: no task, {scanned:?}");
            continue;
        };
        let blocking = vtables.iter().filter(|vtable| vtable.kind() == SchedulerKind::Blocking).count();
        println!(
            "{path}: {} vtables, {blocking} blocking, {} bodies; {} {:?}; {:?}; scan {scanned:?}, all {:?}",
            vtables.len(),
            program.poll_bodies.len(),
            program.origins.tokio.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            program.origins.rustc,
            program.context,
            start.elapsed()
        );
    }
}
