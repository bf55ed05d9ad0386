//! What becomes of requests, on the store's thread: opened, approved, denied, cancelled, expired, granted.
//!
//! What always holds: the last approval, the grant and the end of the request are one transaction; an approval is taken only for
//! the exact request that its digest names, by the people and levels of the policy in force at that moment; whoever may not
//! see a request is told that there is none; and no row counts that the ledger does not vouch for.

mod ask;
mod extend;
mod granted;
mod queue;
mod seen;

pub(super) use ask::{could_ask, open};
pub(super) use extend::{extend, linked};
pub(super) use granted::Extended;
pub(super) use queue::pass_on;
pub(super) use seen::{list, open_of, show};

use super::{Denied, GrantError, GrantSigner, locks, permit::Rules};
use crate::{
    asking::{Asking, Proof},
    grant::Revoked,
    ledger::Event,
    name::IdentityName,
    panel::{Panel, Standing, Yes},
    policy::Policy,
    request::{Approval, NAMESPACE, RequestState, RequestView, line_to_sign},
    store::{
        StoreError,
        requests::{self, APPROVALS, RequestRow},
        writer::{Tx, Writer},
    },
};
use granted::{keep, made};
use jiff::Timestamp;
use seen::{reread, still_open};
use serde_json::json;
use tokio::time::Instant;

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

/// Nothing is decided by a store that does not verify, while the clock is wrong, or by somebody who is locked out.
pub(super) fn sane(tx: &Tx<'_>, by: &IdentityName) -> Result<(), GrantError> {
    tx.trusted().map_err(|_| GrantError::Refused(Denied::Untrusted.to_string()))?;
    if tx.behind().is_some() {
        return refused(Denied::Clock.to_string());
    }
    match locks::on(tx.db(), by, tx.now())? {
        Some(locked) => refused(Denied::Locked(locked).to_string()),
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

/// What came of something that was said about a request.
struct Decided {
    view: RequestView,
    /// A grant of it that live permits are to rest on.
    extended: Option<Extended>,
}

impl Decided {
    /// After the commit. `start`: the moment that `now` was.
    fn taken(self, rules: &Rules, now: Timestamp, start: Instant) -> RequestView {
        if let Some(extended) = &self.extended {
            rules.extend(extended, now, start);
        }
        self.view
    }
}

/// Says yes. `signature`: by the approver's own key, over the line that the request names.
pub(super) fn approve(
    writer: &mut Writer,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    id: &str,
    signature: Option<&str>,
    (now, start): (Timestamp, Instant),
) -> Result<RequestView, GrantError> {
    let policy = rules.policy();
    let approved = writer.transact(now, |tx| settled(take(tx, rules, signer, by, id, signature, &policy)))?;
    let approved = approved.map(|decided| decided.taken(rules, now, start));
    if approved.is_ok() {
        rules.requests_changed();
    }
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
) -> Result<Decided, GrantError> {
    sane(tx, by)?;
    let row = still_open(tx, policy, by, id)?;
    let asking = asking_of(policy, &row)?;
    let said = sound_approvals(tx, &row)?;
    if !policy.identities.contains_key(by) {
        return Err(GrantError::NotFound("no request has this id".to_owned()));
    }
    let (proof, signature) = match signature {
        None => (Proof::Attested, None),
        Some(armored) => {
            let line = line_to_sign(&row.wanted.gateway, row.wanted.id, &row.digest);
            let signed = rules.signed(by, NAMESPACE, &line, armored);
            (Proof::Signed, Some(signed.map_err(|why| GrantError::Refused(why.to_string()))?.armored))
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
    let waits = queue::turn(tx.db(), rules, policy, &row, tx.now())?.is_some();
    let (mut all, satisfied) = (said, !waits && panel.standing(&yeses) == Standing::Satisfied);
    all.push(yes.clone());
    // Signed and verified before anything is written: a no of the policy's leaves nothing behind.
    let made = if satisfied { Some(made(rules, signer, policy, &row, &all, tx.now())?) } else { None };
    requests::approve(tx, row.wanted.id, &yes, about("request.approved", &row).detail(detail))?;
    let extended = match made {
        Some(made) => keep(tx, rules, policy, &row, made, by)?,
        None => None,
    };
    Ok(Decided { view: reread(tx, rules, policy, row.wanted.id)?, extended })
}

/// An approval that has been tampered with is no reason to go on without it: nothing is decided.
fn sound_approvals(tx: &Tx<'_>, row: &RequestRow) -> Result<Vec<Approval>, GrantError> {
    let said = requests::approvals(tx.db(), row.wanted.id)?;
    for yes in &said {
        let agrees = tx.agrees(APPROVALS, &requests::approval_key(row.wanted.id, &yes.by))?;
        if !agrees || yes.digest != row.digest {
            return refused(Denied::Untrusted.to_string());
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
            reread(tx, rules, &policy, row.wanted.id)
        })())
    })?;
    if denied.is_ok() {
        rules.requests_changed();
    }
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
            reread(tx, rules, &policy, row.wanted.id)
        })())
    })?;
    if cancelled.is_ok() {
        rules.requests_changed();
    }
    cancelled
}

/// Takes back all open requests of somebody who is no longer to have anything; how many.
pub(super) fn cancel_all(tx: &mut Tx<'_>, of: &IdentityName, decided: &Revoked) -> Result<usize, StoreError> {
    let open = requests::open_of(tx.db(), of)?;
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

fn is_admin(policy: &Policy, who: &IdentityName) -> bool {
    policy.identities.get(who).is_some_and(|person| !person.groups.is_disjoint(&policy.admins))
}

/// The ledger's entry about a request.
fn about(kind: &str, row: &RequestRow) -> Event {
    Event::new(kind).identity(&row.wanted.identity).target(&row.wanted.target)
}
