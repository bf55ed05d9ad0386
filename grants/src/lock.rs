//! Locks: what keeps a person, a target or everything shut, whatever grants say.
//!
//! What always holds: a lock ends live permits before the one who set it has an answer, and from then on nothing opens past it, on no
//! channel of an older session either, until somebody removes it or its time is over; a lock that cannot be read locks.

use crate::{
    grant::Revoked,
    name::{IdentityName, LockId, TargetName},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Whom or what a lock keeps out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "what", content = "name")]
pub enum LockScope {
    /// This identity: no sessions, no control shell, no API.
    User(IdentityName),
    /// Everybody, from this target.
    Target(TargetName),
    /// Everybody, from every target.
    All,
}

impl LockScope {
    /// Whether it keeps this identity from this target.
    pub fn covers(&self, identity: &IdentityName, target: &TargetName) -> bool {
        match self {
            Self::User(name) => name == identity,
            Self::Target(name) => name == target,
            Self::All => true,
        }
    }

    /// As the store has it: the kind and the name.
    pub(crate) fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::User(name) => ("user", Some(name.as_str())),
            Self::Target(name) => ("target", Some(name.as_str())),
            Self::All => ("all", None),
        }
    }
}

impl fmt::Display for LockScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Target(name) => write!(f, "target {name}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// What an admin asks `lock add` for.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// Whom or what.
    pub scope: LockScope,
    /// Why; the person is told.
    pub reason: String,
    /// Over by itself from then on; `None`: only when somebody removes it.
    pub until: Option<Timestamp>,
}

/// What a new lock did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockMade {
    /// Its id, to remove it by.
    pub id: LockId,
    /// Whether the configuration names what it locks.
    pub known: bool,
    /// Live sessions that ended.
    pub sessions: usize,
}

/// A lock that keeps somebody out, as they are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Which.
    pub id: LockId,
    /// What it locks.
    pub scope: LockScope,
    /// Why.
    pub reason: String,
    /// Who set it.
    pub by: IdentityName,
    /// Its end, if it has one.
    pub until: Option<Timestamp>,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            LockScope::User(_) => f.write_str("you are")?,
            LockScope::Target(name) => write!(f, "{name} is")?,
            LockScope::All => f.write_str("everything behind this gateway is")?,
        }
        write!(f, " locked by {}", self.by)?;
        if let Some(until) = self.until {
            write!(f, " until {until}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Where a lock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockState {
    /// It keeps out.
    Active,
    /// Its time is over.
    Over,
    /// Somebody took it away.
    Removed,
    /// Its row is not what the ledger says, so nothing opens for anybody.
    Invalid,
}

/// A lock as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// Its id.
    pub id: LockId,
    /// What it locks.
    #[serde(flatten)]
    pub scope: LockScope,
    /// Why.
    pub reason: String,
    /// Since when.
    pub created_at: Timestamp,
    /// Who set it.
    pub created_by: IdentityName,
    /// Its end, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// At the moment of asking.
    pub state: LockState,
    /// Taken away when, by whom and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Revoked>,
}
