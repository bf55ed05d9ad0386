//! What becomes of requests, on the store's thread: opened, approved, denied, cancelled, expired, granted.
//!
//! What always holds: the last approval, the grant and the end of the request are one transaction; an approval is taken only for
//! the exact request that its digest names, by the people and levels of the policy in force at that moment; whoever may not
//! see a request is told that there is none; and no row counts that the ledger does not vouch for.

use super::{GrantError, GrantSigner, locks, permit::Rules, rows};
use crate::{
    asking::{Asking, LONGEST_TICKET, Proof},
    entitlement::{Entitlement, Terms},
    grant::{Claims, Level, Revoked, jws},
    identity::Identity,
    ledger::Event,
    name::{Access, GrantId, IdentityName, RequestId},
    panel::{Panel, Standing, Yes},
    pick,
    policy::Policy,
    request::{Approval, LIFE, RequestDigest, RequestState, RequestView, Wanted, Wish, line_to_sign},
    signature,
    store::{
        StoreError,
        requests::{self, APPROVALS, RequestRow, TABLE},
        writer::{Tx, Writer, agrees},
    },
    target::Target,
    text::{LINE, line},
};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::json;
use std::collections::BTreeSet;

/// Open requests of one identity: more than anybody needs.
const MOST_OPEN: usize = 20;

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

/// Nothing is decided by a store that does not verify, while the clock is wrong, or by somebody who is locked out.
fn sane(tx: &Tx<'_>, by: &IdentityName) -> Result<(), GrantError> {
    tx.trusted().map_err(|_| GrantError::Refused(super::Denied::Untrusted.to_string()))?;
    if tx.behind().is_some() {
        return refused(super::Denied::Clock.to_string());
    }
    match locks::on(tx.db(), by, tx.now())? {
        Some(locked) => refused(super::Denied::Locked(locked).to_string()),
        None => Ok(()),
    }
}

/// The store's own errors undo the transaction; a no does not.
pub(super) fn settled<T>(result: Result<T, GrantError>) -> Result<Result<T, GrantError>, StoreError> {
    match result {
        Err(GrantError::Store(error)) => Err(error),
        other => Ok(other),
    }
}

/// Opens a request, or finds the one that asks for the same. With no level it is granted at once.
pub(super) fn open(
    writer: &mut Writer,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    wish: &Wish,
    now: Timestamp,
) -> Result<RequestView, GrantError> {
    let (policy, id) = (rules.policy(), RequestId::new());
    let opened = writer.transact(now, |tx| settled(enter(tx, rules, signer, by, wish, id, &policy)))?;
    rules.requests_changed();
    opened
}

fn enter(
    tx: &mut Tx<'_>,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    wish: &Wish,
    id: RequestId,
    policy: &Policy,
) -> Result<RequestView, GrantError> {
    sane(tx, by)?;
    let (entitlement, asking) = asked_for(policy, by, wish)?;
    let wanted = wanted(policy, by, wish, id, entitlement, asking)?;
    let now = tx.now();
    let own: Vec<RequestRow> =
        requests::of(tx.db(), by)?.into_iter().filter(|row| row.state_at(now) == RequestState::Open).collect();
    let alike = |row: &&RequestRow| row.wanted.target == wanted.target && row.wanted.entitlement == wanted.entitlement;
    if let Some(same) = own.iter().filter(alike).find(|row| row.wanted.same(&wanted)) {
        return Ok(view(tx.db(), policy, same.clone(), now)?);
    }
    if own.len() >= MOST_OPEN {
        return refused(format!("{} of your requests are open already: cancel some", own.len()));
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
    if panel.standing(&[]) == Standing::Satisfied {
        let made = made(rules, signer, policy, &row, &[], now)?;
        keep(tx, &row, made, by)?;
    }
    reread(tx, policy, id)
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
        ([], None, _) => refused(super::Denied::UnknownTarget(target.clone()).to_string()),
        (several, ..) => {
            let names: Vec<String> = several.iter().map(|(e, _)| format!("{target}/{}", e.name)).collect();
            refused(format!("name what you ask for: {}", names.join(", ")))
        }
    }
}

/// What this person may ask for there, of those that open what they want.
pub(super) fn could_ask<'a>(policy: &'a Policy, by: &IdentityName, wish: &Wish) -> Vec<&'a Entitlement> {
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
    })
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

/// Says yes. `signature`: by the approver's own key, over the line that the request names.
pub(super) fn approve(
    writer: &mut Writer,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    id: &str,
    signature: Option<&str>,
    now: Timestamp,
) -> Result<RequestView, GrantError> {
    let policy = rules.policy();
    let approved = writer.transact(now, |tx| settled(take(tx, rules, signer, by, id, signature, &policy)))?;
    rules.requests_changed();
    approved
}

fn take(
    tx: &mut Tx<'_>,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    id: &str,
    signature: Option<&str>,
    policy: &Policy,
) -> Result<RequestView, GrantError> {
    sane(tx, by)?;
    let row = still_open(tx, policy, by, id)?;
    let asking = asking_of(policy, &row)?;
    let said = sound_approvals(tx, &row)?;
    let person = policy.identities.get(by).ok_or_else(|| GrantError::NotFound("no request has this id".to_owned()))?;
    let (proof, signature) = match signature {
        None => (Proof::Attested, None),
        Some(armored) => {
            let line = line_to_sign(&row.wanted.gateway, row.wanted.id, &row.digest);
            let kept = signature::check(person, &line, armored).map_err(|why| GrantError::Refused(why.to_string()))?;
            (Proof::Signed, Some(kept))
        }
    };
    let panel = panel(policy, asking, &row, tx.now());
    let mut yeses: Vec<Yes> = said.iter().map(yes_of).collect();
    let level = panel.place(by, proof, &yeses).map_err(|why| GrantError::Refused(why.to_string()))?;
    yeses.push(Yes { by: by.clone(), level, proof });
    let yes = Approval { by: by.clone(), at: tx.now(), level, proof, digest: row.digest.clone(), signature };
    let detail = json!({
        "request": row.wanted.id, "by": by, "level": level, "proof": proof, "digest": row.digest,
        "signature": yes.signature,
    });
    let (mut all, satisfied) = (said, panel.standing(&yeses) == Standing::Satisfied);
    all.push(yes.clone());
    // Signed and verified before anything is written: a no of the policy's leaves nothing behind.
    let made = if satisfied { Some(made(rules, signer, policy, &row, &all, tx.now())?) } else { None };
    requests::approve(tx, row.wanted.id, &yes, about("request.approved", &row).detail(detail))?;
    if let Some(made) = made {
        keep(tx, &row, made, by)?;
    }
    reread(tx, policy, row.wanted.id)
}

/// An approval that has been tampered with is no reason to go on without it: nothing is decided.
fn sound_approvals(tx: &Tx<'_>, row: &RequestRow) -> Result<Vec<Approval>, GrantError> {
    let said = requests::approvals(tx.db(), row.wanted.id)?;
    for yes in &said {
        let agrees = tx.agrees(APPROVALS, &requests::approval_key(row.wanted.id, &yes.by))?;
        if !agrees || yes.digest != row.digest {
            return refused(super::Denied::Untrusted.to_string());
        }
    }
    Ok(said)
}

fn yes_of(approval: &Approval) -> Yes {
    Yes { by: approval.by.clone(), level: approval.level, proof: approval.proof }
}

fn panel<'a>(policy: &'a Policy, asking: &'a Asking, row: &'a RequestRow, now: Timestamp) -> Panel<'a> {
    Panel { policy, asking, requester: &row.wanted.identity, opened: row.opened, now }
}

fn asking_of<'a>(policy: &'a Policy, row: &RequestRow) -> Result<&'a Asking, GrantError> {
    let entitlement = policy.entitlements.get(&row.wanted.entitlement);
    entitlement
        .and_then(|entitlement| entitlement.asking.as_ref())
        .ok_or_else(|| GrantError::Refused(format!("{} cannot be asked for any more", row.wanted.entitlement)))
}

/// A grant, signed, and not yet written.
struct Made {
    id: GrantId,
    claims: Claims,
    token: String,
}

fn made(
    rules: &Rules,
    signer: &GrantSigner,
    policy: &Policy,
    row: &RequestRow,
    approvals: &[Approval],
    now: Timestamp,
) -> Result<Made, GrantError> {
    let wanted = &row.wanted;
    let (iat, seconds) = (now.as_second(), i64::try_from(wanted.seconds).unwrap_or(i64::MAX));
    let level =
        |yes: &Approval| Level { by: yes.by.to_string(), at: yes.at.as_second(), level: yes.level, proof: yes.proof };
    let claims = Claims {
        iss: policy.gateway.clone(),
        sub: wanted.identity.clone(),
        aud: policy.gateway.clone(),
        // One request, one grant: issuer and jti are unique in the store.
        jti: format!("request-{}", wanted.id),
        iat,
        nbf: iat,
        exp: iat.saturating_add(seconds),
        target: wanted.target.clone(),
        entitlement: wanted.entitlement.clone(),
        login: wanted.login.clone(),
        database: wanted.database.clone(),
        roles: wanted.roles.clone(),
        reason: wanted.reason.clone(),
        ticket: wanted.ticket.clone(),
        approvals: approvals.iter().map(level).collect(),
        single_use: false,
    };
    let token = jws::sign(signer, &claims)?;
    // By the same checks as at each use, so that nothing is granted that opens nothing.
    match jws::verify(&token, policy, rules.own()) {
        Ok(_) => Ok(Made { id: GrantId::new(), claims, token }),
        Err(why) => refused(format!("it cannot be granted any more: {why}")),
    }
}

/// The grant and the end of the request. `by`: whose word was the last.
fn keep(tx: &mut Tx<'_>, row: &RequestRow, made: Made, by: &IdentityName) -> Result<(), StoreError> {
    let Made { id, claims, token } = made;
    let event = |kind| about(kind, row).grant(id);
    let issued = event("grant.issued").detail(json!({ "by": by, "request": row.wanted.id, "claims": claims }));
    rows::insert(tx, id, &claims, &token, by, issued)?;
    let granted = event("request.granted").detail(json!({ "request": row.wanted.id, "by": by, "digest": row.digest }));
    requests::decide(tx, row.wanted.id, RequestState::Granted, &Revoked::by(by, None, tx.now()), Some(id), granted)
}

/// Says no, for a reason that the person is told.
pub(super) fn deny(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<RequestView, GrantError> {
    let policy = rules.policy();
    if reason.trim().is_empty() {
        return refused("say why: a denial needs a reason");
    }
    let denied = writer.transact(now, |tx| {
        settled((|| {
            sane(tx, by)?;
            let row = still_open(tx, &policy, by, id)?;
            if row.wanted.identity == *by {
                return refused("this is your own request: cancel it");
            }
            let hears = asking_of(&policy, &row).is_ok_and(|asking| panel(&policy, asking, &row, now).hears(by));
            if !hears && !is_admin(&policy, by) {
                return refused("you are not among those who may approve this, so you cannot deny it");
            }
            close(tx, &row, RequestState::Denied, &Revoked::by(by, Some(reason), now))?;
            reread(tx, &policy, row.wanted.id)
        })())
    })?;
    rules.requests_changed();
    denied
}

/// Takes back one's own request; admins any.
pub(super) fn cancel(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: &str,
    now: Timestamp,
) -> Result<RequestView, GrantError> {
    let policy = rules.policy();
    let cancelled = writer.transact(now, |tx| {
        settled((|| {
            sane(tx, by)?;
            let row = still_open(tx, &policy, by, id)?;
            if row.wanted.identity != *by && !is_admin(&policy, by) {
                return refused("only who asked takes a request back; say no to it instead: deny");
            }
            close(tx, &row, RequestState::Cancelled, &Revoked::by(by, None, now))?;
            reread(tx, &policy, row.wanted.id)
        })())
    })?;
    rules.requests_changed();
    cancelled
}

/// Takes back all open requests of somebody who is no longer to have anything; how many.
pub(super) fn cancel_all(tx: &mut Tx<'_>, of: &IdentityName, decided: &Revoked) -> Result<usize, StoreError> {
    let all = requests::of(tx.db(), of)?;
    let open: Vec<RequestRow> = all.into_iter().filter(|row| row.state == RequestState::Open).collect();
    for row in &open {
        close(tx, row, RequestState::Cancelled, decided)?;
    }
    Ok(open.len())
}

/// Writes down which requests nobody decided in time; how many.
pub(super) fn expire(writer: &mut Writer, rules: &Rules, now: Timestamp) -> Result<usize, StoreError> {
    let expired = writer.transact(now, |tx| {
        if tx.trusted().is_err() || tx.behind().is_some() {
            return Ok(0);
        }
        let due: Vec<RequestRow> =
            requests::open(tx.db())?.into_iter().filter(|row| row.state_at(now) == RequestState::Expired).collect();
        for row in &due {
            let nobody = Revoked { at: now, by: "nobody".to_owned(), reason: Some("not decided in time".to_owned()) };
            close(tx, row, RequestState::Expired, &nobody)?;
        }
        Ok(due.len())
    })?;
    if expired > 0 {
        rules.requests_changed();
    }
    Ok(expired)
}

fn close(tx: &mut Tx<'_>, row: &RequestRow, state: RequestState, decided: &Revoked) -> Result<(), StoreError> {
    let detail = json!({ "request": row.wanted.id, "by": decided.by, "reason": decided.reason });
    let event = about(&format!("request.{state}"), row).detail(detail);
    requests::decide(tx, row.wanted.id, state, decided, None, event)
}

/// The one open request with this id, prefix or suffix, of those that they may see.
fn still_open(tx: &Tx<'_>, policy: &Policy, by: &IdentityName, id: &str) -> Result<RequestRow, GrantError> {
    let row = find(tx.db(), policy, Some(by), id, tx.now())?;
    if !tx.agrees(TABLE, &row.wanted.id.to_string())? {
        return refused(super::Denied::Untrusted.to_string());
    }
    match row.state_at(tx.now()) {
        RequestState::Open => Ok(row),
        over => refused(format!("this request is not open any more: it is {over}")),
    }
}

/// Open ones first: their last digits are what people type.
fn find(
    db: &Connection,
    policy: &Policy,
    by: Option<&IdentityName>,
    id: &str,
    now: Timestamp,
) -> Result<RequestRow, GrantError> {
    // A whole id is looked up; who waits asks for theirs again and again.
    let seen = match id.parse::<RequestId>() {
        Ok(id) => visible(requests::by_id(db, id)?.into_iter().collect(), policy, by, now),
        Err(_) => visible(requests::all(db)?, policy, by, now),
    };
    let (open, over): (Vec<_>, Vec<_>) = seen.into_iter().partition(|row| row.state_at(now) == RequestState::Open);
    let found = pick::one(open, id, |row| row.wanted.id.to_string());
    let found = found.or_else(|why| match why {
        pick::NotOne::None => pick::one(over, id, |row| row.wanted.id.to_string()),
        other => Err(other),
    });
    found.map_err(|not_one| GrantError::NotFound(not_one.sentence("request")))
}

/// Those that somebody may see: their own, those that they may say something about, and for who runs or audits the gateway all.
fn visible(rows: Vec<RequestRow>, policy: &Policy, by: Option<&IdentityName>, now: Timestamp) -> Vec<RequestRow> {
    let Some(by) = by else { return rows };
    let Some(person) = policy.identities.get(by) else { return Vec::new() };
    let all = !person.groups.is_disjoint(&policy.admins) || !person.groups.is_disjoint(&policy.auditors);
    let hears = |row: &RequestRow| asking_of(policy, row).is_ok_and(|asking| panel(policy, asking, row, now).hears(by));
    rows.into_iter().filter(|row| all || row.wanted.identity == *by || hears(row)).collect()
}

/// Newest first: all, or those that this identity may see.
pub(super) fn list(
    db: &Connection,
    rules: &Rules,
    by: Option<&IdentityName>,
    now: Timestamp,
) -> Result<Vec<RequestView>, StoreError> {
    let (snapshot, policy) = (db.unchecked_transaction().map_err(crate::store::fail)?, rules.policy());
    let rows = visible(requests::all(&snapshot)?, &policy, by, now);
    rows.into_iter().map(|row| view(&snapshot, &policy, row, now)).collect()
}

pub(super) fn show(
    db: &Connection,
    rules: &Rules,
    by: Option<&IdentityName>,
    id: &str,
    now: Timestamp,
) -> Result<RequestView, GrantError> {
    let (snapshot, policy) = (db.unchecked_transaction().map_err(crate::store::fail)?, rules.policy());
    let row = find(&snapshot, &policy, by, id, now)?;
    Ok(view(&snapshot, &policy, row, now)?)
}

fn reread(tx: &Tx<'_>, policy: &Policy, id: RequestId) -> Result<RequestView, GrantError> {
    let row =
        requests::by_id(tx.db(), id)?.ok_or(StoreError::Refused("a request that was just written is not there"))?;
    Ok(view(tx.db(), policy, row, tx.now())?)
}

fn view(db: &Connection, policy: &Policy, row: RequestRow, now: Timestamp) -> Result<RequestView, StoreError> {
    let approvals = requests::approvals(db, row.wanted.id)?;
    let mut sound = agrees(db, TABLE, &row.wanted.id.to_string())?;
    for yes in &approvals {
        sound &= yes.digest == row.digest;
        sound &= agrees(db, APPROVALS, &requests::approval_key(row.wanted.id, &yes.by))?;
    }
    let state = if sound { row.state_at(now) } else { RequestState::Invalid };
    let yeses: Vec<Yes> = approvals.iter().map(yes_of).collect();
    let asking = asking_of(policy, &row).ok().filter(|_| state == RequestState::Open);
    let standing = asking.map(|asking| panel(policy, asking, &row, now).standing(&yeses));
    let RequestRow { wanted, digest, opened, expires, decided, grant, .. } = row;
    Ok(RequestView { wanted, digest, opened, expires, state, standing, approvals, decided, grant })
}

fn is_admin(policy: &Policy, who: &IdentityName) -> bool {
    policy.identities.get(who).is_some_and(|person| !person.groups.is_disjoint(&policy.admins))
}

/// The ledger's entry about a request.
fn about(kind: &str, row: &RequestRow) -> Event {
    Event::new(kind).identity(&row.wanted.identity).target(&row.wanted.target)
}
