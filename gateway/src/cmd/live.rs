//! `tidegate reload` and `tidegate config diff`

use super::{named, print, print_json, text_of};
use crate::{
    api::{DiffBody, LARGEST_CONFIG, client::Client},
    live::Plan,
    text::plain,
};
use std::{fmt::Write as _, path::Path, process::ExitCode};

pub(super) fn reload(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let plan: Plan = client.post("/v1/config/reload", &serde_json::json!({}))?;
    if json {
        return print_json(&plan);
    }
    let mut text = changes(&plan);
    if plan.changes.is_empty() {
        text.push_str("nothing in the file has changed\n");
    }
    writeln!(text, "in force: {}", plan.config)?;
    warnings(&mut text, &plan)?;
    sessions(&mut text, &plan, "ended")?;
    print(&text)
}

pub(super) fn diff(client: &Client, file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let text = text_of(file, LARGEST_CONFIG, "a configuration")?;
    let plan: Plan = client.post("/v1/config/diff", &DiffBody { text, name: Some(named(file)) })?;
    if json {
        print_json(&plan)?;
        return Ok(verdict(&plan));
    }
    let mut text = changes(&plan);
    if plan.changes.is_empty() {
        text.push_str("a reload would change nothing\n");
    }
    let fixed = plan.needs_restart();
    if !fixed.is_empty() {
        writeln!(text, "a reload would refuse this: {} can only be changed by a restart", fixed.join(", "))?;
    }
    for moved in &plan.moves {
        writeln!(text, "a reload would refuse this: {}", plain(moved))?;
    }
    warnings(&mut text, &plan)?;
    sessions(&mut text, &plan, "would end")?;
    print(&text)?;
    Ok(verdict(&plan))
}

/// A script that asks beforehand goes by the exit code.
fn verdict(plan: &Plan) -> ExitCode {
    if plan.needs_restart().is_empty() && plan.moves.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn changes(plan: &Plan) -> String {
    plan.changes.iter().fold(String::new(), |text, change| text + &change.to_string() + "\n")
}

fn warnings(text: &mut String, plan: &Plan) -> std::fmt::Result {
    plan.warnings.iter().try_for_each(|warning| writeln!(text, "warning: {}", plain(warning)))
}

fn sessions(text: &mut String, plan: &Plan, what: &str) -> std::fmt::Result {
    match plan.ends.len() {
        0 => Ok(()),
        count => {
            let ids: Vec<String> = plan.ends.iter().map(ToString::to_string).collect();
            writeln!(text, "{count} live session(s) {what}: {}", ids.join(", "))
        }
    }
}
