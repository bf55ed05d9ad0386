//! The configuration's people, targets and terms as one immutable value. A reload swaps the whole value.

use crate::{
    entitlement::Entitlement,
    grant::TrustedIssuer,
    identity::Identity,
    name::{EntitlementName, GroupName, IdentityName, TargetName},
    sight::Auditor,
    target::Target,
};
use std::collections::{BTreeMap, BTreeSet};

/// Who may do what, as `tidegate.toml` says.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The gateway's name: the audience of every grant.
    pub gateway: String,
    /// The node's letter or name: one ledger chain each.
    pub node: String,
    /// SHA-256 of the configuration file, in hex: each ledger row names it.
    pub config: String,
    /// By name.
    pub identities: BTreeMap<IdentityName, Identity>,
    /// By name.
    pub targets: BTreeMap<TargetName, Target>,
    /// By name.
    pub entitlements: BTreeMap<EntitlementName, Entitlement>,
    /// Outside approval systems whose grants we honour, by name.
    pub issuers: BTreeMap<String, TrustedIssuer>,
    /// Groups that administer the gateway.
    pub admins: BTreeSet<GroupName>,
    /// Groups that may read recordings and the ledger.
    pub auditors: BTreeSet<GroupName>,
    /// Others who may do so for a part of what is done.
    pub scoped_auditors: Vec<Auditor>,
    /// How many sessions may be open at once.
    pub limits: SessionLimits,
}

/// How many sessions may be open at once, whatever entitlements say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Of one identity.
    pub per_identity: u32,
    /// On one target.
    pub per_target: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { per_identity: 500, per_target: 2000 }
    }
}

impl Policy {
    /// Entitlements that this identity may ask for on this target.
    pub fn open_to<'a>(
        &'a self,
        identity: &'a Identity,
        target: &'a Target,
    ) -> impl Iterator<Item = &'a Entitlement> + 'a {
        self.entitlements.values().filter(move |e| e.is_for(identity) && e.reaches(target))
    }
}
