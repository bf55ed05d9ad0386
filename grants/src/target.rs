//! What a session can lead to. Addresses and keys belong to the protocol's own description, not here.

use crate::name::TargetName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The protocol that a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An SSH host.
    Ssh,
    /// A PostgreSQL server.
    Postgres,
}

/// An SSH host or a database server.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name at the door.
    pub name: TargetName,
    /// Its protocol.
    pub kind: Kind,
    /// What entitlements select by.
    pub labels: BTreeMap<String, String>,
}
