//! What the lease of an SSH session notes: its connections to the target.
//!
//! What always holds: a connection is noted before a credential is shown on it, in one transaction with its entry in the
//! ledger; only one on which nothing can have run is ever marked as such; and a lease that cannot be read or written is an
//! error, never an empty one.
//!
//! It is apart from the [`issuer`](super::issuer) because it outlives it: these notes, and not what a process remembers,
//! are what the receipt asks the target about after a crash. So the shape of what is stored is here, with all that
//! writes it and all that is told from it alone.

use super::{
    HostTrust, SshTarget,
    issuer::{Purpose, SshIssuer},
};
use crate::{
    issuer::TargetError,
    refusal::Refusal,
    session::{Way, about},
};
use jiff::Timestamp;
use russh::keys::{HashAlg, PublicKey};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::SocketAddr};
use tidegate_grants::{Event, Lease, Store, lease::Finding};
use tokio_util::task::TaskTracker;

/// A session that has opened so many connections to its target has to be opened anew: the lease names them all.
const MOST_CONNECTIONS: usize = 1024;

/// A connection to the target, as its lease notes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Noted {
    /// Of its certificate.
    pub(super) serial: u64,
    /// When its certificate ends.
    pub(super) valid_before: Timestamp,
    /// Our end of it: sshd gives it to every process of the session.
    pub(super) local: SocketAddr,
    /// The target did not let it in, or it was closed before anything could run on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) refused: bool,
}

/// What a lease notes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) connections: Vec<Noted>,
    /// Which host it is about. A configuration can give its name to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
    #[serde(default, skip_serializing_if = "Forwarding::is_none")]
    forwarding: Forwarding,
}

/// A host, as the configuration of the lease's time described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Host {
    address: String,
    /// What it proves itself by.
    proofs: BTreeSet<String>,
}

impl Host {
    pub(super) fn of(target: &SshTarget) -> Self {
        let fingerprint = |key: &PublicKey| key.fingerprint(HashAlg::Sha256).to_string();
        let proofs = match &target.host {
            HostTrust::Keys(keys) => keys.iter().map(fingerprint).collect(),
            HostTrust::Certificate { authorities, name } => {
                authorities.iter().map(|key| format!("{name} by {}", fingerprint(key))).collect()
            }
        };
        Self { address: target.address.clone(), proofs }
    }

    /// A host that moves keeps its key, and one whose key is changed keeps its address.
    fn is(&self, now: &Self) -> bool {
        self.address == now.address || !self.proofs.is_disjoint(&now.proofs)
    }
}

/// The connections that only forward: browsers open hundreds, and none of them can leave a process behind, so they are
/// counted and not named.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Forwarding {
    connections: u64,
    /// When the last of their certificates ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_before: Option<Timestamp>,
}

impl Forwarding {
    fn is_none(&self) -> bool {
        self.connections == 0
    }
}

impl Detail {
    /// Of a lease that begins.
    pub(super) fn on(target: &SshTarget) -> Self {
        Self { host: Some(Host::of(target)), ..Self::default() }
    }

    /// Why this is not the host that the lease is about, if so.
    pub(super) fn elsewhere(&self, target: &SshTarget) -> Option<String> {
        let (name, now) = (&target.name, Host::of(target));
        let before = &self.host.as_ref().filter(|before| !before.is(&now))?.address;
        Some(format!(
            "{name} is another host now, at {}, than the one that the session was on, at {before}: name that one as {name} \
             again, and it is asked what is left; if it is gone for good, `tidegate lease accept` this",
            now.address
        ))
    }

    pub(super) fn of(lease: &Lease) -> Result<Self, TargetError> {
        serde_json::from_value(lease.detail().clone()).map_err(|error| ours("a lease that cannot be read", &error))
    }

    pub(super) fn value(&self) -> Result<serde_json::Value, TargetError> {
        serde_json::to_value(self).map_err(|error| ours("a lease that cannot be written", &error))
    }

    /// When the last of its certificates ends.
    pub(super) fn valid_before(&self) -> Option<Timestamp> {
        let ends = self.connections.iter().map(|noted| noted.valid_before);
        ends.chain(self.forwarding.valid_before).max()
    }

    /// The connections of a lease: closed, and by whom.
    pub(super) fn closed(&self, open: Option<&TaskTracker>) -> Finding {
        let (all, forwarding) = (self.connections.len(), self.forwarding.connections);
        let all = if forwarding == 0 { all.to_string() } else { format!("{all} and {forwarding} for forwarding") };
        let by = if open.is_some() { "by the gateway" } else { "with the gateway's process" };
        let found = open.map_or(0, TaskTracker::len);
        let what = format!("open connections of the session, of {all}: connection closed {by}");
        Finding { what, found: found.try_into().unwrap_or(u64::MAX), items: Vec::new() }
    }

    /// The certificates of a lease: their keys are destroyed, their ends are named.
    pub(super) fn certificates(&self, now: Timestamp) -> Finding {
        let running = self.connections.iter().filter(|noted| noted.valid_before > now);
        let mut items: Vec<String> = running
            .map(|noted| format!("serial {} ends at {}; its key was destroyed", noted.serial, noted.valid_before))
            .collect();
        if let Some(end) = self.forwarding.valid_before.filter(|end| *end > now) {
            items.push(format!("those for forwarding end at {end} or before; their keys were destroyed"));
        }
        let what = format!("certificates that have not ended, of {}", self.connections.len());
        Finding { what, found: items.len().try_into().unwrap_or(u64::MAX), items }
    }
}

/// Before the credential is shown.
pub(super) async fn note(
    store: &Store,
    noted: Noted,
    purpose: Purpose,
    way: &Way<'_, SshIssuer>,
) -> Result<(), TargetError> {
    let mut lease = way.lease.lock().await;
    let mut detail = Detail::of(&lease)?;
    let mut said = serde_json::json!(noted);
    match purpose {
        Purpose::Programs if detail.connections.len() >= MOST_CONNECTIONS => {
            return Err(TargetError::Ours(format!("a session may open {MOST_CONNECTIONS} connections")));
        }
        Purpose::Programs => detail.connections.push(noted),
        Purpose::Forwarding => {
            let valid_before = detail.forwarding.valid_before.max(Some(noted.valid_before));
            let connections = detail.forwarding.connections.saturating_add(1);
            detail.forwarding = Forwarding { connections, valid_before };
            said = serde_json::json!({
                "serial": noted.serial, "valid_before": noted.valid_before, "local": noted.local, "forwarding": true
            });
        }
    }
    let event = about("credential.minted", way.permit).lease(lease.id()).detail(said);
    let noting = store.note(&mut lease, detail.value()?, event, way.gate.now());
    noting.await.map_err(|error| ours("not noted", &error))
}

/// So that the receipt need not ask a target that let nobody in.
pub(super) async fn note_refused(store: &Store, serial: u64, why: &TargetError, way: &Way<'_, SshIssuer>) {
    let detail = serde_json::json!({ "serial": serial, "why": why.to_string() });
    note_unused(store, serial, about("target.refused", way.permit).detail(detail), way).await;
}

/// Nothing was ever run on a connection: none was made, or no channel was opened on it. An error leaves the note as it was,
/// which asks more.
pub(super) async fn note_unused(store: &Store, serial: u64, event: Event, way: &Way<'_, SshIssuer>) {
    let mut lease = way.lease.lock().await;
    let noted = async {
        let mut detail = Detail::of(&lease)?;
        detail.connections.iter_mut().filter(|noted| noted.serial == serial).for_each(|noted| noted.refused = true);
        let event = event.lease(lease.id());
        let noting = store.note(&mut lease, detail.value()?, event, way.gate.now());
        noting.await.map_err(|error| ours("not noted", &error))
    };
    if let Err(error) = noted.await {
        not_written(&error, way);
    }
}

pub(super) fn not_written(error: &dyn std::fmt::Display, way: &Way<'_, SshIssuer>) {
    tracing::error!(session = %way.permit.session(), %error, "the refusal could not be written");
}

/// Whether the lease has room for a further connection, and if not, what the person is told.
pub(super) async fn room(purpose: Purpose, way: &Way<'_, SshIssuer>) -> Result<(), Refusal> {
    if purpose == Purpose::Forwarding {
        return Ok(());
    }
    let detail = Detail::of(&*way.lease.lock().await).map_err(|error| Refusal::from(&error))?;
    if detail.connections.len() < MOST_CONNECTIONS {
        return Ok(());
    }
    Err(Refusal::new(format!("this session has opened {MOST_CONNECTIONS} channels, and may open no more"))
        .next("end it and open a new one"))
}

/// A fault of our own: `what` did not come about.
pub(super) fn ours(what: &str, error: &dyn std::fmt::Display) -> TargetError {
    TargetError::Ours(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str, proofs: &[&str]) -> Host {
        Host { address: address.to_owned(), proofs: proofs.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn a_host_that_moves_or_changes_a_key_is_the_same_and_one_that_does_both_is_another() {
        let before = host("10.0.0.11:22", &["one", "two"]);
        assert!(before.is(&host("10.0.0.12:22", &["two", "three"])), "it keeps a key");
        assert!(before.is(&host("10.0.0.11:22", &["three"])), "it keeps its place");
        assert!(!before.is(&host("10.0.0.12:22", &["three"])));
    }
}
