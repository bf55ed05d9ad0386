//! `review`: what was done without anybody's approval, looked at by somebody else.

use super::{Arguments, Reply, Verb, Visitor, requests::not_done};
use crate::{
    refusal::Refusal,
    text::{plain, table},
};
use tidegate_grants::{ReviewState, ReviewView};

pub(super) const REVIEW: Verb = Verb {
    name: "review",
    usage: "[REVIEW --note WORDS…] [--all] [--json]",
    about: "reviews that are owed, and the signing of one",
    more: "Who breaks the glass (an entitlement with break_glass) is let in at once, and somebody else looks at what they did:\n\
           an admin or an auditor, never they themselves. REVIEW is its id, or any unique first or last digits of it; the note\n\
           says what you found, and goes on to the next option. With --all, those too that are signed.",
    words: 0..=1,
    flags: &["--all", "--json"],
    options: &["--note"],
};

pub(super) async fn review(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    match (arguments.word(0), arguments.value("--note")) {
        (Some(id), note) => sign(visitor, id, note.unwrap_or_default()).await,
        (None, Some(_)) => Reply::usage("which one? type: review REVIEW --note WORDS"),
        (None, None) => list(visitor, arguments).await,
    }
}

async fn sign(visitor: &Visitor<'_>, id: &str, note: &str) -> Reply {
    let gate = &visitor.ssh.gate;
    match gate.authority.sign_review(&visitor.identity.name, id, note.to_owned(), gate.now()).await {
        Ok(view) => Reply::text(format!("signed {} (attested)\n", view.id)),
        Err(error) => not_done(&error, "review"),
    }
}

async fn list(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let mut all = match visitor.ssh.gate.authority.reviews(Some(&visitor.identity.name)).await {
        Ok(all) => all,
        Err(error) => return Reply::refused(&Refusal::from(&error)),
    };
    if !arguments.has("--all") {
        all.retain(|view| view.state != ReviewState::Signed);
    }
    if arguments.has("--json") {
        return Reply::json(&all);
    }
    let row = |view: &ReviewView| {
        let sessions: Vec<String> = view.sessions.iter().map(|session| session.short()).collect();
        [
            view.id.short(),
            view.identity.to_string(),
            view.target.to_string(),
            view.entitlement.to_string(),
            view.opened.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            view.state.to_string(),
            sessions.join(" "),
            view.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    Reply::text(table(["ID", "WHO", "TARGET", "ENTITLEMENT", "AT", "STATE", "SESSIONS", "REASON"], &rows))
}

/// For the top of every list: the reviews that are owed, of those that this person sees.
pub(super) async fn owed(visitor: &Visitor<'_>) -> String {
    match visitor.ssh.gate.authority.reviews(Some(&visitor.identity.name)).await {
        Ok(all) => {
            let owed = all.iter().filter(|view| view.state != ReviewState::Signed);
            owed.map(|view| format!("! {}\n", plain(&view.owed()))).collect()
        }
        Err(_) => "! which reviews are owed cannot be read; tell your admin\n".to_owned(),
    }
}
