//! Asking for more time without dropping what runs: a request like any other, by the same levels, that names the grant which it extends.
//!
//! What always holds: nothing that was signed changes. What comes of it is another grant, for the same thing by the same person; live
//! permits of the first one rest on it from then on. One extension to a grant, and none to an extension.

use super::{
    ask::{enter, refused_unless},
    refused, sane, settled,
};
use crate::{
    Listing,
    authority::{GrantError, GrantSigner, permit::Rules, rows},
    grant::{Claims, GrantState, jws},
    name::{GrantId, IdentityName, RequestId},
    pick,
    policy::Policy,
    request::{More, RequestState, RequestView, Wish},
    store::{
        requests::{self, RequestRow},
        writer::{Tx, Writer},
    },
};
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::time::Instant;

/// Asks for more time under a grant of theirs.
pub(in crate::authority) fn extend(
    writer: &mut Writer,
    rules: &Rules,
    signer: &GrantSigner,
    by: &IdentityName,
    id: &str,
    more: &More,
    (now, start): (Timestamp, Instant),
) -> Result<RequestView, GrantError> {
    let (policy, request) = (rules.policy(), RequestId::new());
    let decided = writer.transact(now, |tx| {
        settled((|| {
            sane(tx, by)?;
            let wish = wish(tx, rules, &policy, by, id, more)?;
            enter(tx, rules, signer, by, &wish, request, &policy)
        })())
    })?;
    rules.requests_changed();
    Ok(decided?.taken(rules, now, start))
}

/// The same again, for longer.
fn wish(
    tx: &Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    by: &IdentityName,
    id: &str,
    more: &More,
) -> Result<Wish, GrantError> {
    let (grant, claims) = active(tx, rules, policy, by, id)?;
    let extends =
        policy.entitlements.get(&claims.entitlement).and_then(|it| it.asking.as_ref()).is_some_and(|a| a.extend);
    refused_unless(extends, || format!("{} is not extended: ask for it anew when it ends", claims.entitlement))?;
    refused_unless(!claims.single_use, || "a grant that is good for one session is not extended".to_owned())?;
    let own = requests::of(tx.db(), by)?;
    refused_unless(!is_extension(&own, grant), || "it is an extension already, and there is no second one".to_owned())?;
    let granted = |row: &&RequestRow| row.wanted.extends == Some(grant) && row.state == RequestState::Granted;
    refused_unless(own.iter().find(granted).is_none(), || "it was extended already, once".to_owned())?;
    Ok(Wish {
        target: claims.target,
        entitlement: Some(claims.entitlement),
        login: claims.login,
        database: claims.database,
        roles: claims.roles,
        duration: more.duration,
        reason: more.reason.clone().or(claims.reason),
        ticket: more.ticket.clone().or(claims.ticket),
        from: more.from,
        extends: Some(grant),
        seen: more.seen.clone(),
    })
}

/// The one grant of theirs with this id, prefix or suffix, which must be good now.
fn active(
    tx: &Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    by: &IdentityName,
    id: &str,
) -> Result<(GrantId, Claims), GrantError> {
    let mut own = Vec::new();
    for row in rows::list(tx.db(), &Listing::of(by))? {
        if let Ok(verified) = jws::verify(&row.token, policy, rules.own())
            && verified.claims.sub == *by
        {
            own.push((row, verified.claims));
        }
    }
    let found = pick::one(own, id, |(row, _)| row.id.to_string());
    let (row, claims) = found.map_err(|not_one| GrantError::NotFound(not_one.sentence("grant")))?;
    if !tx.agrees("grants", &row.id.to_string())? {
        return refused(crate::Denied::Untrusted.to_string());
    }
    match row.standing(&claims, tx.now()) {
        GrantState::Active if claims.lasts.is_some() && row.used.is_none() => {
            refused("its time starts with its first session: there is nothing to extend yet")
        }
        GrantState::Active | GrantState::Used => Ok((row.id, claims)),
        _ => refused("this grant is over: ask for a new one"),
    }
}

fn is_extension(own: &[RequestRow], grant: GrantId) -> bool {
    own.iter().any(|row| row.grant == Some(grant) && row.wanted.extends.is_some())
}

/// A grant, the one that it extends, and the one that extends it: who loses one loses all.
pub(in crate::authority) fn linked(
    db: &Connection,
    of: &IdentityName,
    grant: GrantId,
) -> Result<Vec<GrantId>, crate::StoreError> {
    let own = requests::of(db, of)?;
    let extended = own.iter().filter(|row| row.grant == Some(grant)).filter_map(|row| row.wanted.extends);
    let extending = own.iter().filter(|row| row.wanted.extends == Some(grant)).filter_map(|row| row.grant);
    Ok(std::iter::once(grant).chain(extended).chain(extending).collect())
}
