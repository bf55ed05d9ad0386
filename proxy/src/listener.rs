//! Accept loops: one task per connection, a bound on how many, and a pause when the process is out of descriptors.
//! `accept` never waits for a peer.

use crate::gate::Gate;
use std::{future::Future, net::SocketAddr};
use tokio::net::{TcpListener, TcpStream};

/// Accepts until the gate stops, and gives each connection a task of its own on `gate.tasks`.
pub async fn accept<F, Fut>(listener: TcpListener, gate: &Gate, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let _ = (listener, gate, serve);
    todo!()
}
