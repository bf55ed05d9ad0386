//! The ephemeral role: minted here, and removed in [`teardown`](super::teardown), through the `tidegate` schema's functions.
//!
//! The gateway's login on a target may call these functions and nothing else. What always holds: the lease is on disk before
//! the role exists; the role's comment names the lease, so that a role whose OID we never heard of is found again; and a mint
//! either takes effect within seconds of its plan or never ([`role::SETTLED`](super::role)).

use super::{
    Auth, PostgresTarget,
    admin::{Admin, Lane, Link, epoch, read},
    fault::{Fault, Step, plain},
    role::{MINT_WINDOW, Mint, Notes, role_name},
};
use crate::{
    gate::Clock,
    issuer::{Issuer, TargetError},
    pause,
    session::about,
};
use arc_swap::ArcSwap;
use data_encoding::BASE32_NOPAD;
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tidegate_ca::Keys;
use tidegate_grants::{
    Access, DatabaseName, Lease, LeaseId, LeaseKind, LeasePlan, Leftovers, Permit, Store, TargetName, Terms,
};
use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::types::Type;
use zeroize::Zeroizing;

/// What the relay needs to log in as the ephemeral role.
#[derive(Debug)]
pub struct RoleCredential {
    /// The role: the start-up packet's `user`.
    pub role: String,
    /// TLS to the target, verify-full; where it takes certificates, with one of a minute whose common name is the role.
    pub tls: Arc<rustls::ClientConfig>,
    /// Where the target takes no certificate: a random password of this role. The target was given its verifier only.
    pub password: Option<SecretString>,
    /// Start-up settings that we add for the session: `role`, where the entitlement has an owner. (`ALTER ROLE … SET role`
    /// is refused inside a security definer function.)
    pub settings: BTreeMap<String, String>,
}

/// Mints and removes ephemeral roles.
#[derive(Debug)]
pub struct PostgresIssuer {
    store: Arc<Store>,
    clock: Clock,
    pub(super) admin: Admin,
    /// The databases that have our functions.
    pub(super) databases: ArcSwap<BTreeMap<TargetName, BTreeSet<DatabaseName>>>,
    /// OIDs that no mint noted, found by name after a crash: the receipt asks by OID, when the name is gone already.
    pub(super) found: std::sync::Mutex<HashMap<LeaseId, u32>>,
}

/// More than this of what mint saw is not kept to compare with: the receipt says so.
const LONGEST_WITNESS: usize = 64 * 1024;
/// For what was minted to be read back: a login does not wait for it any longer.
const TO_REPORT: std::time::Duration = std::time::Duration::from_secs(1);

impl PostgresIssuer {
    /// With the targets of the configuration.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<Keys>,
        targets: BTreeMap<TargetName, PostgresTarget>,
        clock: Clock,
    ) -> Self {
        let admin = Admin::new(keys, targets, clock);
        Self { store, clock, admin, databases: ArcSwap::default(), found: Default::default() }
    }

    /// With the databases that have our functions ([`trust::databases`](super::trust::databases)): what is done to roles can be
    /// done in any of them, and they are swept.
    pub fn reach(&self, databases: BTreeMap<TargetName, BTreeSet<DatabaseName>>) {
        self.databases.store(Arc::new(databases));
    }

    pub(super) fn databases_of(&self, target: &TargetName) -> Vec<DatabaseName> {
        self.databases.load().get(target).into_iter().flatten().cloned().collect()
    }

    /// Puts other targets in the place of those that it knows; teardown goes on at those that are no longer named.
    pub fn replace(&self, targets: BTreeMap<TargetName, PostgresTarget>) {
        self.admin.replace(targets);
    }

    pub(super) fn now(&self) -> jiff::Timestamp {
        (self.clock)()
    }
}

impl Issuer for PostgresIssuer {
    type Credential = RoleCredential;

    const MOST_LEFT: u32 = 100; // roles

    fn plan(&self, permit: &Permit) -> Result<LeasePlan, TargetError> {
        let target = self.admin.target(permit.target())?;
        let (Access::Database(database), Terms::Postgres { owner, leftovers, .. }) =
            (permit.access(), &permit.entitlement().terms)
        else {
            return Err(TargetError::Ours("the permit is not for a database".into()));
        };
        let mut random = [0; 5];
        getrandom::fill(&mut random).map_err(|error| TargetError::Ours(error.to_string()))?;
        let notes = Notes {
            database: database.clone(),
            groups: permit.roles(),
            owner: owner.clone(),
            drop_leftovers: *leftovers == Leftovers::Drop,
            planned: self.now(),
            mint: Mint::Planned,
            oid: None,
            minted: None,
            before: None,
            address: Some(target.primary().to_owned()),
            server: None,
        };
        let name = role_name(permit.identity(), random);
        Ok(LeasePlan { kind: LeaseKind::PostgresRole, name, detail: notes.to_json() })
    }

    async fn mint(&self, permit: &Permit, lease: &Mutex<Lease>) -> Result<RoleCredential, TargetError> {
        let target = self.admin.target(permit.target())?;
        let mut lease = lease.lock().await;
        let mut notes = Notes::of(&lease).map_err(TargetError::Ours)?;
        // Before the role: nothing that can fail on our side comes between the role and its use.
        let (tls, serial) = self.admin.tls(&target, lease.name()).map_err(TargetError::Ours)?;
        let password = match target.auth {
            Auth::Certificate => None,
            Auth::Scram(_) => Some(random_password()?),
        };
        if notes.mint == Mint::Planned {
            let proof = Proof { serial, verifier: password.as_ref().map(verifier) };
            self.create(permit, &mut lease, &mut notes, &proof).await?;
        } else if notes.mint == Mint::Failed {
            return Err(TargetError::Ours("this lease's role was refused before".into()));
        } else if password.is_some() {
            return Err(TargetError::Ours("this lease's role has a password that nobody kept".into()));
        }
        self.arrive(&lease, &notes).await?;
        let settings = notes.owner.iter().map(|owner| ("role".to_owned(), owner.to_string())).collect();
        Ok(RoleCredential { role: lease.name().to_owned(), tls: Arc::new(tls), password, settings })
    }
}

/// What the role will prove itself by, as the target and the ledger know it.
struct Proof {
    /// Of the certificate.
    serial: Option<String>,
    /// Of the password: SCRAM-SHA-256, so that no log of the target holds the password.
    verifier: Option<String>,
}

/// 160 bits.
pub(super) fn random_password() -> Result<SecretString, TargetError> {
    let mut random = Zeroizing::new([0; 20]);
    getrandom::fill(random.as_mut()).map_err(|error| TargetError::Ours(error.to_string()))?;
    Ok(SecretString::from(BASE32_NOPAD.encode(random.as_ref())))
}

/// As `pg_authid` keeps it (PostgreSQL chapter 53.8).
pub(super) fn verifier(password: &SecretString) -> String {
    postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes())
}

impl PostgresIssuer {
    /// Has the target make the role, and notes how that went.
    async fn create(
        &self,
        permit: &Permit,
        lease: &mut Lease,
        notes: &mut Notes,
        proof: &Proof,
    ) -> Result<(), TargetError> {
        let blame = |fault: Fault| fault.blame(permit.target(), Step::Mint);
        let link = match self.admin.link(permit.target(), notes.database.as_str(), Lane::Quick).await {
            Ok(link) => link,
            // It was never asked: nothing to wait for.
            Err(fault) => {
                let error = blame(fault);
                self.note_failed(permit, lease, notes, &error).await?;
                return Err(error);
            }
        };
        let reported = match self.call_mint(&link, permit, lease, notes, proof).await {
            Ok(()) => report(link, notes).await,
            Err(fault) => {
                let (definite, late) = (fault.is_definite(), fault.is_late());
                let error = blame(fault);
                if definite {
                    self.note_failed(permit, lease, notes, &error).await?;
                    if !late {
                        link.keep();
                    }
                }
                return Err(error);
            }
        };
        pause::at("during-mint").await;
        let detail = serde_json::json!({
            "role": lease.name(), "oid": notes.oid, "database": notes.database, "groups": notes.groups,
            "owner": notes.owner, "until": permit.expires(), "certificate": proof.serial, "password": proof.verifier.is_some(),
            "reported": reported,
        });
        let event = about("credential.minted", permit).lease(lease.id()).detail(detail);
        self.store.note(lease, notes.to_json(), event, self.now()).await.map_err(ours)?;
        pause::at("after-mint").await;
        Ok(())
    }

    async fn call_mint(
        &self,
        link: &Link,
        permit: &Permit,
        lease: &Lease,
        notes: &mut Notes,
        proof: &Proof,
    ) -> Result<(), Fault> {
        let Terms::Postgres { max_connections, inherit, .. } = permit.entitlement().terms else {
            return Err(Fault::Refused("the permit is not for a database".into()));
        };
        let groups: Vec<&str> = notes.groups.iter().map(|group| group.as_str()).collect();
        let owner = notes.owner.as_ref().map(|owner| owner.as_str());
        let (until, connections) = (epoch(permit.expires()), i32::from(max_connections));
        let by = link.target_clock(notes.planned.duration_since(self.now()) + MINT_WINDOW);
        let (lease_id, session) = (lease.id().to_string(), lease.session().to_string());
        let row = link
            .one(
                "select role, before::text, extract(epoch from clock_timestamp())::float8, tidegate.server() from tidegate.mint(\
                 $1, $2, $3, $4, to_timestamp($5), $6, $7, to_timestamp($8), $9, $10::uuid, $11::uuid)",
                &[
                    (&lease.name(), Type::TEXT),
                    (&groups, Type::TEXT_ARRAY),
                    (&inherit, Type::BOOL),
                    (&owner, Type::TEXT),
                    (&until, Type::FLOAT8),
                    (&connections, Type::INT4),
                    (&proof.verifier, Type::TEXT),
                    (&by, Type::FLOAT8),
                    (&permit.claims().aud, Type::TEXT),
                    (&lease_id, Type::TEXT),
                    (&session, Type::TEXT),
                ],
            )
            .await?;
        notes.oid = Some(read(&row, 0)?);
        let before: Option<String> = read(&row, 1)?;
        notes.before = before.filter(|before| before.len() <= LONGEST_WITNESS);
        notes.minted = Some(read(&row, 2)?);
        notes.server = Some(plain(read(&row, 3)?));
        notes.mint = Mint::Done;
        Ok(())
    }

    /// The target certainly made no role: the lease can be closed at once.
    async fn note_failed(
        &self,
        permit: &Permit,
        lease: &mut Lease,
        notes: &mut Notes,
        error: &TargetError,
    ) -> Result<(), TargetError> {
        notes.mint = Mint::Failed;
        let detail = serde_json::json!({ "role": lease.name(), "why": error.to_string() });
        let event = about("credential.refused", permit).lease(lease.id()).detail(detail);
        self.store.note(lease, notes.to_json(), event, self.now()).await.map_err(ours)
    }
}

/// What the role is and may be, as the target itself has it now (PostgreSQL chapters 54.20, 53.9): evidence of what was minted. The
/// session does not depend on it.
async fn report(link: Link, notes: &Notes) -> Option<serde_json::Value> {
    const ROLE: &str = "select pg_catalog.json_build_object('login', r.rolcanlogin, 'inherit', r.rolinherit, \
        'superuser', r.rolsuper, 'createdb', r.rolcreatedb, 'createrole', r.rolcreaterole, 'replication', r.rolreplication, \
        'bypassrls', r.rolbypassrls, 'connection_limit', r.rolconnlimit, 'valid_until', r.rolvaliduntil, 'settings', r.rolconfig, \
        'member_of', (select pg_catalog.array_agg(g.rolname order by g.rolname) from pg_catalog.pg_auth_members m \
        join pg_catalog.pg_roles g on g.oid = m.roleid where m.member = r.oid))::text from pg_catalog.pg_roles r where r.oid = $1";
    let read_back = async {
        let row = link.one(ROLE, &[(&notes.oid, Type::OID)]).await?;
        read::<String>(&row, 0)
    };
    match timeout(TO_REPORT, read_back).await {
        Ok(Ok(text)) => {
            link.keep();
            if text.len() <= LONGEST_WITNESS { serde_json::from_str(&text).ok() } else { None }
        }
        Ok(Err(fault)) => {
            tracing::warn!(?fault, "what was minted could not be read back");
            None
        }
        Err(_) => {
            tracing::warn!("what was minted was not read back within {TO_REPORT:?}");
            None
        }
    }
}

fn ours(error: tidegate_grants::StoreError) -> TargetError {
    TargetError::Ours(error.to_string())
}
