//! A session's bytes, both ways, each recorded before it goes on.
//!
//! What always holds: what a peer sent goes on only out of a [`Recorded`](tidegate_recorder::Recorded), so a recording
//! that fails ends the session; each channel has a connection to the target of its own, with a certificate of its own and
//! the permit verified anew; and all of it lives in one future, so a cut stops everything at once.

use super::{
    Ssh,
    channel::{Lost, carry},
    issuer::{Minted, SshIssuer, room},
    line::{Line, MOST_LINES, Seat},
    name::Malformed,
    target::TargetConnection,
};
use crate::{
    door::TurnedAway,
    issuer::{Issuer, TargetError},
    pause,
    refusal::Refusal,
    session::{self, Client, Ending, Way},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{net::IpAddr, sync::Arc};
use tidegate_grants::Ask;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

/// How long channels may take to pass on what a client sent before it hung up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Somebody at the door who wants to go to a target.
#[derive(Debug)]
pub(super) struct SshClient {
    ssh: Arc<Ssh>,
    ask: Ask,
    seat: Seat,
}

/// Runs a session from here to its receipt.
pub(super) async fn session(ssh: Arc<Ssh>, ask: Ask, seat: Seat) {
    let (gate, issuer) = (ssh.gate.clone(), ssh.issuer.clone());
    // On the heap: it lives as long as the person stays.
    Box::pin(session::run(&gate, issuer.as_ref(), SshClient { ssh, ask, seat })).await;
}

/// Somebody with a known key whose user name means nothing here. They are let in to be told so.
pub(super) async fn malformed(ssh: Arc<Ssh>, source: IpAddr, name: Option<String>, fault: Malformed, seat: Seat) {
    let why = fault.to_string();
    ssh.gate.turned_away(TurnedAway { protocol: "ssh", source, name: name.as_deref(), why: &why }).await;
    let refusal = Refusal::new(why).next("type: ssh LOGIN@TARGET@gate, or LOGIN~ENTITLEMENT@TARGET@gate");
    seat.farewell(&refusal).await;
}

impl Client for SshClient {
    type Issuer = SshIssuer;
    type Target = TargetConnection;
    const PROTOCOL: &'static str = "ssh";

    fn ask(&self) -> &Ask {
        &self.ask
    }

    async fn refuse(self, refusal: Refusal) {
        self.seat.farewell(&refusal).await;
    }

    async fn connect(&self, credential: Minted, way: &Way<'_, SshIssuer>) -> Result<TargetConnection, TargetError> {
        let target = way.permit.target();
        let target = self.ssh.targets.get(target).ok_or_else(|| TargetError::Unknown(target.to_string()))?;
        let never = CancellationToken::new(); // the session sees for itself that its client has gone
        let connected = credential.log_in(target, way, &never).await?;
        connected.ok_or_else(|| TargetError::Ours("the connection was given up".to_owned()))
    }

    async fn relay(&mut self, target: TargetConnection, way: &Way<'_, SshIssuer>) -> Ending {
        pause::at("during-relay").await;
        let mut first = Some(target);
        let ssh = self.ssh.clone();
        let connection = self.seat.connection.clone();
        let mut channels: FuturesUnordered<BoxFuture<'_, Result<(), Lost>>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(result) = channels.next(), if !channels.is_empty() => {
                    if let Err(lost) = result {
                        return lost.ending();
                    }
                }
                // A channel that its client has dropped is still one of these until it has been brought to its end.
                line = self.seat.next(), if channels.len() < MOST_LINES => {
                    let Some(line) = line else { break };
                    let (target, ssh) = (first.take(), ssh.clone());
                    let connection = connection.clone();
                    channels.push(Box::pin(async move {
                        let result = serve(&ssh, &line, target, way).await;
                        connection.remove(line.id);
                        result
                    }));
                }
            }
        }
        let rest = async {
            while let Some(result) = channels.next().await {
                result?;
            }
            Ok::<(), Lost>(())
        };
        match timeout(LAST_WORDS, rest).await {
            Ok(Err(lost)) => lost.ending(),
            Ok(Ok(())) | Err(_) => Ending::Closed,
        }
    }

    async fn part(self, ending: &Ending) {
        match ending {
            Ending::Closed => {}
            Ending::Cut(refusal) => self.seat.cut_off(refusal).await,
            Ending::Failed(error) => {
                // Nothing is open on the target, and the client may not have opened its channel yet: it gets its time.
                let refusal = Refusal::from(error);
                self.ssh.gate.tasks.clone().spawn(async move { self.seat.farewell(&refusal).await });
            }
        }
    }
}

/// One channel: the first takes the connection that is there, each further one gets its own.
async fn serve(ssh: &Ssh, line: &Line, target: Option<TargetConnection>, way: &Way<'_, SshIssuer>) -> Result<(), Lost> {
    let connected = match target {
        Some(target) => Ok(Some(target)),
        None => further(ssh, line, way).await,
    };
    match connected {
        Ok(Some(target)) => carry(line, target, way).await,
        Ok(None) => Ok(()),
        Err(refusal) => {
            line.turn_away(&refusal).await;
            Ok(())
        }
    }
}

/// `None`: the client closed the channel meanwhile. Channels that come and go quickly must not pile up connections.
async fn further(ssh: &Ssh, line: &Line, way: &Way<'_, SshIssuer>) -> Result<Option<TargetConnection>, Refusal> {
    room(way).await?;
    let minted = line.closed.run_until_cancelled(way.mint_again()).await;
    let Some(minted) = minted else { return Ok(None) };
    let credential: <SshIssuer as Issuer>::Credential = minted?;
    let target = way.permit.target();
    let failed = |error: TargetError| {
        tracing::warn!(session = %way.permit.session(), %error, "no further connection to the target");
        Refusal::from(&error)
    };
    let target = ssh.targets.get(target).ok_or_else(|| TargetError::Unknown(target.to_string())).map_err(failed)?;
    credential.log_in(target, way, &line.closed).await.map_err(failed)
}
