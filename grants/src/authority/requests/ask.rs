//! Opening a request: what somebody may ask for, and what they must say.

use super::{
    Decided, about, close,
    granted::{keep, made},
    queue, refused, sane,
    seen::{reread, view},
    settled,
};
use crate::{
    asking::{Asking, LONGEST_TICKET, TicketRule},
    authority::{Denied, GrantError, GrantSigner, factors, permit::Rules},
    entitlement::{Entitlement, Terms},
    grant::Revoked,
    identity::Identity,
    name::{Access, IdentityName, RequestId},
    panel::{Panel, Standing},
    policy::Policy,
    request::{LIFE, RequestDigest, RequestState, RequestView, TicketSeen, Wanted, Wish},
    store::{
        StoreError,
        requests::{self, RequestRow},
        writer::{Tx, Writer},
    },
    target::Target,
    text::{LINE, line},
    when::{Facts, Judged},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Open requests of one identity: more than anybody needs.
const MOST_OPEN: usize = 20;
/// Requests of one identity within [`WHILE`]: each is kept for ever, and entered with everybody else's waiting.
const MOST_IN_A_WHILE: u32 = 1000;
const WHILE: SignedDuration = SignedDuration::from_hours(1);

/// Opens a request, or finds the one that asks for the same. With no level it is granted at once.
pub(in crate::authority) fn open(
    writer: &mut Writer,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    wish: &Wish,
    (now, start): (Timestamp, Instant),
) -> Result<RequestView, GrantError> {
    let (policy, id) = (rules.policy(), RequestId::new());
    let opened = writer.transact(now, |tx| settled(enter(tx, rules, signer, by, wish, id, &policy)))?;
    let opened = opened.map(|decided| decided.taken(rules, now, start));
    if opened.is_ok() {
        rules.requests_changed();
    }
    opened
}

/// What is refused with this sentence, unless it holds.
pub(super) fn refused_unless(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), GrantError> {
    if holds { Ok(()) } else { refused(sentence()) }
}

pub(super) fn enter(
    tx: &mut Tx<'_>,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    wish: &Wish,
    id: RequestId,
    policy: &Policy,
) -> Result<Decided, GrantError> {
    sane(tx, by)?;
    let (entitlement, asking) = asked_for(policy, by, wish)?;
    let wanted = wanted(policy, by, wish, id, entitlement, asking)?;
    let now = tx.now();
    could_hold(policy, entitlement, &wanted, wish, now)?;
    let own: Vec<RequestRow> =
        requests::open_of(tx.db(), by)?.into_iter().filter(|row| row.state_at(now) == RequestState::Open).collect();
    let alike = |row: &&RequestRow| {
        let RequestRow { wanted: other, .. } = row;
        other.target == wanted.target && other.entitlement == wanted.entitlement && other.extends == wanted.extends
    };
    if let Some(same) = own.iter().filter(alike).find(|row| row.wanted.same(&wanted)) {
        return Ok(Decided { view: view(tx.db(), rules, policy, same.clone(), now)?, extended: None });
    }
    if entitlement.asks_with_a_factor() {
        factors::proven_to_ask(tx, rules, by, wish.from, &entitlement.name)?;
    }
    if own.len() >= MOST_OPEN {
        return refused(format!("{} of your requests are open already: cancel some", own.len()));
    }
    let early = |then: Timestamp| now.duration_since(then) < WHILE;
    if requests::opened_before(tx.db(), by, MOST_IN_A_WHILE - 1)?.is_some_and(early) {
        return refused(format!("you have asked {MOST_IN_A_WHILE} times within an hour: come again later"));
    }
    let panel = Panel { policy, asking, requester: by, opened: now, now };
    if let Standing::Stuck(level) = panel.standing(&[]) {
        return refused(short_of(&wanted, asking, level));
    }
    // Whoever asks for something else in its place takes it back, with all that was said about it.
    for old in own.iter().filter(alike) {
        let why = format!("replaced by the request {id}");
        close(tx, old, RequestState::Cancelled, &Revoked::by(by, Some(&why), now))?;
    }
    let terms = serde_json::to_string(&wanted).map_err(|error| StoreError::Database(error.to_string()))?;
    let expires = now.checked_add(LIFE).unwrap_or(Timestamp::MAX);
    let digest = RequestDigest::of(&terms);
    let row =
        RequestRow { wanted, digest, opened: now, expires, state: RequestState::Open, decided: None, grant: None };
    requests::insert(
        tx,
        &row,
        &terms,
        about("request.opened", &row).detail(json!({
            "request": id, "terms": row.wanted, "digest": row.digest, "expires": expires
        })),
    )?;
    let extended = match panel.standing(&[]) {
        Standing::Satisfied if queue::turn(tx.db(), rules, policy, &row, now)?.is_none() => {
            keep(tx, rules, policy, &row, made(rules, signer, policy, &row, &[], now)?, by)?
        }
        _ => None,
    };
    Ok(Decided { view: reread(tx, rules, policy, id)?, extended })
}

/// Which entitlement is asked for; what somebody may not ask for does not exist.
fn asked_for<'a>(
    policy: &'a Policy,
    by: &IdentityName,
    wish: &Wish,
) -> Result<(&'a Entitlement, &'a Asking), GrantError> {
    let (named, target) = (wish.entitlement.as_ref(), &wish.target);
    let could = could_ask(policy, by, wish);
    let open: Vec<&Entitlement> = could.iter().copied().filter(|e| named.is_none_or(|name| *name == e.name)).collect();
    let asked: Vec<(&Entitlement, &Asking)> =
        open.iter().filter_map(|e| e.asking.as_ref().map(|asking| (*e, asking))).collect();
    match (asked.as_slice(), open.first(), named) {
        ([one], ..) => Ok(*one),
        ([], Some(entitlement), _) => refused(format!(
            "{} is not asked for here: an admin grants it, or your approval system does",
            entitlement.name
        )),
        ([], None, Some(name)) if !could.is_empty() => refused(format!("no entitlement {name} for you on {target}")),
        ([], None, _) => refused(Denied::UnknownTarget(target.clone()).to_string()),
        (several, ..) => {
            let names: Vec<String> = several.iter().map(|(e, _)| format!("{target}/{}", e.name)).collect();
            refused(format!("name what you ask for: {}", names.join(", ")))
        }
    }
}

/// What this person may ask for there, of those that open what they want.
pub(in crate::authority) fn could_ask<'a>(policy: &'a Policy, by: &IdentityName, wish: &Wish) -> Vec<&'a Entitlement> {
    let Some((identity, target)) = here(policy, by, wish) else { return Vec::new() };
    let access = wish.login.clone().map(Access::Login).or_else(|| wish.database.clone().map(Access::Database));
    let opens = |e: &&Entitlement| access.as_ref().is_none_or(|access| e.includes(access));
    policy.open_to(identity, target).filter(opens).collect()
}

fn here<'a>(policy: &'a Policy, by: &IdentityName, wish: &Wish) -> Option<(&'a Identity, &'a Target)> {
    policy.identities.get(by).zip(policy.targets.get(&wish.target))
}

/// What is asked for, exactly, or what is wrong with it.
fn wanted(
    policy: &Policy,
    by: &IdentityName,
    wish: &Wish,
    id: RequestId,
    entitlement: &Entitlement,
    asking: &Asking,
) -> Result<Wanted, GrantError> {
    let reason = wish.reason.as_deref().map(|reason| line(reason, LINE)).filter(|reason| !reason.is_empty());
    let ticket = wish.ticket.as_deref().map(|ticket| line(ticket, LONGEST_TICKET)).filter(|ticket| !ticket.is_empty());
    if let Some(wrong) = asking.wrong(reason.as_deref(), ticket.as_deref()) {
        return refused(wrong);
    }
    if let (Some(url), Some(ticket)) = (asking.ticket.as_ref().and_then(TicketRule::check), &ticket) {
        let needed = TicketSeen { url: url.to_owned(), ticket: ticket.clone() };
        if wish.seen.as_ref() != Some(&needed) {
            return Err(GrantError::TicketUnseen { url: needed.url, ticket: needed.ticket });
        }
    }
    match &entitlement.terms {
        Terms::Ssh { .. } if wish.database.is_some() => return refused(format!("{} has no databases", wish.target)),
        Terms::Postgres { .. } if wish.login.is_some() => return refused(format!("{} has no logins", wish.target)),
        Terms::Ssh { .. } | Terms::Postgres { .. } => {}
    }
    let (most, duration) = (entitlement.max_duration, wish.duration.unwrap_or(entitlement.max_duration));
    if duration > most {
        let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
        return refused(format!("{} lasts at most {most:#}", entitlement.name));
    }
    if duration.as_secs() == 0 {
        return refused("ask for a second at least");
    }
    if let (Some(roles), Terms::Postgres { roles: all, .. }) = (&wish.roles, &entitlement.terms)
        && (roles.is_empty() || !roles.is_subset(all))
    {
        return refused(format!("{} has not all of these roles", entitlement.name));
    }
    Ok(Wanted {
        id,
        gateway: policy.gateway.clone(),
        identity: by.clone(),
        target: wish.target.clone(),
        entitlement: entitlement.name.clone(),
        login: wish.login.clone(),
        database: wish.database.clone(),
        roles: wish.roles.clone(),
        seconds: duration.as_secs(),
        reason,
        ticket,
        extends: wish.extends,
    })
}

/// What does not hold where they ask from is refused before anybody is asked. What cannot be told yet is judged at each use.
fn could_hold(
    policy: &Policy,
    entitlement: &Entitlement,
    wanted: &Wanted,
    wish: &Wish,
    now: Timestamp,
) -> Result<(), GrantError> {
    let Some(when) = &entitlement.conditions.when else { return Ok(()) };
    let Some((identity, target)) = here(policy, &wanted.identity, wish) else { return Ok(()) };
    let (source, ticket) = (wish.from, wanted.ticket.as_deref());
    let judged = when.judge(&Facts { identity, target, at: now, source, ticket, device: None });
    let unmet = || Denied::Unmet { target: wanted.target.clone(), when: when.to_string() }.to_string();
    refused_unless(judged != Judged::Fails, unmet)
}

fn short_of(wanted: &Wanted, asking: &Asking, level: u32) -> String {
    let rule = usize::try_from(level.saturating_sub(1)).ok().and_then(|at| asking.levels.get(at));
    let (count, from) = rule.map_or((0, String::new()), |rule| (rule.count, groups(&rule.from)));
    format!(
        "{} on {} cannot be approved: level {level} needs {count} of {from} besides you, and there are not so many left",
        wanted.entitlement, wanted.target
    )
}

fn groups<T: std::fmt::Display>(names: &BTreeSet<T>) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
