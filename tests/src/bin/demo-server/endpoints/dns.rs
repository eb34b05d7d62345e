//! A poll that looks up a name as `std` does: the worker sleeps in `getaddrinfo` until a server has answered.

use std::{
    io,
    net::{SocketAddrV4, ToSocketAddrs},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::{Manner, answer, aside};
use crate::name_server;

/// A name that only our server knows, with the final dot that keeps others from being tried.
const NAME: &str = "backend.test.";

pub fn endpoint(manner: Manner) -> io::Result<Router> {
    let handler = match manner {
        Manner::Faulty => get(find),
        Manner::Healthy => get(find_aside),
    };
    Ok(Router::new().route("/dns", handler).with_state(name_server::start()?))
}

async fn find(State(server): State<SocketAddrV4>) -> Result<String, StatusCode> {
    answer(look_up(server))
}

async fn find_aside(State(server): State<SocketAddrV4>) -> Result<String, StatusCode> {
    answer(aside(move || look_up(server)).await?)
}

/// How many addresses the name has.
fn look_up(server: SocketAddrV4) -> io::Result<usize> {
    name_server::ask_only(server)?;
    Ok((NAME, 80).to_socket_addrs()?.count())
}
