//! What a browser asks, and what it is answered: one file, for one origin.

use std::io::{self, BufRead};

/// What may fetch the file.
pub const ORIGIN: &str = "https://ui.perfetto.dev";

/// What is asked for, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    method: String,
    path: String,
    host: Option<String>,
    origin: Option<String>,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With all of the file.
    TheFile,
    /// A browser asks first whether it may fetch from this machine.
    Permission,
    /// With this status.
    Refusal(&'static str),
}

impl Request {
    /// Reads a request. None if it is none, or breaks off.
    pub fn read(mut from: impl BufRead) -> io::Result<Option<Request>> {
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
            let known = match name {
                name if name.eq_ignore_ascii_case("host") => &mut request.host,
                name if name.eq_ignore_ascii_case("origin") => &mut request.origin,
                _ => continue,
            };
            // No browser says either twice.
            if known.replace(value.trim().to_owned()).is_some() {
                return Ok(None);
            }
        }
    }

    /// How it is answered where the file is at this path.
    pub fn answer(&self, path: &str) -> Answer {
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
    fn what_breaks_off_or_contradicts_itself_is_no_request() {
        let twice =
            "GET /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nOrigin: http://evil\r\norigin: https://ui.perfetto.dev\r\n\r\n";
        for text in [twice, "", "GET", "GET /x HTTP/1.1\r\n", "GET /x HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n"] {
            assert_eq!(request(text), None, "{text:?}");
        }
    }
}
