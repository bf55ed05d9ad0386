//! What `target trust` prints for a target of the configuration; `target test` compares with the same.

use crate::config::Config;
use anyhow::bail;
use std::collections::BTreeMap;
use tidegate_ca::{Keys, Part as CaPart};
use tidegate_grants::{ForwardRules, Login, TargetName, Terms, forward::Rule};
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

/// Every login that some entitlement opens on this target, with all that its entitlements let it reach from there.
pub(crate) fn logins(config: &Config, name: &TargetName) -> BTreeMap<Login, ForwardRules> {
    let mut rules: BTreeMap<Login, Vec<Rule>> = BTreeMap::new();
    let target = config.policy.targets.get(name);
    let entitlements = config.policy.entitlements.values();
    for entitlement in entitlements.filter(|entitlement| target.is_some_and(|target| entitlement.reaches(target))) {
        let Terms::Ssh { logins, forward, .. } = &entitlement.terms else { continue };
        for login in logins {
            rules.entry(login.clone()).or_default().extend(forward.rules());
        }
    }
    rules.into_iter().map(|(login, rules)| (login, rules.into_iter().collect())).collect()
}
