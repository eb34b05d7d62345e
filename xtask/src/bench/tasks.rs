//! What a server's answers notice when its tasks are listed again and again, beside when nobody does.

use std::{
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Bench, number,
    said::Said,
    table::{self, median},
};
use crate::{process, workspace};

/// Turns of each window: as many in which each comes first.
const ROUNDS: usize = 8;

/// How long a window takes at least: the last list that is begun in it is finished.
const WINDOW: Duration = Duration::from_secs(4);

/// Tasks of the server that wait.
const SUSPENDED: &str = "10000";

/// A stretch of the load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Window {
    Alone,
    /// Held against the other, it tells how far windows differ by themselves.
    AloneAgain,
    /// One list after another.
    Listed,
    /// As often as somebody who watches the program would.
    ListedEachSecond,
}

impl Window {
    const ALL: [Window; 4] = [Window::Alone, Window::AloneAgain, Window::Listed, Window::ListedEachSecond];

    fn name(self) -> &'static str {
        match self {
            Window::Alone => "nobody",
            Window::AloneAgain => "nobody, again",
            Window::Listed => "polletto tasks, again and again",
            Window::ListedEachSecond => "polletto tasks, once a second",
        }
    }

    /// The time from the beginning of a list to that of the next, at least; none if there are no lists.
    fn period(self) -> Option<Duration> {
        match self {
            Window::Alone | Window::AloneAgain => None,
            Window::Listed => Some(Duration::ZERO),
            Window::ListedEachSecond => Some(Duration::from_secs(1)),
        }
    }

    /// Lets it pass. How often the tasks of the process were listed.
    fn pass(self, bench: &Bench, pid: u32) -> Result<f64> {
        let Some(period) = self.period() else {
            thread::sleep(WINDOW);
            return Ok(0.0);
        };
        let mut command = bench.privilege.command(bench.program("polletto"));
        command.args(["tasks", "-p", &pid.to_string()]).stdin(Stdio::null());
        let begin = Instant::now();
        let mut lists = 0.0;
        while begin.elapsed() < WINDOW {
            let listed = Instant::now();
            process::printed(&mut command)?;
            lists += 1.0;
            thread::sleep(period.saturating_sub(listed.elapsed()));
        }
        Ok(lists)
    }
}

/// What was taken of a window.
#[derive(Clone, Copy)]
struct Taken {
    lists: f64,
    /// How long half of the answers took at most, in microseconds.
    half: f64,
    /// How long 99 in 100 of them took at most, in microseconds.
    most: f64,
}

pub fn run(bench: &Bench) -> Result<()> {
    let (server, port) = Said::start(&server()?, &["--tasks", SUSPENDED, "--echo"])?;
    let (mut load, _) = Said::start(&bench.program("echo-load"), &[&port])?;
    // Until both run evenly, and files are in the page cache.
    Window::Listed.pass(bench, server.pid())?;
    let mut windows = [const { Vec::new() }; Window::ALL.len()];
    for round in 0..ROUNDS {
        eprintln!("bench: round {} of {ROUNDS} of what listing tasks costs", round + 1);
        for place in 0..Window::ALL.len() {
            let at = (round + place) % Window::ALL.len();
            // From here on.
            load.ask()?;
            let lists = Window::ALL[at].pass(bench, server.pid())?;
            let told = load.ask()?;
            windows[at].push(Taken { lists, half: number(&told, "p50")?, most: number(&told, "p99")? });
        }
    }
    let rows = Window::ALL.iter().zip(&windows).map(|(window, taken)| row(*window, taken, &windows[0]));
    table::print(
        &format!(
            "An echo server with {SUSPENDED} suspended tasks, asked 1,000 times a second, in windows of {} s (medians of \
             {ROUNDS} rounds)",
            WINDOW.as_secs()
        ),
        &["listed by", "lists", "p50 µs", "p99 µs", "p50, of nobody's", "from", "p99, of nobody's", "from"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

/// Medians, and of the ratios in each round.
fn row(window: Window, taken: &[Taken], alone: &[Taken]) -> Vec<String> {
    let median_of = |measure: fn(&Taken) -> f64| median(&taken.iter().map(measure).collect::<Vec<_>>());
    let latencies: [fn(&Taken) -> f64; 2] = [|taken| taken.half, |taken| taken.most];
    let mut cells = vec![window.name().to_owned(), format!("{:.0}", median_of(|taken| taken.lists))];
    cells.extend(latencies.map(|measure| format!("{:.0}", median_of(measure))));
    for measure in latencies {
        let ratios: Vec<f64> = taken.iter().zip(alone).map(|(taken, alone)| measure(taken) / measure(alone)).collect();
        let range = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or_default();
        cells.push(format!("{:.2}", median(&ratios)));
        cells.push(format!("{:.2} to {:.2}", range(f64::min), range(f64::max)));
    }
    cells
}

/// Builds the server with all of its debug information, so that what its tasks await is looked up as well.
fn server() -> Result<PathBuf> {
    let directory = workspace::installed().join("awaiting");
    let mut cargo = workspace::cargo("build");
    cargo.current_dir(workspace::root().join("tests/awaiting"));
    cargo.args(["--release", "--quiet", "--locked", "--target-dir"]).arg(&directory);
    process::run(&mut cargo)?;
    Ok(directory.join("release/awaiting"))
}
