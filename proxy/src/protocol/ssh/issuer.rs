//! The certificate of a minute: minted for each connection to a target, and never on the target itself.
//!
//! What exists on the target because of a session is its connections and what their programs left running. So a lease
//! notes each connection, by the address that the target sees, before a credential is shown on it. (A handshake that
//! comes no further leaves nothing.) Closing them is the session's own doing, and after a crash the kernel's. The receipt
//! asks the target which processes still carry one of those addresses in their environment.

use super::{
    SshTarget,
    flow::Budget,
    inspect::{self, Leftovers},
    target::{self, TargetConnection},
};
use crate::{
    gate::Clock,
    issuer::{Issuer, TARGET_DEADLINE, TargetError, Teardown},
    pause,
    refusal::Refusal,
    session::Way,
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};
use tidegate_ca::{Keys, SshCredential, UserCertificate};
use tidegate_grants::{
    Access, Event, Lease, LeaseId, LeaseKind, LeasePlan, Permit, Receipt, Store, TargetName, lease::Finding,
};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// A certificate is good from a little before now: clocks differ.
const BEFORE: Duration = Duration::from_secs(30);
/// And no longer than this.
const AFTER: Duration = Duration::from_secs(60);
/// A session that has opened so many connections to its target has to be opened anew: the lease names them all.
const MOST_CONNECTIONS: usize = 1024;
/// After so many failed attempts, a login whose shell does not answer is not waited for: whoever has the login can make it
/// hang on purpose, and the lease would stay open for ever.
const MOST_SILENCES: u32 = 3;

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

/// What a connection to the target is for. Its certificate allows nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Programs, with a terminal or without.
    Programs,
    /// Forwarding. A forced command that does nothing keeps it from starting any program.
    Forwarding,
}

impl Purpose {
    /// The extensions of its certificate, and its forced command.
    fn limits(self) -> (&'static [&'static str], Option<&'static str>) {
        match self {
            Self::Programs => (&["permit-pty"], None),
            Self::Forwarding => (&["permit-port-forwarding"], Some("exit 1")),
        }
    }
}

/// What a lease notes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Detail {
    connections: Vec<Noted>,
    #[serde(default, skip_serializing_if = "Forwarding::is_none")]
    forwarding: Forwarding,
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
    fn of(lease: &Lease) -> Result<Self, TargetError> {
        serde_json::from_value(lease.detail().clone()).map_err(|error| ours("a lease that cannot be read", &error))
    }

    fn value(&self) -> Result<serde_json::Value, TargetError> {
        serde_json::to_value(self).map_err(|error| ours("a lease that cannot be written", &error))
    }
}

fn ours(what: &str, error: &dyn std::fmt::Display) -> TargetError {
    TargetError::Ours(format!("{what}: {error}"))
}

/// Mints SSH certificates.
#[derive(Debug)]
pub struct SshIssuer {
    store: Arc<Store>,
    keys: Arc<Keys>,
    targets: BTreeMap<TargetName, SshTarget>,
    source_addresses: Vec<String>,
    clock: Clock,
    /// Leases whose keys were made here and have been destroyed with their sessions, each with its open connections. For
    /// any other one (after a crash) nobody knows where the key went, so its certificate is waited for; its connections
    /// were closed by the kernel.
    made_here: Lock<HashMap<LeaseId, TaskTracker>>,
}

/// A fresh key with its certificate, for one connection.
#[derive(Debug)]
pub struct Minted {
    store: Arc<Store>,
    credential: SshCredential,
    login: String,
    valid_before: Timestamp,
    purpose: Purpose,
    connections: TaskTracker,
}

impl SshIssuer {
    /// With the targets of the configuration. `source_addresses` is what targets see of the gateway.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<Keys>,
        targets: BTreeMap<TargetName, SshTarget>,
        source_addresses: Vec<String>,
        clock: Clock,
    ) -> Self {
        Self { store, keys, targets, source_addresses, clock, made_here: Lock::default() }
    }

    /// How it is reached, and what it has to show.
    pub(super) fn target(&self, name: &TargetName) -> Result<&SshTarget, TargetError> {
        self.targets.get(name).ok_or_else(|| TargetError::Unknown(name.to_string()))
    }

    fn sign(
        &self,
        target: &SshTarget,
        login: &str,
        terms: &CertificateTerms<'_>,
    ) -> Result<SshCredential, TargetError> {
        let spec = UserCertificate {
            principal: &target.principal_of(login),
            key_id: terms.key_id,
            valid_after: terms.valid_before - AFTER - BEFORE,
            valid_before: terms.valid_before,
            source_addresses: &self.source_addresses,
            extensions: terms.extensions,
            force_command: terms.force_command,
        };
        self.keys.ssh_user.issue_user(&spec).map_err(|error| ours("no certificate", &error))
    }

    /// A certificate for `target test` that differs from a session's in one point. Noted in the lease before it is returned.
    pub(super) async fn mint_otherwise(
        &self,
        otherwise: &Otherwise,
        local: SocketAddr,
        way: &Way<'_, Self>,
    ) -> Result<SshCredential, TargetError> {
        let key_id = format!("tidegate session={} test of the target", way.permit.session());
        let now = (self.clock)();
        let spec = UserCertificate {
            principal: &otherwise.principal,
            key_id: &key_id,
            valid_after: now - otherwise.before,
            valid_before: now + otherwise.after,
            source_addresses: &otherwise.source_addresses,
            extensions: &[],
            force_command: Some("exit"), // it is only to be let in
        };
        let credential = self.keys.ssh_user.issue_user(&spec).map_err(|error| ours("no certificate", &error))?;
        let serial = credential.certificate.serial();
        note(
            &self.store,
            Noted { serial, valid_before: spec.valid_before, local, refused: false },
            Purpose::Programs,
            way,
        )
        .await?;
        Ok(credential)
    }

    /// An address of ours as targets see it, for a command that an admin runs there.
    pub(super) fn usual_source(&self) -> &str {
        self.source_addresses.first().map_or("127.0.0.1", String::as_str)
    }

    /// What a certificate of a session is made of, for `target test` to differ from.
    pub(super) fn usual(&self, target: &SshTarget, login: &str) -> Otherwise {
        let (principal, source_addresses) = (target.principal_of(login), self.source_addresses.clone());
        Otherwise { principal, before: BEFORE, after: AFTER, source_addresses }
    }

    /// The open connections of a lease whose session was served by this process.
    fn made_here(&self, lease: LeaseId) -> Option<TaskTracker> {
        self.made_here.lock().unwrap_or_else(PoisonError::into_inner).get(&lease).cloned()
    }

    /// After a crash: until the last certificate of the lease has ended. Its key is gone with the process that made
    /// it, but nobody can prove that.
    async fn outlive(&self, detail: &Detail) {
        let ends = detail.connections.iter().map(|noted| noted.valid_before);
        let Some(end) = ends.chain(detail.forwarding.valid_before).max() else { return };
        let now = (self.clock)();
        let end = end.min(now + AFTER + BEFORE); // a clock that jumped back must not hold the lease for ever
        while (self.clock)() < end {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn look(&self, lease: &Lease, connections: &[Noted]) -> Result<Leftovers, TargetError> {
        let target = self.target(lease.target())?;
        let stream = inspect::dial_apart(target, connections).await?;
        let key_id = format!("tidegate session={} receipt of lease={}", lease.session(), lease.id());
        let terms = CertificateTerms {
            key_id: &key_id,
            valid_before: (self.clock)() + AFTER,
            extensions: &[],
            force_command: Some(inspect::SCRIPT),
        };
        let credential = self.sign(target, lease.name(), &terms)?;
        let open = TaskTracker::new().token();
        let greeted = target::greet(stream, target, (self.clock)(), &Budget::default(), open).await?;
        let connection = greeted.log_in(lease.name(), credential).await.map_err(|no_login| no_login.error)?;
        // From here on it is the login's own shell that answers, or does not.
        match inspect::look(target, &connection, connections).await {
            Err(error) if lease.attempts() >= MOST_SILENCES => {
                tracing::warn!(lease = %lease.id(), target = %target.name, %error, "closed without an answer");
                Ok(Leftovers::Silent)
            }
            answer => answer,
        }
    }

    async fn receipt(&self, lease: &Lease) -> Result<Receipt, TargetError> {
        let mut detail = Detail::of(lease)?;
        let all = detail.connections.len();
        detail.connections.retain(|noted| !noted.refused);
        if detail.connections.is_empty() {
            let what = format!("logins on the target ({all} tried)");
            let findings = vec![Finding { what, found: 0, items: Vec::new() }];
            return Ok(Receipt { at: (self.clock)(), clean: true, findings, unverifiable: Vec::new() });
        }
        let open = self.made_here(lease.id());
        if open.is_none() {
            self.outlive(&detail).await;
        }
        let leftovers = self.look(lease, &detail.connections).await?;
        let now = (self.clock)();
        let mut findings = vec![closed(&detail, open.as_ref()), certificates(&detail, now)];
        findings.extend(leftovers.finding());
        Ok(Receipt { at: now, clean: true, findings, unverifiable: leftovers.unverifiable(lease.name()) })
    }
}

/// What differs between a session's certificate and the one for its receipt.
struct CertificateTerms<'a> {
    key_id: &'a str,
    valid_before: Timestamp,
    extensions: &'a [&'a str],
    force_command: Option<&'a str>,
}

/// The connections of a lease: closed, and by whom.
fn closed(detail: &Detail, open: Option<&TaskTracker>) -> Finding {
    let (all, forwarding) = (detail.connections.len(), detail.forwarding.connections);
    let all = if forwarding == 0 { all.to_string() } else { format!("{all} and {forwarding} for forwarding") };
    let by = if open.is_some() { "by the gateway" } else { "with the gateway's process" };
    let found = open.map_or(0, TaskTracker::len);
    let what = format!("open connections of the session, of {all}: connection closed {by}");
    Finding { what, found: found.try_into().unwrap_or(u64::MAX), items: Vec::new() }
}

/// The certificates of a lease: their keys are destroyed, their ends are named.
fn certificates(detail: &Detail, now: Timestamp) -> Finding {
    let running = detail.connections.iter().filter(|noted| noted.valid_before > now);
    let mut items: Vec<String> = running
        .map(|noted| format!("serial {} ends at {}; its key was destroyed", noted.serial, noted.valid_before))
        .collect();
    if let Some(end) = detail.forwarding.valid_before.filter(|end| *end > now) {
        items.push(format!("those for forwarding end at {end} or before; their keys were destroyed"));
    }
    let what = format!("certificates that have not ended, of {}", detail.connections.len());
    Finding { what, found: items.len().try_into().unwrap_or(u64::MAX), items }
}

impl Teardown for SshIssuer {
    /// Closing our connections is the session's own doing: this waits until each of them is. After a crash there is none.
    fn disable<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async {
            let Some(open) = self.made_here(lease.id()) else { return Ok(()) };
            open.close();
            let closed = timeout(TARGET_DEADLINE, open.wait()).await;
            closed.map_err(|_| TargetError::Ours(format!("{} connections are still open", open.len())))
        })
    }

    /// Nothing to do: on a login that others share, files and processes are the person's own. The receipt names them.
    fn clean<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async { Ok(()) })
    }

    fn inspect<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Receipt, TargetError>> {
        Box::pin(async {
            let receipt = self.receipt(lease).await?;
            self.made_here.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.id());
            Ok(receipt)
        })
    }
}

impl Issuer for SshIssuer {
    type Credential = Minted;

    fn plan(&self, permit: &Permit) -> Result<LeasePlan, TargetError> {
        self.target(permit.target())?;
        let name = login(permit)?;
        Ok(LeasePlan { kind: LeaseKind::SshCertificate, name, detail: Detail::default().value()? })
    }

    async fn mint(&self, permit: &Permit, lease: &Mutex<Lease>) -> Result<Minted, TargetError> {
        self.mint_for(Purpose::Programs, permit, lease).await
    }
}

impl SshIssuer {
    /// Nothing reaches the target yet: the certificate is noted in the lease when there is a connection to use it on.
    pub(super) async fn mint_for(
        &self,
        purpose: Purpose,
        permit: &Permit,
        lease: &Mutex<Lease>,
    ) -> Result<Minted, TargetError> {
        let lease = lease.lock().await.id();
        let connections =
            self.made_here.lock().unwrap_or_else(PoisonError::into_inner).entry(lease).or_default().clone();
        let login = login(permit)?;
        let valid_before = ((self.clock)() + AFTER).min(permit.expires());
        let (session, identity, grant) = (permit.session(), permit.identity(), permit.grant());
        let key_id = format!("tidegate session={session} identity={identity} grant={grant}");
        let (extensions, force_command) = purpose.limits();
        let terms = CertificateTerms { key_id: &key_id, valid_before, extensions, force_command };
        let credential = self.sign(self.target(permit.target())?, &login, &terms)?;
        Ok(Minted { store: self.store.clone(), credential, login, valid_before, purpose, connections })
    }
}

fn login(permit: &Permit) -> Result<String, TargetError> {
    match permit.access() {
        Access::Login(login) => Ok(login.to_string()),
        Access::Database(_) => Err(TargetError::Ours("a database is no login".to_owned())),
    }
}

impl Minted {
    /// Connects, has the target prove itself, notes the connection in the lease, and only then shows the credential.
    /// What the target sends counts in `budget`.
    pub(super) async fn log_in(
        self,
        target: &SshTarget,
        way: &Way<'_, SshIssuer>,
        budget: &Budget,
    ) -> Result<TargetConnection, TargetError> {
        let stream = target::dial(target).await?;
        let local = stream.local_addr().map_err(|error| ours("no local address", &error))?;
        let open = self.connections.token();
        let greeted = match target::greet(stream, target, way.gate.now(), budget, open).await {
            Ok(greeted) => greeted,
            Err(error) => {
                let event = about("target.refused", way).detail(serde_json::json!({ "why": error.to_string() }));
                if let Err(unwritten) = self.store.append(event, way.gate.now()).await {
                    not_written(&unwritten, way);
                }
                return Err(error);
            }
        };
        let serial = self.credential.certificate.serial();
        self.note(serial, local, way).await?;
        pause::at("during-connect").await;
        let (store, login) = (self.store, self.login);
        match greeted.log_in(&login, self.credential).await {
            Ok(connection) => {
                let event =
                    about("target.connected", way).detail(serde_json::json!({ "serial": serial, "local": local }));
                store.append(event, way.gate.now()).await.map_err(|error| ours("not connected", &error))?;
                Ok(connection)
            }
            Err(no_login) => {
                if no_login.refused {
                    note_refused(&store, serial, &no_login.error, way).await;
                }
                Err(no_login.error)
            }
        }
    }

    /// Its parts, for `target test`: noted in the lease, and ready to be shown.
    pub(super) async fn noted(self, local: SocketAddr, way: &Way<'_, SshIssuer>) -> Result<Shown, TargetError> {
        self.note(self.credential.certificate.serial(), local, way).await?;
        Ok(Shown { credential: self.credential, valid_before: self.valid_before, open: self.connections.token() })
    }

    async fn note(&self, serial: u64, local: SocketAddr, way: &Way<'_, SshIssuer>) -> Result<(), TargetError> {
        let noted = Noted { serial, valid_before: self.valid_before, local, refused: false };
        note(&self.store, noted, self.purpose, way).await
    }
}

/// A credential that is noted in its lease.
pub(super) struct Shown {
    pub(super) credential: SshCredential,
    pub(super) valid_before: Timestamp,
    /// Counts the connection among those of the lease.
    pub(super) open: TaskTrackerToken,
}

/// What `target test` varies of a certificate, to find out why the usual one was refused.
#[derive(Debug, Clone)]
pub(super) struct Otherwise {
    pub(super) principal: String,
    pub(super) before: Duration,
    pub(super) after: Duration,
    pub(super) source_addresses: Vec<String>,
}

async fn note(store: &Store, noted: Noted, purpose: Purpose, way: &Way<'_, SshIssuer>) -> Result<(), TargetError> {
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
    let event = about("credential.minted", way).lease(lease.id()).detail(said);
    let noting = store.note(&mut lease, detail.value()?, event, way.gate.now());
    noting.await.map_err(|error| ours("not noted", &error))
}

/// So that the receipt need not ask a target that let nobody in.
pub(super) async fn note_refused(store: &Store, serial: u64, why: &TargetError, way: &Way<'_, SshIssuer>) {
    let detail = serde_json::json!({ "serial": serial, "why": why.to_string() });
    note_unused(store, serial, about("target.refused", way).detail(detail), way).await;
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

fn not_written(error: &dyn std::fmt::Display, way: &Way<'_, SshIssuer>) {
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

/// The ledger's entry about this session.
pub(super) fn about(kind: &str, way: &Way<'_, SshIssuer>) -> Event {
    let permit = way.permit;
    Event::new(kind).session(permit.session()).identity(permit.identity()).target(permit.target()).grant(permit.grant())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forwards_starts_no_program_and_what_starts_programs_does_not_forward() {
        let (extensions, forced) = Purpose::Forwarding.limits();
        assert_eq!((extensions, forced), (&["permit-port-forwarding"][..], Some("exit 1")));
        let (extensions, forced) = Purpose::Programs.limits();
        assert!(!extensions.contains(&"permit-port-forwarding") && forced.is_none());
    }
}
