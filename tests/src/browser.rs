//! A browser without a screen, which is told what to do through pipes.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    check::on_path,
    program::{DEADLINE, Guard},
};

/// What pages say, in base64. They are made up: no network is asked for them.
const PAGE: &str = "cG9sbGV0dG8=";

/// A running Chromium.
pub struct Browser {
    process: Guard,
    requests: File,
    messages: Receiver<Value>,
    asked: u64,
    _profile: TempDir,
}

impl Browser {
    /// None, and a line that says so, where there is none on the PATH.
    pub fn start() -> Option<Browser> {
        let Some(chromium) = on_path("chromium") else {
            println!("not tried: chromium is not on the PATH");
            return None;
        };
        let profile = tempfile::tempdir().expect("a directory for what the browser keeps");
        let [requests, answers] = ["requests", "answers"].map(|name| profile.path().join(name));
        for pipe in [&requests, &answers] {
            mknodat(CWD, pipe, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        }
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<"$HOME/requests" 4>"$HOME/answers""#]).arg(chromium);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank"]);
        let process = Guard::start(command.env("HOME", profile.path()).stdout(Stdio::null()).stderr(Stdio::null()));
        // Each is opened once the other end is.
        let requests = OpenOptions::new().write(true).open(requests).expect("the browser listens");
        let messages = follow(&answers);
        Some(Browser { process, requests, messages, asked: 0, _profile: profile })
    }

    /// Lets pages of an origin ask programs on this machine, as its user would when asked.
    pub fn allow_this_machine(&mut self, origin: &str) {
        self.ask(None, "Browser.grantPermissions", json!({ "origin": origin, "permissions": ["loopbackNetwork"] }));
    }

    /// What a page gets that fetches an address: how many bytes, or the status or the error.
    pub fn fetch(&mut self, page: &str, address: &str) -> String {
        let target = self.ask(None, "Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.ask(None, "Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let session = Some(session.as_str());
        self.ask(session, "Page.enable", json!({}));
        self.ask(session, "Fetch.enable", json!({ "patterns": [{ "urlPattern": format!("{page}*") }] }));
        self.send(session, "Page.navigate", json!({ "url": page }));
        let paused = self.wait(|message| message["method"] == "Fetch.requestPaused");
        let request = &paused["params"]["requestId"];
        self.send(session, "Fetch.fulfillRequest", json!({ "requestId": request, "responseCode": 200, "body": PAGE }));
        self.wait(|message| message["method"] == "Page.loadEventFired");
        let script = format!(
            "fetch('{address}').then(async (answer) => answer.ok ? `${{(await answer.arrayBuffer()).byteLength}} bytes` \
             : `status ${{answer.status}}`, (error) => `${{error}}`)"
        );
        let answer = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let result = self.ask(session, "Runtime.evaluate", answer);
        result["result"]["value"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
    }

    /// Asks for something, and waits until it is done.
    fn ask(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let id = self.send(session, method, parameters);
        let mut answer = self.wait(|message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    fn send(&mut self, session: Option<&str>, method: &str, parameters: Value) -> u64 {
        self.asked += 1;
        let mut request = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).expect("the browser listens");
        self.asked
    }

    fn wait(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.messages.recv_timeout(DEADLINE).expect("the browser answers");
            if is_it(&message) {
                return message;
            }
        }
    }

    /// Ends it.
    pub fn close(mut self) {
        self.send(None, "Browser.close", json!({}));
        self.process.wait(DEADLINE);
    }
}

/// What the browser says.
fn follow(pipe: &Path) -> Receiver<Value> {
    let (sender, messages) = channel();
    let pipe = BufReader::new(File::open(pipe).expect("the browser answers"));
    thread::spawn(move || {
        for message in pipe.split(0).map_while(Result::ok) {
            // Who waits may have given up.
            sender.send(serde_json::from_slice(&message).expect("JSON")).ok();
        }
    });
    messages
}
