//! `tidegate target trust`

use super::print;
use crate::config::{self, Config};
use anyhow::bail;
use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::ExitCode};
use tidegate_ca::{Keys, Part as CaPart};
use tidegate_grants::{Login, TargetName, Terms};
use tidegate_proxy::{
    protocol::{postgres, ssh},
    trust::Part,
};

/// All parts under headings, or one part's text alone.
pub(super) fn trust(
    named: Option<&Path>,
    name: &TargetName,
    part: Option<&str>,
    login: Option<&Login>,
) -> anyhow::Result<ExitCode> {
    let config = config::load(&config::locate(named)?)?;
    let keys = Keys::open(&config.state_dir.join("keys"))?;
    let parts = parts(&config, &keys, name)?;
    let Some(wanted) = part else {
        return print(&all(name, &parts)?);
    };
    let of_part: Vec<&Part> = parts.iter().filter(|part| part.name == wanted).collect();
    let of_login = |part: &&&Part| login.is_none_or(|login| part.place.ends_with(&format!("/{login}")));
    let chosen: Vec<&&Part> = of_part.iter().filter(of_login).collect();
    match chosen.as_slice() {
        [part] => print(&format!("{}\n", part.text.trim_end())),
        [] if of_part.is_empty() => {
            let names: BTreeSet<&str> = parts.iter().map(|part| part.name).collect();
            bail!("{name} has no part {wanted:?}; it has: {}", Vec::from_iter(names).join(", "))
        }
        // One file for several logins would let each in as the others.
        _ => {
            let places: Vec<&str> = of_part.iter().map(|part| part.place.as_str()).collect();
            bail!("{wanted} is a file for each login, name one with --login: {}", places.join(", "))
        }
    }
}

fn parts(config: &Config, keys: &Keys, name: &TargetName) -> anyhow::Result<Vec<Part>> {
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
fn logins(config: &Config, name: &TargetName) -> Vec<Login> {
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

fn all(name: &TargetName, parts: &[Part]) -> anyhow::Result<String> {
    let mut out = String::new();
    for part in parts {
        writeln!(out, "######## {}: {}", part.name, part.place)?;
        writeln!(out, "######## tidegate target trust {name} --part {}\n", part.name)?;
        writeln!(out, "{}\n", part.text.trim_end())?;
    }
    Ok(out)
}
