//! What people read about requests: who is asked, what is awaited, what came of it. The same words in every client.

use crate::text::plain;
use std::time::Duration;
use tidegate_grants::{
    IdentityName, Policy, RequestState, RequestView, duration,
    panel::{Awaited, Queued, Standing},
};

/// So many names are listed of those who may say yes.
const MOST_NAMES: usize = 6;

/// Where a request stands, line by line.
pub(crate) fn status(view: &RequestView, policy: &Policy) -> Vec<String> {
    let id = view.wanted.id.short();
    let what = format!("{} on {}", view.wanted.entitlement, view.wanted.target);
    match (view.state, &view.standing) {
        (RequestState::Open, Some(Standing::Waiting(awaited))) => {
            vec![
                format!("request {id} for {what} awaits {}", awaited_of(view, awaited, policy)),
                format!("they type: ssh gate approve {id}"),
            ]
        }
        (RequestState::Open, Some(Standing::Queued(queued))) => {
            vec![format!("request {id} for {what} is approved, and waits: {}", queued_behind(queued))]
        }
        (RequestState::Open, Some(Standing::Stuck(level))) => {
            vec![format!("request {id} for {what} cannot be approved any more: too few may say yes on level {level}")]
        }
        (RequestState::Open, _) => vec![format!("request {id} for {what} is open")],
        (RequestState::Granted, _) => vec![format!(
            "{what} is granted for {} (request {id})",
            duration::show(Duration::from_secs(view.wanted.seconds))
        )],
        (RequestState::Invalid, _) => vec![format!("request {id} does not agree with the ledger; tell your admin")],
        (over, _) => vec![format!("request {id} for {what} was {}", ended(view, over))],
    }
}

/// What somebody who has waited is told when they go on.
pub(crate) fn granted(view: &RequestView) -> Vec<String> {
    let by: Vec<&str> = view.approvals.iter().map(|yes| yes.by.as_str()).collect();
    let by = if by.is_empty() { String::new() } else { format!(", approved by {}", by.join(", ")) };
    let length = duration::show(Duration::from_secs(view.wanted.seconds));
    vec![format!("granted for {length}{by}")]
}

/// `denied by dave: not today`
pub(crate) fn ended(view: &RequestView, state: RequestState) -> String {
    let by = view.decided.as_ref().map(|decided| format!(" by {}", decided.by)).unwrap_or_default();
    let why = view.decided.as_ref().and_then(|decided| decided.reason.as_deref());
    let why = why.map(|why| format!(": {}", plain(why))).unwrap_or_default();
    match state {
        RequestState::Expired => "not decided in time".to_owned(),
        state => format!("{state}{by}{why}"),
    }
}

/// `1 of leads (level 1)`
pub(crate) fn awaited(awaited: &Awaited) -> String {
    let from: Vec<&str> = awaited.from.iter().map(|group| group.as_str()).collect();
    format!("{} of {} (level {})", awaited.missing, from.join(" or "), awaited.level)
}

/// `held by bob until 2026-11-22T14:00:00Z, 1 before it`
pub(crate) fn queued_behind(queued: &Queued) -> String {
    let held = match (&queued.by, queued.until) {
        (Some(by), Some(until)) => format!("held by {by} until {}", until.strftime("%Y-%m-%dT%H:%M:%SZ")),
        (Some(by), None) => format!("{by} is leaving"),
        (None, _) => "free in a moment".to_owned(),
    };
    if queued.ahead == 0 { format!("{held}, it is next") } else { format!("{held}, {} before it", queued.ahead) }
}

/// The same, with the names of those who may.
fn awaited_of(view: &RequestView, waiting: &Awaited, policy: &Policy) -> String {
    let spent = |name: &IdentityName| view.approvals.iter().any(|yes| yes.by == *name);
    let may = policy.identities.values().filter(|person| {
        person.name != view.wanted.identity && !spent(&person.name) && !person.groups.is_disjoint(&waiting.from)
    });
    let names: Vec<&str> = may.map(|person| person.name.as_str()).collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    let listed = names.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}: {listed}{more}", awaited(waiting))
}
