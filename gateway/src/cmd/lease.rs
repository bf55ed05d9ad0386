//! `tidegate lease …`

use super::{moment, print, print_json};
use crate::{
    api::{
        AcceptBody, AdoptBody, LeaseDetail, LeaseView, LeaseWoken, SweepBody,
        client::{Client, segment},
    },
    cli::LeaseCommand,
    text::{self, plain},
};
use std::{fmt::Write as _, process::ExitCode};
use tidegate_grants::TargetName;
use tidegate_proxy::sweep::Swept;

pub(super) fn run(client: &Client, command: LeaseCommand) -> anyhow::Result<ExitCode> {
    match command {
        LeaseCommand::List { all, json } => list(client, all, json.json),
        LeaseCommand::Retry { id } => {
            let woken: LeaseWoken =
                client.post(&format!("/v1/leases/{}/retry", segment(&id)), &serde_json::json!({}))?;
            print(&format!("{}\n", woken.id))
        }
        LeaseCommand::Show { id, json } => show(client, &id, json.json),
        LeaseCommand::Accept { id, reason, json } => {
            let path = format!("/v1/leases/{}/accept", segment(&id));
            let lease: LeaseView = client.post(&path, &AcceptBody { reason })?;
            if json.json { print_json(&lease) } else { print(&format!("{} {}\n", lease.id, word(&lease.state))) }
        }
        LeaseCommand::Sweep { target, json } => sweep(client, target, json.json),
        LeaseCommand::Adopt { target, name, reason } => {
            let adopted: LeaseWoken = client.post("/v1/leases/adopt", &AdoptBody { target, name, reason })?;
            print(&format!("{}\n", adopted.id))
        }
    }
}

fn show(client: &Client, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let detail: LeaseDetail = client.get(&format!("/v1/leases/{}", segment(id)))?;
    if json { print_json(&detail) } else { print(&described(&detail)?) }
}

/// Comments and statements: the whole is a script that psql can read.
fn described(detail: &LeaseDetail) -> anyhow::Result<String> {
    let (lease, mut out) = (&detail.lease, String::new());
    let mut line = |what: &str, value: &str| writeln!(out, "-- {what:<9} {}", plain(value));
    line("lease", &lease.id.to_string())?;
    line("session", &lease.session.to_string())?;
    line("target", lease.target.as_str())?;
    line("name", &lease.name)?;
    line("state", &word(&lease.state))?;
    line("deadline", &moment(lease.deadline))?;
    line("attempts", &lease.attempts.to_string())?;
    line("why", lease.last_error.as_deref().unwrap_or_default())?;
    if let Some(silent) = &detail.silent {
        line("now", silent)?;
    }
    for (when, receipt) in [("now", &detail.now), ("receipt", &lease.receipt)] {
        let Some(receipt) = receipt.as_ref().filter(|_| when == "now" || detail.now.is_none()) else { continue };
        line(when, &format!("as the target answered at {}", moment(receipt.at)))?;
        for finding in receipt.findings.iter().filter(|finding| finding.found > 0) {
            line("", &format!("{} {}", finding.found, finding.what))?;
            for item in &finding.items {
                line("", &format!("    {item}"))?;
            }
        }
        if let Some(accepted) = &receipt.accepted {
            line("accepted", &format!("by {}: {}", accepted.by, accepted.reason))?;
        }
    }
    for advice in &detail.advice {
        writeln!(out, "\n-- {}: look", plain(&advice.about))?;
        advice.look.iter().try_for_each(|sql| writeln!(out, "{sql}"))?;
        writeln!(
            out,
            "-- {}: put in order (what a select prints runs with \\gexec in the place of its semicolon)",
            plain(&advice.about)
        )?;
        // Nothing is changed by who runs the whole.
        advice.finish.iter().try_for_each(|sql| writeln!(out, "-- {sql}"))?;
    }
    if !detail.advice.is_empty() {
        writeln!(out, "\n-- then: tidegate lease retry {}", lease.id)?;
    }
    if detail.acceptable {
        writeln!(out, "-- or, if it may stay: tidegate lease accept {} --reason WHY", lease.id)?;
    }
    Ok(out)
}

/// Exit 0 if nothing was found, 1 if something was, or a target could not be asked.
fn sweep(client: &Client, target: Option<TargetName>, json: bool) -> anyhow::Result<ExitCode> {
    let swept: Vec<Swept> = client.post("/v1/leases/sweep", &SweepBody { target })?;
    let sound = swept.iter().all(|swept| swept.orphans.is_empty() && swept.error.is_none());
    if json {
        print_json(&swept)?;
    } else {
        let mut rows = Vec::new();
        for of in &swept {
            for orphan in &of.orphans {
                let works = if orphan.works { "works" } else { "disabled" };
                rows.push([
                    of.target.to_string(),
                    orphan.name.clone(),
                    word(&orphan.part),
                    works.to_owned(),
                    "no lease".to_owned(),
                ]);
            }
            for lease in &of.reopened {
                rows.push([
                    of.target.to_string(),
                    String::new(),
                    String::new(),
                    String::new(),
                    format!("reopened {lease}"),
                ]);
            }
            if let Some(error) = &of.error {
                rows.push([of.target.to_string(), String::new(), String::new(), String::new(), error.clone()]);
            }
        }
        print(&text::table(["TARGET", "NAME", "PART", "STATE", "FOUND"], &rows))?;
    }
    Ok(ExitCode::from(u8::from(!sound)))
}

fn list(client: &Client, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let leases: Vec<LeaseView> = client.list(&format!("/v1/leases?all={all}"))?;
    if json {
        return print_json(&leases);
    }
    let row = |lease: &LeaseView| {
        [
            lease.id.short(),
            lease.session.short(),
            lease.target.to_string(),
            word(&lease.kind),
            lease.name.clone(),
            word(&lease.state),
            moment(lease.deadline),
            lease.attempts.to_string(),
            lease.last_error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 9]> = leases.iter().map(row).collect();
    let heading = ["ID", "SESSION", "TARGET", "KIND", "NAME", "STATE", "DEADLINE", "ATTEMPTS", "LAST ERROR"];
    print(&text::table(heading, &rows))
}

/// The word that JSON has for it.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
