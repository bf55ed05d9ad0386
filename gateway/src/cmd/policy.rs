//! `tidegate policy …`: what the configuration says, without a gateway.

use super::{print, print_json};
use crate::{
    cli::PolicyCommand,
    config::{self, Config},
    text::plain,
};
use anyhow::Context as _;
use serde::Deserialize;
use ssh_key::{HashAlg, PublicKey};
use std::{fmt::Write as _, fs, net::IpAddr, path::Path, process::ExitCode};
use tidegate_grants::{
    Device, EntitlementName, IdentityName, TargetName,
    explain::{Explained, Outcome, Question, explain},
};

pub(super) fn run(named: Option<&Path>, command: PolicyCommand) -> anyhow::Result<ExitCode> {
    let config = config::load(&config::locate(named)?)?;
    match command {
        PolicyCommand::Explain { user, target, entitlement, at, from, ticket, key, json } => {
            let asked = Asked { user, target, entitlement, at, from, ticket, key };
            let explained = asked.explained(&config);
            if json.json { print_json(&explained) } else { print(&described(&explained)?) }
        }
        PolicyCommand::Test { file } => test(&config, &file),
    }
}

/// What is asked, with what is known of the moment.
#[derive(Debug, Deserialize)]
struct Asked {
    user: IdentityName,
    target: TargetName,
    entitlement: EntitlementName,
    /// RFC 3339; now, if it is left out.
    at: Option<jiff::Timestamp>,
    from: Option<IpAddr>,
    ticket: Option<String>,
    /// The fingerprint of the SSH key, `SHA256:…`.
    key: Option<String>,
}

impl Asked {
    fn explained(&self, config: &Config) -> Explained {
        let Self { user, target, entitlement, at, from, ticket, key } = self;
        let device = key.as_ref().map(|key| self.device(config, key));
        let question = Question {
            user,
            target,
            entitlement,
            at: at.unwrap_or_else(jiff::Timestamp::now),
            from: *from,
            ticket: ticket.as_deref(),
            device: device.as_ref(),
        };
        let mut explained = explain(&config.policy, &question);
        explained.steps.iter_mut().for_each(|step| step.place = config.place_of(&step.key));
        explained
    }

    /// What the door would know of this key.
    fn device(&self, config: &Config, fingerprint: &str) -> Device {
        let lines = config.policy.identities.get(&self.user).map(|user| user.ssh_keys.as_slice()).unwrap_or_default();
        let is = |line: &&String| {
            PublicKey::from_openssh(line).is_ok_and(|key| key.fingerprint(HashAlg::Sha256).to_string() == fingerprint)
        };
        let hardware = lines.iter().find(is).is_some_and(|line| line.starts_with("sk-"));
        Device { key: Some(fingerprint.to_owned()), hardware, ..Device::default() }
    }
}

fn described(explained: &Explained) -> anyhow::Result<String> {
    let mut out = String::new();
    for step in &explained.steps {
        let mark = if step.fits { "ok  " } else { "FAIL" };
        writeln!(out, "{mark} {}: {}", plain(&step.key), plain(&step.says))?;
    }
    if let Some(decided) = explained.steps.last() {
        write!(out, "{}, by {}", explained.outcome, plain(&decided.key))?;
        match &decided.place {
            Some(place) => writeln!(out, " at {place}")?,
            None => writeln!(out)?,
        }
    }
    Ok(out)
}

/// An admin's own table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    case: Vec<Case>,
}

/// (Its unknown keys are refused by hand: serde cannot, where one table is flattened into another.)
#[derive(Debug, Deserialize)]
struct Case {
    #[serde(flatten)]
    asked: Asked,
    expect: Outcome,
    #[serde(flatten)]
    unknown: toml::Table,
}

fn test(config: &Config, file: &Path) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let Table { case: cases } = toml::from_str(&text).with_context(|| file.display().to_string())?;
    anyhow::ensure!(!cases.is_empty(), "{}: has no [[case]]", file.display());
    let (mut out, mut wrong) = (String::new(), 0);
    for Case { asked, expect, unknown } in &cases {
        if let Some(key) = unknown.keys().next() {
            anyhow::bail!("{}: a case has no key {key}", file.display());
        }
        let explained = asked.explained(config);
        if explained.outcome == *expect {
            continue;
        }
        wrong += 1;
        writeln!(out, "{} {} {}: expected {expect}", asked.user, asked.target, asked.entitlement)?;
        out.push_str(&described(&explained)?);
    }
    writeln!(out, "{} case(s), {wrong} otherwise than expected", cases.len())?;
    print(&out)?;
    Ok(ExitCode::from(u8::from(wrong > 0)))
}
