//! `tidegate session …`

use super::{lease::word, moment, print, print_json};
use crate::{
    api::{
        ReasonBody, SessionDetail, SessionKilled,
        client::{Client, segment},
    },
    text::{self, plain},
};
use std::{fmt::Write as _, process::ExitCode};
use tidegate_grants::authority::SessionView;

pub(super) fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let sessions: Vec<SessionView> = client.list("/v1/sessions")?;
    if json {
        return print_json(&sessions);
    }
    let row = |SessionView { row, state }: &SessionView| {
        [
            row.id.short(),
            row.identity.to_string(),
            row.access.clone(),
            row.target.to_string(),
            row.source.to_string(),
            row.grant.short(),
            moment(row.start),
            row.end.map(moment).unwrap_or_default(),
            row.outcome.clone().unwrap_or_else(|| state.to_string()),
        ]
    };
    let rows: Vec<[String; 9]> = sessions.iter().map(row).collect();
    print(&text::table(["ID", "IDENTITY", "AS", "TARGET", "FROM", "GRANT", "START", "END", "OUTCOME"], &rows))
}

pub(super) fn show(client: &Client, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let detail: SessionDetail = client.get(&format!("/v1/sessions/{}", segment(id)))?;
    if json { print_json(&detail) } else { print(&described(&detail)?) }
}

fn described(detail: &SessionDetail) -> anyhow::Result<String> {
    let SessionView { row, state } = &detail.session;
    let mut out = String::new();
    let mut line = |what: &str, value: &str| writeln!(out, "{what:<9} {}", plain(value));
    line("session", &row.id.to_string())?;
    line("identity", row.identity.as_str())?;
    line("target", row.target.as_str())?;
    line("as", &row.access)?;
    line("from", &row.source.to_string())?;
    line("grant", &row.grant.to_string())?;
    line("start", &moment(row.start))?;
    line("end", &row.end.map(moment).unwrap_or_default())?;
    line("state", &state.to_string())?;
    line("outcome", row.outcome.as_deref().unwrap_or_default())?;
    for lease in &detail.leases {
        let error = lease.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        line("lease", &format!("{} {} {}{error}", lease.id, lease.name, word(&lease.state)))?;
    }
    Ok(out)
}

pub(super) fn kill(client: &Client, id: &str, reason: Option<String>) -> anyhow::Result<ExitCode> {
    let killed: SessionKilled = client.post(&format!("/v1/sessions/{}/kill", segment(id)), &ReasonBody { reason })?;
    print(&format!("{}\n", killed.id))
}
