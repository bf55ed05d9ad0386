//! One holder at a time: who has an exclusive entitlement on a target, by the grants and by the sessions that are there.
//!
//! What always holds: of all the grants that are good at a moment the oldest one's holder has it, and nobody else's opens anything. No
//! grant is made while somebody else has it, or still has a session there that is being torn down; so two exist only where a
//! configuration made something exclusive that was not, and then too one opens.

use super::{
    permit::Rules,
    rows::{self, GrantRow},
};
use crate::{
    entitlement::Entitlement,
    grant::{Claims, GrantState, jws},
    name::{IdentityName, TargetName},
    policy::Policy,
    store::{StoreError, writer::agrees},
};
use jiff::Timestamp;
use rusqlite::Connection;

/// Who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) identity: IdentityName,
    /// `None`: it is over, and being torn down.
    pub(super) until: Option<Timestamp>,
}

/// Who else has this, by their grants, if it is for one at a time.
pub(super) fn holder(
    db: &Connection,
    rules: &Rules,
    policy: &Policy,
    (entitlement, target): (&Entitlement, &TargetName),
    now: Timestamp,
) -> Result<Option<Holder>, StoreError> {
    if !entitlement.conditions.exclusive {
        return Ok(None);
    }
    let mut found: Option<Holder> = None;
    for row in rows::good_on(db, target, now)? {
        let Ok(verified) = jws::verify(&row.token, policy, rules.own()) else { continue };
        let claims = verified.claims;
        let here = claims.entitlement == entitlement.name && claims.target == *target;
        // Their own further grants, an extension say, count to the end.
        let theirs = found.as_ref().is_none_or(|holder| holder.identity == claims.sub);
        if here && theirs && holds(rules, &row, &claims, now) && agrees(db, "grants", &row.id.to_string())? {
            let until = found.and_then(|holder| holder.until).max(Some(jws::at(row.end(&claims))));
            found = Some(Holder { until, identity: claims.sub });
        }
    }
    Ok(found)
}

/// Who is in the way of somebody who wants it.
pub(super) fn in_the_way(
    db: &Connection,
    rules: &Rules,
    policy: &Policy,
    (entitlement, target): (&Entitlement, &TargetName),
    who: &IdentityName,
    now: Timestamp,
) -> Result<Option<Holder>, StoreError> {
    if !entitlement.conditions.exclusive {
        return Ok(None);
    }
    let holder = holder(db, rules, policy, (entitlement, target), now)?.filter(|holder| holder.identity != *who);
    let leaving = || rules.occupied(who, target, &entitlement.name).map(|identity| Holder { identity, until: None });
    Ok(holder.or_else(leaving))
}

/// What is good for one session is held as long as that lives.
fn holds(rules: &Rules, row: &GrantRow, claims: &Claims, now: Timestamp) -> bool {
    match row.standing(claims, now) {
        GrantState::Active => true,
        GrantState::Used => row.used.is_some_and(|(_, session)| rules.is_live(session)),
        GrantState::Pending | GrantState::Expired | GrantState::Revoked | GrantState::Invalid => false,
    }
}
