//! A small HTTP server that does what asynchronous code should not: one endpoint for each kind of fault. With `--healthy` it
//! does the same work as it should be done.
//!
//! It has what a service in production has, which is what makes the faults matter: a multi-threaded Tokio runtime of
//! four workers, and requests that have to wait when a worker is kept from polling.

mod endpoints;
mod name_server;

use std::{
    env,
    io::{self, Write},
    net::Ipv4Addr,
    path::PathBuf,
    thread,
};

use clap::Parser;
use tokio::net::TcpListener;

use self::endpoints::Manner;

/// A server with faults to find. Listens on the loopback interface only.
#[derive(Parser)]
struct Options {
    /// The port to listen on; by default a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Ends when its standard input is closed, as it is when the program that started it ends.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Has no faults: what takes long is awaited, or done by threads that are there to block.
    #[arg(long)]
    healthy: bool,
    /// Where its files lie, which have no names; by default where the system keeps temporary files. They are to be on a
    /// disk: those in memory are never waited for.
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if options.until_stdin_closes {
        thread::Builder::new().name("stdin".to_owned()).spawn(end_with_stdin)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let manner = if options.healthy { Manner::Healthy } else { Manner::Faulty };
    let directory = options.directory.unwrap_or_else(env::temp_dir);
    let endpoints = endpoints::all(manner, &directory)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    println!("listening on {}", listener.local_addr()?);
    // Whoever reads this line through a pipe waits for it.
    io::stdout().flush()?;
    axum::serve(listener, endpoints).await
}

fn end_with_stdin() {
    let code = match io::copy(&mut io::stdin(), &mut io::sink()) {
        Ok(_) => 0,
        Err(problem) => {
            eprintln!("demo-server: standard input: {problem}");
            1
        }
    };
    std::process::exit(code);
}
