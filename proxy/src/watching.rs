//! Who watches live sessions, and sessions that stand still while nobody does (`watch = "required"`).
//!
//! What always holds: only auditors watch, and nobody watches themselves; that they do is in the ledger before they see anything,
//! and is looked at anew while they watch; what they see is as inert as a replay, and no session waits for them to take it.
//! Where an entitlement wants a session watched, nothing of either side goes on while nobody watches: every protocol passes
//! [`Eyes::open`] before it records what goes on ([`Way::record`](crate::session::Way::record), and the pump of PostgreSQL).

use crate::{gate::Gate, refusal::Refusal, session::about};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tidegate_grants::{Event, IdentityName, Permit, SessionId, TokenId, authority::SessionView, store::SessionRow};
use tidegate_recorder::{LiveRecording, watch::Watcher};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// Whether somebody still may watch is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Who has not asked for more for so long has paused their terminal, or is gone: they do not watch.
const UNREAD: Duration = LOOK_AGAIN.saturating_mul(6);
/// Who watch one session at once.
const MOST: usize = 16;

/// The live sessions that can be watched. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Watching(Arc<Mutex<BTreeMap<SessionId, Arc<Watched>>>>);

/// One of them.
#[derive(Debug)]
struct Watched {
    recording: Arc<LiveRecording>,
    eyes: Eyes,
}

/// What lists say of a live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// So long nothing has come or gone.
    pub idle: Duration,
    /// What was done last, where that is known, on one inert line.
    pub last: Option<String>,
    /// Who watch.
    pub watchers: Vec<IdentityName>,
    /// Nothing goes on until somebody watches.
    pub frozen: bool,
}

/// A session, with what can be said of it only while it is live.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionNow {
    /// What is always known.
    #[serde(flatten)]
    pub session: SessionView,
    /// So many seconds nothing has come or gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u64>,
    /// The last statement, command or operation on a file, where that is known; only for its own person and for auditors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Who watch it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watchers: Vec<IdentityName>,
    /// It stands still, since nobody watches it and somebody must.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

impl SessionNow {
    /// As it is at this moment. `content`: with what was done in it.
    pub fn of(gate: &Gate, session: SessionView, content: bool) -> Self {
        let Some(glance) = gate.watching.glance(session.row.id) else {
            return Self { session, idle_s: None, last: None, watchers: Vec::new(), frozen: false };
        };
        let Glance { idle, last, watchers, frozen } = glance;
        Self { session, idle_s: Some(idle.as_secs()), last: last.filter(|_| content), watchers, frozen }
    }

    /// For a table.
    pub fn idle(&self) -> String {
        match self.idle_s {
            _ if self.frozen => "frozen".to_owned(),
            Some(seconds) => {
                format!("{:#}", jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
            }
            None => String::new(),
        }
    }
}

/// Who watch a session, and whether somebody must.
#[derive(Debug)]
pub(crate) struct Eyes {
    required: bool,
    on: watch::Sender<Vec<IdentityName>>,
}

impl Eyes {
    pub(crate) fn new(required: bool) -> Self {
        Self { required, on: watch::Sender::default() }
    }

    fn frozen_by(&self, on: &[IdentityName]) -> bool {
        self.required && on.is_empty()
    }

    /// Nothing may go on.
    pub(crate) fn are_shut(&self) -> bool {
        self.required && self.frozen_by(&self.on.borrow())
    }

    /// Waits while nothing may go on. Cancel safe.
    pub(crate) async fn open(&self) {
        if self.required {
            let mut on = self.on.subscribe();
            // The sender is here, so this ends only when somebody watches.
            let _ = on.wait_for(|on| !on.is_empty()).await;
        }
    }

    /// What to tell somebody who asks for something to be done while nothing may go on.
    pub(crate) fn standing(&self) -> Option<Refusal> {
        self.are_shut().then(|| self.word(&[]))
    }

    fn word(&self, on: &[IdentityName]) -> Refusal {
        match on {
            [] => Refusal::new("this session is watched or it stands still: nobody watches it now")
                .next("it goes on by itself when an auditor does: tidegate session watch")
                .by("watch"),
            on => {
                let names = on.iter().map(IdentityName::as_str).collect::<Vec<_>>().join(", ");
                Refusal::new(format!("{names} watches this session: it goes on")).by("watch")
            }
        }
    }

    /// Each time that it begins to stand still, or goes on: what to tell. `at_first`: also how it begins.
    pub(crate) fn words(&self, at_first: bool) -> impl Stream<Item = Refusal> + Send + '_ {
        let on = self.on.subscribe();
        let told = (!at_first || !self.required).then(|| self.frozen_by(&on.borrow()));
        stream::unfold((on, told), move |(mut on, mut told)| async move {
            loop {
                let now = on.borrow_and_update().clone();
                let frozen = self.frozen_by(&now);
                if told.replace(frozen) != Some(frozen) {
                    return Some((self.word(&now), (on, told)));
                }
                on.changed().await.ok()?;
            }
        })
    }
}

/// A live session's place among those that can be watched; dropping it ends the watching.
#[derive(Debug)]
pub(crate) struct Present {
    watching: Watching,
    session: SessionId,
    watched: Arc<Watched>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.watching.lock().remove(&self.session);
        self.watched.recording.hide();
    }
}

impl Present {
    pub(crate) fn eyes(&self) -> &Eyes {
        &self.watched.eyes
    }

    /// Writes into the ledger when it stands still and when it goes on.
    pub(crate) async fn narrate(&self, gate: &Gate, permit: &Permit) -> Infallible {
        let mut on = self.watched.eyes.on.subscribe();
        let mut was = false;
        loop {
            let now = on.borrow_and_update().clone();
            let frozen = self.watched.eyes.frozen_by(&now);
            if frozen != was {
                was = frozen;
                let kind = if frozen { "session.frozen" } else { "session.resumed" };
                let event = about(kind, permit).detail(serde_json::json!({ "watchers": now }));
                if let Err(error) = gate.store.append(event, gate.now()).await {
                    tracing::error!(session = %permit.session(), %error, "who watches could not be written");
                }
            }
            if on.changed().await.is_err() {
                std::future::pending::<()>().await; // its sender is here
            }
        }
    }
}

impl Watching {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Watched>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session can be watched from now on.
    pub(crate) fn enter(&self, permit: &Permit, recording: &Arc<LiveRecording>) -> Present {
        let session = permit.session();
        let eyes = Eyes::new(permit.entitlement().conditions.watched);
        let watched = Arc::new(Watched { recording: recording.clone(), eyes });
        self.lock().insert(session, watched.clone());
        Present { watching: self.clone(), session, watched }
    }

    /// What lists say of it, while it is live.
    pub fn glance(&self, session: SessionId) -> Option<Glance> {
        let watched = self.lock().get(&session).cloned()?;
        let seen = watched.recording.glance();
        let watchers = watched.eyes.on.borrow().clone();
        Some(Glance { idle: seen.idle, last: seen.last, frozen: watched.eyes.frozen_by(&watchers), watchers })
    }
}

/// Somebody who watches a session, until this is dropped, they may no longer, or do not read what is shown.
#[derive(Debug)]
pub struct Watch {
    seat: Arc<Seat>,
    view: Watcher,
}

/// Their place among who watch.
#[derive(Debug)]
struct Seat {
    gate: Gate,
    by: IdentityName,
    /// What they came in with, where it ends by itself.
    token: Option<TokenId>,
    session: SessionRow,
    watched: Arc<Watched>,
    /// When they were last ready for more; none: they have left.
    ready: Mutex<Option<Instant>>,
    /// It is no longer theirs.
    left: CancellationToken,
}

/// Whether this person may watch that session, by the configuration in force.
pub async fn may_watch(gate: &Gate, by: &IdentityName, session: &SessionRow) -> Result<(), Refusal> {
    let policy = gate.authority.policy();
    let sight = policy.identities.get(by).map(|person| policy.audits(person)).unwrap_or_default();
    if sight.is_nothing() {
        return Err(Refusal::new("only auditors watch sessions, and you are none (roles.auditor)").by("role"));
    }
    if !sight.sees(&session.identity, &session.target) {
        // No different from none.
        return Err(Refusal::new("no such session among those that you audit").by("role"));
    }
    if *by == session.identity {
        return Err(Refusal::new("nobody watches their own session").next("ask another auditor").by("role"));
    }
    match gate.authority.locked_out(by, gate.now()).await {
        Ok(None) => Ok(()),
        Ok(Some(locked)) => Err(Refusal::from(&tidegate_grants::Denied::Locked(locked))),
        Err(error) => Err(Refusal::from(&error)),
    }
}

/// Begins to watch. It is in the ledger when this returns, and counts as watching from then on.
///
/// # Errors
/// They may not, the session is not live, or it could not be written.
pub async fn watch(
    gate: &Gate,
    by: &IdentityName,
    (token, source): (Option<TokenId>, Option<IpAddr>),
    session: SessionRow,
    view: Option<(u16, u16)>,
) -> Result<Watch, Refusal> {
    may_watch(gate, by, &session).await?;
    let over = || Refusal::new(format!("the session {} is over", session.id));
    let watched = gate.watching.lock().get(&session.id).cloned().ok_or_else(over)?;
    let taken = watched.eyes.on.send_if_modified(|on| {
        let room = on.len() < MOST;
        if room {
            on.push(by.clone());
        }
        room
    });
    if !taken {
        return Err(Refusal::new("as many as can watch this session already").full());
    }
    let event = entry("session.watched", by, &session, source);
    if let Err(error) = gate.store.append(event, gate.now()).await {
        watched.leave(by);
        return Err(Refusal::from(&error));
    }
    let (gate, by, ready) = (gate.clone(), by.clone(), Mutex::new(Some(Instant::now())));
    let seat = Arc::new(Seat { gate, by, token, session, watched, ready, left: CancellationToken::new() });
    tokio::spawn(Seat::keep(seat.clone()));
    Ok(Watch { seat, view: Watcher::new(view) })
}

fn entry(kind: &str, by: &IdentityName, session: &SessionRow, source: Option<IpAddr>) -> Event {
    let event = Event::new(kind).session(session.id).identity(by).target(&session.target).grant(session.grant);
    event.detail(serde_json::json!({ "of": session.identity, "source": source }))
}

impl Watch {
    /// What to write next into the terminal of who watches. `None`: there is no more to see. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(ready) = self.seat.ready().as_mut() {
                *ready = Instant::now();
            }
            let (view, recording) = (&mut self.view, &self.seat.watched.recording);
            tokio::select! {
                biased; // what was lost is lost before the next byte
                () = self.seat.left.cancelled() => return None,
                () = sleep(LOOK_AGAIN) => {}
                shown = poll_fn(|context| view.poll(recording, context)) => match shown {
                    Some(shown) if shown.is_empty() => {}
                    shown => return shown,
                },
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seat.leave();
    }
}

impl Watched {
    fn leave(&self, by: &IdentityName) {
        self.eyes.on.send_modify(|on| {
            if let Some(place) = on.iter().position(|name| name == by) {
                on.remove(place);
            }
        });
    }
}

impl Seat {
    fn ready(&self) -> MutexGuard<'_, Option<Instant>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again, whether or not anything is taken from the stream: whoever may not watch, or does not, keeps no session
    /// going.
    async fn keep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.left.cancelled() => return,
                () = sleep(LOOK_AGAIN) => {}
            }
            let unread = self.ready().is_some_and(|ready| ready.elapsed() > UNREAD);
            let refused = self.refused().await;
            if let Some(why) = refused.or_else(|| unread.then(|| "what is shown is not read".to_owned())) {
                tracing::info!(session = %self.session.id, by = %self.by, why, "watches no longer");
                return self.leave();
            }
        }
    }

    /// Why they may not watch any more, nor by what they came in with.
    async fn refused(&self) -> Option<String> {
        if let Err(refusal) = may_watch(&self.gate, &self.by, &self.session).await {
            return Some(refusal.sentence);
        }
        match self.gate.authority.token_holds(self.token?, self.gate.now()).await {
            Ok(true) => None,
            Ok(false) => Some("their token is revoked, or has ended".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Once.
    fn leave(&self) {
        if self.ready().take().is_none() {
            return;
        }
        self.left.cancel();
        self.watched.leave(&self.by);
        let (gate, event) = (self.gate.clone(), entry("session.unwatched", &self.by, &self.session, None));
        let session = self.session.id;
        // Outside a runtime there is no ledger any more either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.gate.tasks.spawn_on(
                async move {
                    if let Err(error) = gate.store.append(event, gate.now()).await {
                        tracing::error!(%session, %error, "who watches no longer could not be written");
                    }
                },
                &runtime,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use futures::{FutureExt as _, StreamExt as _};

    fn names(names: &[&str]) -> Vec<IdentityName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_must_be_watched_waits_for_the_first_who_does_and_again_when_the_last_has_left() {
        let eyes = Eyes::new(true);
        assert!(eyes.are_shut() && eyes.open().now_or_never().is_none());
        let mut words = Box::pin(eyes.words(true));
        let mut later = Box::pin(eyes.words(false));
        assert!(words.next().await.unwrap().sentence.contains("nobody watches it now"));
        assert!(later.next().now_or_never().is_none(), "how it begins is told once");
        eyes.on.send_replace(names(&["carol"]));
        assert!(words.next().await.unwrap().sentence.contains("carol watches this session"));
        assert!(later.next().await.unwrap().sentence.contains("carol"));
        eyes.open().await;
        eyes.on.send_replace(names(&["carol", "dave"]));
        assert!(words.next().now_or_never().is_none(), "one more changes nothing");
        eyes.on.send_replace(Vec::new());
        assert!(eyes.open().now_or_never().is_none());
        assert!(words.next().await.unwrap().sentence.contains("nobody"));
    }

    #[tokio::test]
    async fn what_need_not_be_watched_never_waits_and_is_told_nothing() {
        let eyes = Eyes::new(false);
        eyes.open().await;
        let mut words = Box::pin(eyes.words(true));
        for on in [&["carol"][..], &[]] {
            eyes.on.send_replace(names(on));
            assert!(words.next().now_or_never().is_none());
        }
    }
}
