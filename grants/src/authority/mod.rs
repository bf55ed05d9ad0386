//! The one place that says yes.
//!
//! What always holds: a decision is made on the thread that writes, inside the transaction that enters it in the ledger,
//! from rows that the ledger vouches for and tokens whose signatures were verified in that moment. So decisions are made one after
//! another: a grant for one session opens one, a revocation that has returned is in force, and a limit is a limit.

mod admin;
mod asked;
mod decide;
mod ending;
mod exclusive;
mod factors;
mod give_back;
mod guests;
mod live;
#[cfg(test)]
mod lives_tests;
mod locks;
mod met;
mod offboard;
mod permit;
mod requests;
#[cfg(test)]
mod requests_tests;
mod reviews;
#[cfg(test)]
mod reviews_tests;
mod rows;
#[cfg(test)]
mod tests;
mod tokens;
mod trial;

pub use asked::Offer;
pub use guests::Exchange;
pub use live::{SessionState, SessionView};
pub use offboard::UserEnded;
pub use permit::{Ended, Permit};

use crate::{
    factor::Means,
    grant::GrantView,
    guest::{Arrival, LentKey},
    listing::Listing,
    lock::{LockMade, LockRequest, LockView, Locked},
    name::{
        Access, DatabaseName, EntitlementName, GrantId, IdentityName, LockId, Login, RoleName, SessionId, TargetName,
        TokenId,
    },
    pick,
    policy::Policy,
    reference::Reference,
    store::{SessionRow, Store, StoreError},
    token::{Bearer, TokenHash, TokenMade, TokenRefused, TokenRequest, TokenView},
    when::Device,
};
use decide::Wanted;
use jiff::Timestamp;
use permit::Rules;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

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
    /// When they proved the second factor that this login carries by itself, if it does: a password's does.
    pub factor: Option<Timestamp>,
    /// What they logged in with.
    pub device: Device,
    /// By which they may ask later why they were refused.
    pub reference: Reference,
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
    /// The session was ended by hand.
    #[error("your session on {target} was killed")]
    Killed {
        /// The target.
        target: TargetName,
    },
    /// The entitlement asks for a second factor, and this login has proven none.
    #[error("{entitlement} on {target} opens only with a second factor")]
    FactorNeeded {
        /// The target.
        target: TargetName,
        /// The entitlement.
        entitlement: EntitlementName,
        /// What they could prove it with.
        means: Means,
    },
    /// A lock keeps them out.
    #[error("{0}")]
    Locked(Locked),
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
    /// Outside the hours of the entitlement.
    #[error("{target} is open to you {hours} only{}", next.map(|next| format!(", next from {next}")).unwrap_or_default())]
    Shut {
        /// The target.
        target: TargetName,
        /// When it is open, as the configuration says.
        hours: String,
        /// When it opens next.
        next: Option<Timestamp>,
    },
    /// The condition of the entitlement does not hold.
    #[error("{target} is open to you only when {when}, and that does not hold now")]
    Unmet {
        /// The target.
        target: TargetName,
        /// The condition, as the configuration says it.
        when: String,
    },
    /// One holds it at a time, and somebody else does.
    #[error("{entitlement} on {target} is held by {by}{}", until.map(|until| format!(" until {until}")).unwrap_or_default())]
    HeldBy {
        /// The target.
        target: TargetName,
        /// The entitlement.
        entitlement: EntitlementName,
        /// Who.
        by: IdentityName,
        /// Until when, if they do not hand it back before.
        until: Option<Timestamp>,
    },
    /// `max_sessions` of the entitlement are open already.
    #[error("{limit} of your sessions under {entitlement} are open already, which is the limit")]
    TooManyUnder {
        /// The entitlement.
        entitlement: EntitlementName,
        /// The limit.
        limit: u16,
    },
    /// `max_connections` of the entitlement are open already.
    #[error("{limit} of your connections to {target} are open already, which is the limit")]
    TooMany {
        /// The target.
        target: TargetName,
        /// The limit.
        limit: u16,
    },
    /// `limits.sessions_per_identity` are open already.
    #[error("{limit} of your sessions are open already, which is the limit of this gateway")]
    TooManyOfYours {
        /// The limit.
        limit: u32,
    },
    /// `limits.sessions_per_target` are open already, by whomever.
    #[error("as many sessions are open on {target} already as the gateway lets in there")]
    TooManyThere {
        /// The target.
        target: TargetName,
        /// The limit: for the ledger.
        limit: u32,
    },
    /// The clock is earlier than what the ledger has already: a grant that had ended could seem good.
    #[error("the gateway's clock has gone back; nothing opens until it is right again")]
    Clock,
    /// The store disagrees with its ledger: nothing opens until an admin has looked.
    #[error(
        "the gateway's records do not agree with its ledger; nothing opens until an admin has run `tidegate ledger verify`"
    )]
    Untrusted,
    /// The store could not answer. An error denies.
    #[error("the gateway cannot read its records")]
    Store(#[from] StoreError),
}

impl Denied {
    /// Which check said no, in a word: for the ledger, for `tidegate why` and for metrics.
    pub fn check(&self) -> &'static str {
        match self {
            Self::UnknownTarget(_) => "target",
            Self::WrongAccess { .. } => "access",
            Self::NoGrant { .. } => "grant",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Killed { .. } => "killed",
            Self::FactorNeeded { .. } => "mfa",
            Self::Locked(_) => "locked",
            Self::Used { .. } => "used",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Shut { .. } => "hours",
            Self::Unmet { .. } => "when",
            Self::HeldBy { .. } => "held",
            Self::TooManyUnder { .. }
            | Self::TooMany { .. }
            | Self::TooManyOfYours { .. }
            | Self::TooManyThere { .. } => "limit",
            Self::Clock => "clock",
            Self::Untrusted => "ledger",
            Self::Store(_) => "store",
        }
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
    /// Whether it is the admin who asks, and nobody who may only know a token of theirs: else it is nobody's approval.
    #[serde(default)]
    pub own_voice: bool,
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
    /// Nobody has asked the ticket system yet: ask it at this address, and come back with its word.
    #[error("whether there is a ticket {ticket} has not been asked")]
    TicketUnseen {
        /// Where.
        url: String,
        /// For what.
        ticket: String,
    },
    /// Who asks for this must have proven a second factor, and has not.
    #[error("{entitlement} is asked for with a second factor only")]
    FactorNeeded {
        /// The entitlement.
        entitlement: EntitlementName,
        /// What they could prove it with.
        means: Means,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Decides, and remembers which permits are alive.
#[derive(Debug)]
pub struct Authority {
    store: Arc<Store>,
    rules: Arc<Rules>,
    signer: GrantSigner,
}

/// The gateway's own signing key for grants.
pub type GrantSigner = ed25519_dalek::SigningKey;

impl Authority {
    /// Puts store, policy and the key for our own grants together.
    pub fn new(store: Arc<Store>, policy: Policy, signer: GrantSigner) -> Self {
        let rules = Arc::new(Rules::new(policy, signer.verifying_key().to_bytes()));
        Self { store, rules, signer }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.rules.policy()
    }

    /// The live sessions that [`Authority::replace`] with this policy would end.
    pub fn would_end(&self, policy: &Policy, now: Timestamp) -> BTreeSet<SessionId> {
        self.rules.would_end(policy, now)
    }

    /// Puts a new policy in force; live permits whose identity, target or entitlement went away, or whose grant it does
    /// not honour any more, end as [`Ended::Withdrawn`].
    pub fn replace(&self, policy: Policy) {
        self.store.set_config(&policy.config);
        self.rules.replace(policy);
    }

    /// Verifies a grant for exactly this: signature, audience, time, not revoked, entitlement still in force,
    /// the row agrees with the ledger. Yes and no both go into the ledger (a no as `session.denied`), a yes opens the
    /// session there in the same transaction.
    pub async fn authorize(&self, ask: &Ask, now: Timestamp) -> Result<Permit, Denied> {
        // Taken before the wait for the store's thread: rather too early than too late.
        let start = Instant::now();
        let (rules, ask) = (self.rules.clone(), ask.clone());
        self.store.run(move |writer| decide::authorize(writer, &rules, &ask, now, start)).await?
    }

    /// For `target test`: a permit on an admin's word (`ask.identity`) for a session that carries nothing of anybody. Its
    /// grant is in the ledger, and opens nothing else.
    pub async fn permit_trial(&self, ask: Ask, now: Timestamp) -> Result<Permit, GrantError> {
        let start = Instant::now();
        let trial = trial::prepare(&self.policy(), &self.signer, ask, now)?;
        let rules = self.rules.clone();
        self.store.run(move |writer| trial::open(writer, &rules, trial, now, start)).await?
    }

    /// The same verification again for a further connection of a live session: same grant, same terms.
    pub async fn recheck(&self, permit: &Permit, now: Timestamp) -> Result<(), Denied> {
        permit.alive()?;
        let (rules, held) = (self.rules.clone(), permit.held());
        self.store.run(move |writer| decide::recheck(writer, &rules, &held, now)).await?
    }

    /// Whether a short-lived password for this target would open anything; needs an active grant, of whichever
    /// entitlement. (`ssh gate password`) Returns the end of the grant that lasts longest.
    pub async fn foresee(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        now: Timestamp,
    ) -> Result<Timestamp, Denied> {
        let wanted = Wanted { identity: identity.clone(), target: target.clone(), access: None, entitlement: None };
        let rules = self.rules.clone();
        self.store.run(move |writer| decide::foresee(writer, &rules, &wanted, now)).await?
    }

    /// Whether what this would open asks for a second factor that they have, and have not proven from there just now. Without
    /// `access`: whether anything on that target does.
    pub async fn wants_factor(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        access: Option<(&Access, Option<&EntitlementName>)>,
        source: IpAddr,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (identity, target) = (identity.clone(), target.clone());
        let entitlement = access.and_then(|(_, entitlement)| entitlement.cloned());
        let wanted = Wanted { identity, target, access: access.map(|(access, _)| access.clone()), entitlement };
        let rules = self.rules.clone();
        if !factors::could_ask(&rules.policy(), &wanted) {
            return Ok(false);
        }
        self.store.run(move |writer| factors::wanted(writer, &rules, &wanted, source, now)).await?
    }

    /// Takes this as their second factor, from there: the line, signed with a security key of theirs other than `came_with`, the
    /// fingerprint of the key that they showed at the door. Whoever calls has made the line for this once.
    ///
    /// # Errors
    /// [`GrantError::Refused`], in a sentence for them.
    pub async fn prove_by_key(
        &self,
        identity: &IdentityName,
        came_with: Option<&str>,
        (line, armored): (&str, &str),
        source: IpAddr,
        now: Timestamp,
    ) -> Result<(), GrantError> {
        let key = factors::signed_with(&self.rules, identity, came_with, line, armored)?;
        Ok(self.store.prove_key(identity.clone(), key, source, now).await?)
    }

    /// `grant issue`: signs a grant on the word of an admin. Never for themselves.
    pub async fn issue(&self, by: &IdentityName, request: IssueRequest, now: Timestamp) -> Result<GrantId, GrantError> {
        self.issue_as(by, GrantId::new().to_string(), request, now).await
    }

    /// The same, once for each `key` of one admin: the same request again gives the same grant, also after a restart;
    /// another one is refused.
    pub async fn issue_once(
        &self,
        by: &IdentityName,
        key: &str,
        request: IssueRequest,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        self.issue_as(by, admin::jti_of(by, key), request, now).await
    }

    async fn issue_as(
        &self,
        by: &IdentityName,
        jti: String,
        request: IssueRequest,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        let (id, token) = admin::sign(&self.policy(), &self.signer, by, jti, request, now)?;
        let (rules, by) = (self.rules.clone(), by.clone());
        self.store.run(move |writer| admin::add(writer, &rules, &by, Some(id), &token, now)).await?
    }

    /// `grant import`: takes a signed grant of a trusted issuer. Idempotent per `iss` and `jti`.
    pub async fn import(&self, by: &IdentityName, token: &str, now: Timestamp) -> Result<GrantId, GrantError> {
        admin::must_be_admin(&self.policy(), by, "import")?;
        let (rules, by, token) = (self.rules.clone(), by.clone(), token.trim().to_owned());
        self.store.run(move |writer| admin::add(writer, &rules, &by, None, &token, now)).await?
    }

    /// All grants, newest first.
    pub async fn grants(&self, listing: Listing, now: Timestamp) -> Result<Vec<GrantView>, StoreError> {
        let rules = self.rules.clone();
        self.store.read(move |db| admin::list(db, &rules, &listing, now)).await
    }

    /// The one grant with this id, or unique prefix or suffix of it (digits of the simple form, dashes ignored).
    pub async fn grant(&self, id: &str, now: Timestamp) -> Result<GrantView, GrantError> {
        let id = self.find(id).await?;
        let rules = self.rules.clone();
        let view = self.store.read(move |db| admin::show(db, &rules, id, now)).await?;
        view.ok_or_else(|| GrantError::NotFound(format!("the grant {id} cannot be read: run `tidegate ledger verify`")))
    }

    /// Revokes; live sessions of it end. Revoking twice is fine.
    pub async fn revoke(
        &self,
        by: &IdentityName,
        id: &str,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        admin::must_be_admin(&self.policy(), by, "revoke")?;
        let id = self.find(id).await?;
        self.revoke_this(by, id, reason, now).await
    }

    /// Revokes a grant of one's own; another's is no different from none. Live sessions of it end. Revoking twice is fine.
    ///
    /// # Errors
    /// [`GrantError`]: no grant of theirs has this id, or the store failed.
    pub async fn revoke_own(
        &self,
        by: &IdentityName,
        id: &str,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        let own = self.grants(Listing::of(by), now).await?;
        let not_one = |why: pick::NotOne| GrantError::NotFound(why.sentence("grant"));
        let id = pick::one(own, id, |grant| grant.id.to_string()).map_err(not_one)?.id;
        self.revoke_this(by, id, reason, now).await
    }

    async fn revoke_this(
        &self,
        by: &IdentityName,
        id: GrantId,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        let (rules, by) = (self.rules.clone(), by.clone());
        self.store.run(move |writer| admin::revoke(writer, &rules, &by, id, reason.as_deref(), now)).await??;
        Ok(id)
    }

    /// Sessions, newest first.
    pub async fn sessions(&self, listing: Listing) -> Result<Vec<SessionView>, StoreError> {
        let rows = self.store.sessions(listing).await?;
        Ok(rows.into_iter().map(|row| live::view(&self.rules, row)).collect())
    }

    /// Ends a live session; who did it is in the ledger, and the person is told. False if it was over already. Whether
    /// `by` may do so is the caller's to know.
    pub async fn kill(
        &self,
        by: &IdentityName,
        session: &SessionRow,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (rules, by, session) = (self.rules.clone(), by.clone(), session.clone());
        self.store.run(move |writer| live::kill(writer, &rules, &by, &session, reason.as_deref(), now)).await?
    }

    /// `token issue`: admins for anyone, others for themselves. `most`: the longest life that is allowed.
    pub async fn issue_token(
        &self,
        by: &IdentityName,
        request: TokenRequest,
        most: Duration,
        now: Timestamp,
    ) -> Result<TokenMade, GrantError> {
        let (rules, by) = (self.rules.clone(), by.clone());
        self.store.run(move |writer| tokens::issue(writer, &rules, &by, &request, most, now)).await?
    }

    /// Who is behind a token's secret: signed for by the ledger, not revoked, not expired, its identity still in the policy.
    pub async fn bearer(&self, secret: &str, now: Timestamp) -> Result<Bearer, TokenRefused> {
        let Some(hash) = TokenHash::of(secret) else { return Err(TokenRefused::Unknown) };
        let rules = self.rules.clone();
        self.store.run(move |writer| tokens::verify(writer, &rules, &hash, now)).await?
    }

    /// Whether a token that somebody came in with is good still.
    pub async fn token_holds(&self, token: TokenId, now: Timestamp) -> Result<bool, StoreError> {
        let rules = self.rules.clone();
        self.store.read(move |db| tokens::holds(db, &rules, token, now)).await
    }

    /// Gives a workload a token for one from outside, once. Whether that one is good is the caller's to know.
    ///
    /// # Errors
    /// [`GrantError`]: it was exchanged already, or the store failed.
    pub async fn exchange(&self, outside: Exchange, now: Timestamp) -> Result<TokenMade, GrantError> {
        let rules = self.rules.clone();
        self.store.run(move |writer| guests::exchange(writer, &rules, &outside, now)).await?
    }

    /// Somebody has logged in elsewhere, as the caller has verified: they are there until their login ends.
    ///
    /// # Errors
    /// [`GrantError`]: the name is somebody else's, or the store failed.
    pub async fn welcome(&self, arrival: Arrival, now: Timestamp) -> Result<(), GrantError> {
        let rules = self.rules.clone();
        self.store.run(move |writer| guests::welcome(writer, &rules, &arrival, now)).await?
    }

    /// For a while this key says who somebody is, as the caller has verified.
    ///
    /// # Errors
    /// [`GrantError`]: it is somebody else's, or the store failed.
    pub async fn lend_key(&self, lent: LentKey, now: Timestamp) -> Result<(), GrantError> {
        let rules = self.rules.clone();
        self.store.run(move |writer| guests::lend(writer, &rules, &lent, now)).await?
    }

    /// Those are there whom the store knows, after a start.
    ///
    /// # Errors
    /// [`GrantError`]: nobody is, since the store cannot be read or trusted.
    pub async fn host_guests(&self, now: Timestamp) -> Result<(), GrantError> {
        let rules = self.rules.clone();
        self.store.run(move |writer| guests::put_in_force(writer, &rules, now)).await?
    }

    /// Guests whose time is over are no longer there, and their sessions end.
    pub fn see_guests_off(&self, now: Timestamp) {
        self.rules.see_off(now);
    }

    /// Sessions whose entitlement's condition no longer holds end. (Each further channel looks by itself.)
    pub fn end_unmet(&self, now: Timestamp) {
        self.rules.end_unmet(now);
    }

    /// Writes into the ledger, once of each, which grants end within five minutes (`grant.ending`); how many.
    pub async fn tell_endings(&self, now: Timestamp) -> Result<usize, StoreError> {
        let until = now + ending::SOON;
        if self.store.read(move |db| Ok(rows::ending(db, now, until)?.is_empty())).await? {
            return Ok(0);
        }
        let rules = self.rules.clone();
        self.store.run(move |writer| ending::tell(writer, &rules, now)).await?
    }

    /// Tokens, newest first: all of them, or those of one identity.
    pub async fn tokens(&self, of: Option<&IdentityName>, now: Timestamp) -> Result<Vec<TokenView>, StoreError> {
        let of = of.cloned();
        self.store.read(move |db| tokens::list(db, of.as_ref(), now)).await
    }

    /// Revokes the token with this id, or unique prefix or suffix of it, among those that `by` may see: admins all, others
    /// their own.
    pub async fn revoke_token(
        &self,
        by: &IdentityName,
        id: &str,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<TokenId, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.clone(), id.to_owned());
        self.store.run(move |writer| tokens::revoke(writer, &rules, &by, &id, reason.as_deref(), now)).await?
    }

    /// Ends all that somebody holds: grants, passwords, tokens, live sessions. They may have left the configuration already.
    ///
    /// # Errors
    /// [`GrantError`]: `by` is no admin, or the store failed; sessions have ended all the same then.
    pub async fn end_user(
        &self,
        by: &IdentityName,
        user: &IdentityName,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<UserEnded, GrantError> {
        admin::must_be_admin(&self.policy(), by, "revoke")?;
        let (rules, by, user) = (self.rules.clone(), by.clone(), user.clone());
        let end = move |writer: &mut _| offboard::end(writer, &rules, &by, &user, reason.as_deref(), now);
        Ok(self.store.run(end).await??)
    }

    /// `lock add`: keeps somebody out, or everybody from somewhere; live sessions that it covers end. Admins only.
    pub async fn lock(&self, by: &IdentityName, request: LockRequest, now: Timestamp) -> Result<LockMade, GrantError> {
        let (rules, by) = (self.rules.clone(), by.clone());
        self.store.run(move |writer| locks::add(writer, &rules, &by, &request, now)).await?
    }

    /// `lock remove`: the one with this id, or unique prefix or suffix of it. Admins only, and never of a lock on themselves.
    pub async fn unlock(
        &self,
        by: &IdentityName,
        id: &str,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<LockId, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.clone(), id.to_owned());
        self.store.run(move |writer| locks::remove(writer, &rules, &by, &id, reason.as_deref(), now)).await?
    }

    /// Locks, newest first, those too that are over.
    pub async fn locks(&self, now: Timestamp) -> Result<Vec<LockView>, StoreError> {
        self.store.read(move |db| locks::list(db, now)).await
    }

    /// The lock on this identity itself, if there is one: they may do nothing here at all.
    pub async fn locked_out(&self, identity: &IdentityName, now: Timestamp) -> Result<Option<Locked>, StoreError> {
        let identity = identity.clone();
        self.store.read(move |db| locks::on(db, &identity, now)).await
    }

    async fn find(&self, id: &str) -> Result<GrantId, GrantError> {
        let id = id.to_owned();
        self.store.read(move |db| Ok(admin::find(db, &id))).await?
    }
}
