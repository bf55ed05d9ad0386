//! `tidegate session list`

use super::{moment, print, print_json};
use crate::{api::client::Client, text};
use std::process::ExitCode;
use tidegate_grants::store::SessionRow;

pub(super) fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let sessions: Vec<SessionRow> = client.get("/v1/sessions")?;
    if json {
        return print_json(&sessions);
    }
    let row = |session: &SessionRow| {
        [
            session.id.short(),
            session.identity.to_string(),
            session.access.clone(),
            session.target.to_string(),
            session.source.to_string(),
            session.grant.short(),
            moment(session.start),
            session.end.map(moment).unwrap_or_default(),
            session.outcome.clone().unwrap_or_else(|| "live".to_owned()),
        ]
    };
    let rows: Vec<[String; 9]> = sessions.iter().map(row).collect();
    print(&text::table(["ID", "IDENTITY", "AS", "TARGET", "FROM", "GRANT", "START", "END", "OUTCOME"], &rows))
}
