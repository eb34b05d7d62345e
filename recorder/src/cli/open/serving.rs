//! A web server for one file, as the UI fetches it: to one origin, at one path, until it was fetched once.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// The only one at which the UI's own rules let it fetch from this machine.
const PORT: u16 = 9001;

/// What may fetch the file.
pub const ORIGIN: &str = "https://ui.perfetto.dev";

/// How long a browser may take for its request, and then for each piece of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest request, bytes.
const MAX_REQUEST: u64 = 16 << 10;

/// A file that waits to be fetched.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    file: File,
    bytes: u64,
    path: String,
}

/// What is asked for, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    host: Option<String>,
    origin: Option<String>,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    TheFile,
    /// A browser asks first whether it may fetch from this machine.
    Permission,
    Refusal(&'static str),
}

impl Server {
    /// Listens on this machine alone.
    pub fn start(trace: &Path) -> Result<Server> {
        let file = File::open(trace).with_context(|| format!("{} can't be read", trace.display()))?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file() && metadata.len() > 0, "{} is no trace", trace.display());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).with_context(|| {
            format!(
                "port {PORT} can't be had, and the UI fetches from no other: \
                 another `polletto open`, or a trace_processor that serves, may have it"
            )
        })?;
        let name = trace.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        Ok(Server { listener, file, bytes: metadata.len(), path: format!("/{}", encoded(&name)) })
    }

    /// Where the file is.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{PORT}{}", self.path)
    }

    /// Answers until someone has fetched the file as a whole.
    pub fn serve(&self) -> Result<()> {
        loop {
            let (stream, _) = self.listener.accept().context("nobody can be listened to any more")?;
            // One that breaks off, or says nothing, is no reason not to answer the next.
            if self.answer(stream).unwrap_or(false) {
                return Ok(());
            }
        }
    }

    /// Whether the file was fetched.
    fn answer(&self, mut stream: TcpStream) -> io::Result<bool> {
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let Some(request) = Request::read(BufReader::new((&stream).take(MAX_REQUEST)))? else { return Ok(false) };
        let answer = request.answer(&self.path);
        let (status, bytes) = match answer {
            Answer::TheFile => ("200 OK", self.bytes),
            Answer::Permission => ("204 No Content", 0),
            Answer::Refusal(status) => (status, 0),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\nContent-Type: application/octet-stream\r\n\
             Access-Control-Allow-Origin: {ORIGIN}\r\nAccess-Control-Allow-Private-Network: true\r\nVary: Origin\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )?;
        if answer != Answer::TheFile {
            return Ok(false);
        }
        let mut file = &self.file;
        // Who asked before may have broken off.
        file.rewind()?;
        // As much as was promised, even if it grows.
        Ok(io::copy(&mut file.take(self.bytes), &mut stream)? == self.bytes)
    }
}

impl Request {
    /// None if it is none.
    fn read(mut from: impl BufRead) -> io::Result<Option<Request>> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
        let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let Some((name, value)) = line.split_once(':') else { return Ok(Some(request)) };
            let value = Some(value.trim().to_owned());
            if name.eq_ignore_ascii_case("host") {
                request.host = value;
            } else if name.eq_ignore_ascii_case("origin") {
                request.origin = value;
            }
        }
    }

    fn answer(&self, path: &str) -> Answer {
        // Another page can have a name of its own that leads to this machine.
        let is_here = matches!(self.host.as_deref(), Some("127.0.0.1:9001" | "localhost:9001"));
        if !is_here || self.origin.as_deref().is_some_and(|origin| origin != ORIGIN) {
            return Answer::Refusal("403 Forbidden");
        }
        match self.method.as_str() {
            "OPTIONS" => Answer::Permission,
            "GET" if self.path == path => Answer::TheFile,
            "GET" => Answer::Refusal("404 Not Found"),
            _ => Answer::Refusal("405 Method Not Allowed"),
        }
    }
}

/// A text as it can stand in an address.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Option<Request> {
        Request::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_file_is_for_the_ui_alone() {
        for (text, expected) in [
            ("GET /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nOrigin: https://ui.perfetto.dev\r\n\r\n", Answer::TheFile),
            ("GET /x HTTP/1.1\r\nhost: localhost:9001\r\n\r\n", Answer::TheFile),
            (
                "OPTIONS /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nOrigin: https://ui.perfetto.dev\r\n\r\n",
                Answer::Permission,
            ),
            ("GET /y HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n", Answer::Refusal("404 Not Found")),
            ("POST /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n", Answer::Refusal("405 Method Not Allowed")),
            (
                "GET /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nOrigin: http://evil\r\n\r\n",
                Answer::Refusal("403 Forbidden"),
            ),
            ("GET /x HTTP/1.1\r\nHost: evil:9001\r\n\r\n", Answer::Refusal("403 Forbidden")),
            ("GET /x HTTP/1.1\r\n\r\n", Answer::Refusal("403 Forbidden")),
        ] {
            assert_eq!(request(text).unwrap().answer("/x"), expected, "{text}");
        }
    }

    #[test]
    fn what_breaks_off_is_no_request() {
        for text in ["", "GET", "GET /x HTTP/1.1\r\n", "GET /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n"] {
            assert_eq!(request(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(encoded("my trace&x=ü.perfetto-trace"), "my%20trace%26x%3D%C3%BC.perfetto-trace");
    }
}
