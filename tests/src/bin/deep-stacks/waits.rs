//! Paths into the standard library's ways to wait.

use std::{
    hint::black_box,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, Thread},
};

use crate::bottom::{Hold, SHORT};

/// What a thread waits with, and its partner, who keeps it waiting.
pub struct Waits {
    requests: Sender<Request>,
    confirmed: Receiver<Option<Hold>>,
    mutex: Arc<Mutex<u64>>,
    condition: Arc<(Mutex<bool>, Condvar)>,
    messages: Receiver<u64>,
}

enum Request {
    HoldMutex,
    Notify,
    Send,
    Unpark(Thread),
}

impl Waits {
    /// Starts the partner, who ends when this is dropped.
    pub fn start() -> Waits {
        let ((requests, requested), (confirm, confirmed), (send, messages)) = (channel(), channel(), channel());
        let mutex = Arc::new(Mutex::new(0));
        let condition = Arc::new((Mutex::new(false), Condvar::new()));
        let partner = Partner { mutex: Arc::clone(&mutex), condition: Arc::clone(&condition), confirm, send };
        thread::Builder::new()
            .name("deep-partner".to_owned())
            .spawn(move || requested.iter().for_each(|request| partner.serve(request)))
            .expect("a thread can be started");
        Waits { requests, confirmed, mutex, condition, messages }
    }

    #[inline(never)]
    pub fn through_mutex(&mut self) -> u64 {
        self.ask(Request::HoldMutex);
        black_box(*self.mutex.lock().expect("nobody panics with it"))
    }

    #[inline(never)]
    pub fn through_condvar(&mut self) -> u64 {
        self.ask(Request::Notify);
        let (happened, condition) = &*self.condition;
        let happened = happened.lock().expect("nobody panics with it");
        let mut happened = condition.wait_while(happened, |happened| !*happened).expect("nobody panics with it");
        *happened = false;
        black_box(1)
    }

    #[inline(never)]
    pub fn through_channel(&mut self) -> u64 {
        self.ask(Request::Send);
        black_box(self.messages.recv().expect("the partner lives"))
    }

    #[inline(never)]
    pub fn through_park(&mut self) -> u64 {
        self.ask(Request::Unpark(thread::current()));
        thread::park();
        black_box(1)
    }

    /// Returns once the partner is ready to keep this thread waiting.
    fn ask(&self, request: Request) {
        self.requests.send(request).expect("the partner lives");
        if let Some(hold) = self.confirmed.recv().expect("the partner lives") {
            hold.announce("block");
        }
    }
}

struct Partner {
    mutex: Arc<Mutex<u64>>,
    condition: Arc<(Mutex<bool>, Condvar)>,
    confirm: Sender<Option<Hold>>,
    send: Sender<u64>,
}

impl Partner {
    fn serve(&self, request: Request) {
        match request {
            Request::HoldMutex => {
                let mut held = self.mutex.lock().expect("nobody panics with it");
                self.keep_waiting();
                *held += 1;
            }
            Request::Notify => {
                self.keep_waiting();
                *self.condition.0.lock().expect("nobody panics with it") = true;
                self.condition.1.notify_one();
            }
            Request::Send => {
                self.keep_waiting();
                // Whoever asked may have ended with the program.
                self.send.send(1).ok();
            }
            Request::Unpark(thread) => {
                self.keep_waiting();
                thread.unpark();
            }
        }
    }

    /// Tells the other thread to begin to wait, and lets it.
    fn keep_waiting(&self) {
        let hold = Hold::next();
        self.confirm.send(Hold::next()).ok();
        match hold {
            Some(hold) => hold.wait(),
            None => thread::sleep(2 * SHORT),
        }
    }
}
