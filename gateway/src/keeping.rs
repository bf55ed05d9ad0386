//! Recordings are kept as long as the rules say and no longer, and in the room that they may take.
//!
//! What always holds: nobody deletes by hand, only a rule does; that a recording goes, by which rule, and the seal it had are in the
//! ledger (`recording.deleted`) before its file is removed; what is held (`recording hold`) stays, whatever rules say; and what the
//! ledger does not know stays too. A gateway that is killed between the entry and the removal removes the file at its next look. What is
//! held is what the ledger says: there is no other list that could be emptied.

use crate::{config::RECORDINGS, live::Live, recovered::RECOVERED};
use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidegate_grants::{Event, IdentityName, SessionId, Sight, StoreError, duration, store};
use tidegate_proxy::Gate;
use tidegate_recorder::{
    index,
    storage::{self, Entry, State},
};
use tokio::{sync::Mutex, task::spawn_blocking, time::MissedTickBehavior};

pub(crate) const DELETED: &str = "recording.deleted";
pub(crate) const HELD: &str = "recording.held";
pub(crate) const RELEASED: &str = "recording.released";
/// The room of recordings is looked at so often.
const LOOK: Duration = Duration::from_secs(20);
/// At so many per cent of their room it is told.
const ALARM: u64 = 80;

/// What recordings take, for whoever asks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<Figures>);

#[derive(Debug, Default)]
struct Figures {
    bytes: AtomicU64,
    /// 0: no budget.
    budget: AtomicU64,
}

impl Room {
    /// Bytes of recordings, and what they may take.
    pub(crate) fn figures(&self) -> (u64, Option<u64>) {
        let budget = self.0.budget.load(Ordering::Relaxed);
        (self.0.bytes.load(Ordering::Relaxed), (budget > 0).then_some(budget))
    }

    fn set(&self, bytes: u64, budget: Option<u64>) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
        self.0.budget.store(budget.unwrap_or_default(), Ordering::Relaxed);
    }
}

/// What the ledger knows of one recording.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// `recording.started`.
    pub(crate) begun: Option<Event>,
    /// What its seal says, or what was there when its gateway came back.
    pub(crate) seal: Option<Value>,
    /// Why it is held, and by whom.
    pub(crate) held: Option<Value>,
    /// What its tombstone says.
    pub(crate) deleted: Option<Value>,
}

/// Of all recordings that the ledger knows.
pub(crate) fn fates(state: &Path) -> Result<BTreeMap<SessionId, Fate>, StoreError> {
    let mut fates: BTreeMap<SessionId, Fate> = BTreeMap::new();
    store::export(state, 0, |exported| {
        let event = exported.entry.event;
        let Some(session) = event.session.filter(|_| event.kind.starts_with("recording.")) else {
            return Ok::<_, StoreError>(());
        };
        let fate = fates.entry(session).or_default();
        match event.kind.as_str() {
            "recording.started" => fate.begun = Some(event),
            "recording.sealed" | RECOVERED => fate.seal = Some(event.detail),
            HELD => fate.held = Some(event.detail),
            RELEASED => fate.held = None,
            DELETED => fate.deleted = Some(event.detail),
            _ => {}
        }
        Ok(())
    })?;
    Ok(fates)
}

/// Keeps them.
#[derive(Debug)]
pub(crate) struct Keeper {
    gate: Gate,
    live: Arc<Live>,
    state: PathBuf,
    room: Room,
    /// Whoever holds or deletes does it alone.
    one: Mutex<()>,
}

/// How full it was at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fine,
    Alarming,
    Full,
}

impl Level {
    fn of(bytes: u64, budget: Option<u64>) -> Self {
        match budget {
            Some(budget) if bytes >= budget => Self::Full,
            Some(budget) if bytes >= budget / 100 * ALARM => Self::Alarming,
            _ => Self::Fine,
        }
    }
}

impl Keeper {
    pub(crate) fn new(gate: Gate, live: Arc<Live>, state: PathBuf, room: Room) -> Self {
        Self { gate, live, state, room, one: Mutex::default() }
    }

    fn folder(&self) -> PathBuf {
        self.state.join(RECORDINGS)
    }

    /// Looks, again and again. Never returns.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut level = Level::Fine;
        loop {
            tick.tick().await;
            if let Err(error) = self.expire().await {
                tracing::error!(%error, "recordings whose time is over could not be deleted");
            }
            level = self.measure(level).await;
        }
    }

    /// What they take. Above the alarm it is told once; where there is no room, no session begins.
    async fn measure(&self, before: Level) -> Level {
        let (folder, budget) = (self.folder(), self.live.config().keeping.budget);
        let bytes = match spawn_blocking(move || storage::bytes(&folder)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                tracing::error!(%error, "what recordings take could not be looked up");
                return before;
            }
            Err(_) => return before,
        };
        self.room.set(bytes, budget);
        let level = Level::of(bytes, budget);
        self.gate.recorder.set_full(level == Level::Full);
        if level > before {
            tracing::warn!(bytes, budget, "recordings have taken nearly all, or all, of their room");
            let detail = json!({ "bytes": bytes, "budget": budget, "full": level == Level::Full });
            if let Err(error) =
                self.gate.store.append(Event::new("recording.budget").detail(detail), self.gate.now()).await
            {
                tracing::error!(%error, "that recordings have no room could not be written");
                return before; // told at the next look
            }
        }
        level
    }

    /// Deletes what no rule keeps any longer.
    async fn expire(&self) -> anyhow::Result<()> {
        let (keeping, now, folder) = (self.live.config().keeping.clone(), self.gate.now(), self.folder());
        if keeping.is_for_ever() {
            return Ok(());
        }
        let listing = spawn_blocking(move || storage::list(&folder)).await??;
        let due = |entry: &Entry| {
            let keep = keeping.of(&entry.target, &entry.protocol)?;
            let over = entry.end?.checked_add(SignedDuration::try_from(keep).ok()?).ok()?;
            (entry.state != State::Live && over <= now).then_some(keep)
        };
        let due: Vec<_> =
            listing.entries.into_iter().filter_map(|entry| due(&entry).map(|keep| (entry, keep))).collect();
        if due.is_empty() {
            return Ok(());
        }
        let _alone = self.one.lock().await;
        let state = self.state.clone();
        let fates = spawn_blocking(move || fates(&state)).await??;
        for (entry, keep) in due {
            let session = entry.session.parse::<SessionId>().ok();
            if let Some(fate) = session.and_then(|session| fates.get(&session)) {
                self.delete(&entry, keep, fate, now).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, entry: &Entry, keep: Duration, fate: &Fate, now: Timestamp) -> anyhow::Result<()> {
        let Some(begun) = fate.begun.as_ref().filter(|_| fate.held.is_none()) else { return Ok(()) };
        if fate.deleted.is_none() {
            let detail = json!({
                "path": begun.detail.get("path"),
                "end": entry.end,
                "keep": duration::show(keep),
                "seal": fate.seal,
            });
            self.gate.store.append(Event { kind: DELETED.to_owned(), detail, ..begun.clone() }, now).await?;
            tracing::info!(session = entry.session, "a recording was kept as long as it is to be, and goes");
        }
        let path = entry.path.clone();
        spawn_blocking(move || remove(&path)).await??;
        Ok(())
    }

    /// Keeps a recording whatever the rules say, or lets the rules have it again. Returns its session.
    ///
    /// # Errors
    /// There is no such recording, or it is held already, or not held.
    pub(crate) async fn hold(
        &self,
        by: &IdentityName,
        sight: &Sight,
        id: &str,
        reason: &str,
        hold: bool,
    ) -> anyhow::Result<SessionId> {
        let reason = reason.trim();
        ensure!(!reason.is_empty(), "say why, with a reason");
        let _alone = self.one.lock().await;
        let (folder, state, id, sight) = (self.folder(), self.state.clone(), id.to_owned(), sight.clone());
        let looked = spawn_blocking(move || {
            let fates = fates(&state)?;
            // By what the ledger says of whose they are: what is not within sight is not there.
            let within = |entry: &storage::Entry| {
                let fate = entry.session.parse().ok().and_then(|session: SessionId| fates.get(&session));
                let begun = fate.and_then(|fate| fate.begun.as_ref());
                let whose = begun.and_then(|begun| begun.identity.as_deref()?.parse().ok().zip(begun.target.as_ref()));
                sight.is_all() || whose.is_some_and(|(whose, target)| sight.sees(&whose, target))
            };
            let entry = storage::find_among(&folder, &id, within)?;
            anyhow::Ok((entry, fates))
        });
        let (entry, fates) = looked.await??;
        let session: SessionId = entry.session.parse().map_err(|_| anyhow::anyhow!("its session has no id"))?;
        let fate = fates.get(&session);
        let begun = fate.and_then(|fate| fate.begun.clone());
        let Some(begun) = begun else { anyhow::bail!("the ledger does not know the recording of session {session}") };
        let own = begun.identity.as_deref() == Some(by.as_str());
        ensure!(hold || !own, "nobody releases the recording of their own session: ask another auditor");
        let is_held = fate.is_some_and(|fate| fate.held.is_some());
        ensure!(fate.is_none_or(|fate| fate.deleted.is_none()), "the recording of session {session} is being deleted");
        ensure!(!(hold && is_held), "the recording of session {session} is held already");
        ensure!(hold || is_held, "the recording of session {session} is not held");
        let kind = if hold { HELD } else { RELEASED };
        let detail = json!({ "by": by, "reason": reason });
        self.gate.store.append(Event { kind: kind.to_owned(), detail, ..begun }, self.gate.now()).await?;
        Ok(session)
    }
}

/// The file with its index, and the folder of its day if nothing else is in it. Gone already is as good.
fn remove(path: &Path) -> std::io::Result<()> {
    for path in [&index::path_of(path), path] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if let Some(day) = path.parent() {
        let _ = fs::remove_dir(day); // others are in it, or it is of use to nobody
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_before_there_is_no_room() {
        for (bytes, budget, level) in [
            (u64::MAX, None, Level::Fine),
            (799, Some(1000), Level::Fine),
            (800, Some(1000), Level::Alarming),
            (1000, Some(1000), Level::Full),
            (5, Some(1), Level::Full),
        ] {
            assert_eq!(Level::of(bytes, budget), level, "{bytes} of {budget:?}");
        }
    }
}
