//! Accept loops: one task per connection, a bound on how many, and a pause when the process is out of descriptors.
//! `accept` never waits for a peer (Warpgate GHSA-78rf: a stalled handshake held the listener).

use crate::{gate::Gate, vanish};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Connections of one listener at once, whatever their state. Past it the kernel's backlog waits.
const MOST_CONNECTIONS: usize = 4096;
/// Pause after `accept` failed, e.g. for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the gate stops, and gives each connection a task of its own on `gate.tasks`.
pub async fn accept<F, Fut>(listener: TcpListener, gate: &Gate, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = gate.stopping.cancelled() => return,
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, peer))) => {
                // Keystrokes and small messages must not wait for an acknowledgement.
                // And a client whose network has gone away must not keep a session open until its grant ends.
                if let Err(error) = stream.set_nodelay(true).and_then(|()| vanish::probe(&stream)) {
                    tracing::debug!(%peer, %error, "the socket's options");
                }
                let served = serve(stream, peer);
                gate.tasks.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
            (Err(_closed), _) => return,
        }
    }
}
