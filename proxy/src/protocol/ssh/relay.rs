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
    forward::{Forward, Forwards},
    issuer::{Minted, Purpose, SshIssuer},
    kept::Kept,
    lease::room,
    line::{Connection, Line, MOST_LINES, Seat},
    name::Malformed,
    prompt::Prompt,
    target::{Opening, TargetConnection},
};
use crate::{
    announce,
    door::TurnedAway,
    issuer::TargetError,
    pause,
    refusal::Refusal,
    session::{self, Client, Ending, Way, note_refusal},
    waiting::{Leaves, Words},
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use russh::{ChannelOpenFailure, ChannelWriteHalf, client::Msg};
use std::{collections::VecDeque, net::IpAddr, sync::Arc};
use tidegate_grants::{Ask, RequestView, authority::Offer};
use tidegate_recorder::{Event, RecordError};
use tokio::{
    sync::Semaphore,
    time::{Duration, timeout},
};

/// How long channels may take to pass on what a client sent before it hung up.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections of one session that log in at once: sshd drops some of more than 10 (its `MaxStartups`).
const MOST_LOGINS: usize = 6;
/// How long a client may take to open its first channel, on which it can be asked.
const TO_ASK: Duration = Duration::from_secs(10);
/// How long a target may take to open a channel.
const TO_OPEN: Duration = Duration::from_secs(30);
/// The same on a connection that was idle. A new one takes its place if it is late, so that it costs little to be wrong.
const TO_OPEN_AGAIN: Duration = Duration::from_secs(5);
/// How long a target may take to reach one address for a forwarding.
const TO_REACH: Duration = Duration::from_secs(15);

/// A connection to the target, and the channel on it.
type Opened = (TargetConnection, ChannelWriteHalf<Msg>);

/// Somebody at the door who wants to go to a target.
#[derive(Debug)]
pub(super) struct SshClient {
    ssh: Arc<Ssh>,
    ask: Ask,
    seat: Seat,
    /// The channel on which they were asked for what was missing; it is the first that is served.
    prompt: Option<Prompt>,
}

/// Runs a session from here to its receipt.
pub(super) async fn session(ssh: Arc<Ssh>, ask: Ask, seat: Seat) {
    let (gate, issuer) = (ssh.gate.clone(), ssh.issuer.clone());
    session::run(&gate, issuer.as_ref(), SshClient { ssh, ask, seat, prompt: None }).await;
}

/// Somebody with a known key whose user name means nothing here. They are let in to be told so.
pub(super) async fn malformed(ssh: Arc<Ssh>, source: IpAddr, name: Option<String>, fault: Malformed, seat: Seat) {
    let why = fault.to_string();
    let refused = TurnedAway { protocol: "ssh", source, name: name.as_deref(), asked: None, why: &why, check: "name" };
    let reference = ssh.gate.turned_away(refused).await;
    let refusal =
        Refusal::new(why).marked(reference).next("type: ssh LOGIN@TARGET@gate, or LOGIN~ENTITLEMENT@TARGET@gate");
    seat.farewell(&refusal).await;
}

impl SshClient {
    /// The channel on which they can be asked, once there is one.
    async fn prompt(&mut self) -> Option<&mut Prompt> {
        if self.prompt.is_none() {
            let heard = async { Prompt::hear(self.seat.next().await?).await };
            self.prompt = timeout(TO_ASK, heard).await.ok().flatten();
        }
        self.prompt.as_mut()
    }
}

impl Client for SshClient {
    type Issuer = SshIssuer;
    type Target = TargetConnection;
    const PROTOCOL: &'static str = "ssh";

    fn ask(&self) -> &Ask {
        &self.ask
    }

    const WAITS: &'static str = "or here: in a terminal, or with TIDEGATE_REASON by SetEnv";

    async fn words(&mut self, offers: &[Offer], standing: Option<&RequestView>) -> Words {
        match self.prompt().await {
            Some(prompt) => prompt.words(offers, standing).await,
            None => Words::Silent,
        }
    }

    async fn prove(&mut self) -> Result<bool, Refusal> {
        let (ssh, ask) = (self.ssh.clone(), self.ask.clone());
        match self.prompt().await {
            Some(prompt) => prompt.prove(&ssh.factors, &ask, ssh.gate.clock).await,
            None => Ok(false),
        }
    }

    async fn show(&mut self, lines: &[String]) {
        if let Some(prompt) = &self.prompt {
            prompt.show(lines).await;
        }
    }

    async fn leaves(&mut self) -> Leaves {
        match &mut self.prompt {
            Some(prompt) => prompt.leaves().await,
            None => Leaves::Gone,
        }
    }

    async fn refuse(self, refusal: Refusal) {
        self.seat.farewell(&refusal).await;
    }

    async fn connect(&self, credential: Minted, way: &Way<'_, SshIssuer>) -> Result<TargetConnection, TargetError> {
        let target = self.ssh.issuer.target(way.permit.target())?;
        credential.log_in(&target, way, &self.seat.connection.budget).await
    }

    async fn relay(&mut self, target: TargetConnection, way: &Way<'_, SshIssuer>) -> Ending {
        pause::at("during-relay").await;
        let connection = self.seat.connection.clone();
        let mut asked = self.prompt.take().map(Prompt::into_line);
        let relay = Relay {
            ssh: &self.ssh,
            way,
            budget: &connection.budget,
            kept: Kept::default(),
            kept_forwarding: Kept::default(),
            forwards: Forwards::of(way.permit, &self.ssh.source_addresses),
            logins: Semaphore::new(MOST_LOGINS),
        };
        relay.kept.keep(target); // for the first channel
        let stopping = tell_of_the_stop(&connection, way);
        tokio::pin!(stopping);
        let ending = announce_the_end(&connection, way);
        tokio::pin!(ending);
        let standing = tell_of_standing_still(&connection, way);
        tokio::pin!(standing);
        let (mut told, mut announced, mut watched) = (false, false, false);
        let aging = async { tokio::join!(relay.kept.age(), relay.kept_forwarding.age()) };
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
                line = next(&mut asked, &mut self.seat), if channels.len() < MOST_LINES => {
                    let Some(line) = line else { break };
                    let (relay, connection) = (&relay, &connection);
                    channels.push(Box::pin(async move {
                        let result = relay.serve(&line).await;
                        connection.remove(line.id);
                        result
                    }));
                }
                denied = connection.next_denial() => relay.forwards.deny(&denied, way).await,
                _ = &mut aging => {}
                () = &mut stopping, if !told => told = true,
                () = &mut ending, if !announced => announced = true,
                () = &mut standing, if !watched => watched = true,
            }
        }
        while let Some(denied) = connection.denial() {
            relay.forwards.deny(&denied, way).await; // its client left as soon as it had heard it
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
            Ending::Cut(refusal) => self.seat.cut_off(&refusal.clone().marked(self.ask.reference)).await,
            Ending::Failed(error) => {
                // Nothing is open on the target, and the client may not have opened its channel yet: it gets its time.
                let refusal = Refusal::from(error).marked(self.ask.reference);
                self.ssh.gate.tasks.clone().spawn(async move { self.seat.farewell(&refusal).await });
            }
        }
    }
}

/// The channel on which they were asked, and then the others as they come. Cancel safe.
async fn next(asked: &mut Option<Arc<Line>>, seat: &mut Seat) -> Option<Arc<Line>> {
    match asked.take() {
        Some(line) => Some(line),
        None => seat.next().await,
    }
}

/// How somebody is told while their program runs.
#[derive(Debug, Clone, Copy)]
enum Telling {
    /// [`Line::warn`].
    Warning,
    /// [`Line::announce`].
    Title,
}

/// Writes a word down, and tells it to everybody who runs something.
async fn tell(connection: &Connection, way: &Way<'_, SshIssuer>, word: &Refusal, how: Telling) {
    let said = Event::Said { text: word.sentence.clone() };
    let _ = way.recording.note(said, way.gate.now()); // its next byte ends the session
    let telling = connection.open().into_iter().map(|line| async move {
        match how {
            Telling::Warning => line.warn(word).await,
            Telling::Title => line.announce(word).await,
        }
    });
    futures::future::join_all(telling).await;
}

/// Tells everybody who runs something that the gateway is about to stop; their session goes on until it does.
async fn tell_of_the_stop(connection: &Connection, way: &Way<'_, SshIssuer>) {
    let word = way.gate.drain.begun().await;
    tell(connection, way, &word, Telling::Warning).await;
}

/// Tells everybody who runs something that the session is about to end by itself.
async fn announce_the_end(connection: &Connection, way: &Way<'_, SshIssuer>) {
    let mut words = Box::pin(announce::ends(way.permit));
    while let Some(word) = words.next().await {
        tell(connection, way, &word, Telling::Title).await;
    }
}

/// Tells everybody who runs something that nothing goes on now, since nobody watches, and that it goes on again.
async fn tell_of_standing_still(connection: &Connection, way: &Way<'_, SshIssuer>) {
    let mut words = Box::pin(way.eyes.words(false));
    while let Some(word) = words.next().await {
        tell(connection, way, &word, Telling::Warning).await;
    }
}

/// What the channels of one session share.
struct Relay<'a> {
    ssh: &'a Ssh,
    way: &'a Way<'a, SshIssuer>,
    budget: &'a Budget,
    /// Idle connections for programs.
    kept: Kept,
    /// Idle connections for forwarding.
    kept_forwarding: Kept,
    forwards: Forwards,
    /// Whoever holds one may connect and log in.
    logins: Semaphore,
}

/// Why a channel of the client gets none of the target.
enum NoChannel {
    /// By policy, or since the target cannot be reached.
    Refused(Refusal),
    /// The target does not reach what it was asked to.
    Unreached(Refusal),
    /// It cannot be recorded.
    Lost(Lost),
}

impl From<Refusal> for NoChannel {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RecordError> for NoChannel {
    fn from(error: RecordError) -> Self {
        Self::Lost(error.into())
    }
}

impl Relay<'_> {
    /// One channel of the client, from its opening to its end.
    async fn serve(&self, line: &Line) -> Result<(), Lost> {
        let opened = match &line.forward {
            None => self.channel(line).await,
            Some(forward) => self.forward(line, forward).await,
        };
        match opened {
            Ok(Some((target, write))) => {
                let (end, target) = carry(line, target, write, self.way).await?;
                if let Some(target) = target {
                    self.kept(line).keep(target); // before the client hears of the end, and opens its next channel
                }
                end.close(line).await;
            }
            Ok(None) => {} // russh has answered the client's close
            Err(NoChannel::Refused(refusal)) => {
                if refusal.reference.is_none() {
                    note_refusal(self.way.gate, self.way.permit, "channel.refused", &refusal).await;
                }
                line.turn_away(&refusal.marked(self.way.permit.reference())).await;
            }
            Err(NoChannel::Unreached(refusal)) => {
                if let Some(forward) = &line.forward {
                    forward.unreached(&refusal).await;
                }
            }
            Err(NoChannel::Lost(lost)) => return Err(lost),
        }
        Ok(())
    }

    fn kept(&self, line: &Line) -> &Kept {
        if line.forward.is_some() { &self.kept_forwarding } else { &self.kept }
    }

    /// The target's channel for a program. `None`: the client has closed its own meanwhile.
    async fn channel(&self, line: &Line) -> Result<Option<Opened>, NoChannel> {
        self.way.recheck().await?;
        if let Some(opened) = self.again(line).await {
            return Ok(Some(opened));
        }
        let Some(turn) = line.closed.run_until_cancelled(self.logins.acquire()).await else { return Ok(None) };
        if let Some(opened) = self.again(line).await {
            return Ok(Some(opened)); // it became idle while this one waited for its turn
        }
        let target = self.connect(Purpose::Programs).await?;
        drop(turn);
        if line.closed.is_cancelled() {
            self.kept.keep(target);
            return Ok(None);
        }
        match line.closed.run_until_cancelled(timeout(TO_OPEN, target.open(&Opening::Program))).await {
            Some(Ok(Ok(write))) => Ok(Some((target, write))),
            Some(Ok(Err(_)) | Err(_)) => Err(Refusal::new("the target opened no channel").into()),
            None => Ok(None),
        }
    }

    /// A channel on a connection that was idle. If that died meanwhile, or the target wants no more channels on it, that is
    /// no reason to fail this one.
    async fn again(&self, line: &Line) -> Option<Opened> {
        while !line.closed.is_cancelled()
            && let Some(target) = self.kept.take()
        {
            let opening = timeout(TO_OPEN_AGAIN, target.open(&Opening::Program));
            if let Some(Ok(Ok(write))) = line.closed.run_until_cancelled(opening).await {
                return Some((target, write));
            }
        }
        None
    }

    /// The target's channel to the first address that answers, of those that a forwarding may go to. Each attempt is
    /// recorded before it is made. `None`: the client has gone.
    async fn forward(&self, line: &Line, forward: &Forward) -> Result<Option<Opened>, NoChannel> {
        self.way.recheck().await?;
        // An address is not even reached while nobody watches who must.
        let judged = async {
            self.way.eyes.open().await;
            self.forwards.judge(forward, self.way).await
        };
        let Some(openings) = line.closed.run_until_cancelled(judged).await else { return Ok(None) };
        let mut openings = VecDeque::from(openings?);
        let (mut target, mut refused) = (None, false);
        while let Some(opening) = openings.pop_front() {
            let connection = match target.take() {
                Some(connection) => Some((connection, false)),
                None => self.for_forwarding(line).await?,
            };
            let Some((connection, idle)) = connection else { return Ok(None) };
            self.note(forward.opened(line.number, connection.serial, &opening))?;
            match line.closed.run_until_cancelled(timeout(TO_REACH, connection.open(&opening))).await {
                Some(Ok(Ok(write))) => {
                    forward.confirm().await;
                    return Ok(Some((connection, write)));
                }
                Some(Ok(Err(russh::Error::ChannelOpenFailure(why)))) => {
                    refused |= !matches!(why, ChannelOpenFailure::ConnectFailed);
                    target = Some(connection);
                }
                // It died while it was idle: no reason to fail this one.
                Some(Ok(Err(_))) if idle => openings.push_front(opening),
                Some(Ok(Err(_)) | Err(_)) => {}
                None => return Ok(None),
            }
            self.note(Event::Closed { channel: line.number, up: 0, down: 0 })?;
        }
        if let Some(connection) = target {
            self.kept_forwarding.keep(connection);
        }
        Err(NoChannel::Unreached(forward.no_answer(self.way.permit.target(), refused)))
    }

    /// A connection for forwarding, and whether it was idle. `None`: the client has gone.
    async fn for_forwarding(&self, line: &Line) -> Result<Option<(TargetConnection, bool)>, Refusal> {
        if let Some(idle) = self.kept_forwarding.take() {
            return Ok(Some((idle, true)));
        }
        let Some(_turn) = line.closed.run_until_cancelled(self.logins.acquire()).await else { return Ok(None) };
        match self.kept_forwarding.take() {
            Some(idle) => Ok(Some((idle, true))),
            None => Ok(Some((self.connect(Purpose::Forwarding).await?, false))),
        }
    }

    fn note(&self, event: Event) -> Result<(), RecordError> {
        self.way.recording.note(event, self.way.gate.now())
    }

    /// A further connection. It is not given up half-way when its channel goes: the next one can use it, and sshd takes
    /// those who come and go without a login for attackers, and locks their address out (`PerSourcePenalties`).
    async fn connect(&self, purpose: Purpose) -> Result<TargetConnection, Refusal> {
        room(purpose, self.way).await?;
        let way = self.way;
        let failed = |error: TargetError| {
            tracing::warn!(session = %way.permit.session(), %error, "no further connection to the target");
            Refusal::from(&error)
        };
        let target = self.ssh.issuer.target(way.permit.target()).map_err(failed)?;
        let issuer = way.issuer().await?;
        let minted = issuer.mint_for(purpose, way.permit, way.lease).await.map_err(failed)?;
        minted.log_in(&target, way, self.budget).await.map_err(failed)
    }
}
