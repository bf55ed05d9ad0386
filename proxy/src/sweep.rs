//! Looks for accounts with our mark that no lease speaks of, at start, on a timer and when an admin asks.
//!
//! What always holds: the account of a closed lease that is there again (a restored or failed-over target) reopens that lease,
//! and the reaper removes it; an account with our mark and no lease of ours (a state directory restored from an older backup)
//! is never removed on its own, but told: in the ledger once, in `status`, and in what a sweep prints. An admin adopts it, and
//! then it has a lease. Accounts whose mark names another gateway are that gateway's.
//!
//! A session's account comes and goes while we look: so the target is asked first and the store afterwards (a lease is on disk
//! before its account exists), and what looks wrong is believed only if it is still there at a second look.

use crate::{
    gate::Gate,
    issuer::{Marked, Part, Sighting, TargetError, Teardown},
    reaper::Undertakers,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{Acceptance, Event, IdentityName, Lease, LeaseId, LeaseState, StoreError, TargetName};
use utoipa::ToSchema;

/// What a sweep of one target came to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Swept {
    /// Where.
    pub target: TargetName,
    /// Accounts with our mark and no lease.
    pub orphans: Vec<Marked>,
    /// Leases whose account was there again.
    pub reopened: Vec<LeaseId>,
    /// Why the target could not be asked.
    pub error: Option<String>,
}

/// Why an account was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum NotAdopted {
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Refused(String),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Our own store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sweeps targets, and remembers what it saw. Cheap to clone.
#[derive(Clone)]
pub struct Sweeper {
    gate: Gate,
    undertakers: Undertakers,
    seen: Arc<Mutex<BTreeMap<TargetName, Seen>>>,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// At the last sweep that got an answer.
#[derive(Debug, Default)]
struct Seen {
    server: Option<String>,
    orphans: Vec<Marked>,
}

impl Sweeper {
    /// Of all targets that these can ask.
    pub fn new(gate: Gate, undertakers: Undertakers) -> Self {
        Self { gate, undertakers, seen: Arc::default() }
    }

    /// Runs until the gate stops.
    pub async fn run(self, every: Duration) {
        loop {
            self.sweep(None).await;
            tokio::select! {
                () = self.gate.stopping.cancelled() => return,
                () = tokio::time::sleep(jittered(every)) => {}
            }
        }
    }

    /// Accounts with our mark and no lease, as far as known now.
    pub fn orphans(&self) -> Vec<(TargetName, Marked)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().flat_map(|(t, seen)| seen.orphans.iter().map(|m| (t.clone(), m.clone()))).collect()
    }

    /// Sweeps this target, or all, beside each other: one that hangs keeps no other waiting.
    pub async fn sweep(&self, only: Option<&TargetName>) -> Vec<Swept> {
        let chosen = self.targets().into_iter().filter(|(target, _)| only.is_none_or(|only| only == target));
        let sweeps = chosen.map(|(target, undertaker)| async move { self.one(&target, undertaker.as_ref()).await });
        futures::future::join_all(sweeps).await
    }

    /// A lease for an account with our mark that has none; the reaper then removes it.
    pub async fn adopt(&self, target: &TargetName, name: &str, word: Acceptance) -> Result<Lease, NotAdopted> {
        let Some((_, undertaker)) = self.targets().into_iter().find(|(known, _)| known == target) else {
            return Err(NotAdopted::Refused(format!("{target} is no target that can be swept")));
        };
        let swept = self.judged(target, undertaker.as_ref()).await?.1;
        let Some(marked) = swept.orphans.iter().find(|marked| marked.name == name) else {
            let sentence =
                format!("{target} has no role {name} with our mark and without a lease: `tidegate lease sweep`");
            return Err(NotAdopted::Refused(sentence));
        };
        if marked.part != Part::Session {
            let what =
                "keeps what a session left behind: give its objects to somebody, or drop them, and then the role";
            return Err(NotAdopted::Refused(format!("{name} {what}")));
        }
        let plan = undertaker.adopt(target, marked)?;
        let lease = self.gate.store.adopted(target, plan, word, self.gate.now()).await?;
        self.gate.custody.retry();
        self.one(target, undertaker.as_ref()).await;
        Ok(lease)
    }

    fn targets(&self) -> Vec<(TargetName, Arc<dyn Teardown>)> {
        self.undertakers.values().flat_map(|u| u.swept().into_iter().map(move |target| (target, u.clone()))).collect()
    }

    async fn one(&self, target: &TargetName, undertaker: &dyn Teardown) -> Swept {
        match self.judged(target, undertaker).await {
            Ok((sighting, swept)) => {
                self.remember(target, sighting, &swept.orphans).await;
                swept
            }
            Err(error) => {
                tracing::warn!(%target, %error, "the target could not be swept");
                let error = Some(error.to_string());
                Swept { target: target.clone(), orphans: Vec::new(), reopened: Vec::new(), error }
            }
        }
    }

    /// What is there and should not be, at both of two looks; leases of accounts that came back are open again.
    async fn judged(&self, target: &TargetName, undertaker: &dyn Teardown) -> Result<(Sighting, Swept), TargetError> {
        let mut sighting = undertaker.sweep(target).await?;
        let mut strays = self.strays(target, &sighting, undertaker).await?;
        if !strays.is_empty() {
            let before = strays;
            sighting = undertaker.sweep(target).await?;
            strays = self.strays(target, &sighting, undertaker).await?;
            strays.retain(|stray| before.iter().any(|b| b.0 == stray.0 && b.1.is_some() == stray.1.is_some()));
        }
        let mut swept = Swept { target: target.clone(), orphans: Vec::new(), reopened: Vec::new(), error: None };
        for (marked, closed) in strays {
            match closed {
                None => swept.orphans.push(marked),
                Some(lease) => {
                    let why = format!("{} is there again: {}", marked.name, sighting.server);
                    tracing::error!(%target, lease = %lease.id(), why, "a closed lease is open again");
                    let reopened = self.gate.store.reopened(&lease, &why, self.gate.now()).await;
                    swept.reopened.push(reopened.map_err(|error| TargetError::Ours(error.to_string()))?.id());
                }
            }
        }
        if !swept.reopened.is_empty() {
            self.gate.custody.retry();
        }
        Ok((sighting, swept))
    }

    /// Accounts of ours that no open lease speaks of, with the closed one that does.
    async fn strays(
        &self,
        target: &TargetName,
        sighting: &Sighting,
        undertaker: &dyn Teardown,
    ) -> Result<Vec<(Marked, Option<Lease>)>, TargetError> {
        if sighting.marked.is_empty() {
            return Ok(Vec::new()); // as nearly always, and the closed leases are many
        }
        let names: Vec<&str> = sighting.marked.iter().map(|marked| marked.name.as_str()).collect();
        let ids: Vec<LeaseId> = sighting.marked.iter().filter_map(|marked| marked.lease).collect();
        let leases = self.gate.store.leases_about(target, &names, &ids).await;
        let leases = leases.map_err(|error| TargetError::Ours(error.to_string()))?;
        let mut strays = Vec::new();
        for marked in &sighting.marked {
            if marked.gateway.as_ref().is_some_and(|gateway| *gateway != self.gate.name) {
                continue;
            }
            let known = leases.iter().rfind(|lease| match marked.part {
                Part::Session => undertaker.is_account_of(lease, marked),
                Part::Heir => marked.lease == Some(lease.id()),
                // Lent for a moment while a teardown is under way.
                Part::Lender => lease.state() != LeaseState::Closed,
            });
            match known {
                None => strays.push((marked.clone(), None)),
                Some(lease) if marked.part == Part::Session && lease.state() == LeaseState::Closed => {
                    strays.push((marked.clone(), Some(lease.clone())));
                }
                Some(_) => {}
            }
        }
        Ok(strays)
    }

    /// Says what is new, once.
    async fn remember(&self, target: &TargetName, sighting: Sighting, orphans: &[Marked]) {
        let last = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.get(target).and_then(|seen| seen.server.clone())
        };
        let last = match last {
            Some(last) => Some(last),
            None => self.server_of_the_last_receipt(target).await,
        };
        if let Some(last) = last.filter(|last| *last != sighting.server) {
            tracing::error!(%target, before = last, now = sighting.server, "the target was restored or failed over");
            let detail = serde_json::json!({ "before": last, "now": sighting.server });
            self.say(Event::new("target.changed").target(target).detail(detail)).await;
        }
        let known = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Seen { server: Some(sighting.server), orphans: orphans.to_vec() };
            seen.insert(target.clone(), now).map(|before| before.orphans).unwrap_or_default()
        };
        for orphan in orphans.iter().filter(|orphan| !known.iter().any(|k| k.id == orphan.id && k.name == orphan.name))
        {
            tracing::error!(%target, role = orphan.name, works = orphan.works, "an account with our mark has no lease");
            self.say(Event::new("orphan.found").target(target).detail(serde_json::json!(orphan))).await;
        }
    }

    /// So that a restore while the gateway was down is noticed too.
    async fn server_of_the_last_receipt(&self, target: &TargetName) -> Option<String> {
        self.gate.store.last_found(target, "server").await.ok()?.into_iter().next()
    }

    async fn say(&self, event: Event) {
        if let Err(error) = self.gate.store.append(event, self.gate.now()).await {
            tracing::error!(%error, "what a sweep found could not be written");
        }
    }
}

/// Who adopts or accepts, and why.
pub fn word(by: &IdentityName, reason: &str) -> Result<Acceptance, String> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err("say why: --reason".to_owned());
    }
    Ok(Acceptance { by: by.clone(), reason: reason.to_owned() })
}

/// Three quarters to five quarters of it, so that many gateways do not come to one target together.
fn jittered(every: Duration) -> Duration {
    every.mul_f64(0.75 + f64::from(getrandom::u32().unwrap_or(0) % 256) / 512.0)
}
