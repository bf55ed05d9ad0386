//! `tidegate status`

use super::{print, print_json};
use crate::{
    api::{Status, client::Client},
    text::plain,
};
use std::{fmt::Write as _, process::ExitCode};

/// Whoever has no token is told only whether it is ready.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Answer {
    Whole(Box<Status>),
    Nobody { ready: bool },
}

/// Exit 0 when the gateway is ready to serve, 1 when it runs and is not, 3 when it does not run.
pub(super) fn run(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let status = match client.get("/v1/status")? {
        Answer::Whole(status) => *status,
        Answer::Nobody { ready } => {
            print(if ready { "ready\n" } else { "NOT ready\n" })?;
            return Ok(ExitCode::from(u8::from(!ready)));
        }
    };
    if json {
        print_json(&status)?;
    } else {
        let door = |at: Option<std::net::SocketAddr>| at.map_or_else(|| "off".to_owned(), |at| at.to_string());
        let mut out = String::new();
        let word = if status.ready { "ready" } else { "NOT ready" };
        writeln!(out, "{word}: gateway {} (node {}), tidegate {}", status.gateway, status.node, status.version)?;
        if status.reviews > 0 {
            writeln!(out, "  reviews owed   {} (`tidegate review list`)", status.reviews)?;
        }
        for fault in &status.faults {
            writeln!(out, "  fault          {fault}")?;
        }
        writeln!(out, "  ssh            {}", door(status.listeners.ssh))?;
        writeln!(out, "  postgres       {}", door(status.listeners.postgres))?;
        writeln!(out, "  api            {}", door(status.listeners.api))?;
        writeln!(out, "  live sessions  {}", status.sessions)?;
        writeln!(out, "  open leases    {}{}", status.open_leases, held(status.held_leases))?;
        if status.locks > 0 {
            writeln!(out, "  locks          {} (`tidegate lock list`)", status.locks)?;
        }
        for orphan in &status.orphans {
            writeln!(out, "  no lease for   {} (`tidegate lease sweep`)", plain(orphan))?;
        }
        for inventory in &status.inventories {
            let of = inventory.as_of.map_or_else(|| "never".to_owned(), super::moment);
            writeln!(out, "  inventory      {}: {} target(s), last read {of}", inventory.name, inventory.targets)?;
            if let Some(fault) = &inventory.fault {
                writeln!(out, "                 not read since: {}", plain(fault))?;
            }
        }
        writeln!(out, "  last anchor    {}", status.last_anchor.map_or_else(|| "none".to_owned(), super::moment))?;
        for (name, why) in &status.failing_anchors {
            writeln!(out, "  NOT ANCHORED   {}", plain(&format!("{name}: {why}")))?;
        }
        for (name, why) in &status.failing_peers {
            writeln!(out, "  PEER           {}", plain(&format!("{name}: {why}")))?;
        }
        writeln!(out, "  configuration  {:.12}", status.config)?;
        print(&out)?;
    }
    Ok(ExitCode::from(u8::from(!status.ready)))
}

fn held(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", {count} held for a human (`tidegate lease list`)") }
}
