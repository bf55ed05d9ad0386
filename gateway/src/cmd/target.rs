//! `tidegate target trust` and `tidegate target test`

use super::{print, print_json};
use crate::{
    api::{
        TestBody,
        client::{Client, segment},
    },
    config,
    trust::parts,
};
use anyhow::bail;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use tidegate_ca::Keys;
use tidegate_grants::{Login, Receipt, TargetName};
use tidegate_proxy::{
    trial::{Outcome, Report},
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

fn all(name: &TargetName, parts: &[Part]) -> anyhow::Result<String> {
    let mut out = String::new();
    for part in parts {
        writeln!(out, "######## {}: {}", part.name, part.place)?;
        writeln!(out, "######## tidegate target trust {name} --part {}\n", part.name)?;
        writeln!(out, "{}\n", part.text.trim_end())?;
    }
    Ok(out)
}

/// Longer than the gateway itself waits for a test.
const PATIENCE: Duration = Duration::from_secs(55);

/// Has the running gateway open a session that carries nothing, and prints what came of each step.
pub(super) fn test(client: &Client, name: &TargetName, body: &TestBody, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/targets/{}/test", segment(name.as_str()));
    let report: Report = client.post_within(&path, body, PATIENCE)?;
    if json {
        print_json(&report)?;
    } else {
        print(&shown(&report)?)?;
    }
    let count = |outcomes: &[Outcome]| report.steps.iter().filter(|step| outcomes.contains(&step.outcome)).count();
    let login = report.login.as_ref().map(ToString::to_string);
    let about = login.or(report.database.as_ref().map(ToString::to_string)).unwrap_or_default();
    if report.sound {
        match count(&[Outcome::Weak]) {
            0 => {}
            weak => writeln!(
                io::stderr(),
                "tidegate: warning: {name} is as it can be for {about}, with {weak} weakness(es)"
            )?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wrong = count(&[Outcome::Failed, Outcome::Open]);
    writeln!(io::stderr(), "tidegate: {name} is not as it should be for {about}: {wrong} fault(s)")?;
    Ok(ExitCode::from(1))
}

fn shown(report: &Report) -> anyhow::Result<String> {
    let mut out = String::new();
    for step in &report.steps {
        let outcome = match step.outcome {
            Outcome::Ok => "ok",
            Outcome::Weak => "weak",
            Outcome::Open => "OPEN",
            Outcome::Failed => "FAILED",
            Outcome::Unseen => "unseen",
        };
        writeln!(out, "{outcome:<7} {:<13} {}", step.step, step.said)?;
        for next in &step.next {
            writeln!(out, "{:21} {next}", "")?;
        }
    }
    if let Some(receipt) = &report.receipt {
        write_receipt(&mut out, receipt)?;
    }
    Ok(out)
}

fn write_receipt(out: &mut String, receipt: &Receipt) -> std::fmt::Result {
    writeln!(out, "receipt of {}:", super::moment(receipt.at))?;
    for finding in &receipt.findings {
        writeln!(out, "  {} {}", finding.found, finding.what)?;
        for item in &finding.items {
            writeln!(out, "    {item}")?;
        }
    }
    for line in &receipt.unverifiable {
        writeln!(out, "  unverifiable: {line}")?;
    }
    Ok(())
}
