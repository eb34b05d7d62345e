//! Servers, and requests for them over the loopback interface.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::program::{DEADLINE, Guard, Lines, until};

/// A server that listens, and ends when this is dropped.
pub struct Server {
    process: Guard,
    address: String,
}

/// What became of requests.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Requests that were answered.
    pub answered: u64,
    /// All that is known of them, for people to read.
    pub report: String,
}

impl Server {
    /// Starts the demo server, and waits until it says where it listens.
    pub fn demo(program: &Path, arguments: &[&str]) -> Server {
        let mut command = Command::new(program);
        command.args(arguments);
        let mut process =
            Guard::start(command.arg("--until-stdin-closes").stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut lines = Lines::of(process.child().stdout.take().expect("standard output is a pipe"));
        let line = lines.find("listening on ", DEADLINE).expect("it says where it listens");
        let address = line.trim_start_matches("listening on ").to_owned();
        Server { process, address }
    }

    /// Starts a server that listens where it was told to, and waits until it does.
    pub fn listening(command: &mut Command, address: &str) -> Server {
        let process = Guard::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        until(DEADLINE, &format!("{address} to be listened at"), || std::net::TcpStream::connect(address).ok());
        Server { process, address: address.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Has requests sent by the demo load for so many seconds. Panics if any is not answered.
    pub fn asked(&self, demo_load: &Path, arguments: &[&str], seconds: u64) -> Answers {
        let mut command = Command::new(demo_load);
        command.args(["--address", &self.address, "--seconds", &seconds.to_string()]).args(arguments);
        let output = command.output().expect("the demo load starts");
        let report = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{report}");
        let answered =
            report.split_ascii_whitespace().find_map(|word| word.parse().ok()).expect("a number of requests");
        Answers { answered, report }
    }
}

/// An address of the loopback interface at which nobody listens.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
    listener.local_addr().expect("it is bound").to_string()
}
