//! The grant that a request ends in.

use super::about;
use crate::{
    asking::Clock,
    authority::{GrantError, GrantSigner, permit::Rules, reviews, rows},
    grant::{Claims, Level, Revoked, WAITS, jws},
    name::{GrantId, IdentityName},
    policy::Policy,
    request::{Approval, RequestState},
    store::{
        StoreError, leases,
        requests::{self, RequestRow},
        writer::Tx,
    },
};
use jiff::Timestamp;
use serde_json::json;

/// A grant, signed, and not yet written.
pub(super) struct Made {
    id: GrantId,
    claims: Claims,
    token: String,
}

pub(super) fn made(
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
    let entitlement = policy.entitlements.get(&wanted.entitlement);
    // An extension is of a time that runs already.
    let waits = wanted.extends.is_none()
        && entitlement.and_then(|it| it.asking.as_ref()).is_some_and(|it| it.clock == Clock::FirstUse);
    let waiting = if waits { i64::try_from(WAITS.as_secs()).unwrap_or(0) } else { 0 };
    // What others wait for is kept for somebody no longer than they asked to have it.
    let exclusive = entitlement.is_some_and(|it| it.conditions.exclusive);
    let waiting = if exclusive { waiting.min(seconds) } else { waiting };
    let claims = Claims {
        iss: policy.gateway.clone(),
        sub: wanted.identity.clone(),
        aud: policy.gateway.clone(),
        // One request, one grant: issuer and jti are unique in the store.
        jti: format!("request-{}", wanted.id),
        iat,
        nbf: iat,
        exp: iat.saturating_add(seconds).saturating_add(waiting),
        target: wanted.target.clone(),
        entitlement: wanted.entitlement.clone(),
        login: wanted.login.clone(),
        database: wanted.database.clone(),
        roles: wanted.roles.clone(),
        reason: wanted.reason.clone(),
        ticket: wanted.ticket.clone(),
        approvals: approvals.iter().map(level).collect(),
        single_use: false,
        lasts: waits.then_some(seconds),
    };
    let token = jws::sign(signer, &claims)?;
    // By the same checks as at each use, so that nothing is granted that opens nothing.
    match jws::verify(&token, policy, rules.own()) {
        Ok(_) => Ok(Made { id: GrantId::new(), claims, token }),
        Err(why) => super::refused(format!("it cannot be granted any more: {why}")),
    }
}

/// The grant and the end of the request. `by`: whose word was the last.
pub(super) fn keep(
    tx: &mut Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    row: &RequestRow,
    made: Made,
    by: &IdentityName,
) -> Result<Option<Extended>, StoreError> {
    let Made { id, claims, token } = made;
    let event = |kind| about(kind, row).grant(id);
    let issued = event("grant.issued").detail(json!({ "by": by, "request": row.wanted.id, "claims": claims }));
    rows::insert(tx, id, &claims, &token, by, issued)?;
    reviews::demand(tx, policy, id, &claims)?;
    let granted = event("request.granted").detail(json!({ "request": row.wanted.id, "by": by, "digest": row.digest }));
    requests::decide(tx, row.wanted.id, RequestState::Granted, &Revoked::by(by, None, tx.now()), Some(id), granted)?;
    let Some(of) = row.wanted.extends else { return Ok(None) };
    let until = jws::at(claims.exp);
    for session in rules.sessions_of(of) {
        let detail = json!({ "extends": of, "until": until, "claims": claims });
        tx.append(event("session.extended").session(session).detail(detail))?;
        leases::extend(tx, session, until)?;
    }
    Ok(Some(Extended { of, id, claims, token }))
}

/// A grant that extends another one: live permits of that one are to rest on it.
#[derive(Debug)]
pub(in crate::authority) struct Extended {
    pub(in crate::authority) of: GrantId,
    pub(in crate::authority) id: GrantId,
    pub(in crate::authority) claims: Claims,
    pub(in crate::authority) token: String,
}
