//! `tidegate request …`

use super::{moment, print, print_json, text_of};
use crate::{
    api::{
        ApproveBody, DenyBody, ReasonBody, RequestBody,
        client::{Client, segment},
    },
    cli::{Ask, RequestCommand},
    config::show_duration,
    text::{self, plain},
};
use std::{fmt::Write as _, process::ExitCode, time::Duration};
use tidegate_grants::{
    RequestState, RequestView,
    panel::{Awaited, Queued, Standing},
};

/// A signature is at most this long.
const LARGEST_SIGNATURE: usize = 8 << 10;

pub(super) fn run(client: &Client, command: RequestCommand) -> anyhow::Result<ExitCode> {
    let at = |id: &str, verb: &str| format!("/v1/requests/{}/{verb}", segment(id));
    match command {
        RequestCommand::Ask(ask) => made(&client.post("/v1/requests", &body(ask))?),
        RequestCommand::List { all, json } => list(client, all, json.json),
        RequestCommand::Show { id, line, json } => {
            let view: RequestView = client.get(&format!("/v1/requests/{}", segment(&id)))?;
            match (line, json.json) {
                (true, _) => print(&format!("{}\n", view.line_to_sign())),
                (false, true) => print_json(&view),
                (false, false) => print(&described(&view)?),
            }
        }
        RequestCommand::Approve { id, signature } => {
            let signature = signature.map(|file| text_of(&file, LARGEST_SIGNATURE, "a signature")).transpose()?;
            made(&client.post(&at(&id, "approve"), &ApproveBody { signature })?)
        }
        RequestCommand::Deny { id, reason } => made(&client.post(&at(&id, "deny"), &DenyBody { reason })?),
        RequestCommand::Cancel { id } => made(&client.post(&at(&id, "cancel"), &ReasonBody::default())?),
    }
}

/// The id alone; what it waits for is for the person.
pub(super) fn made(view: &RequestView) -> anyhow::Result<ExitCode> {
    eprintln!("{}", plain(&stands(view)));
    print(&format!("{}\n", view.wanted.id))
}

fn body(ask: Ask) -> RequestBody {
    RequestBody {
        target: ask.target,
        entitlement: ask.entitlement,
        duration: ask.duration.map(show_duration),
        reason: ask.reason,
        ticket: ask.ticket,
        login: ask.login,
        database: ask.database,
        roles: (!ask.roles.is_empty()).then(|| ask.roles.into_iter().collect()),
    }
}

fn list(client: &Client, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let mut requests: Vec<RequestView> = client.list("/v1/requests")?;
    requests.retain(|view| all || view.state == RequestState::Open);
    if json {
        return print_json(&requests);
    }
    let row = |view: &RequestView| {
        let wanted = &view.wanted;
        [
            wanted.id.short(),
            wanted.identity.to_string(),
            wanted.target.to_string(),
            wanted.entitlement.to_string(),
            show_duration(Duration::from_secs(wanted.seconds)),
            stands(view),
            wanted.ticket.clone().unwrap_or_default(),
            wanted.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 8]> = requests.iter().map(row).collect();
    print(
        &(super::review::owed(client)?
            + &text::table(["ID", "USER", "TARGET", "ENTITLEMENT", "FOR", "STATE", "TICKET", "REASON"], &rows)),
    )
}

/// In a few words.
fn stands(view: &RequestView) -> String {
    match (&view.standing, view.state) {
        (Some(Standing::Waiting(Awaited { level, missing, from, proof })), _) => {
            let from: Vec<&str> = from.iter().map(|group| group.as_str()).collect();
            format!("open: awaits {missing} of {} (level {level}, {proof})", from.join(" or "))
        }
        (Some(Standing::Queued(Queued { by, until, ahead })), _) => {
            let by = by.as_ref().map(|by| format!(", held by {by}")).unwrap_or_default();
            let until = until.map(|until| format!(" until {}", moment(until))).unwrap_or_default();
            format!("open: approved{by}{until}; {ahead} before it")
        }
        (Some(Standing::Stuck(level)), _) => format!("open: too few are left for level {level}"),
        (_, state) => {
            let by = view.decided.as_ref().map(|decided| format!(" by {}", decided.by)).unwrap_or_default();
            format!("{state}{by}")
        }
    }
}

fn described(view: &RequestView) -> anyhow::Result<String> {
    let (wanted, mut out) = (&view.wanted, String::new());
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<12} {}", plain(value));
    line("id", &wanted.id.to_string())?;
    line("state", &stands(view))?;
    line("user", wanted.identity.as_str())?;
    line("target", wanted.target.as_str())?;
    line("entitlement", wanted.entitlement.as_str())?;
    line("login", wanted.login.as_ref().map_or("-", |login| login.as_str()))?;
    line("database", wanted.database.as_ref().map_or("-", |database| database.as_str()))?;
    line("for", &show_duration(Duration::from_secs(wanted.seconds)))?;
    line("reason", wanted.reason.as_deref().unwrap_or("-"))?;
    line("ticket", wanted.ticket.as_deref().unwrap_or("-"))?;
    line("opened", &moment(view.opened))?;
    line("expires", &moment(view.expires))?;
    line("digest", view.digest.as_str())?;
    for yes in &view.approvals {
        let how = format!("by {} at {} (level {}, {})", yes.by, moment(yes.at), yes.level, yes.proof);
        line("approved", &how)?;
    }
    if let Some(decided) = &view.decided {
        let why = decided.reason.as_deref().unwrap_or("no reason given");
        line("decided", &format!("{} by {} at {}: {why}", view.state, decided.by, moment(decided.at)))?;
    }
    if let Some(grant) = view.grant {
        line("grant", &grant.to_string())?;
    }
    Ok(out)
}
