//! The listening side: our host key and its certificate, deadlines, and who did not get in.

use super::{
    Ssh,
    admission::Progress,
    ahead::Ahead,
    algorithms,
    door::Door,
    flow::{Cut, Held, START},
    line::Connection,
};
use crate::{
    door::TurnedAway,
    listener::{self, Doorway, Visitor},
    pause,
};
use jiff::{SignedDuration, Timestamp};
use russh::{Limits, MethodKind, MethodSet, SshId, server};
use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

/// Every rejected key takes this long: an agent full of keys gets through all the same. Who comes again and again without
/// a key that fits waits longer from connection to connection ([`Sources`](crate::authenticate::Sources)).
const REJECTION: Duration = Duration::from_millis(20);
/// Rejected keys per connection.
const MOST_ATTEMPTS: usize = 100;
/// A host certificate's life, and how early it is replaced.
const CERTIFICATE: SignedDuration = SignedDuration::from_hours(7 * 24);
const RENEWED: SignedDuration = SignedDuration::from_hours(24);

/// russh's configuration, made anew before the host certificate in it ends.
struct Host {
    ssh: Arc<Ssh>,
    current: Mutex<Option<(Arc<server::Config>, Timestamp)>>,
}

impl Host {
    fn config(&self) -> Arc<server::Config> {
        let now = self.ssh.gate.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((config, made)) if now.duration_since(*made).abs() < RENEWED => config.clone(),
            _ => {
                let config = Arc::new(config(&self.ssh, now));
                *current = Some((config.clone(), now));
                config
            }
        }
    }
}

fn config(ssh: &Ssh, now: Timestamp) -> server::Config {
    let key = &ssh.keys.host_key;
    let (from, until) = (now - SignedDuration::from_mins(5), now + CERTIFICATE);
    let name = format!("tidegate host {}", ssh.gate.name);
    let certificate = ssh.keys.ssh_host.issue_host(key.public_key(), &ssh.public_names, &name, from, until);
    let certificates = certificate.map(|certificate| vec![certificate]).unwrap_or_else(|error| {
        tracing::error!(%error, "no host certificate: clients see the plain host key");
        Vec::new()
    });
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-tidegate")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key.clone()],
        certificates,
        preferred: algorithms::for_clients(),
        max_auth_attempts: MOST_ATTEMPTS,
        window_size: START, // `flow::Windows` says how it goes on
        limits: new_keys(),
        maximum_packet_size: 32 << 10,
        inactivity_timeout: None,
        // A client that vanished without a word is noticed within five minutes.
        keepalive_interval: Some(Duration::from_secs(60)),
        keepalive_max: 5,
        nodelay: true,
        ..server::Config::default()
    }
}

/// After how much we ask for new keys: 2^31 packets at most, since none has less than 16 bytes, and half of what AES may encrypt
/// under one key (RFC 4344 section 3); after an hour, or a GiB that we sent (RFC 4253 section 9). Clients may ask sooner.
pub(super) fn new_keys() -> Limits {
    let limits = Limits { rekey_read_limit: 32 << 30, ..Limits::default() };
    match pause::new_keys_after() {
        Some(bytes) => Limits { rekey_read_limit: bytes, rekey_write_limit: bytes, ..limits },
        None => limits,
    }
}

/// Accepts connections until the gate stops.
pub(super) async fn serve(listener: TcpListener, doorway: Doorway, ssh: Arc<Ssh>) {
    let host = Arc::new(Host { ssh: ssh.clone(), current: Mutex::default() });
    let gate = ssh.gate.clone();
    listener::accept(listener, &gate, doorway, move |stream, visitor| {
        let (host, ssh) = (host.clone(), ssh.clone());
        async move { connection(host.config(), ssh, stream, visitor).await }
    })
    .await;
}

/// One client, from its first byte to its last. A session's teardown goes on by itself.
async fn connection(config: Arc<server::Config>, ssh: Arc<Ssh>, stream: TcpStream, visitor: Visitor) {
    let peer = visitor.peer;
    let (connection, arrivals) = Connection::new();
    // Whoever loses their place is hung up on by dropping this; what russh has started would go on.
    let _hang_up = connection.cut.clone().drop_guard();
    let progress = Arc::new(Progress::default());
    let door = Door::new(ssh.clone(), peer, connection.clone(), arrivals, progress.clone());
    let stream = Cut::new(Ahead::new(stream), Held::new(connection.hold.clone()), connection.cut.clone());
    let whole = async {
        match server::run_stream(config, stream, door).await {
            Ok(running) => running.await,
            Err(error) => Err(error),
        }
    };
    tokio::pin!(whole);
    let stopping = ssh.gate.stopping.clone();
    let source = peer.ip().to_canonical();
    tokio::select! {
        () = tokio::time::sleep(ssh.sources.wait(source, ssh.gate.now())) => {}
        () = stopping.cancelled() => return,
    }
    let why = tokio::select! {
        ended = &mut whole => match ended {
            Ok(()) => "it left without a key that we know".to_owned(),
            Err(error) => format!("it left without a key that we know: {error}"),
        },
        () = progress.admitted.cancelled() => {
            return if visitor.known() { finish(whole.await, peer) } else { connection.cut.cancel() };
        }
        () = too_late(&progress, visitor.handshake_timeout()) => "it did not authenticate in time".to_owned(),
        () = stopping.cancelled() => return connection.cut.cancel(),
    };
    connection.cut.cancel();
    if progress.admitted.is_cancelled() {
        return; // it came in and left at once
    }
    let name = progress.name.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let turned_down = progress.why.lock().unwrap_or_else(PoisonError::into_inner).take();
    if name.is_some() {
        ssh.sources.failed(source, ssh.gate.now()); // one that only knocked, a port check, guesses nothing
    }
    let why = turned_down.unwrap_or(why);
    ssh.gate
        .turned_away(TurnedAway {
            protocol: "ssh",
            source,
            name: name.as_deref(),
            asked: None,
            why: &why,
            check: if progress.proven.is_cancelled() { "mfa" } else { "key" },
        })
        .await;
}

/// Whoever has shown a key may look for their phone.
const TO_TYPE: Duration = Duration::from_secs(120);
/// Whoever was shown where to log in may do so; the login itself ends before.
const TO_LOG_IN: Duration = Duration::from_secs(330);

async fn too_late(progress: &Progress, most: Duration) {
    tokio::time::sleep(most).await;
    if progress.invited.is_cancelled() {
        tokio::time::sleep(TO_LOG_IN).await;
    }
    if progress.proven.is_cancelled() {
        tokio::time::sleep(TO_TYPE).await;
    }
}

fn finish(ended: Result<(), russh::Error>, peer: SocketAddr) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "the client's connection broke");
    }
}
