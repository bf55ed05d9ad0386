//! `tidegate policy …`: what the configuration says, without a gateway.

use super::{print, print_json};
use crate::{cli::PolicyCommand, config, text::plain};
use anyhow::Context as _;
use serde::Deserialize;
use std::{fmt::Write as _, fs, path::Path, process::ExitCode};
use tidegate_grants::{
    EntitlementName, IdentityName, Policy, TargetName,
    explain::{Explained, Outcome, explain},
};

pub(super) fn run(named: Option<&Path>, command: PolicyCommand) -> anyhow::Result<ExitCode> {
    let policy = config::load(&config::locate(named)?)?.policy;
    match command {
        PolicyCommand::Explain { user, target, entitlement, at, json } => {
            let at = at.unwrap_or_else(jiff::Timestamp::now);
            let explained = explain(&policy, &user, &target, &entitlement, at);
            if json.json { print_json(&explained) } else { print(&described(&explained)?) }
        }
        PolicyCommand::Test { file } => test(&policy, &file),
    }
}

fn described(explained: &Explained) -> anyhow::Result<String> {
    let mut out = String::new();
    for step in &explained.steps {
        let mark = if step.fits { "ok  " } else { "FAIL" };
        writeln!(out, "{mark} {}: {}", plain(&step.key), plain(&step.says))?;
    }
    let decided = explained.steps.last().map_or("", |step| step.key.as_str());
    writeln!(out, "{}, by {}", explained.outcome, plain(decided))?;
    Ok(out)
}

/// An admin's own table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    user: IdentityName,
    target: TargetName,
    entitlement: EntitlementName,
    /// RFC 3339.
    at: Option<jiff::Timestamp>,
    expect: Outcome,
}

fn test(policy: &Policy, file: &Path) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let Table { case: cases } = toml::from_str(&text).with_context(|| file.display().to_string())?;
    anyhow::ensure!(!cases.is_empty(), "{}: has no [[case]]", file.display());
    let (mut out, mut wrong) = (String::new(), 0);
    for Case { user, target, entitlement, at, expect } in &cases {
        let at = at.unwrap_or_else(jiff::Timestamp::now);
        let explained = explain(policy, user, target, entitlement, at);
        if explained.outcome == *expect {
            continue;
        }
        wrong += 1;
        writeln!(out, "{user} {target} {entitlement}: expected {expect}")?;
        out.push_str(&described(&explained)?);
    }
    writeln!(out, "{} case(s), {wrong} otherwise than expected", cases.len())?;
    print(&out)?;
    Ok(ExitCode::from(u8::from(wrong > 0)))
}
