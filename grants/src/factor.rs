//! Second factors: what somebody proves beside their key.
//!
//! What always holds: a code opens one proof, whatever happens at the same moment or after a restart, since taking it is a change of its
//! row in the one transaction that says yes; a proof counts for [`FRESH`] and from the address that it came from, and a row that the
//! ledger does not vouch for proves nothing. This crate never sees a seed: whoever compares codes has the key to it.

use crate::name::IdentityName;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// So long, from the same address, somebody is not asked again.
pub const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// What an entitlement asks for beside a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mfa {
    /// Nothing.
    #[default]
    None,
    /// Who asks for a grant must have proven a second factor.
    Request,
    /// A session opens only for a login with a fresh second factor.
    Session,
}

/// What somebody can prove themselves with, beside the key that they come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Nothing.
    None,
    /// The codes of an authenticator app.
    Codes,
    /// No codes, but a security key of theirs is in the configuration.
    SecurityKey,
}

/// Whoever signs with a security key to prove themselves signs for this and nothing else (SSHSIG).
pub const NAMESPACE: &str = "tidegate-mfa";

/// Somebody's second factor as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// Whose.
    pub identity: IdentityName,
    /// Of an authenticator app, sealed. `None`: they have none, and have proven a security key.
    pub seed: Option<String>,
    /// SHA-256 of each recovery code that is left, lower-case hex.
    pub recovery: BTreeSet<String>,
    /// Since when.
    pub added_at: Timestamp,
    /// By which admin; of a security key, themselves: the configuration has it from an admin.
    pub added_by: IdentityName,
    /// The latest time step whose code was taken (RFC 6238 section 5.2).
    pub last_step: u64,
    /// When it was last proven, and from where.
    pub proven: Option<(Timestamp, IpAddr)>,
}

impl Factor {
    /// Of somebody who has no codes, and proves a security key for the first time.
    pub(crate) fn of_key(identity: &IdentityName, now: Timestamp) -> Self {
        let (recovery, added_by) = (BTreeSet::new(), identity.clone());
        Self { identity: identity.clone(), seed: None, recovery, added_at: now, added_by, last_step: 0, proven: None }
    }

    /// When it was proven, if that still counts for somebody who comes from there.
    pub fn fresh(&self, source: IpAddr, now: Timestamp) -> Option<Timestamp> {
        let (at, from) = self.proven?;
        let age = now.duration_since(at);
        (from == source && !age.is_negative() && age < FRESH).then_some(at)
    }
}

/// What was proven, for the store to take: never twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The code of this time step.
    Step(u64),
    /// The recovery code with this SHA-256.
    Recovery(String),
}

/// A second factor as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FactorView {
    /// Whose.
    pub identity: IdentityName,
    /// Codes of an authenticator app prove it; else a security key alone.
    #[serde(default)]
    pub codes: bool,
    /// Since when.
    pub added_at: Timestamp,
    /// By which admin; of a security key, themselves.
    pub added_by: IdentityName,
    /// Recovery codes that are left.
    pub recovery_codes: usize,
    /// When it was last proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
}

impl From<Factor> for FactorView {
    fn from(factor: Factor) -> Self {
        Self {
            identity: factor.identity,
            codes: factor.seed.is_some(),
            added_at: factor.added_at,
            added_by: factor.added_by,
            recovery_codes: factor.recovery.len(),
            proven_at: factor.proven.map(|(at, _)| at),
        }
    }
}
