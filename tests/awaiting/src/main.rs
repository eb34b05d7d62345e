//! Tasks that wait, each for something else, and what they say of it themselves.
//!
//! `awaiting [--tasks N [--echo]]`
//!
//! Prints a line of JSON for each task: its id, each of its own functions that awaits, from the outermost on, with the line
//! where it does, and the type of what the last of them waits for in the end; then `ready PID`. Of all kinds in turn, there
//! are at least as many tasks as is said. With `--echo` further ones serve on the loopback interface what they are sent, and
//! the port stands behind PID. Ends when standard input does.

use std::{
    collections::BTreeMap,
    env,
    future::Future,
    io::{self, Read},
    pin::Pin,
    process,
    sync::{Arc, Mutex as Lock},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
    sync::{Mutex, Notify, Semaphore, mpsc, oneshot, watch},
    task::{self, JoinHandle},
    time::{sleep, timeout},
};

const LONG: Duration = Duration::from_secs(100_000);

const SLEEP: &str = "tokio::time::sleep::Sleep";
const ACQUIRE: &str = "tokio::sync::batch_semaphore::Acquire";
const NOTIFIED: &str = "tokio::sync::notify::Notified";
const RECEIVER: &str = "tokio::sync::oneshot::Receiver";
const JOIN: &str = "tokio::runtime::task::join::JoinHandle";
const READ: &str = "tokio::io::util::read::Read";
const READINESS: &str = "tokio::runtime::io::scheduled_io::Readiness";
const BY_HAND: &str = "core::future::poll_fn::PollFn";

/// A function and a line.
type Step = (&'static str, u32);

/// What tasks say of themselves, by their ids.
#[derive(Clone, Default)]
struct Said(Arc<Lock<BTreeMap<u64, (&'static str, Vec<Step>)>>>);

impl Said {
    /// The task that asks is in a function that awaits in this line.
    fn at(&self, function: &'static str, line: u32) {
        let mut said = self.0.lock().expect("no thread panics");
        if let Some((_, chain)) = said.get_mut(&own_id()) {
            chain.push((function, line));
        }
    }

    fn spawn(&self, on: &Handle, waits_for: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let mut said = self.0.lock().expect("no thread panics");
        let id = on.spawn(future).id();
        said.insert(number(id), (waits_for, Vec::new()));
    }

    fn tell(&self) {
        for (id, (waits_for, chain)) in &*self.0.lock().expect("no thread panics") {
            let step = |(function, line): &Step| format!(r#"{{"function":"{function}","line":{line}}}"#);
            let chain: Vec<String> = chain.iter().map(step).collect();
            println!(r#"{{"id":{id},"waits_for":"{waits_for}","chain":[{}]}}"#, chain.join(","));
        }
    }
}

fn number(id: task::Id) -> u64 {
    id.to_string().parse().expect("ids are numbers")
}

fn own_id() -> u64 {
    number(task::id())
}

async fn sleeps(said: Said) {
    said.at("sleeps", line!() + 1);
    sleeps_within(&said).await;
}

async fn sleeps_within(said: &Said) {
    said.at("sleeps_within", line!() + 1);
    sleep(LONG).await;
}

async fn locks(said: Said, mutex: Arc<Mutex<()>>) {
    said.at("locks", line!() + 1);
    drop(mutex.lock().await);
}

async fn acquires(said: Said, semaphore: Arc<Semaphore>) {
    said.at("acquires", line!() + 1);
    semaphore.acquire().await.map(drop).unwrap_or_default();
}

async fn is_notified(said: Said, notify: Arc<Notify>) {
    said.at("is_notified", line!() + 1);
    notify.notified().await;
}

async fn sees_change(said: Said, mut news: watch::Receiver<()>) {
    said.at("sees_change", line!() + 1);
    news.changed().await.unwrap_or_default();
}

async fn receives(said: Said, mut channel: mpsc::Receiver<()>) {
    said.at("receives", line!() + 1);
    channel.recv().await;
}

async fn receives_once(said: Said, channel: oneshot::Receiver<()>) {
    said.at("receives_once", line!() + 1);
    channel.await.unwrap_or_default();
}

async fn reads(said: Said, mut stream: TcpStream) {
    said.at("reads", line!() + 1);
    stream.read(&mut [0; 16]).await.map(drop).unwrap_or_default();
}

async fn accepts(said: Said, listener: TcpListener) {
    said.at("accepts", line!() + 1);
    listener.accept().await.map(drop).unwrap_or_default();
}

async fn joins(said: Said, other: JoinHandle<()>) {
    said.at("joins", line!() + 1);
    other.await.unwrap_or_default();
}

async fn has_time(said: Said) {
    said.at("has_time", line!() + 1);
    timeout(LONG, sleeps_within(&said)).await.unwrap_or_default();
}

async fn boxes(said: Said) {
    said.at("boxes", line!() + 1);
    boxed(&said, 2).await;
}

fn boxed(said: &Said, depth: u32) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
    Box::pin(async move {
        if depth == 0 {
            said.at("boxed::{async}", line!() + 1);
            sleeps_within(said).await;
        } else {
            said.at("boxed::{async}", line!() + 1);
            boxed(said, depth - 1).await;
        }
    })
}

/// What keeps tasks waiting.
struct Keeps {
    mutex: Arc<Mutex<()>>,
    semaphore: Arc<Semaphore>,
    notify: Arc<Notify>,
    news: watch::Sender<()>,
    channels: Vec<mpsc::Sender<()>>,
    once: Vec<oneshot::Sender<()>>,
    streams: Vec<TcpStream>,
}

/// One task of each kind.
async fn spawn_each(said: &Said, on: &Handle, keeps: &mut Keeps) -> io::Result<()> {
    said.spawn(on, SLEEP, sleeps(said.clone()));
    said.spawn(on, ACQUIRE, locks(said.clone(), keeps.mutex.clone()));
    said.spawn(on, ACQUIRE, acquires(said.clone(), keeps.semaphore.clone()));
    said.spawn(on, NOTIFIED, is_notified(said.clone(), keeps.notify.clone()));
    said.spawn(on, NOTIFIED, sees_change(said.clone(), keeps.news.subscribe()));
    let (sender, receiver) = mpsc::channel(1);
    keeps.channels.push(sender);
    said.spawn(on, BY_HAND, receives(said.clone(), receiver));
    let (sender, receiver) = oneshot::channel();
    keeps.once.push(sender);
    said.spawn(on, RECEIVER, receives_once(said.clone(), receiver));
    said.spawn(on, SLEEP, has_time(said.clone()));
    said.spawn(on, SLEEP, boxes(said.clone()));
    Ok(())
}

/// Tasks of which there is one each, since they take descriptors.
async fn spawn_once(said: &Said, on: &Handle, keeps: &mut Keeps) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    keeps.streams.push(TcpStream::connect(listener.local_addr()?).await?);
    let (stream, _) = listener.accept().await?;
    said.spawn(on, READ, reads(said.clone(), stream));
    said.spawn(on, READINESS, accepts(said.clone(), listener));
    let other = {
        let own = said.clone();
        let (tell, told) = oneshot::channel();
        let handle = on.spawn(async move {
            told.await.unwrap_or_default();
            sleeps(own).await
        });
        // Known before it says anything.
        let id = number(handle.id());
        said.0.lock().expect("no thread panics").insert(id, (SLEEP, vec![("spawn_once::{async}", line!() - 4)]));
        tell.send(()).unwrap_or_default();
        handle
    };
    said.spawn(on, JOIN, joins(said.clone(), other));
    Ok(())
}

/// Sends back what it is sent, until nothing more comes.
async fn echo(mut stream: TcpStream) {
    let mut piece = [0; 1024];
    while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
        if stream.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(echo(stream));
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let (tasks, echoes) = match &arguments[..] {
        [_, option, tasks, echo @ ..] if option == "--tasks" => {
            (tasks.parse().expect("a number"), echo.iter().any(|option| option == "--echo"))
        }
        _ => (1, false),
    };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let said = Said::default();
    let mut keeps = Keeps {
        mutex: Arc::default(),
        semaphore: Arc::new(Semaphore::new(0)),
        notify: Arc::default(),
        news: watch::channel(()).0,
        channels: Vec::new(),
        once: Vec::new(),
        streams: Vec::new(),
    };
    let mutex = keeps.mutex.clone();
    let held = mutex.blocking_lock();
    runtime.block_on(spawn_once(&said, runtime.handle(), &mut keeps))?;
    while said.0.lock().expect("no thread panics").len() < tasks {
        runtime.block_on(spawn_each(&said, runtime.handle(), &mut keeps))?;
    }
    // Until all of them wait.
    let metrics = runtime.metrics();
    while said.0.lock().expect("no thread panics").values().any(|(_, chain)| chain.is_empty()) {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    assert_eq!(metrics.num_alive_tasks(), said.0.lock().expect("no thread panics").len());
    said.tell();
    if echoes {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        println!("ready {} {}", process::id(), listener.local_addr()?.port());
        runtime.spawn(serve(listener));
    } else {
        println!("ready {}", process::id());
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    // Nothing that waits is waited for.
    process::exit(0)
}
