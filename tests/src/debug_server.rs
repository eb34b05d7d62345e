//! A server of debug information on this machine, which remembers what it was asked.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What a server does with what it is asked.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Gives these bytes as the debug information of this build id, and nothing else.
    Serves(String, Vec<u8>),
    /// Takes every connection, and never answers.
    Silent,
}

/// A server that ends when this is dropped.
pub struct DebugServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl DebugServer {
    /// Listens at a port that is free.
    pub fn start(manner: Manner) -> DebugServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it has a port");
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve(&listener, &manner, &shared)
        });
        DebugServer { address, shared, thread: Some(thread) }
    }

    /// What `DEBUGINFOD_URLS` has to be.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The paths that it was asked for until now.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("the server does not panic").clone()
    }
}

impl Drop for DebugServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // It looks at that when somebody connects.
        let is_woken = TcpStream::connect(self.address).is_ok();
        let thread = self.thread.take().filter(|_| is_woken);
        assert!(thread.is_none_or(|thread| thread.join().is_ok()) || thread::panicking(), "the server panicked");
    }
}

fn serve(listener: &TcpListener, manner: &Manner, shared: &Shared) {
    let mut unanswered = Vec::new();
    for client in listener.incoming().map_while(Result::ok) {
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        // A client that gives up in the middle has its reasons.
        if let Ok(path) = requested_path(&client) {
            shared.asked.lock().expect("nobody panics with it").push(path.clone());
            match manner {
                Manner::Serves(build_id, debug) if path == debug_path(build_id) => {
                    answer(&client, "200 OK", debug).ok();
                }
                Manner::Serves(..) => {
                    answer(&client, "404 Not Found", b"").ok();
                }
                Manner::Silent => unanswered.push(client),
            }
        }
    }
}

/// Where debug information of a build is.
pub fn debug_path(build_id: &str) -> String {
    format!("/buildid/{build_id}/debuginfo")
}

/// The path of a request, of which everything up to the empty line is read.
fn requested_path(client: &TcpStream) -> io::Result<String> {
    let mut lines = BufReader::new(client).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    first.split(' ').nth(1).map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn answer(mut client: &TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    client.write_all(body)
}
