//! `tidegate grant …`

use super::{lease::word, moment, named, print, print_json, text_of};
use crate::{
    api::{
        ExtendBody, GrantMade, ImportBody, IssueBody, LARGEST_BODY, ReasonBody, ReturnBody,
        client::{Client, segment},
    },
    cli::{GrantCommand, Issue},
    config::show_duration,
    text::{self, plain},
};
use anyhow::ensure;
use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};
use tidegate_grants::GrantView;

pub(super) fn run(client: &Client, command: GrantCommand) -> anyhow::Result<ExitCode> {
    match command {
        GrantCommand::Issue(issue) => made(&client.post("/v1/grants", &body(issue))?),
        GrantCommand::Import { file } => made(&client.post("/v1/grants/import", &ImportBody { token: token(file)? })?),
        GrantCommand::List { json } => list(client, json.json),
        GrantCommand::Show { id, json } => {
            let grant: GrantView = client.get(&format!("/v1/grants/{}", segment(&id)))?;
            if json.json { print_json(&grant) } else { print(&described(&grant)?) }
        }
        GrantCommand::Extend { id, duration, reason, ticket } => {
            let body = ExtendBody { duration: duration.map(show_duration), reason, ticket };
            super::request::made(&client.post(&format!("/v1/grants/{}/extend", segment(&id)), &body)?)
        }
        GrantCommand::Return { id, force, reason } => {
            made(&client.post(&format!("/v1/grants/{}/return", segment(&id)), &ReturnBody { force, reason })?)
        }
        GrantCommand::Revoke { id, reason } => {
            made(&client.post(&format!("/v1/grants/{}/revoke", segment(&id)), &ReasonBody { reason })?)
        }
    }
}

/// The id alone.
fn made(grant: &GrantMade) -> anyhow::Result<ExitCode> {
    print(&format!("{}\n", grant.id))
}

fn body(issue: Issue) -> IssueBody {
    IssueBody {
        user: issue.user,
        target: issue.target,
        entitlement: issue.entitlement,
        duration: show_duration(issue.duration),
        reason: issue.reason,
        ticket: issue.ticket,
        login: issue.login,
        database: issue.database,
        roles: (!issue.roles.is_empty()).then(|| issue.roles.into_iter().collect()),
        single_use: issue.single_use,
    }
}

/// From the file, or from stdin.
fn token(file: Option<PathBuf>) -> anyhow::Result<String> {
    let file = file.unwrap_or_else(|| PathBuf::from("-"));
    let most = LARGEST_BODY - 1024; // the rest of the body is for JSON
    let token = text_of(&file, most, "a grant")?;
    ensure!(!token.trim().is_empty(), "{}: empty", named(&file));
    Ok(token.trim().to_owned())
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let grants: Vec<GrantView> = client.list("/v1/grants")?;
    if json {
        return print_json(&grants);
    }
    let row = |grant: &GrantView| {
        let claims = &grant.claims;
        [
            grant.id.short(),
            claims.sub.to_string(),
            claims.target.to_string(),
            claims.entitlement.to_string(),
            word(&grant.state),
            moment(grant.ends),
            claims.iss.clone(),
            claims.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 8]> = grants.iter().map(row).collect();
    print(
        &(super::review::owed(client)?
            + &text::table(["ID", "USER", "TARGET", "ENTITLEMENT", "STATE", "ENDS", "ISSUER", "REASON"], &rows)),
    )
}

/// Seconds since 1970, as people read them.
fn seconds(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), moment)
}

fn described(grant: &GrantView) -> anyhow::Result<String> {
    let claims = &grant.claims;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<12} {}", plain(value));
    line("id", &grant.id.to_string())?;
    line("state", &word(&grant.state))?;
    line("user", claims.sub.as_str())?;
    line("target", claims.target.as_str())?;
    line("entitlement", claims.entitlement.as_str())?;
    line("login", claims.login.as_ref().map_or("-", |login| login.as_str()))?;
    line("database", claims.database.as_ref().map_or("-", |database| database.as_str()))?;
    if let Some(roles) = &claims.roles {
        let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        line("roles", &roles.join(", "))?;
    }
    line("not before", &seconds(claims.nbf))?;
    line("ends", &moment(grant.ends))?;
    if let Some(lasts) = claims.lasts {
        let lasts = show_duration(Duration::from_secs(u64::try_from(lasts).unwrap_or(0)));
        line("lasts", &format!("{lasts} from its first session, within a day of its approval"))?;
    }
    line("single use", if claims.single_use { "yes" } else { "no" })?;
    line("reason", claims.reason.as_deref().unwrap_or("-"))?;
    line("ticket", claims.ticket.as_deref().unwrap_or("-"))?;
    line("issuer", &claims.iss)?;
    line("jti", &claims.jti)?;
    for approval in &claims.approvals {
        line("approved", &format!("by {} at {} (level {})", approval.by, seconds(approval.at), approval.level))?;
    }
    if let Some(revoked) = &grant.revoked {
        let why = revoked.reason.as_deref().unwrap_or("no reason given");
        line("revoked", &format!("by {} at {}: {why}", revoked.by, moment(revoked.at)))?;
    }
    Ok(out)
}
