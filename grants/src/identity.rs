//! Who is at the door.

use crate::name::{GroupName, IdentityName};
use std::collections::BTreeSet;

/// A person or a workload, as the configuration describes it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name that every record carries.
    pub name: IdentityName,
    /// Groups that entitlements and gateway roles refer to.
    pub groups: BTreeSet<GroupName>,
    /// SSH public keys as `algorithm base64`, without comment.
    pub ssh_keys: Vec<String>,
    /// The local account that is this identity on the Unix socket.
    pub unix_user: Option<String>,
}
