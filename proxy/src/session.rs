//! One session, from an identified client to the receipt. This is the page to read first.
//!
//! accept → identify → **authorize (or ask first, and wait) → open in ledger → start recording → lease → mint → connect → relay | permit ended
//! → disable → seal recording → clean, drop → receipt → close in ledger**
//!
//! The part in bold is [`run`], [`hold`] and [`tell`], the same for every protocol; what comes before it is each protocol's own handshake. The
//! steps after the relay run whatever the outcome. Where the gateway is killed instead, [`reaper`](crate::reaper) does
//! them after the restart, from the lease.

use crate::{
    door::TurnedAway,
    gate::Gate,
    issuer::{Issuer, TargetError},
    pause,
    refusal::Refusal,
    teardown,
    waiting::{self, Leaves, Without, Words},
    watching::Eyes,
};
use bytes::Bytes;
use futures::FutureExt as _;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tidegate_grants::{Ask, Denied, Event, Lease, Permit, Policy, RequestView, SessionId, authority::Offer};
use tidegate_recorder::{self as recorder, Audience, Header, LiveRecording, RecordError, Recorded, Seal};
use tokio::{sync::Mutex, task::spawn_blocking, time::Instant};

/// An identified person or program at the door, in the terms of its protocol.
pub trait Client: Send {
    /// Makes credentials for this protocol's targets.
    type Issuer: Issuer;
    /// An open, logged-in connection to the target.
    type Target: Send;

    /// `ssh` or `postgres`, for the recording.
    const PROTOCOL: &'static str;

    /// Who wants what.
    fn ask(&self) -> &Ask;

    /// How its people ask right here, in a few words, for those who did not.
    const WAITS: &'static str = "";

    /// What the person says when they could ask for one of these, or have asked already: if they can be asked here and now.
    fn words(&mut self, _: &[Offer], _: Option<&RequestView>) -> impl Future<Output = Words> + Send {
        async { Words::Silent }
    }

    /// Asks the person for a code of their second factor, and takes it. False: nobody is there to be asked.
    fn prove(&mut self) -> impl Future<Output = Result<bool, Refusal>> + Send {
        async { Ok(false) }
    }

    /// Shows where their request stands, while they wait.
    fn show(&mut self, _: &[String]) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Until they stop waiting. Cancel safe.
    fn leaves(&mut self) -> impl Future<Output = Leaves> + Send {
        async { Leaves::Gone }
    }

    /// Says no in the client's own terms, and hangs up.
    fn refuse(self, refusal: Refusal) -> impl Future<Output = ()> + Send;

    /// Connects to the target and logs in.
    fn connect(
        &self,
        credential: <Self::Issuer as Issuer>::Credential,
        way: &Way<'_, Self::Issuer>,
    ) -> impl Future<Output = Result<Self::Target, TargetError>> + Send;

    /// Carries bytes both ways, each recorded first, until either side is done.
    fn relay(&mut self, target: Self::Target, way: &Way<'_, Self::Issuer>) -> impl Future<Output = Ending> + Send;

    /// Tells the person why their session ends, if it was not their own doing, and hangs up.
    fn part(self, ending: &Ending) -> impl Future<Output = ()> + Send;
}

/// How a session ended.
#[derive(Debug)]
pub enum Ending {
    /// The client or the target closed it.
    Closed,
    /// It never got through to the target.
    Failed(TargetError),
    /// We ended it: grant over, disk full, gateway stopping.
    Cut(Refusal),
}

impl Ending {
    /// In a word, for the ledger and the list of sessions.
    pub fn outcome(&self) -> String {
        match self {
            Self::Closed => "closed".to_owned(),
            Self::Failed(error) => format!("failed: {error}"),
            Self::Cut(refusal) => format!("cut: {}", refusal.sentence),
        }
    }
}

/// What a session has gathered on its way to the target: without all of these there is no connection.
#[derive(Debug)]
pub struct Way<'a, I> {
    /// The parts that sessions share.
    pub gate: &'a Gate,
    /// The proof that this is allowed, now.
    pub permit: &'a Permit,
    /// Where everything is written down first.
    pub recording: &'a LiveRecording,
    /// What must be removed afterwards.
    pub lease: &'a Mutex<Lease>,
    /// Who watch, where somebody must.
    pub(crate) eyes: &'a Eyes,
    issuer: &'a I,
}

impl<I: Issuer> Way<'_, I> {
    /// Mints the credential for one connection to the target.
    async fn mint(&self) -> Result<I::Credential, TargetError> {
        self.issuer.mint(self.permit, self.lease).await
    }

    /// Releases `bytes` that came from either side, once these events are written down; not while somebody must watch and nobody does.
    pub(crate) async fn record(&self, events: Vec<recorder::Event>, bytes: Bytes) -> Result<Recorded, RecordError> {
        self.eyes.open().await;
        self.recording.record(events, bytes, self.gate.now())
    }

    /// Verifies the permit anew, for a further channel of the session.
    pub async fn recheck(&self) -> Result<(), Refusal> {
        let denied = |denied: Denied| Refusal::from(&denied).marked(self.permit.reference());
        self.gate.authority.recheck(self.permit, self.gate.now()).await.map_err(denied)
    }

    /// What mints, for a further connection of the same session: only once the permit has been verified anew.
    pub async fn issuer(&self) -> Result<&I, Refusal> {
        self.recheck().await?;
        Ok(self.issuer)
    }
}

/// How long a person's client may take to hear why it is being cut off.
const PARTING: Duration = Duration::from_secs(1);

/// The story of a session.
pub async fn run<C: Client>(gate: &Gate, issuer: &C::Issuer, mut client: C) {
    let _visit = gate.drain.visit();
    if let Some(refusal) = gate.drain.refusal() {
        return not_now(gate, client, refusal).await;
    }
    let permit = match gate.authority.authorize(client.ask(), gate.now()).await {
        Ok(permit) => Ok(permit), // opened in the ledger
        Err(denied) => {
            if let Denied::Store(error) = &denied {
                tracing::error!(reference = %client.ask().reference, %error, "refused, and the ledger could not be written");
            }
            waiting::ask_first(gate, &mut client, denied).await
        }
    };
    match permit {
        Ok(permit) => hold(gate, issuer, client, permit).await,
        Err(Without::Gone) => {}
        Err(Without::Refused(refusal)) => {
            gate.meter.refused(refusal.check);
            let reference = client.ask().reference;
            client.refuse(refusal.marked(reference)).await;
        }
    }
}

/// Nobody new is let in: that is told before any grant is looked at.
async fn not_now<C: Client>(gate: &Gate, client: C, refusal: Refusal) {
    let ask = client.ask();
    let (source, name, why) = (ask.source, ask.identity.to_string(), refusal.sentence.clone());
    let asked = format!("{} on {}", ask.access, ask.target);
    let (protocol, check) = (C::PROTOCOL, refusal.check);
    let refused = TurnedAway { protocol, source, name: Some(&name), asked: Some(&asked), why: &why, check };
    let reference = gate.turned_away(refused).await;
    client.refuse(refusal.marked(reference)).await;
}

/// The story from the permit on. (`target test` begins here: its permit comes from an admin's word.)
pub(crate) async fn hold<C: Client>(gate: &Gate, issuer: &C::Issuer, client: C, permit: Permit) {
    let session = permit.session();
    let _counted = gate.meter.session(C::PROTOCOL);
    // On the heap: it lives as long as the person stays.
    let story = Box::pin(tell(gate, issuer, client, permit));
    if AssertUnwindSafe(story).catch_unwind().await.is_err() {
        // A fault of ours. Its parts are dropped: custody hands the lease to the reaper, the recording has no end.
        tracing::error!(%session, "the session ended in a panic");
        close(gate, session, "failed: a fault of the gateway's own").await;
    }
}

async fn tell<C: Client>(gate: &Gate, issuer: &C::Issuer, mut client: C, permit: Permit) {
    let session = permit.session();
    let recording = match start_recording::<C>(gate, &permit).await {
        Ok(recording) => recording,
        Err(refusal) => return turn_away(gate, &permit, client, refusal).await,
    };
    let custody = gate.custody.take(session);
    let lease = match take_lease(gate, issuer, &permit).await {
        Ok(lease) => Mutex::new(lease),
        Err(refusal) => {
            seal(gate, &permit, &recording).await;
            return turn_away(gate, &permit, client, refusal).await;
        }
    };
    pause::at("after-lease").await;

    let present = gate.watching.enter(&permit, &recording);
    let way = Way { gate, permit: &permit, recording: &recording, lease: &lease, eyes: present.eyes(), issuer };
    let ending = match timed(way.mint(), |took| gate.meter.mint(C::PROTOCOL, took)).await {
        Err(error) => Ending::Failed(error),
        Ok(credential) => tokio::select! {
            biased; // an ended permit wins over a byte that is ready
            ended = permit.ended() => Ending::Cut(Refusal::from(&ended)),
            refusal = gate.closing() => Ending::Cut(refusal),
            error = keep_signed(gate, &recording) => Ending::Cut(Refusal::from(&error)),
            never = present.narrate(gate, &permit) => match never {},
            refusal = idle(&recording, permit.entitlement().idle_timeout) => Ending::Cut(refusal),
            ending = go(&mut client, credential, &way) => ending,
        },
    };

    let ended = Instant::now();
    if matches!(ending, Ending::Closed) {
        permit.vacate();
    }
    let mut lease = lease.into_inner();
    let words = log_ending(gate, &permit, &recording, &ending);
    drop(present); // who watches sees its end
    let parting = tokio::time::timeout(PARTING, client.part(&ending));
    // Neither a ledger that is busy nor a client that does not listen holds up the disabling.
    let ((), _, disabled) = tokio::join!(words, parting, teardown::disable(gate, issuer, &mut lease));
    seal(gate, &permit, &recording).await;
    drop(permit); // its place among `max_connections` is free again, however it ended
    if disabled && teardown::finish(gate, issuer, &mut lease).await {
        gate.meter.teardown(C::PROTOCOL, ended.elapsed());
    }
    drop(custody); // from here on, what is not closed is the reaper's
    close(gate, session, &ending.outcome()).await;
}

async fn timed<T>(work: impl Future<Output = T>, took: impl FnOnce(Duration)) -> T {
    let began = Instant::now();
    let done = work.await;
    took(began.elapsed());
    done
}

async fn close(gate: &Gate, session: SessionId, outcome: &str) {
    if let Err(error) = gate.store.session_closed(session, outcome, gate.now()).await {
        tracing::error!(%session, %error, "the end of the session could not be written");
    }
}

/// connect → relay
async fn go<C: Client>(
    client: &mut C,
    credential: <C::Issuer as Issuer>::Credential,
    way: &Way<'_, C::Issuer>,
) -> Ending {
    pause::at("after-mint").await;
    match client.connect(credential, way).await {
        Ok(target) => client.relay(target, way).await,
        Err(error) => Ending::Failed(error),
    }
}

/// Refused after the permit was given: the session closes in the ledger as it opened there.
async fn turn_away<C: Client>(gate: &Gate, permit: &Permit, client: C, refusal: Refusal) {
    tracing::warn!(session = %permit.session(), why = refusal.sentence, "turned away");
    note_refusal(gate, permit, "session.denied", &refusal).await;
    gate.meter.refused(refusal.check);
    close(gate, permit.session(), &format!("refused: {}", refusal.sentence)).await;
    client.refuse(refusal.marked(permit.reference())).await;
}

/// A no within a session, for the ledger and `tidegate why`.
pub(crate) async fn note_refusal(gate: &Gate, permit: &Permit, kind: &str, refusal: &Refusal) {
    let event = not_let(kind, permit, &refusal.sentence, refusal.check);
    if let Err(error) = gate.store.append(event, gate.now()).await {
        tracing::error!(session = %permit.session(), reference = %permit.reference(), %error, "a refusal could not be written");
    }
}

/// What the ledger says of a session that we refused something or ended.
fn not_let(kind: &str, permit: &Permit, why: &str, check: &str) -> Event {
    about(kind, permit).detail(serde_json::json!({
        "why": why,
        "check": check,
        "ref": permit.reference(),
        "access": permit.access(),
        "source": permit.source(),
    }))
}

/// Auditors of what this person does on this target, and not of everything.
fn audience(policy: &Policy, permit: &Permit) -> Audience {
    let mut audience = Audience::default();
    for auditor in policy.auditors_of(permit.identity(), permit.target()) {
        audience.recipients.extend_from_slice(&auditor.recipients);
        audience.keystroke_recipients.extend_from_slice(&auditor.keystroke_recipients);
    }
    audience
}

async fn start_recording<C: Client>(gate: &Gate, permit: &Permit) -> Result<Arc<LiveRecording>, Refusal> {
    if !*gate.recordable.borrow() {
        return Err(Refusal::from(&RecordError::Failed));
    }
    let header = Header {
        session: permit.session().to_string(),
        identity: permit.identity().to_string(),
        target: permit.target().to_string(),
        access: permit.access().to_string(),
        protocol: C::PROTOCOL.to_owned(),
        grant: permit.grant().to_string(),
        gateway: gate.name.clone(),
        start: gate.now(),
    };
    let (recorder, audience) = (gate.recorder.clone(), audience(&gate.authority.policy(), permit));
    let started =
        spawn_blocking(move || recorder.start_for(header, audience)).await.unwrap_or(Err(RecordError::Failed));
    let recording = started.map_err(|error| {
        tracing::error!(session = %permit.session(), %error, "no recording");
        Refusal::from(&error)
    })?;
    // So that a recording that never came to its seal is missed, too, if its file goes away.
    let event = about("recording.started", permit).detail(serde_json::json!({ "path": recording.path() }));
    gate.store.append(event, gate.now()).await.map_err(|error| Refusal::from(&error))?;
    Ok(Arc::new(recording))
}

/// More accounts than this that could not even be disabled on a target, and no new session goes there.
const MOST_ORPHANS: u32 = 10;

/// On disk when this returns. Refused while too many of the target's old accounts could not be removed: those that are disabled, and wait
/// for their removal or for a human, do no harm, but pile up.
async fn take_lease<I: Issuer>(gate: &Gate, issuer: &I, permit: &Permit) -> Result<Lease, Refusal> {
    let store_failed = |error: tidegate_grants::StoreError| {
        tracing::error!(session = %permit.session(), %error, "no lease");
        Refusal::from(&error)
    };
    let left = gate.store.left_on(permit.target()).await.map_err(store_failed)?;
    if left.working > MOST_ORPHANS || left.all > I::MOST_LEFT {
        return Err(Refusal::new(format!("too many old accounts could not be removed from {}", permit.target()))
            .next("tell your admin: `tidegate lease list`"));
    }
    let plan = issuer.plan(permit).map_err(|error| Refusal::from(&error))?;
    gate.store.lease(permit, plan, gate.now()).await.map_err(store_failed)
}

/// Signs the tail of the recording while the session is idle. Returns only when that fails.
async fn keep_signed(gate: &Gate, recording: &LiveRecording) -> RecordError {
    let mut tick = tokio::time::interval(LiveRecording::TICK);
    loop {
        tick.tick().await;
        if let Err(error) = recording.tick(gate.now()) {
            return error;
        }
    }
}

/// How exactly an idle session is noticed: it ends by so much of its entitlement's time later.
const NOTICED: u32 = 20;

/// Returns when nothing has moved for so long, either way. What moves is recorded before, so the recording knows; keep-alives
/// of clients and ours are not of the session. (By the machine's own time: a clock that jumps ends nobody's session.)
async fn idle(recording: &LiveRecording, most: Option<Duration>) -> Refusal {
    let Some(most) = most else { return std::future::pending().await };
    let (mut moved, mut since) = (recording.moved(), Instant::now());
    loop {
        tokio::time::sleep((most / NOTICED).clamp(Duration::from_millis(50), Duration::from_secs(10))).await;
        let now = recording.moved();
        if now != moved {
            (moved, since) = (now, Instant::now());
        } else if since.elapsed() >= most {
            let most = jiff::SignedDuration::try_from(most).unwrap_or_default();
            return Refusal::new(format!("nothing came or went for {most:#}, after which a session here ends"))
                .next("connect again")
                .by("idle");
        }
    }
}

/// The end goes into the recording and, unless it was the person's own doing, into the ledger before teardown starts.
async fn log_ending(gate: &Gate, permit: &Permit, recording: &LiveRecording, ending: &Ending) {
    let (kind, check) = match ending {
        Ending::Closed => return,
        Ending::Failed(error) => ("session.failed", Refusal::from(error).check),
        Ending::Cut(refusal) => ("session.cut", refusal.check),
    };
    gate.meter.refused(check);
    // A recording that has failed is why we are here, more often than not.
    let said = recorder::Event::Said { text: ending.outcome() };
    let _ = recording.note(said, gate.now());
    tracing::info!(session = %permit.session(), outcome = ending.outcome(), "session ended by the gate");
    let event = not_let(kind, permit, &ending.outcome(), check);
    if let Err(error) = gate.store.append(event, gate.now()).await {
        tracing::error!(session = %permit.session(), %error, "the cut could not be written");
    }
}

async fn seal(gate: &Gate, permit: &Permit, recording: &Arc<LiveRecording>) {
    let (sealing, now) = (recording.clone(), gate.now());
    let sealed = spawn_blocking(move || sealing.seal(now)).await.unwrap_or(Err(RecordError::Failed));
    let event = match sealed {
        Ok(seal) => sealed_event(permit, &seal),
        Err(error) => about("recording.truncated", permit).detail(serde_json::json!({ "why": error.to_string() })),
    };
    if let Err(error) = gate.store.append(event, gate.now()).await {
        tracing::error!(session = %permit.session(), %error, "the seal could not be written");
    }
}

fn sealed_event(permit: &Permit, seal: &Seal) -> Event {
    about("recording.sealed", permit).detail(serde_json::json!(seal))
}

/// The ledger's entry about the session of this permit.
pub(crate) fn about(kind: &str, permit: &Permit) -> Event {
    Event::new(kind).session(permit.session()).identity(permit.identity()).target(permit.target()).grant(permit.grant())
}
