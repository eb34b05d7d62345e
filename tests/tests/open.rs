//! `polletto open`: a trace is there for the UI, and for nobody else.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use polletto_tests::{browser::Browser, recorder::polletto, turn::Turn};

/// A command that serves a trace.
struct Open {
    process: Child,
    link: String,
}

impl Open {
    fn start(trace: &Path) -> Open {
        let mut command = Command::new(polletto());
        command.args(["open", "--no-browser"]).arg(trace).stderr(Stdio::piped());
        let mut process = command.spawn().expect("polletto starts");
        let lines = BufReader::new(process.stderr.take().expect("it has errors")).lines();
        let link = lines.map_while(Result::ok).find(|line| line.contains("https://")).expect("it tells a link");
        Open { process, link: link.trim().to_owned() }
    }

    /// Where the trace is.
    fn address(&self) -> &str {
        let (_, from) = self.link.split_once("url=").expect("the link has an address");
        from.split('&').next().expect("it begins")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // It may have ended.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn ask(path: &str, origin: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", 9001)).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nOrigin: {origin}\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_trace_is_fetched_once_by_the_ui_and_by_nobody_else() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("a trace.perfetto-trace");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    fs::write(&trace, &bytes).expect("it can be written");
    let mut open = Open::start(&trace);
    let path = open.address().strip_prefix("http://127.0.0.1:9001").expect("it is on this machine").to_owned();
    assert!(path.ends_with("/a%20trace.perfetto-trace"), "{path}");
    let second = Command::new(polletto()).args(["open", "--no-browser"]).arg(&trace).output().expect("polletto starts");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("9001"), "{second:?}");
    for (path, origin, status) in [
        (&*path, "https://example.com", "403"),
        // Who was not told the link.
        ("/a%20trace.perfetto-trace", "https://ui.perfetto.dev", "404"),
        ("/etc/passwd", "https://ui.perfetto.dev", "404"),
        ("/../../etc/passwd", "https://ui.perfetto.dev", "404"),
    ] {
        let answer = ask(path, origin);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.ends_with("\r\n\r\n"), "{text}");
    }
    // Who connects and says nothing holds nobody up for ever.
    let _silent = TcpStream::connect(("127.0.0.1", 9001)).expect("it listens");
    let answer = ask(&path, "https://ui.perfetto.dev");
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&answer[..body]);
    assert!(head.contains("Access-Control-Allow-Origin: https://ui.perfetto.dev\r\n"), "{head}");
    assert!(answer[body..] == bytes, "{} of {} bytes", answer.len() - body, bytes.len());
    assert!(open.process.wait().expect("it ends").success());
}

#[test]
fn a_browser_lets_the_ui_have_a_trace_and_no_other_page() {
    let _turn = Turn::alone();
    let Some(mut browser) = Browser::start() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("x.perfetto-trace");
    fs::write(&trace, [7; 1_000_000]).expect("it can be written");
    let mut open = Open::start(&trace);
    let address = &open.address().to_owned();
    let (ui, other) = ("https://ui.perfetto.dev", "https://example.com");
    assert_eq!(browser.fetch(&format!("{ui}/"), address), "TypeError: Failed to fetch", "its user was not asked");
    for origin in [other, ui] {
        browser.allow_this_machine(origin);
    }
    assert_eq!(browser.fetch(&format!("{other}/"), address), "TypeError: Failed to fetch");
    assert!(open.process.try_wait().expect("it is a child").is_none(), "it waits for the UI");
    assert_eq!(browser.fetch(&format!("{ui}/"), address), "1000000 bytes");
    assert!(open.process.wait().expect("it ends").success());
    browser.close();
}

#[test]
fn what_is_no_file_is_an_error() {
    for trace in ["/nowhere", "/proc/self"] {
        let output = Command::new(polletto()).args(["open", trace]).output().expect("polletto starts");
        assert_eq!(output.status.code(), Some(1), "{trace}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(trace), "{output:?}");
    }
}
