//! Tasks that await what never comes. No worker is kept, and nothing fails: they are only never polled again.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, extract::State, routing::get};
use tokio::sync::oneshot::{self, Receiver, Sender};

use super::Manner;

/// Tasks that hang at the same time, however many requests there are.
const MOST: usize = 8;

/// What was promised and not kept.
type Promises = Arc<Mutex<Vec<Sender<()>>>>;

pub fn endpoint(manner: Manner) -> Router {
    let handler = match manner {
        Manner::Faulty => get(order),
        Manner::Healthy => get(order_and_confirm),
    };
    Router::new().route("/hang", handler).with_state(Promises::default())
}

async fn order(State(promises): State<Promises>) -> String {
    let mut promises = promises.lock().unwrap_or_else(PoisonError::into_inner);
    if promises.len() < MOST {
        promises.push(place_order());
    }
    format!("{} orders wait\n", promises.len())
}

async fn order_and_confirm() -> &'static str {
    match place_order().send(()) {
        Ok(()) => "no order waits\n",
        Err(()) => "the order was dropped\n",
    }
}

/// Spawns a task that is done once what is returned says so.
fn place_order() -> Sender<()> {
    let (confirm, confirmed) = oneshot::channel();
    tokio::spawn(settle(confirmed));
    confirm
}

async fn settle(confirmed: Receiver<()>) {
    confirmation(confirmed).await;
}

async fn confirmation(confirmed: Receiver<()>) {
    // It fails when the server ends, and is then as good as confirmed.
    confirmed.await.ok();
}
