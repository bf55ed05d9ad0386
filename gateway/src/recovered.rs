//! Recordings that a killed gateway left without an end: what is there of each is written into the ledger at the next start.
//!
//! What always holds: nothing is added to such a recording or chained anew. The entry `recording.recovered` says how far its own
//! signatures prove it and what the hash of its last whole frame is, so that from then on the rest, which no signature
//! covers, cannot be changed or cut without being found either.

use crate::config::RECORDINGS;
use ed25519_dalek::VerifyingKey;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tidegate_grants::{Event, Store, StoreError, store};
use tidegate_proxy::Gate;
use tidegate_recorder::verify::{Verdict, verify};
use tokio::task::spawn_blocking;

/// The kind of the entry.
pub(crate) const RECOVERED: &str = "recording.recovered";

/// The recordings that began and were neither sealed nor noted before: to be asked before any session can begin.
pub(crate) async fn left(state: PathBuf) -> Vec<Event> {
    match spawn_blocking(move || open(&state)).await {
        Ok(Ok(left)) => left,
        Ok(Err(error)) => {
            tracing::error!(%error, "recordings of the last run were not looked for");
            Vec::new()
        }
        Err(error) => {
            tracing::error!(%error, "recordings of the last run were not looked for");
            Vec::new()
        }
    }
}

/// Notes what is left of each of them.
pub(crate) async fn note(gate: Gate, state: PathBuf, left: Vec<Event>, key: VerifyingKey) {
    for begun in left {
        let place = begun.detail.get("path").and_then(serde_json::Value::as_str).unwrap_or_default();
        let file = state.join(RECORDINGS).join(place);
        let found = spawn_blocking(move || verify(&file, &key).map_err(|error| error.to_string())).await;
        let found = found.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = enter(&gate.store, begun, &found, gate.now()).await {
            tracing::error!(%error, "what is left of a recording could not be written into the ledger");
        }
    }
}

/// The first entry about each recording that has no other: its place is in it.
fn open(state: &Path) -> Result<Vec<Event>, StoreError> {
    let mut open = BTreeMap::new();
    store::export(state, 0, |exported| {
        let event = exported.entry.event;
        match (event.kind.as_str(), event.session) {
            ("recording.started", Some(session)) => drop(open.insert(session, event)),
            ("recording.sealed" | RECOVERED, Some(session)) => drop(open.remove(&session)),
            _ => {}
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(open.into_values().collect())
}

async fn enter(
    store: &Store,
    begun: Event,
    found: &Result<Verdict, String>,
    now: jiff::Timestamp,
) -> Result<(), StoreError> {
    let mut detail = begun.detail.clone();
    let said = match found {
        Ok(verdict) => {
            json!({ "frames": verdict.frames, "proven": verdict.proven, "head": verdict.head, "found": verdict.to_string() })
        }
        Err(error) => json!({ "found": error }),
    };
    if let (Some(detail), serde_json::Value::Object(said)) = (detail.as_object_mut(), said) {
        detail.extend(said);
    }
    store.append(Event { kind: RECOVERED.to_owned(), detail, ..begun }, now).await
}
