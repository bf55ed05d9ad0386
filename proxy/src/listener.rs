//! Accept loops: one task per connection, bounds on how many ([`places`](crate::places)), and a pause when the process is out
//! of descriptors. `accept` never waits for a peer (Warpgate GHSA-78rf: a stalled handshake held the listener): not for its
//! first byte, nor for a balancer's word where it comes from, nor for a place to become free.

use crate::{
    door::TurnedAway,
    gate::Gate,
    places::{Full, Place, Places},
    protocol::proxied::{self, Network},
    vanish,
};
use std::{
    future::Future,
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// Pause after `accept` failed, e.g. for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// A balancer that we were told of says at once where a connection comes from.
const TO_SAY_WHENCE: Duration = Duration::from_secs(5);

/// What a listener is told beside its address.
#[derive(Debug, Clone)]
pub struct Doorway {
    /// `ssh` or `postgres`.
    pub protocol: &'static str,
    /// How many may come in.
    pub places: Places,
    /// Who speaks the PROXY protocol, and must.
    pub proxied: Vec<Network>,
    /// What a client of this protocol understands as "there is no place", before it has said anything.
    pub full: fn(Full) -> Vec<u8>,
}

/// A connection that nothing is known of but where it comes from.
#[derive(Debug)]
pub struct Visitor {
    /// From where, as far as that can be known.
    pub peer: SocketAddr,
    /// When its first byte could have come.
    pub since: Instant,
    place: Arc<Place>,
    protocol: &'static str,
    gate: Gate,
    /// Whether it was known before: that is measured once.
    met: AtomicBool,
}

impl Visitor {
    /// From the first byte to knowing who it is.
    pub fn handshake_timeout(&self) -> Duration {
        self.place.handshake_timeout()
    }

    /// It is known who this is. False: too late, its place is somebody else's.
    pub fn known(&self) -> bool {
        let known = self.place.known();
        if known && !self.met.swap(true, Ordering::Relaxed) {
            self.gate.meter.handshake(self.protocol, self.since.elapsed());
        }
        known
    }
}

/// Accepts until the gate stops, and gives each connection a task of its own on `gate.tasks`.
pub async fn accept<F, Fut>(listener: TcpListener, gate: &Gate, doorway: Doorway, serve: F)
where
    F: Fn(TcpStream, Visitor) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (doorway, serve) = (Arc::new(doorway), Arc::new(serve));
    loop {
        let accepted = tokio::select! {
            () = gate.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Keystrokes and small messages must not wait for an acknowledgement.
                // And a client whose network has gone away must not keep a session open until its grant ends.
                if let Err(error) = stream.set_nodelay(true).and_then(|()| vanish::probe(&stream)) {
                    tracing::debug!(%peer, %error, "the socket's options");
                }
                begin(stream, peer, gate, &doorway, &serve);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn begin<F, Fut>(mut stream: TcpStream, peer: SocketAddr, gate: &Gate, doorway: &Arc<Doorway>, serve: &Arc<F>)
where
    F: Fn(TcpStream, Visitor) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (gate, doorway, serve, since) = (gate.clone(), doorway.clone(), serve.clone(), Instant::now());
    let tasks = gate.tasks.clone();
    if doorway.proxied.iter().all(|network| !network.has(peer.ip())) {
        // The place comes before the task: what is turned away costs no more than the accept.
        match doorway.places.take(peer.ip()) {
            Ok(place) => drop(tasks.spawn(hold(stream, peer, since, place, gate, doorway, serve))),
            Err(full) => doorway.turn_back(stream, peer, full, &gate),
        }
        return;
    }
    tasks.spawn(async move {
        let told = timeout(TO_SAY_WHENCE, proxied::read(&mut stream)).await;
        let peer = match told {
            Ok(Ok(source)) => source.unwrap_or(peer),
            Ok(Err(error)) => return doorway.refuse(&gate, peer, &error.to_string(), "proxy").await,
            Err(_) => return doorway.refuse(&gate, peer, "it did not say in time whom it speaks for", "proxy").await,
        };
        match doorway.places.take(peer.ip()) {
            Ok(place) => hold(stream, peer, since, place, gate, doorway, serve).await,
            Err(full) => doorway.turn_back(stream, peer, full, &gate),
        }
    });
}

/// Serves one connection for as long as it has its place.
async fn hold<F, Fut>(
    stream: TcpStream,
    peer: SocketAddr,
    since: Instant,
    place: Place,
    gate: Gate,
    doorway: Arc<Doorway>,
    serve: Arc<F>,
) where
    F: Fn(TcpStream, Visitor) -> Fut,
    Fut: Future<Output = ()>,
{
    let (place, protocol) = (Arc::new(place), doorway.protocol);
    let visitor =
        Visitor { peer, since, place: place.clone(), protocol, gate: gate.clone(), met: AtomicBool::new(false) };
    let served = serve(stream, visitor);
    tokio::select! {
        () = served => {}
        () = place.lost() => {
            let why = "others came while it had not said who it is, and there was no place";
            doorway.refuse(&gate, peer, why, "limit").await;
        }
    }
}

impl Doorway {
    /// Into the ledger, as far as there is room for that.
    async fn refuse(&self, gate: &Gate, peer: SocketAddr, why: &str, check: &'static str) {
        let source = peer.ip().to_canonical();
        gate.turned_away(TurnedAway { protocol: self.protocol, source, name: None, asked: None, why, check }).await;
    }

    /// Says so as far as that can be said without waiting.
    fn turn_back(&self, stream: TcpStream, peer: SocketAddr, full: Full, gate: &Gate) {
        if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(&(self.full)(full)); // it does not block: what does not go at once does not go
        }
        let (this, gate_) = (self.clone(), gate.clone());
        gate.tasks.spawn(async move { this.refuse(&gate_, peer, &full.to_string(), "limit").await });
    }
}
