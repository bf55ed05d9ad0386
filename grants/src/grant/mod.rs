//! The approved, time-bound, signed permission: a JWT in JWS compact form (RFC 7515, RFC 7519).
//!
//! The algorithm is pinned per issuer and never read from the token (RFC 8725 section 3.1). A grant may only narrow
//! its entitlement.

pub(crate) mod jws;

use crate::{
    asking::Proof,
    name::{DatabaseName, EntitlementName, GrantId, IdentityName, Login, RoleName, TargetName},
    text::{LINE, line},
};
use jiff::Timestamp;
use secrecy::SecretSlice;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use utoipa::ToSchema;

/// An outside approval system whose signed grants we honour: one `[[issuer]]`.
#[derive(Debug, Clone)]
pub struct TrustedIssuer {
    /// Its `iss`.
    pub name: String,
    /// Its algorithm and key.
    pub key: IssuerKey,
    /// It may grant only these.
    pub entitlements: BTreeSet<EntitlementName>,
    /// `exp - iat` of its grants is at most this.
    pub max_ttl: Duration,
    /// Whether its word counts as an approval where an entitlement asks for one. Off unless said.
    pub counts_as_approval: bool,
}

/// The pinned algorithm with its key.
#[derive(Debug, Clone)]
pub enum IssuerKey {
    /// HMAC with SHA-256; a grant under it is *attested*, since the gateway could have made it too.
    Hs256(SecretSlice<u8>),
    /// Ed25519 (RFC 8037): the raw 32-byte public key.
    EdDsa([u8; 32]),
}

/// The claims of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claims {
    /// Who signed it: the gateway's name, or an `[[issuer]]`.
    pub iss: String,
    /// The identity.
    pub sub: IdentityName,
    /// The gateway's name.
    pub aud: String,
    /// Unique per issuer.
    pub jti: String,
    /// Issued at, in seconds since 1970.
    pub iat: i64,
    /// Not before.
    pub nbf: i64,
    /// Not at or after.
    pub exp: i64,
    /// The target.
    pub target: TargetName,
    /// The entitlement that it opens.
    pub entitlement: EntitlementName,
    /// SSH: this login alone. Absent: all that the entitlement has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// PostgreSQL: this database alone. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseName>,
    /// PostgreSQL: these group roles alone. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<BTreeSet<RoleName>>,
    /// Why it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Who said yes.
    #[serde(default)]
    pub approvals: Vec<Level>,
    /// Opens once.
    #[serde(default)]
    pub single_use: bool,
    /// Its time starts with its first session, and is so many seconds; `exp` is its end whatever happens. Absent: from `nbf` to `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<i64>,
}

/// How long a grant whose time starts with its first session waits for that.
pub(crate) const WAITS: Duration = Duration::from_secs(24 * 60 * 60);

impl Claims {
    /// Its end, in seconds since 1970, where its first session began then. Without one: the last moment for it, so that whoever comes
    /// has all the time that was granted.
    pub fn end(&self, first: Option<Timestamp>) -> i64 {
        match (self.lasts, first) {
            (Some(lasts), Some(first)) => self.exp.min(first.as_second().saturating_add(lasts)),
            (Some(lasts), None) => self.exp.saturating_sub(lasts),
            (None, _) => self.exp,
        }
    }
}

/// One approval inside a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Level {
    /// The approver.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: i64,
    /// On which level of the entitlement.
    pub level: u32,
    /// By their own key, or witnessed by the gateway.
    #[serde(default)]
    pub proof: Proof,
}

/// Where a grant stands at a given moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GrantState {
    /// Before `nbf`.
    Pending,
    /// Opens.
    Active,
    /// At or past `exp`.
    Expired,
    /// Revoked by an admin.
    Revoked,
    /// Single use, and used.
    Used,
    /// Its signature, its entitlement or its row does not hold any more; opens nothing.
    Invalid,
}

/// A grant as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrantView {
    /// Our id.
    pub id: GrantId,
    /// Its claims as signed.
    #[serde(flatten)]
    pub claims: Claims,
    /// At the moment of asking.
    pub state: GrantState,
    /// Its end as far as it is known: that of its claims, or earlier, if its time started with its first session.
    pub ends: Timestamp,
    /// Revoked when, by whom and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why, if said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Revoked {
    /// Now, by them; what they typed as the reason becomes one line.
    pub(crate) fn by(by: &IdentityName, reason: Option<&str>, now: Timestamp) -> Self {
        Self { at: now, by: by.to_string(), reason: reason.map(|reason| line(reason, LINE)) }
    }
}
