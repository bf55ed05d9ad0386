//! `tidegate lock …`

use super::{lease::word, moment, print, print_json};
use crate::{
    api::{
        LockBody, LockRemoved, ReasonBody,
        client::{Client, segment},
    },
    cli::{AddLock, LockCommand},
    config::show_duration,
    text,
};
use std::{io::Write as _, process::ExitCode};
use tidegate_grants::{LockView, lock::LockMade};

pub(super) fn run(client: &Client, command: LockCommand) -> anyhow::Result<ExitCode> {
    match command {
        LockCommand::Add(asked) => add(client, asked),
        LockCommand::List { json } => list(client, json.json),
        LockCommand::Remove { id, reason } => {
            let LockRemoved { id } =
                client.post(&format!("/v1/locks/{}/remove", segment(&id)), &ReasonBody { reason })?;
            print(&format!("{id}\n"))
        }
    }
}

fn add(client: &Client, asked: AddLock) -> anyhow::Result<ExitCode> {
    let AddLock { what, reason, duration, until } = asked;
    let body = LockBody {
        user: what.user,
        target: what.target,
        all: what.all,
        reason,
        duration: duration.map(show_duration),
        until,
    };
    let made: LockMade = client.post("/v1/locks", &body)?;
    let mut told = format!("{} live session(s) ended", made.sessions);
    if !made.known {
        told.push_str(
            "; the configuration names nothing of this name: is it spelled right? The lock stands all the same",
        );
    }
    writeln!(std::io::stderr(), "{told}\nlift it: tidegate lock remove {}", made.id)?;
    print(&format!("{}\n", made.id))
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let locks: Vec<LockView> = client.list("/v1/locks")?;
    if json {
        return print_json(&locks);
    }
    let row = |lock: &LockView| {
        [
            lock.id.short(),
            lock.scope.to_string(),
            word(&lock.state),
            moment(lock.created_at),
            lock.until.map_or_else(|| "removed".to_owned(), moment),
            lock.created_by.to_string(),
            lock.reason.clone(),
        ]
    };
    let rows: Vec<[String; 7]> = locks.iter().map(row).collect();
    print(&text::table(["ID", "LOCKED", "STATE", "SINCE", "UNTIL", "BY", "REASON"], &rows))
}
