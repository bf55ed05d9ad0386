//! `sessions` and `kill`: one's own sessions, and the ending of one.

use super::{Arguments, Reply, Verb, Visitor};
use crate::{refusal::Refusal, text::table, watching::SessionNow};
use tidegate_grants::{
    Listing, Sight,
    authority::{SessionState, SessionView},
    pick::{self, NotOne},
};

pub(super) const SESSIONS: Verb = Verb {
    name: "sessions",
    usage: "[--all] [--json]",
    about: "your live and recent sessions",
    more: "Newest first: all that are not closed, and among the last 20 those that are; with --all, all. What is\n\
           `closing` is being torn down on the target.",
    words: 0..=0,
    flags: &["--all", "--json"],
    options: &[],
};

pub(super) const KILL: Verb = Verb {
    name: "kill",
    usage: "SESSION",
    about: "end one of your live sessions",
    more: "SESSION is its id, or any unique first or last digits of it. Your grant goes on.",
    words: 1..=1,
    flags: &[],
    options: &[],
};

/// How many closed ones are recent.
const RECENT: usize = 20;

/// Their own sessions. Somebody else's are not among them, and so do not exist.
pub(super) async fn own(visitor: &Visitor<'_>) -> Result<Vec<SessionView>, Reply> {
    within(visitor, Sight::own(&visitor.identity.name)).await
}

/// Those that somebody may see.
pub(super) async fn within(visitor: &Visitor<'_>, seen: Sight) -> Result<Vec<SessionView>, Reply> {
    let found = visitor.ssh.gate.authority.sessions(Listing::within(seen)).await;
    found.map_err(|error| Reply::refused(&Refusal::from(&error)))
}

/// The answer to digits that name no one session.
pub(super) fn not_one(why: NotOne) -> Reply {
    let reply = Reply::fault(1, &format!("{}; `sessions` lists yours", why.sentence("session")));
    Reply { exit: if why == NotOne::Malformed { 2 } else { 1 }, ..reply }
}

pub(super) async fn sessions(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let mut own = match own(visitor).await {
        Ok(own) => own,
        Err(reply) => return reply,
    };
    if !arguments.has("--all") {
        let mut place = 0..;
        own.retain(|session| place.next().is_some_and(|place| place < RECENT) || session.state != SessionState::Closed);
    }
    let own: Vec<_> = own.into_iter().map(|session| SessionNow::of(&visitor.ssh.gate, session, true)).collect();
    if arguments.has("--json") {
        return Reply::json(&own);
    }
    let row = |now: &SessionNow| {
        let SessionView { row, state } = &now.session;
        [
            row.id.short(),
            row.target.to_string(),
            row.access.clone(),
            row.start.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            state.to_string(),
            row.source.to_string(),
            now.idle(),
            now.last.clone().or_else(|| row.outcome.clone()).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = own.iter().map(row).collect();
    Reply::text(
        super::reviews::owed(visitor).await
            + &table(["ID", "TARGET", "AS", "SINCE", "STATE", "FROM", "IDLE", "LAST, OR OUTCOME"], &rows),
    )
}

pub(super) async fn kill(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let own = match own(visitor).await {
        Ok(own) => own,
        Err(reply) => return reply,
    };
    let wanted = arguments.word(0).unwrap_or_default();
    let session = match pick::one(own, wanted, |session| session.row.id.to_string()) {
        Ok(session) => session.row,
        Err(why) => return not_one(why),
    };
    let gate = &visitor.ssh.gate;
    match gate.authority.kill(&visitor.identity.name, &session, None, gate.now()).await {
        Ok(true) => Reply::text(format!("killed {}\n", session.id)),
        Ok(false) => Reply::fault(1, &format!("the session {} is over already", session.id)),
        Err(error) => Reply::refused(&Refusal::from(&error)),
    }
}
