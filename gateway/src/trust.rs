//! What `target trust` prints for a target of the configuration; `target test` compares with the same.

use crate::config::Config;
use anyhow::bail;
use std::collections::BTreeSet;
use tidegate_ca::{Keys, Part as CaPart};
use tidegate_grants::{Login, TargetName, Terms};
use tidegate_proxy::{
    protocol::{postgres, ssh},
    trust::Part,
};

/// All parts of what an admin installs on this target.
pub(crate) fn parts(config: &Config, keys: &Keys, name: &TargetName) -> anyhow::Result<Vec<Part>> {
    if let Some(target) = config.ssh_targets.get(name) {
        return Ok(ssh::trust(keys, &config.source_addresses, target, &logins(config, name)));
    }
    if let Some(target) = config.postgres_targets.get(name) {
        let (policy, sources) = (&config.policy, &config.source_addresses);
        return Ok(postgres::trust::trust(target, policy, sources, &keys.show(CaPart::X509)?));
    }
    bail!("there is no target {name} in the configuration")
}

/// Every login that some entitlement opens on this target.
pub(crate) fn logins(config: &Config, name: &TargetName) -> Vec<Login> {
    let Some(target) = config.policy.targets.get(name) else { return Vec::new() };
    let reaching = config.policy.entitlements.values().filter(|entitlement| entitlement.reaches(target));
    let logins: BTreeSet<&Login> = reaching
        .filter_map(|entitlement| match &entitlement.terms {
            Terms::Ssh { logins, .. } => Some(logins),
            Terms::Postgres { .. } => None,
        })
        .flatten()
        .collect();
    logins.into_iter().cloned().collect()
}
