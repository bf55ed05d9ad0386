//! `tidegate lease …`

use super::{moment, print, print_json};
use crate::{
    api::{
        LeaseView, LeaseWoken,
        client::{Client, segment},
    },
    cli::LeaseCommand,
    text,
};
use std::process::ExitCode;

pub(super) fn run(client: &Client, command: LeaseCommand) -> anyhow::Result<ExitCode> {
    match command {
        LeaseCommand::List { all, json } => list(client, all, json.json),
        LeaseCommand::Retry { id } => {
            let woken: LeaseWoken =
                client.post(&format!("/v1/leases/{}/retry", segment(&id)), &serde_json::json!({}))?;
            print(&format!("{}\n", woken.id))
        }
    }
}

fn list(client: &Client, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let leases: Vec<LeaseView> = client.get(&format!("/v1/leases?all={all}"))?;
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
