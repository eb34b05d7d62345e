//! A web server for one file, as the UI fetches it: to one origin, at one path, until it was fetched once.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::request::{Answer, ORIGIN, Request};

/// The only one at which the UI's own rules let it fetch from this machine.
const PORT: u16 = 9001;

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
        let path = format!("/{}/{}", secret().context("no random number can be had")?, encoded(&name));
        Ok(Server { listener, file, bytes: metadata.len(), path })
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

/// What only those know who were given the link: any program of this machine may ask, whoever it belongs to.
fn secret() -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
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

    #[test]
    fn a_secret_is_of_32_digits_and_never_the_same() {
        let [one, other] = [(); 2].map(|()| secret().unwrap());
        assert!(one.len() == 32 && one.bytes().all(|digit| digit.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(encoded("my trace&x=ü.perfetto-trace"), "my%20trace%26x%3D%C3%BC.perfetto-trace");
    }
}
