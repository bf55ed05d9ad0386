//! The append-only, hash-chained log of every decision and effect.
//!
//! One SHA-256 chain per node. Each row names the row of state that it describes by table, key and digest, so that a
//! changed, deleted or added row anywhere is found by walking the chain. The head is signed with Ed25519 in the same
//! transaction. What exactly is hashed and signed: [`chain`]. How it is checked: [`verify`].

pub(crate) mod chain;
pub mod proof;
pub(crate) mod tree;
pub(crate) mod verify;

pub use tree::SignedTree;

use crate::name::{GrantId, IdentityName, LeaseId, SessionId, TargetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened. `kind` is dotted, subject first: `session.denied`, `lease.disabled`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// E.g. `grant.issued`, `session.opened`, `credential.minted`, `target.connected`, `session.cut`,
    /// `lease.disabled`, `recording.sealed`, `lease.closed`, `session.closed`, `door.refused`.
    pub kind: String,
    /// Of which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// By or for whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// On which target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// Under which grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// About which lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// The rest, as JSON. Never a secret.
    #[serde(default)]
    pub detail: serde_json::Value,
}

impl Event {
    /// An event with only its kind.
    pub fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            session: None,
            identity: None,
            target: None,
            grant: None,
            lease: None,
            detail: serde_json::Value::Null,
        }
    }
    /// About this session.
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }
    /// By or for this identity.
    pub fn identity(mut self, identity: &IdentityName) -> Self {
        self.identity = Some(identity.to_string());
        self
    }
    /// On this target.
    pub fn target(mut self, target: &TargetName) -> Self {
        self.target = Some(target.clone());
        self
    }
    /// Under this grant.
    pub fn grant(mut self, grant: GrantId) -> Self {
        self.grant = Some(grant);
        self
    }
    /// About this lease.
    pub fn lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }
    /// With this detail.
    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = detail;
        self
    }
}

/// One row of the ledger, as `ledger tail --json` and `ledger export` print it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The node whose chain this is.
    pub node: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// SHA-256 of the configuration in force, hex.
    pub config: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
    /// The row of state that this entry is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Described>,
    /// Hash of the row before, hex.
    pub prev: String,
    /// Hash of this row, hex.
    pub hash: String,
}

/// A row of state, as a ledger entry names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its table.
    pub table: String,
    /// Its key as text.
    pub key: String,
    /// SHA-256 of its content, hex; `removed` where the gateway has removed it. Something else where the row had been tampered with before it was written again:
    /// the ledger does not vouch for such a row ever after.
    pub digest: String,
}

/// What `ledger verify` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// Rows whose chain holds.
    pub entries: u64,
    /// Every fault, named: `ledger a/17: the row was changed`, `grants 0199…: the row was deleted`. Empty: intact.
    pub faults: Vec<String>,
}

impl Verdict {
    /// Nothing was found.
    pub fn intact(&self) -> bool {
        self.faults.is_empty()
    }
}
