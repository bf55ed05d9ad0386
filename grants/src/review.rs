//! A review: what was done with a grant that nobody had to approve, looked at by somebody else.
//!
//! What always holds: whoever breaks the glass owes a review from the transaction that grants it; it is owed until somebody else has
//! signed it, and no reload, restart or revocation takes it back.

use crate::name::{EntitlementName, GrantId, IdentityName, SessionId, TargetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a review stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReviewState {
    /// Nobody has signed it.
    Owed,
    /// Somebody has.
    Signed,
    /// Its row is not what the ledger says.
    Invalid,
}

impl fmt::Display for ReviewState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Owed => "owed",
            Self::Signed => "signed",
            Self::Invalid => "invalid",
        })
    }
}

/// Who signed it. The gateway witnessed it: it is attested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReviewSigned {
    /// When.
    pub at: Timestamp,
    /// Never whom it is about.
    pub by: IdentityName,
    /// What they found.
    pub note: String,
}

/// A review as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReviewView {
    /// Its id, which is the grant's.
    pub id: GrantId,
    /// Who broke the glass.
    pub identity: IdentityName,
    /// On which target.
    pub target: TargetName,
    /// By which entitlement.
    pub entitlement: EntitlementName,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub opened: Timestamp,
    /// When the grant ends, if nobody ends it before.
    pub until: Timestamp,
    /// At the moment of asking.
    pub state: ReviewState,
    /// What they did with it: to be played and read.
    pub sessions: Vec<SessionId>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<ReviewSigned>,
}

impl ReviewView {
    /// One line for the top of a list. What people wrote is in it as they wrote it.
    pub fn owed(&self) -> String {
        let Self { identity, entitlement, target, opened, .. } = self;
        let why = self.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let at = opened.strftime("%Y-%m-%dT%H:%M:%SZ");
        format!(
            "review {} is owed: {identity} broke the glass, {entitlement} on {target} at {at}{why}",
            self.id.short()
        )
    }
}
