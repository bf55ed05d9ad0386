//! What happens, as it happens: server-sent events (HTML Living Standard section 9.2) out of the ledger.
//!
//! What always holds: an admin and an auditor see each entry, an auditor of a part each that is about one of their people on one of
//! their targets, others what became of their own requests, grants and sessions, without details; an event's id is its place in
//! the ledger, so whoever comes again with `Last-Event-ID` misses nothing; nobody is sent anything for longer than [`LIFE`] without
//! being asked again who they are, and nobody waits on a receiver that is slow.

use super::{
    peer::Action,
    problem::Problem,
    routes::{Api, Query, Shared, Who},
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event as Sent, KeepAlive},
    },
};
use futures::stream;
use serde::Deserialize;
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tidegate_grants::{IdentityName, Sight, ledger::Entry};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use utoipa::IntoParams;

/// The ledger is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// So many entries at once.
const BATCH: u32 = 256;
/// A comment says so often that there is nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Whoever listens comes again after this, and is asked again who they are. (A connection over HTTPS lasts no longer.)
const LIFE: Duration = Duration::from_secs(110);
/// How many listen at once.
pub(crate) const MOST: usize = 64;
/// What people see of their own.
const OWN: [&str; 4] = ["request.", "grant.", "session.", "key."];

/// Where to begin.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Begin {
    /// The entry of the ledger behind which to begin; left out: now. `Last-Event-ID` says the same.
    #[serde(default)]
    after: Option<u64>,
}

/// Somebody who listens.
struct Listener {
    api: Arc<Api>,
    identity: IdentityName,
    /// What they see as who runs or audits the gateway.
    sight: Sight,
    seq: u64,
    waiting: VecDeque<Entry>,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

/// What happens, as it happens: server-sent events. Each has as its id its place in the ledger, as its event the entry's kind, and as its data JSON.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(Begin, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.")),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "A stream, for two minutes at most.")))]
pub(super) async fn follow(
    State(api): Shared,
    Extension(caller): Who,
    Query(Begin { after }): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sight = match caller.may(Action::ReadEvents)? {
        all if all.is_all() => all,
        _ => caller.audits().clone(),
    };
    let place = api.listening.clone().try_acquire_owned();
    let full = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many listen already: come again in a moment");
    let (place, identity) = (place.map_err(full)?, caller.known()?.clone());
    let seq = match seen(&headers)?.or(after) {
        Some(seq) => seq,
        None => api.gate.store.tail(1).await?.last().map_or(0, |entry| entry.seq),
    };
    let until = Instant::now() + LIFE;
    let listener = Listener { api, identity, sight, seq, waiting: VecDeque::new(), until, _place: place };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// What a client that comes again has seen.
fn seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let seq = id.to_str().ok().and_then(|id| id.parse().ok());
    seq.map(Some).ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "Last-Event-ID is not an id of an event"))
}

impl Listener {
    /// The next event that they may see. `None`: it is over.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some(entry) = self.waiting.pop_front() {
                self.seq = entry.seq;
                if let Some(event) = shown(&entry, &self.identity, &self.sight) {
                    return Some(event);
                }
            }
            let gate = &self.api.gate;
            if Instant::now() >= self.until || gate.stopping.is_cancelled() {
                return None;
            }
            // Who was locked meanwhile sees no more.
            if !matches!(gate.authority.locked_out(&self.identity, gate.now()).await, Ok(None)) {
                return None;
            }
            match gate.store.after(&gate.authority.policy().node, self.seq, BATCH).await {
                Ok(entries) if entries.is_empty() => sleep(LOOK).await,
                Ok(entries) => self.waiting.extend(entries),
                Err(error) => {
                    tracing::error!(%error, "the ledger cannot be read for those who listen");
                    return None;
                }
            }
        }
    }
}

/// As this reader sees it, if they may.
fn shown(entry: &Entry, me: &IdentityName, sight: &Sight) -> Option<Sent> {
    let event = &entry.event;
    let mut data = serde_json::json!({
        "seq": entry.seq, "at": entry.at, "kind": event.kind, "identity": event.identity, "target": event.target,
        "session": event.session, "grant": event.grant,
    });
    // Who watches or plays does so in somebody else's session.
    let of = event.detail.get("of").and_then(serde_json::Value::as_str);
    let whose = of.or(event.identity.as_deref()).and_then(|name| name.parse().ok());
    let seen = whose.zip(event.target.as_ref()).is_some_and(|(whose, target)| sight.sees(&whose, target));
    if seen || sight.is_all() {
        let data = data.as_object_mut()?;
        data.insert("lease".to_owned(), serde_json::json!(event.lease));
        data.insert("detail".to_owned(), event.detail.clone());
    } else {
        let own = event.identity.as_deref() == Some(me.as_str()) && OWN.iter().any(|kind| event.kind.starts_with(kind));
        own.then_some(())?;
    }
    Sent::default().id(entry.seq.to_string()).event(&event.kind).json_data(data).ok()
}
