//! The queue for what one holds at a time: requests that everybody has said yes to, and that wait for their turn.
//!
//! What always holds: a request that waits is open like any other, with its approvals; whose turn it is goes by the age of the
//! requests, and is decided in the transaction that makes the grant, by the policy and the approvals of that moment.

use super::{
    asking_of,
    granted::{Extended, keep, made},
    panel, sound_approvals, yes_of,
};
use crate::{
    authority::{GrantError, GrantSigner, exclusive, locks, permit::Rules},
    entitlement::Entitlement,
    panel::{Queued, Standing, Yes},
    policy::Policy,
    request::RequestState,
    store::{
        StoreError,
        requests::{self, RequestRow, TABLE},
        writer::{Tx, Writer},
    },
};
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::time::Instant;

fn exclusive_of<'a>(policy: &'a Policy, row: &RequestRow) -> Option<&'a Entitlement> {
    policy.entitlements.get(&row.wanted.entitlement).filter(|entitlement| entitlement.conditions.exclusive)
}

/// Whom a request waits for that everybody has said yes to. `None`: it is its turn.
pub(super) fn turn(
    db: &Connection,
    rules: &Rules,
    policy: &Policy,
    row: &RequestRow,
    now: Timestamp,
) -> Result<Option<Queued>, StoreError> {
    let Some(entitlement) = exclusive_of(policy, row) else { return Ok(None) };
    let (wanted, mut ahead) = (&row.wanted, 0u32);
    // More time for who has it already is no place in the queue.
    if wanted.extends.is_none() {
        for other in requests::open(db)?.iter().filter(|other| other.wanted.id < wanted.id) {
            let same = other.wanted.entitlement == wanted.entitlement && other.wanted.target == wanted.target;
            let another = other.wanted.identity != wanted.identity && other.wanted.extends.is_none();
            if same && another && waits(db, policy, other, now)? {
                ahead = ahead.saturating_add(1);
            }
        }
    }
    let there = (entitlement, &wanted.target);
    let holder = exclusive::in_the_way(db, rules, policy, there, &wanted.identity, now)?;
    Ok(match holder {
        None if ahead == 0 => None,
        None => Some(Queued { by: None, until: None, ahead }),
        Some(holder) => Some(Queued { by: Some(holder.identity), until: holder.until, ahead }),
    })
}

/// Whether it waits for nothing but its turn. Whoever is locked out is passed over.
fn waits(db: &Connection, policy: &Policy, row: &RequestRow, now: Timestamp) -> Result<bool, StoreError> {
    let Ok(asking) = asking_of(policy, row) else { return Ok(false) };
    if row.state_at(now) != RequestState::Open || locks::covering(db, row.of(), now)?.is_some() {
        return Ok(false);
    }
    let yeses: Vec<Yes> = requests::approvals(db, row.wanted.id)?.iter().map(yes_of).collect();
    Ok(panel(policy, asking, row, now).standing(&yeses) == Standing::Satisfied)
}

/// Grants what waits and whose turn has come. When to look again, if something waits for somebody's time to be over.
pub(in crate::authority) fn pass_on(
    writer: &mut Writer,
    rules: &Rules,
    signer: &GrantSigner,
    (now, start): (Timestamp, Instant),
) -> Result<Option<Timestamp>, StoreError> {
    let policy = rules.policy();
    if !policy.entitlements.values().any(|entitlement| entitlement.conditions.exclusive) {
        return Ok(None);
    }
    let (granted, next) = writer.transact(now, |tx| {
        let (mut granted, mut next): (Vec<Option<Extended>>, Option<Timestamp>) = (Vec::new(), None);
        if tx.trusted().is_err() || tx.behind().is_some() {
            return Ok((granted, next));
        }
        for row in requests::open(tx.db())? {
            if exclusive_of(&policy, &row).is_none() || !waits(tx.db(), &policy, &row, now)? {
                continue;
            }
            match turn(tx.db(), rules, &policy, &row, now)? {
                Some(queued) => next = next.into_iter().chain(queued.until).min(),
                None => granted.extend(passed(tx, rules, signer, &policy, &row)?),
            }
        }
        Ok((granted, next))
    })?;
    granted.iter().flatten().for_each(|extended| rules.extend(extended, now, start));
    if !granted.is_empty() {
        rules.requests_changed();
    }
    Ok(next)
}

/// The grant, if it can be granted still.
fn passed(
    tx: &mut Tx<'_>,
    rules: &Rules,
    signer: &GrantSigner,
    policy: &Policy,
    row: &RequestRow,
) -> Result<Option<Option<Extended>>, StoreError> {
    if !tx.agrees(TABLE, &row.wanted.id.to_string())? {
        return Ok(None);
    }
    let now = tx.now();
    let made = sound_approvals(tx, row).and_then(|said| Ok((made(rules, signer, policy, row, &said, now)?, said)));
    match made {
        Ok((made, said)) => {
            let by = said.last().map_or(&row.wanted.identity, |yes| &yes.by);
            keep(tx, rules, policy, row, made, by).map(Some)
        }
        Err(GrantError::Store(error)) => Err(error),
        Err(why) => {
            tracing::warn!(request = %row.wanted.id, %why, "what waited for its turn cannot be granted");
            Ok(None)
        }
    }
}
