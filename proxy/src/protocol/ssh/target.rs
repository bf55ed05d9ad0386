//! A connection to a target: dialled, the host key or certificate demanded that the configuration names, logged in with a certificate of a minute.
//!
//! What always holds: the target proves itself before it gets anything from us; a connection carries one channel at a
//! time (see [`flow`](super::flow)); and dropping a [`TargetConnection`] closes it, whatever the target is doing.
//!
//! We speak here. What the target says, [`hearing`](super::hearing) queues.

use super::{
    SshTarget,
    ahead::Ahead,
    flow::{Budget, Cut, Gated, OPEN, Queue},
    hearing::{FromTarget, Hearing},
    host::{HostTrust, Impostor},
    line::plain,
};
use crate::{
    issuer::{TARGET_DEADLINE, TargetError},
    vanish::Watched,
};
use jiff::Timestamp;
use russh::{
    AlgorithmKind, ChannelWriteHalf, SshId,
    client::{self, AuthResult, Handle, Msg},
};
use std::{borrow::Cow, net::SocketAddr, sync::Arc};
use tidegate_ca::SshCredential;
use tidegate_grants::{TargetName, forward::SocketPath};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::task_tracker::TaskTrackerToken,
};

/// What a channel to the target is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    /// A program, which is asked for on the channel.
    Program,
    /// A connection from the target to this address.
    Tcp(SocketAddr),
    /// The same to a Unix socket.
    Socket(SocketPath),
}

/// A logged-in connection to a target.
pub struct TargetConnection {
    handle: Handle<Hearing>,
    pub(super) down: Arc<Queue<FromTarget>>,
    /// Of the certificate that opened it: what the ledger knows it by.
    pub(super) serial: u64,
    _cut: DropGuard,
}

impl std::fmt::Debug for TargetConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetConnection").finish_non_exhaustive()
    }
}

/// A login that did not come about.
#[derive(Debug)]
pub(super) struct NoLogin {
    pub(super) error: TargetError,
    /// The target said no to the credential: nothing can run there because of it.
    pub(super) refused: bool,
}

impl TargetConnection {
    /// Opens the one channel. Its data and events come out of `down`.
    pub(super) async fn open(&self, opening: &Opening) -> Result<ChannelWriteHalf<Msg>, russh::Error> {
        // Where a forwarding comes from (RFC 4254 section 7.2) is only logged: the target sees ours on all of them.
        const FROM: &str = "127.0.0.1";
        let channel = match opening {
            Opening::Program => self.handle.channel_open_session().await?,
            Opening::Tcp(to) => {
                let (host, port) = (to.ip().to_string(), to.port().into());
                self.handle.channel_open_direct_tcpip(host, port, FROM, 0).await?
            }
            Opening::Socket(path) => self.handle.channel_open_direct_streamlocal(path.as_str()).await?,
        };
        let (read, write) = channel.split();
        drop(read); // its queue would block russh's loop
        Ok(write)
    }

    /// Whether it may carry another channel: it is alive, and nothing of the last one is left.
    pub(super) fn idle(&self) -> bool {
        !self.handle.is_closed() && self.down.held() == 0
    }

    /// Lets the target know that we are there. Nothing is asked of it, so nothing has to be heard. (russh remembers each one
    /// as if it had, some bytes: not to be sent more often than a stalled reader needs.)
    pub(super) async fn sign_of_life(&self) {
        let _ = self.handle.send_keepalive(false).await; // an error: it is gone, and its queue says so
    }
}

/// A TCP connection to the target. Nothing has been said on it yet.
pub(super) async fn dial(target: &SshTarget) -> Result<TcpStream, TargetError> {
    let unreachable = |cause: String| TargetError::Unreachable { target: target.name.to_string(), cause };
    let stream = timeout(TARGET_DEADLINE, TcpStream::connect(&target.address))
        .await
        .map_err(|_| unreachable("no answer in time".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    Ok(stream)
}

/// A connection to a target that has proved itself. It knows nothing of who will log in.
pub(super) struct Greeted {
    handle: Handle<Hearing>,
    down: Arc<Queue<FromTarget>>,
    cut: DropGuard,
    target: TargetName,
}

/// The handshake, up to and with the proof that it is the right host, judged as of `now`. What arrives counts in `budget`;
/// `open` lives as long as the connection.
pub(super) async fn greet(
    stream: TcpStream,
    target: &SshTarget,
    now: Timestamp,
    budget: &Budget,
    open: TaskTrackerToken,
) -> Result<Greeted, TargetError> {
    let down = Arc::new(Queue::new(budget));
    let cut = CancellationToken::new();
    let guard = cut.clone().drop_guard(); // a handshake that is given up closes its connection
    let watched = Watched::new(stream).map_err(|error| lost(&target.name, &error.into()))?;
    let stream = Cut::new(Ahead::new(watched), Gated::new(down.clone()), cut).counted(open);
    let hearing = Hearing::new(down.clone(), target.host.clone(), now);
    let impostor = hearing.impostor();
    let connecting = client::connect_stream(Arc::new(config(&target.host)), stream, hearing);
    let handle = timeout(TARGET_DEADLINE, connecting).await.map_err(|_| late(&target.name))?.map_err(|error| {
        let named = |impostor: &Impostor| TargetError::Impostor {
            target: target.name.to_string(),
            cause: impostor.to_string(),
        };
        impostor.get().map_or_else(|| blame(target, &error), named)
    })?;
    Ok(Greeted { handle, down, cut: guard, target: target.name.clone() })
}

impl Greeted {
    /// How one could log in without a certificate: what the target says when nothing is shown.
    pub(super) async fn methods(&mut self, login: &str) -> Result<Vec<String>, TargetError> {
        match timeout(TARGET_DEADLINE, self.handle.authenticate_none(login)).await {
            Ok(Ok(AuthResult::Success)) => Ok(vec!["none".to_owned()]),
            Ok(Ok(AuthResult::Failure { remaining_methods, .. })) => {
                Ok(remaining_methods.iter().map(String::from).collect())
            }
            Ok(Err(error)) => Err(lost(&self.target, &error)),
            Err(_) => Err(late(&self.target)),
        }
    }

    /// Shows a credential; whether it is accepted. Another one may be shown after it.
    pub(super) async fn show(&mut self, login: &str, credential: SshCredential) -> Result<bool, TargetError> {
        let attempt = self.handle.authenticate_openssh_cert(login, Arc::new(credential.key), credential.certificate);
        match timeout(TARGET_DEADLINE, attempt).await {
            Ok(Ok(result)) => Ok(result.success()),
            Ok(Err(error)) => Err(lost(&self.target, &error)),
            Err(_) => Err(late(&self.target)),
        }
    }

    /// Once a credential was accepted, the connection that it opened; `serial` is its certificate's.
    pub(super) fn opened(self, serial: u64) -> TargetConnection {
        TargetConnection { handle: self.handle, down: self.down, serial, _cut: self.cut }
    }

    /// Shows the credential.
    pub(super) async fn log_in(mut self, login: &str, credential: SshCredential) -> Result<TargetConnection, NoLogin> {
        let serial = credential.certificate.serial();
        match self.show(login, credential).await {
            Ok(true) => Ok(self.opened(serial)),
            Ok(false) => Err(NoLogin { error: self.refusal(login), refused: true }),
            Err(error) => Err(NoLogin { error, refused: false }),
        }
    }

    /// What it means that a sound credential was not accepted.
    pub(super) fn refusal(&self, login: &str) -> TargetError {
        let cause = format!("it did not accept a certificate of our SSH user CA for the login {login}");
        TargetError::Refused { target: self.target.to_string(), cause }
    }
}

fn config(host: &HostTrust) -> client::Config {
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-tidegate")),
        preferred: host.preferred(),
        window_size: OPEN,
        limits: super::server::new_keys(),
        maximum_packet_size: 32 << 10,
        // A gated stream is not read, so neither timer can tell a dead target from a slow reader: `vanish` can.
        inactivity_timeout: None,
        keepalive_interval: None,
        ..client::Config::default()
    }
}

fn late(target: &TargetName) -> TargetError {
    TargetError::Unreachable { target: target.to_string(), cause: "the SSH handshake was not done in time".to_owned() }
}

/// A handshake that failed, by blame.
fn blame(target: &SshTarget, error: &russh::Error) -> TargetError {
    match error {
        russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
            let theirs = theirs.iter().take(8).map(|name| plain(name)).collect::<Vec<_>>().join(", ");
            let cause =
                format!("it can only prove itself by {theirs}, and the configuration wants {}", target.host.expected());
            TargetError::Impostor { target: target.name.to_string(), cause }
        }
        russh::Error::WrongServerSig => {
            TargetError::Impostor { target: target.name.to_string(), cause: error.to_string() }
        }
        russh::Error::NoCommonAlgo { .. } | russh::Error::Kex | russh::Error::KexInit => {
            TargetError::Refused { target: target.name.to_string(), cause: error.to_string() }
        }
        _ => lost(&target.name, error),
    }
}

fn lost(target: &TargetName, error: &russh::Error) -> TargetError {
    TargetError::Unreachable { target: target.to_string(), cause: error.to_string() }
}
