//! An axum server that answers as fast as it can, and whoever asks it as fast as it can.
//!
//! `web-mill serve`
//!
//! Serves on the loopback interface with one worker. Prints `ready PID PORT`, and ends when standard input does.
//!
//! `web-mill ask PORT [--connections 32]`
//!
//! Asks on all connections at once, waits for all answers, and asks again. Prints `ready PID`; on each line on standard
//! input one line of JSON: how many answers have come until then. Ends when standard input does.

use std::{
    env,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use axum::{Router, routing::get};
use polletto_tests::workload::{boottime, line_came, option, say, until_stdin_closes};
use tokio::{net::TcpListener, runtime::Builder};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: mill\r\n\r\n";
const ANSWER: &str = "flour";

/// Answers that have come.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

fn serve() -> io::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let port = listener.local_addr()?.port();
    let routes = Router::new().route("/", get(|| async { ANSWER }));
    runtime.spawn(async move { axum::serve(listener, routes).await });
    say(format_args!("ready {} {port}", process::id()));
    until_stdin_closes();
    Ok(())
}

/// Reads one answer, whose end is the only thing in it that is known.
fn read_answer(connection: &mut TcpStream) -> io::Result<()> {
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(ANSWER.as_bytes()) {
        match connection.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => answer.extend_from_slice(&piece[..bytes]),
        }
    }
    Ok(())
}

fn ask(port: u16) -> io::Result<()> {
    let connect = |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let mut connections = (0..option("--connections", 32)).map(connect).collect::<io::Result<Vec<_>>>()?;
    connections.iter().try_for_each(|connection| connection.set_nodelay(true))?;
    say(format_args!("ready {}", process::id()));
    thread::spawn(move || {
        loop {
            for connection in &mut connections {
                connection.write_all(REQUEST).expect("the server takes it");
            }
            for connection in &mut connections {
                read_answer(connection).expect("the server answers");
                ANSWERS.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    while line_came() {
        say(format_args!(r#"{{"at":{},"count":{}}}"#, boottime(), ANSWERS.load(Ordering::Relaxed)));
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next().and_then(|port| port.parse().ok())) {
        (Some("serve"), None) => serve(),
        (Some("ask"), Some(port)) => ask(port),
        _ => Err(io::Error::other("usage: web-mill serve | web-mill ask PORT")),
    }
}
