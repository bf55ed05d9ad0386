//! `tidegate session …`

use super::{lease::word, moment, print, print_json};
use crate::{
    api::{
        ReasonBody, SessionDetail, SessionKilled,
        client::{Client, segment},
    },
    text::{self, plain},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};
use tidegate_grants::authority::SessionView;
use tidegate_proxy::watching::SessionNow;

pub(super) fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let sessions: Vec<SessionNow> = client.list("/v1/sessions")?;
    if json {
        return print_json(&sessions);
    }
    let row = |now: &SessionNow| {
        let SessionView { row, state } = &now.session;
        [
            row.id.short(),
            row.identity.to_string(),
            row.access.clone(),
            row.target.to_string(),
            row.source.to_string(),
            row.grant.short(),
            moment(row.start),
            row.end.map(moment).unwrap_or_default(),
            now.idle(),
            row.outcome.clone().unwrap_or_else(|| state.to_string()),
            now.last.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 11]> = sessions.iter().map(row).collect();
    let titles = ["ID", "IDENTITY", "AS", "TARGET", "FROM", "GRANT", "START", "END", "IDLE", "OUTCOME", "LAST"];
    print(&(super::review::owed(client)? + &text::table(titles, &rows)))
}

pub(super) fn show(client: &Client, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let detail: SessionDetail = client.get(&format!("/v1/sessions/{}", segment(id)))?;
    if json { print_json(&detail) } else { print(&described(&detail)?) }
}

fn described(detail: &SessionDetail) -> anyhow::Result<String> {
    let SessionView { row, state } = &detail.session.session;
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
    let watchers: Vec<&str> = detail.session.watchers.iter().map(|name| name.as_str()).collect();
    line("idle", &detail.session.idle())?;
    line("last", detail.session.last.as_deref().unwrap_or_default())?;
    line("watched", &watchers.join(", "))?;
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

/// Into the terminal, as it comes: what comes is inert.
pub(super) fn watch(client: &Client, id: &str) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let size = super::play::view().map(|(columns, rows)| format!("?columns={columns}&rows={rows}"));
    let path = format!("/v1/sessions/{}/watch{}", segment(id), size.unwrap_or_default());
    client.stream(&path, |shown| {
        out.write_all(shown)?;
        Ok(out.flush()?)
    })?;
    out.write_all(b"\x1b[0m\r\n")?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
