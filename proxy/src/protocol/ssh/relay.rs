//! A session's bytes, both ways, each recorded before it goes on.
//!
//! What always holds: what a peer sent goes on only out of a [`Recorded`](tidegate_recorder::Recorded), so a recording
//! that fails ends the session; for each channel the permit is verified anew, and it has a connection to the target to
//! itself ([`kept`](super::kept) from the channel before, or a new one with a certificate of its own); and all of it
//! lives in one future, so a cut stops everything at once.

use super::{
    Ssh,
    channel::{Lost, carry},
    flow::Budget,
    issuer::{Minted, SshIssuer, room},
    kept::Kept,
    line::{Line, MOST_LINES, Seat},
    name::Malformed,
    target::TargetConnection,
};
use crate::{
    door::TurnedAway,
    issuer::TargetError,
    pause,
    refusal::Refusal,
    session::{self, Client, Ending, Way},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use russh::{ChannelWriteHalf, client::Msg};
use std::{net::IpAddr, sync::Arc};
use tidegate_grants::Ask;
use tokio::{
    sync::Semaphore,
    time::{Duration, timeout},
};

/// How long channels may take to pass on what a client sent before it hung up.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections of one session that log in at once: sshd drops some of more than 10 (its `MaxStartups`).
const MOST_LOGINS: usize = 6;
/// How long a target may take to open a channel.
const TO_OPEN: Duration = Duration::from_secs(30);
/// The same on a connection that was idle. A new one takes its place if it is late, so that it costs little to be wrong.
const TO_OPEN_AGAIN: Duration = Duration::from_secs(5);

/// A connection to the target, and the channel on it.
type Opened = (TargetConnection, ChannelWriteHalf<Msg>);

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
        credential.log_in(target, way, &self.seat.connection.budget).await
    }

    async fn relay(&mut self, target: TargetConnection, way: &Way<'_, SshIssuer>) -> Ending {
        pause::at("during-relay").await;
        let connection = self.seat.connection.clone();
        let (budget, kept, logins) = (&connection.budget, Kept::default(), Semaphore::new(MOST_LOGINS));
        let relay = Relay { ssh: &self.ssh, way, budget, kept, logins };
        relay.kept.keep(target); // for the first channel
        let aging = relay.kept.age();
        tokio::pin!(aging);
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
                    let (relay, connection) = (&relay, &connection);
                    channels.push(Box::pin(async move {
                        let result = relay.serve(&line).await;
                        connection.remove(line.id);
                        result
                    }));
                }
                () = &mut aging => {}
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

/// What the channels of one session share.
struct Relay<'a> {
    ssh: &'a Ssh,
    way: &'a Way<'a, SshIssuer>,
    budget: &'a Budget,
    kept: Kept,
    /// Whoever holds one may connect and log in.
    logins: Semaphore,
}

impl Relay<'_> {
    /// One channel of the client, from its opening to its end.
    async fn serve(&self, line: &Line) -> Result<(), Lost> {
        match self.channel(line).await {
            Ok(Some((target, write))) => {
                let (end, target) = carry(line, target, write, self.way).await?;
                if let Some(target) = target {
                    self.kept.keep(target); // before the client hears of the end, and opens its next channel
                }
                end.close(line).await;
            }
            Ok(None) => {} // russh has answered the client's close
            Err(refusal) => line.turn_away(&refusal).await,
        }
        Ok(())
    }

    /// The target's channel for one of the client, on a connection of its own. `None`: the client has closed it meanwhile.
    async fn channel(&self, line: &Line) -> Result<Option<Opened>, Refusal> {
        self.way.recheck().await?;
        if let Some(opened) = self.again(line).await {
            return Ok(Some(opened));
        }
        let Some(turn) = line.closed.run_until_cancelled(self.logins.acquire()).await else { return Ok(None) };
        if let Some(opened) = self.again(line).await {
            return Ok(Some(opened)); // it became idle while this one waited for its turn
        }
        let target = self.connect().await?;
        drop(turn);
        if line.closed.is_cancelled() {
            self.kept.keep(target);
            return Ok(None);
        }
        match line.closed.run_until_cancelled(timeout(TO_OPEN, target.open())).await {
            Some(Ok(Ok(write))) => Ok(Some((target, write))),
            Some(Ok(Err(_)) | Err(_)) => Err(Refusal::new("the target opened no channel")),
            None => Ok(None),
        }
    }

    /// A channel on a connection that was idle. If that died meanwhile, or the target wants no more channels on it, that is
    /// no reason to fail this one.
    async fn again(&self, line: &Line) -> Option<Opened> {
        while !line.closed.is_cancelled()
            && let Some(target) = self.kept.take()
        {
            let opening = timeout(TO_OPEN_AGAIN, target.open());
            if let Some(Ok(Ok(write))) = line.closed.run_until_cancelled(opening).await {
                return Some((target, write));
            }
        }
        None
    }

    /// A further connection. It is not given up half-way when its channel goes: the next one can use it, and sshd takes
    /// those who come and go without a login for attackers, and locks their address out (`PerSourcePenalties`).
    async fn connect(&self) -> Result<TargetConnection, Refusal> {
        room(self.way).await?;
        let way = self.way;
        let name = way.permit.target();
        let failed = |error: TargetError| {
            tracing::warn!(session = %way.permit.session(), %error, "no further connection to the target");
            Refusal::from(&error)
        };
        let target = self.ssh.targets.get(name).ok_or_else(|| failed(TargetError::Unknown(name.to_string())))?;
        way.mint_again().await?.log_in(target, way, self.budget).await.map_err(failed)
    }
}
