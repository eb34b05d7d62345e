//! Other programs that name addresses: LLVM's `llvm-symbolizer`, and `addr2line` of binutils.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::Lines,
    thread,
};

use serde_json::Value;

use crate::generated::Generated;

/// A function, and a place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// As the compiler calls it. Empty if nobody knows.
    pub function: String,
    /// Empty if nobody knows.
    pub file: String,
    /// 0 if nobody knows.
    pub line: u32,
}

/// A program that names addresses.
#[derive(Clone, Debug)]
pub enum Symbolizer {
    /// LLVM's, of any version.
    Llvm(PathBuf),
    /// GNU's.
    Binutils(PathBuf),
}

impl Symbolizer {
    /// The one that `POLLETTO_SYMBOLIZER` says; else LLVM's newest on the PATH; else that of binutils.
    pub fn find() -> Symbolizer {
        if let Some(chosen) = env::var_os("POLLETTO_SYMBOLIZER").map(PathBuf::from) {
            let is_llvm = chosen.file_name().is_some_and(|name| name.to_string_lossy().contains("symbolizer"));
            return if is_llvm { Symbolizer::Llvm(chosen) } else { Symbolizer::Binutils(chosen) };
        }
        let newest = programs("llvm-symbolizer").max_by_key(|(version, _)| *version);
        let binutils = || Some(Symbolizer::Binutils(programs("addr2line").next()?.1));
        newest.map(|(_, path)| Symbolizer::Llvm(path)).or_else(binutils).expect(
            "neither llvm-symbolizer nor addr2line is on the PATH: `cargo xtask test` installs binutils on Debian, \
             and elsewhere the distribution has a package of this name",
        )
    }

    /// Whether it can read a program's debug information: GNU's finds none in files beside it.
    pub fn understands(&self, program: &Generated) -> bool {
        matches!(self, Symbolizer::Llvm(_)) || !program.name.contains("beside it")
    }

    /// For each address the function that it was written in, then the one that this was inlined into, and so on.
    pub fn frames(&self, file: &Path, addresses: &[u64]) -> Vec<Vec<Frame>> {
        let mut command = match self {
            Symbolizer::Llvm(program) => {
                let mut command = Command::new(program);
                command.args(["--functions=linkage", "--no-demangle", "--inlines", "--output-style=JSON", "--obj"]);
                command
            }
            Symbolizer::Binutils(program) => {
                let mut command = Command::new(program);
                command.args(["-a", "-f", "-i", "-e"]);
                command
            }
        };
        let output = answer(command.arg(file), addresses);
        let frames: Vec<_> = match self {
            Symbolizer::Llvm(_) => output.lines().map(of_llvm).collect(),
            Symbolizer::Binutils(_) => of_binutils(output.lines()),
        };
        assert_eq!(frames.len(), addresses.len(), "{command:?} has no answer for some addresses");
        frames
    }
}

/// Programs of this name on the PATH, and those with a version behind it. Without one they are 0.
fn programs(name: &str) -> impl Iterator<Item = (u32, PathBuf)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let files = env::split_paths(&path).filter_map(|directory| directory.read_dir().ok()).flatten().flatten();
    let found = files.filter_map(|file| {
        let version = match file.file_name().to_str()?.strip_prefix(name)? {
            "" => 0,
            behind => behind.strip_prefix('-')?.parse().ok()?,
        };
        file.path().is_file().then(|| (version, file.path()))
    });
    found.collect::<Vec<_>>().into_iter()
}

fn answer(command: &mut Command, addresses: &[u64]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut input = process.stdin.take().expect("its input is a pipe");
    let questions: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    // It answers before it has read everything.
    let asking = thread::spawn(move || input.write_all(questions.as_bytes()));
    let output = process.wait_with_output().expect("a child can be waited for");
    asking.join().expect("writing does not panic").expect("it reads what it is asked");
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn of_llvm(line: &str) -> Vec<Frame> {
    let answer: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let symbols = answer["Symbol"].as_array().unwrap_or_else(|| panic!("{line}: no symbols"));
    let text = |symbol: &Value, name: &str| symbol[name].as_str().unwrap_or_default().to_owned();
    let frame = |symbol: &Value| Frame {
        function: text(symbol, "FunctionName"),
        file: text(symbol, "FileName"),
        line: symbol["Line"].as_u64().and_then(|line| line.try_into().ok()).unwrap_or(0),
    };
    symbols.iter().map(frame).collect()
}

/// Two lines for each frame, after one with the address.
fn of_binutils(mut lines: Lines<'_>) -> Vec<Vec<Frame>> {
    let mut all = Vec::new();
    let known = |text: &str| if text == "??" { String::new() } else { text.to_owned() };
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            all.push(Vec::new());
            continue;
        }
        let place = lines.next().expect("a place stands behind each function");
        let place = place.split(" (discriminator").next().unwrap_or(place);
        let (file, number) = place.rsplit_once(':').unwrap_or((place, "?"));
        let frame = Frame { function: known(line), file: known(file), line: number.parse().unwrap_or(0) };
        all.last_mut().expect("an address comes first").push(frame);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str, line: u32) -> Frame {
        Frame { function: function.to_owned(), file: file.to_owned(), line }
    }

    #[test]
    fn what_llvm_says_is_understood() {
        let line = r#"{"Address":"0x1040","ModuleName":"/t","Symbol":[
            {"Column":2,"FileName":"/a.c","FunctionName":"inner","Line":1},
            {"Column":0,"FileName":"","FunctionName":"main","Line":0}]}"#;
        assert_eq!(of_llvm(line), [frame("inner", "/a.c", 1), frame("main", "", 0)]);
    }

    #[test]
    fn what_binutils_say_is_understood() {
        let output =
            "0x0000000000001040\ninner\n/a.c:1 (discriminator 3)\nmain\n/b:c.c:?\n0x0000000000000010\n??\n??:0";
        let frames = of_binutils(output.lines());
        assert_eq!(frames, [vec![frame("inner", "/a.c", 1), frame("main", "/b:c.c", 0)], vec![frame("", "", 0)]]);
    }
}
