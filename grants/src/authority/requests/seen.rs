//! Which requests somebody may see, and how they look.

use super::{asking_of, panel, queue, refused, yes_of};
use crate::{
    authority::{Denied, GrantError, permit::Rules},
    name::{IdentityName, RequestId},
    panel::{Standing, Yes},
    pick,
    policy::Policy,
    request::{RequestState, RequestView},
    store::{
        StoreError, fail,
        requests::{self, APPROVALS, RequestRow, TABLE},
        writer::{Tx, agrees},
    },
};
use jiff::Timestamp;
use rusqlite::Connection;

/// The one open request with this id, prefix or suffix, of those that they may see.
pub(super) fn still_open(tx: &Tx<'_>, policy: &Policy, by: &IdentityName, id: &str) -> Result<RequestRow, GrantError> {
    let row = find(tx.db(), policy, Some(by), id, tx.now())?;
    if !tx.agrees(TABLE, &row.wanted.id.to_string())? {
        return refused(Denied::Untrusted.to_string());
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

/// Those that somebody may see: their own, those that they may say something about, and what who runs or audits the gateway oversees.
fn visible(rows: Vec<RequestRow>, policy: &Policy, by: Option<&IdentityName>, now: Timestamp) -> Vec<RequestRow> {
    let Some(by) = by else { return rows };
    let Some(person) = policy.identities.get(by) else { return Vec::new() };
    let seen = policy.oversees(person);
    let hears = |row: &RequestRow| asking_of(policy, row).is_ok_and(|asking| panel(policy, asking, row, now).hears(by));
    rows.into_iter()
        .filter(|row| row.wanted.identity == *by || seen.sees(&row.wanted.identity, &row.wanted.target) || hears(row))
        .collect()
}

/// Newest first: all, or those that this identity may see.
pub(in crate::authority) fn list(
    db: &Connection,
    rules: &Rules,
    by: Option<&IdentityName>,
    now: Timestamp,
) -> Result<Vec<RequestView>, StoreError> {
    let (snapshot, policy) = (db.unchecked_transaction().map_err(fail)?, rules.policy());
    let rows = visible(requests::all(&snapshot)?, &policy, by, now);
    rows.into_iter().map(|row| view(&snapshot, rules, &policy, row, now)).collect()
}

/// Those of this identity's that are open, newest first.
pub(in crate::authority) fn open_of(
    db: &Connection,
    rules: &Rules,
    by: &IdentityName,
    now: Timestamp,
) -> Result<Vec<RequestView>, StoreError> {
    let (snapshot, policy) = (db.unchecked_transaction().map_err(fail)?, rules.policy());
    let rows = requests::open_of(&snapshot, by)?;
    let views = rows.into_iter().map(|row| view(&snapshot, rules, &policy, row, now)).collect::<Result<Vec<_>, _>>()?;
    Ok(views.into_iter().filter(|view| view.state == RequestState::Open).collect())
}

pub(in crate::authority) fn show(
    db: &Connection,
    rules: &Rules,
    by: Option<&IdentityName>,
    id: &str,
    now: Timestamp,
) -> Result<RequestView, GrantError> {
    let (snapshot, policy) = (db.unchecked_transaction().map_err(fail)?, rules.policy());
    let row = find(&snapshot, &policy, by, id, now)?;
    Ok(view(&snapshot, rules, &policy, row, now)?)
}

pub(super) fn reread(tx: &Tx<'_>, rules: &Rules, policy: &Policy, id: RequestId) -> Result<RequestView, GrantError> {
    let row =
        requests::by_id(tx.db(), id)?.ok_or(StoreError::Refused("a request that was just written is not there"))?;
    Ok(view(tx.db(), rules, policy, row, tx.now())?)
}

pub(super) fn view(
    db: &Connection,
    rules: &Rules,
    policy: &Policy,
    row: RequestRow,
    now: Timestamp,
) -> Result<RequestView, StoreError> {
    let approvals = requests::approvals(db, row.wanted.id)?;
    let mut sound = agrees(db, TABLE, &row.wanted.id.to_string())?;
    for yes in &approvals {
        sound &= yes.digest == row.digest;
        sound &= agrees(db, APPROVALS, &requests::approval_key(row.wanted.id, &yes.by))?;
    }
    let state = if sound { row.state_at(now) } else { RequestState::Invalid };
    let yeses: Vec<Yes> = approvals.iter().map(yes_of).collect();
    let asking = asking_of(policy, &row).ok().filter(|_| state == RequestState::Open);
    let standing = match asking.map(|asking| panel(policy, asking, &row, now).standing(&yeses)) {
        Some(Standing::Satisfied) => {
            Some(queue::turn(db, rules, policy, &row, now)?.map_or(Standing::Satisfied, Standing::Queued))
        }
        other => other,
    };
    let RequestRow { wanted, digest, opened, expires, decided, grant, .. } = row;
    Ok(RequestView { wanted, digest, opened, expires, state, standing, approvals, decided, grant })
}
