//! The one place that says yes.

use crate::{
    entitlement::Entitlement,
    grant::{Claims, GrantView},
    name::{Access, DatabaseName, EntitlementName, GrantId, IdentityName, Login, RoleName, SessionId, TargetName},
    policy::Policy,
    store::{Store, StoreError},
};
use jiff::Timestamp;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

/// What somebody at the door wants.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who, already proven.
    pub identity: IdentityName,
    /// Which target, as typed: it may not exist.
    pub target: TargetName,
    /// Which login or database.
    pub access: Access,
    /// The `~entitlement`, if one was named.
    pub entitlement: Option<EntitlementName>,
    /// Where they came from.
    pub source: IpAddr,
}

/// Why not. The texts are for the person: they leak nothing about targets that they may not see.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// An unknown target and a forbidden one look alike.
    #[error("no target {0} for you here")]
    UnknownTarget(TargetName),
    /// The target is theirs to ask for, this login or database is not.
    #[error("you may not open {access} on {target}")]
    WrongAccess {
        /// The target.
        target: TargetName,
        /// What was asked for.
        access: Access,
    },
    /// They may ask, but hold no grant now.
    #[error("you hold no grant for {access} on {target}")]
    NoGrant {
        /// The target.
        target: TargetName,
        /// What was asked for.
        access: Access,
        /// Entitlements that they could ask for.
        entitlements: Vec<EntitlementName>,
    },
    /// There was one, and it ended.
    #[error("your grant for {target} expired at {at}")]
    Expired {
        /// The target.
        target: TargetName,
        /// When.
        at: Timestamp,
    },
    /// There was one, and it was revoked.
    #[error("your grant for {target} was revoked")]
    Revoked {
        /// The target.
        target: TargetName,
    },
    /// A single-use grant was used already.
    #[error("your grant for {target} was good for one session, and that has been opened")]
    Used {
        /// The target.
        target: TargetName,
    },
    /// Grants of several entitlements fit, and none was named.
    #[error("several of your grants fit {target}: name one with ~")]
    Ambiguous {
        /// The target.
        target: TargetName,
        /// Their entitlements.
        entitlements: Vec<EntitlementName>,
    },
    /// `max_connections` of the entitlement are open already.
    #[error("{limit} of your connections to {target} are open already, which is the limit")]
    TooMany {
        /// The target.
        target: TargetName,
        /// The limit.
        limit: u16,
    },
    /// The store disagrees with its ledger: nothing opens until an admin has looked.
    #[error(
        "the gateway's records do not agree with its ledger; nothing opens until an admin has run `tidegate ledger verify`"
    )]
    Untrusted,
    /// The store could not answer. An error denies.
    #[error("the gateway cannot read its records")]
    Store(#[from] StoreError),
}

/// Why a permit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The grant reached its end.
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It was revoked.
    Revoked {
        /// By whom.
        by: String,
        /// Why, if said.
        reason: Option<String>,
    },
    /// The identity, the target or the entitlement is no longer in the configuration.
    Withdrawn,
}

/// The in-memory proof, held by one live session, that its grant was verified.
///
/// Its fields are private and it is not `Clone`: one comes from [`Authority::authorize`] or not at all. While it
/// lives it counts towards `max_connections`; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    // grant id, session id, ask, claims, entitlement, the watch that ends it, and a guard that un-counts it on drop
    inner: Arc<()>,
}

impl Permit {
    /// The session that this permit is for.
    pub fn session(&self) -> SessionId {
        todo!()
    }
    /// The grant behind it.
    pub fn grant(&self) -> GrantId {
        todo!()
    }
    /// Its claims as verified.
    pub fn claims(&self) -> &Claims {
        todo!()
    }
    /// Who.
    pub fn identity(&self) -> &IdentityName {
        todo!()
    }
    /// Where to.
    pub fn target(&self) -> &TargetName {
        todo!()
    }
    /// As what.
    pub fn access(&self) -> &Access {
        todo!()
    }
    /// From where.
    pub fn source(&self) -> IpAddr {
        todo!()
    }
    /// The terms in force when it was given.
    pub fn entitlement(&self) -> &Entitlement {
        todo!()
    }
    /// PostgreSQL: the group roles, as the entitlement has them and the grant narrowed them.
    pub fn roles(&self) -> BTreeSet<RoleName> {
        todo!()
    }
    /// The grant's end.
    pub fn expires(&self) -> Timestamp {
        todo!()
    }
    /// Waits until the permit ends: at the grant's end, at its revocation, or when a reload takes it away.
    /// Cancel safe; may be called again.
    pub async fn ended(&self) -> Ended {
        todo!()
    }
}

/// What an admin asks `grant issue` for.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct IssueRequest {
    /// For whom.
    pub user: IdentityName,
    /// On which target.
    pub target: TargetName,
    /// Of which entitlement.
    pub entitlement: EntitlementName,
    /// Narrowed to this login, if set.
    #[serde(default)]
    pub login: Option<Login>,
    /// Narrowed to this database, if set.
    #[serde(default)]
    pub database: Option<DatabaseName>,
    /// Narrowed to these group roles, if set.
    #[serde(default)]
    pub roles: Option<BTreeSet<RoleName>>,
    /// For how long from now.
    pub duration: Duration,
    /// Why.
    pub reason: Option<String>,
    /// A ticket.
    pub ticket: Option<String>,
    /// Opens once.
    #[serde(default)]
    pub single_use: bool,
}

/// Why a grant was not issued, imported, shown or revoked. One plain sentence each, for the admin.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Refused: the sentence says why and what would do.
    #[error("{0}")]
    Refused(String),
    /// No grant has this id, prefix or suffix, or several have.
    #[error("{0}")]
    NotFound(String),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Decides, and remembers which permits are alive.
#[derive(Debug)]
pub struct Authority {
    store: Arc<Store>,
    // policy: ArcSwap<Policy>, signing key of our own grants, live permits by session
}

/// The gateway's own signing key for grants.
pub type GrantSigner = ed25519_dalek::SigningKey;

impl Authority {
    /// Puts store, policy and the key for our own grants together.
    pub fn new(store: Arc<Store>, policy: Policy, signer: GrantSigner) -> Self {
        let _ = (&policy, &signer);
        Self { store }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        todo!()
    }

    /// Puts a new policy in force; live permits whose identity, target or entitlement went away end as
    /// [`Ended::Withdrawn`].
    pub fn replace(&self, policy: Policy) {
        let _ = policy;
        todo!()
    }

    /// Verifies a grant for exactly this: signature, audience, time, not revoked, entitlement still in force,
    /// the row agrees with the ledger. Yes and no both go into the ledger (a no as `session.denied`), a yes opens the
    /// session there in the same transaction.
    pub async fn authorize(&self, ask: &Ask, now: Timestamp) -> Result<Permit, Denied> {
        let _ = (ask, now);
        todo!()
    }

    /// The same verification again for a further connection of a live session: same grant, same terms.
    pub async fn recheck(&self, permit: &Permit, now: Timestamp) -> Result<(), Denied> {
        let _ = (permit, now);
        todo!()
    }

    /// Which entitlement a short-lived password for this target would serve; needs an active grant. (`ssh gate password`)
    /// Returns the grant's end.
    pub async fn foresee(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        now: Timestamp,
    ) -> Result<Timestamp, Denied> {
        let _ = (identity, target, now);
        todo!()
    }

    /// `grant issue`: signs a grant on the word of an admin. Never for themselves.
    pub async fn issue(&self, by: &IdentityName, request: IssueRequest, now: Timestamp) -> Result<GrantId, GrantError> {
        let _ = (by, request, now);
        todo!()
    }

    /// `grant import`: takes a signed grant of a trusted issuer. Idempotent per `iss` and `jti`.
    pub async fn import(&self, by: &IdentityName, token: &str, now: Timestamp) -> Result<GrantId, GrantError> {
        let _ = (by, token, now);
        todo!()
    }

    /// All grants, newest first.
    pub async fn grants(&self, now: Timestamp) -> Result<Vec<GrantView>, StoreError> {
        let _ = now;
        todo!()
    }

    /// The one grant with this id, or unique prefix or suffix of it (digits of the simple form, dashes ignored).
    pub async fn grant(&self, id: &str, now: Timestamp) -> Result<GrantView, GrantError> {
        let _ = (id, now);
        todo!()
    }

    /// Revokes; live sessions of it end. Revoking twice is fine.
    pub async fn revoke(
        &self,
        by: &IdentityName,
        id: &str,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        let _ = (by, id, reason, now);
        todo!()
    }
}
