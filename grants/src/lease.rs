//! The durable record that something exists on a target and must be removed by a deadline.

use crate::name::{IdentityName, LeaseId, SessionId, TargetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What exists on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseKind {
    /// A certificate of a minute, and the connection that it opened.
    SshCertificate,
    /// An ephemeral role.
    PostgresRole,
}

/// What an issuer is about to create: everything that teardown needs after a crash.
#[derive(Debug, Clone)]
pub struct LeasePlan {
    /// What.
    pub kind: LeaseKind,
    /// Its name on the target: a role, a login.
    pub name: String,
    /// What else the issuer needs to find it again (JSON, its own business).
    pub detail: serde_json::Value,
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// The account may exist and work.
    Open,
    /// Disabled on the target.
    Disabled,
    /// Disabled, and cleaning has begun.
    Cleaning,
    /// Disabled, and something needs a human.
    Held,
    /// The receipt says that nothing is left.
    Closed,
}

/// What was looked up on the target after teardown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// When the target answered.
    pub at: Timestamp,
    /// Whether the lease may be closed: nothing is left of what we are answerable for.
    pub clean: bool,
    /// What was asked and what the target answered, one line each.
    pub findings: Vec<Finding>,
    /// What cannot be known, and why. Never empty silently: a shared login always has some.
    pub unverifiable: Vec<String>,
    /// The lease was closed all the same, on somebody's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
}

/// An admin looked at what a receipt says is left, and answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acceptance {
    /// Who.
    pub by: IdentityName,
    /// Why it may stay.
    pub reason: String,
}

/// One line of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What was looked up, e.g. `pg_roles` or `processes of the session`.
    pub what: String,
    /// How many were found.
    pub found: u64,
    /// Which, where naming them helps a human.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

/// A lease. One comes only from the [`Store`](crate::Store), after the commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) target: TargetName,
    pub(crate) identity: IdentityName,
    pub(crate) kind: LeaseKind,
    pub(crate) name: String,
    pub(crate) state: LeaseState,
    pub(crate) deadline: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    pub(crate) detail: serde_json::Value,
    pub(crate) receipt: Option<Receipt>,
}

impl Lease {
    /// Its id.
    pub fn id(&self) -> LeaseId {
        self.id
    }
    /// The session that it serves.
    pub fn session(&self) -> SessionId {
        self.session
    }
    /// Where.
    pub fn target(&self) -> &TargetName {
        &self.target
    }
    /// For whom.
    pub fn identity(&self) -> &IdentityName {
        &self.identity
    }
    /// What.
    pub fn kind(&self) -> LeaseKind {
        self.kind
    }
    /// Its name on the target.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Where it stands.
    pub fn state(&self) -> LeaseState {
        self.state
    }
    /// By when it must be gone: the grant's end.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }
    /// Failed attempts at teardown so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
    /// Why the last one failed.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
    /// The issuer's own notes.
    pub fn detail(&self) -> &serde_json::Value {
        &self.detail
    }
    /// The last receipt.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }
}
