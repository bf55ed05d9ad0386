//! The certificate of a minute: minted for each connection to a target, and never on the target itself.
//!
//! What exists on the target because of a session is its connections and what their programs left running. So its
//! [`lease`] notes each connection, by the address that the target sees, before a credential is shown on it. (A handshake
//! that comes no further leaves nothing.) Closing them is the session's own doing, and after a crash the kernel's. The
//! receipt asks the target which processes still carry one of those addresses in their environment.

use super::{
    SshTarget,
    flow::Budget,
    inspect::{self, Leftovers},
    lease::{self, Detail, Noted, not_written, note_refused, ours},
    target::{self, TargetConnection},
};
use crate::{
    gate::Clock,
    issuer::{ELSEWHERE, Issuer, TARGET_DEADLINE, TargetError, Teardown, not_looked},
    pause,
    session::{Way, about},
    targets::Targets,
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};
use tidegate_ca::{Keys, SshCredential, UserCertificate};
use tidegate_grants::{
    Access, Lease, LeaseId, LeaseKind, LeasePlan, Permit, Receipt, Store, TargetName, lease::Finding,
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// A certificate is good from a little before now: clocks differ.
const BEFORE: Duration = Duration::from_secs(30);
/// And no longer than this.
const AFTER: Duration = Duration::from_secs(60);
/// After so many failed attempts, a login whose shell does not answer is not waited for: whoever has the login can make it
/// hang on purpose, and the lease would stay open for ever.
const MOST_SILENCES: u32 = 3;
/// Log-ins for receipts that one target has to deal with at once; the others wait for their turn. sshd drops some of those that
/// come when ten are being let in (`MaxStartups`), and the room is for people.
const LOOKS: usize = 4;
/// How long a receipt waits for its turn; then it is the reaper's, and no attempt is counted.
const TURN: Duration = Duration::from_secs(5);

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

/// Mints SSH certificates.
#[derive(Debug)]
pub struct SshIssuer {
    store: Arc<Store>,
    keys: Arc<Keys>,
    targets: Targets<SshTarget>,
    source_addresses: Vec<String>,
    clock: Clock,
    /// Leases whose keys were made here and have been destroyed with their sessions, each with its open connections. For
    /// any other one (after a crash) nobody knows where the key went, so its certificate is waited for; its connections
    /// were closed by the kernel.
    made_here: Lock<HashMap<LeaseId, TaskTracker>>,
    /// Turns to log in for a receipt, [`LOOKS`] for each target.
    turns: Lock<HashMap<TargetName, Arc<Semaphore>>>,
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
        let (made_here, turns) = (Lock::default(), Lock::default());
        Self { store, keys, targets: Targets::new(targets), source_addresses, clock, made_here, turns }
    }

    /// Puts other targets in the place of those that it knows; teardown goes on at those that are no longer named.
    pub fn replace(&self, targets: BTreeMap<TargetName, SshTarget>) {
        self.targets.replace(targets);
    }

    /// How it is reached, and what it has to show.
    pub(super) fn target(&self, name: &TargetName) -> Result<Arc<SshTarget>, TargetError> {
        self.targets.named(name)
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
        lease::note(
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
        let Some(end) = detail.valid_before() else { return };
        let now = (self.clock)();
        let end = end.min(now + AFTER + BEFORE); // a clock that jumped back must not hold the lease for ever
        while (self.clock)() < end {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A turn to log in to the target, for a receipt.
    async fn turn(&self, target: &TargetName) -> Result<OwnedSemaphorePermit, TargetError> {
        let turns = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(target.clone()).or_insert_with(|| Arc::new(Semaphore::new(LOOKS))).clone()
        };
        match timeout(TURN, turns.acquire_owned()).await {
            Ok(turn) => turn.map_err(|error| ours("no turn", &error)),
            Err(_) => Err(TargetError::Later(target.clone())),
        }
    }

    async fn look(&self, lease: &Lease, connections: &[Noted]) -> Result<Leftovers, TargetError> {
        let target = &*self.targets.known(lease.target())?;
        let turn = self.turn(lease.target()).await?;
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
        drop(turn);
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
            return Ok(Receipt { at: (self.clock)(), clean: true, findings, unverifiable: Vec::new(), accepted: None });
        }
        if let Some(why) = detail.elsewhere(&*self.targets.known(lease.target())?) {
            return Ok(not_looked((self.clock)(), why));
        }
        let open = self.made_here(lease.id());
        if open.is_none() {
            self.outlive(&detail).await;
        }
        let leftovers = self.look(lease, &detail.connections).await?;
        let now = (self.clock)();
        let mut findings = vec![detail.closed(open.as_ref()), detail.certificates(now)];
        findings.extend(leftovers.finding());
        Ok(Receipt {
            at: now,
            clean: true,
            findings,
            unverifiable: leftovers.unverifiable(lease.name()),
            accepted: None,
        })
    }
}

/// What differs between a session's certificate and the one for its receipt.
struct CertificateTerms<'a> {
    key_id: &'a str,
    valid_before: Timestamp,
    extensions: &'a [&'a str],
    force_command: Option<&'a str>,
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
            if !receipt.clean {
                return Ok(receipt);
            }
            self.made_here.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.id());
            Ok(receipt)
        })
    }

    fn acceptable(&self, lease: &Lease, receipt: &Receipt) -> Result<(), String> {
        match receipt.findings.iter().any(|finding| finding.what == ELSEWHERE) {
            true => Ok(()),
            false => Err(format!("what is left on {} is no fault: this lease closes by itself", lease.target())),
        }
    }
}

impl Issuer for SshIssuer {
    type Credential = Minted;

    /// Nothing of a certificate is on the target: what is left is a question to it, and a busy sshd takes its time to answer.
    const MOST_LEFT: u32 = 10_000;

    fn plan(&self, permit: &Permit) -> Result<LeasePlan, TargetError> {
        let target = self.target(permit.target())?;
        let name = login(permit)?;
        Ok(LeasePlan { kind: LeaseKind::SshCertificate, name, detail: Detail::on(&target).value()? })
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
        let credential = self.sign(&*self.target(permit.target())?, &login, &terms)?;
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
                let event = about("target.refused", way.permit).detail(serde_json::json!({ "why": error.to_string() }));
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
                let event = about("target.connected", way.permit)
                    .detail(serde_json::json!({ "serial": serial, "local": local }));
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
        lease::note(&self.store, noted, self.purpose, way).await
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
