//! Handing a grant back before its end: by whose it is, or by somebody who approves it, for a reason.

use super::{Authority, Denied, Ended, GrantError, admin, permit::Rules, requests, rows};
use crate::{
    Listing,
    grant::{Claims, Revoked},
    name::{GrantId, IdentityName},
    panel::Panel,
    pick,
    policy::Policy,
    store::writer::{Tx, Writer},
};
use jiff::Timestamp;

impl Authority {
    /// Hands a grant of theirs back, and what extends it: its sessions end. With `force`, as one of those who approve it or as an
    /// admin, anybody's, for a reason.
    ///
    /// # Errors
    /// [`GrantError::NotFound`]: none that is theirs to hand back. [`GrantError::Refused`]: it is over, or no reason was given.
    pub async fn give_back(
        &self,
        by: &IdentityName,
        id: &str,
        force: bool,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<GrantId, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.clone(), id.to_owned());
        let give = move |writer: &mut _| give_back(writer, &rules, &by, &id, force, reason.as_deref(), now);
        self.store.run(give).await?
    }
}

fn give_back(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: &str,
    force: bool,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<GrantId, GrantError> {
    let (policy, revoked) = (rules.policy(), Revoked::by(by, reason, now));
    let given = writer.transact(now, |tx| requests::settled(over(tx, rules, &policy, by, id, force, &revoked)))?;
    let (linked, own) = given?;
    let ended = match own {
        true => Ended::Returned,
        false => Ended::Revoked { by: revoked.by, reason: revoked.reason },
    };
    linked.iter().for_each(|id| rules.end(*id, &ended));
    rules.requests_changed(); // somebody may be waiting for it
    linked.first().copied().ok_or_else(|| GrantError::NotFound("no grant has this id".to_owned()))
}

/// Which it was, with what extends it or it extends, and whether it was theirs.
fn over(
    tx: &mut Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    by: &IdentityName,
    id: &str,
    force: bool,
    revoked: &Revoked,
) -> Result<(Vec<GrantId>, bool), GrantError> {
    requests::sane(tx, by)?;
    let mut theirs = Vec::new();
    for row in rows::list(tx.db(), &Listing::all())? {
        // What does not verify any more can be handed back all the same.
        let Some(claims) = rows::claims_of(&row) else { continue };
        if claims.sub == *by || may_force(policy, by, &claims, tx.now()) {
            theirs.push((row, claims));
        }
    }
    let found = pick::one(theirs, id, |(row, _)| row.id.to_string());
    let (row, claims) = found.map_err(|not_one| GrantError::NotFound(not_one.sentence("grant")))?;
    let own = claims.sub == *by;
    let refused = |why: String| Err(GrantError::Refused(why));
    if !tx.agrees("grants", &row.id.to_string())? {
        return refused(Denied::Untrusted.to_string());
    }
    if !own && !force {
        return refused(format!("it is {}'s: take it back with --force and a reason", claims.sub));
    }
    if !own && revoked.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
        return refused("say why: whose it is will be told".to_owned());
    }
    if row.revoked.is_some() || (row.end(&claims) <= tx.now().as_second() && rules.sessions_of(row.id).is_empty()) {
        return refused("this grant is over already".to_owned());
    }
    let linked = requests::linked(tx.db(), &claims.sub, row.id)?;
    rows::end_linked(tx, "grant.returned", &linked, (&claims.sub, &claims.target), revoked)?;
    Ok((linked, own))
}

/// Whoever could have said no to it may take it back, and admins.
fn may_force(policy: &Policy, by: &IdentityName, claims: &Claims, now: Timestamp) -> bool {
    let asking = policy.entitlements.get(&claims.entitlement).and_then(|entitlement| entitlement.asking.as_ref());
    let hears = |asking| Panel { policy, asking, requester: &claims.sub, opened: now, now }.hears(by);
    asking.is_some_and(hears) || admin::must_be_admin(policy, by, "take back").is_ok()
}
