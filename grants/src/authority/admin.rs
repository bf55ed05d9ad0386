//! What admins do with grants: issue, import, list, revoke.

use super::{
    Ended, GrantError, IssueRequest, exclusive,
    permit::Rules,
    requests::linked,
    reviews,
    rows::{self, GrantRow},
};
use crate::{
    asking::Proof,
    entitlement::Entitlement,
    grant::{
        Claims, GrantState, GrantView, Level, Revoked,
        jws::{self, Invalid},
    },
    ledger::Event,
    listing::Listing,
    name::{GrantId, IdentityName},
    panel::{Panel, Standing, Yes},
    pick,
    policy::Policy,
    store::{
        StoreError, restored_at,
        writer::{Writer, agrees},
    },
    text::{LINE, line},
};
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::json;
use sha2::{Digest, Sha256};

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

impl From<Invalid> for GrantError {
    fn from(why: Invalid) -> Self {
        GrantError::Refused(format!("not a grant for this gateway: {why}"))
    }
}

/// `what` is a verb: "only admins {what} grants".
pub(super) fn must_be_admin(policy: &Policy, by: &IdentityName, what: &str) -> Result<(), GrantError> {
    must_be_admin_to(policy, by, &format!("{what} grants"))
}

/// `what` is a verb and its object: "only admins {what}".
pub(super) fn must_be_admin_to(policy: &Policy, by: &IdentityName, what: &str) -> Result<(), GrantError> {
    let admin = policy.identities.get(by).is_some_and(|i| !i.groups.is_disjoint(&policy.admins));
    if admin { Ok(()) } else { refused(format!("only admins {what}, and {by} is in none of their groups")) }
}

/// The `jti` of what this admin asks for under this key. One of a fresh grant is a UUID, so the two never meet.
pub(super) fn jti_of(by: &IdentityName, key: &str) -> String {
    // A name has no NUL.
    let digest = Sha256::digest(format!("tidegate issue once v1\0{by}\0{key}"));
    format!("once-{}", HEXLOWER.encode(&digest))
}

/// Whether two grants are the same but for when they were asked for.
fn alike(one: &Claims, other: &Claims) -> bool {
    let timeless = |claims: &Claims| {
        let approvals = claims.approvals.iter().map(|level| Level { at: 0, ..level.clone() }).collect();
        Claims { iat: 0, nbf: 0, exp: claims.exp.saturating_sub(claims.iat), approvals, ..claims.clone() }
    };
    timeless(one) == timeless(other)
}

/// Checks and signs what an admin asks for.
pub(super) fn sign(
    policy: &Policy,
    signer: &SigningKey,
    by: &IdentityName,
    jti: String,
    request: IssueRequest,
    now: Timestamp,
) -> Result<(GrantId, String), GrantError> {
    must_be_admin(policy, by, "issue")?;
    if request.user == *by {
        return refused("nobody issues a grant to themselves: ask another admin");
    }
    if let Some(entitlement) = policy.entitlements.get(&request.entitlement) {
        let most = entitlement.max_duration;
        if request.duration > most {
            let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
            return refused(format!("{} lasts at most {most:#}", entitlement.name));
        }
        enough_alone(policy, entitlement, by, &request, now)?;
        let asking = entitlement.asking.as_ref();
        if let Some(wrong) =
            asking.and_then(|asking| asking.wrong(request.reason.as_deref(), request.ticket.as_deref()))
        {
            return refused(wrong);
        }
    }
    let seconds = i64::try_from(request.duration.as_secs()).unwrap_or(0);
    if seconds == 0 {
        return refused("a grant lasts at least a second");
    }
    let (id, iat) = (GrantId::new(), now.as_second());
    let claims = Claims {
        iss: policy.gateway.clone(),
        sub: request.user,
        aud: policy.gateway.clone(),
        jti,
        iat,
        nbf: iat,
        exp: iat.saturating_add(seconds),
        target: request.target,
        entitlement: request.entitlement,
        login: request.login,
        database: request.database,
        roles: request.roles,
        reason: request.reason.map(|reason| line(&reason, LINE)),
        ticket: request.ticket.map(|ticket| line(&ticket, 128)),
        approvals: vec![Level { by: by.to_string(), at: iat, level: 1, proof: Proof::Attested }],
        single_use: request.single_use,
        lasts: None,
    };
    let token = jws::sign(signer, &claims)?;
    // By the same checks as at each use, so that no grant is issued that opens nothing.
    match jws::verify(&token, policy, &signer.verifying_key().to_bytes()) {
        Ok(_) => Ok((id, token)),
        Err(why) => refused(format!("not granted: {why}")),
    }
}

/// A grant that an admin issues is that admin's approval, and no more: never for another level, never for a second one.
fn enough_alone(
    policy: &Policy,
    entitlement: &Entitlement,
    by: &IdentityName,
    request: &IssueRequest,
    now: Timestamp,
) -> Result<(), GrantError> {
    let Some(asking) = entitlement.asking.as_ref().filter(|asking| !asking.levels.is_empty()) else { return Ok(()) };
    if !request.own_voice {
        return refused(format!(
            "{} asks for approvals, and nobody approves by a token that somebody else made: have it requested",
            entitlement.name
        ));
    }
    let panel = Panel { policy, asking, requester: &request.user, opened: now, now };
    let yes = panel.place(by, Proof::Attested, &[]).map(|level| Yes { by: by.clone(), level, proof: Proof::Attested });
    match yes.map(|yes| panel.standing(&[yes])) {
        Ok(Standing::Satisfied) => Ok(()),
        Ok(_) => refused(format!("{} asks for more approvals than yours: have it requested", entitlement.name)),
        Err(why) => refused(format!("{} asks for approvals, and yours does not do: {why}", entitlement.name)),
    }
}

/// Takes a grant in. `id` is set for our own; others get one here, or have it already.
pub(super) fn add(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: Option<GrantId>,
    token: &str,
    now: Timestamp,
) -> Result<GrantId, GrantError> {
    let policy = rules.policy();
    let claims = jws::verify(token, &policy, rules.own())?.claims;
    let kind = if id.is_some() { "grant.issued" } else { "grant.imported" };
    writer.transact(now, |tx| {
        if let Some(known) = rows::by_jti(tx.db(), &claims.iss, &claims.jti)? {
            let asked_again = || rows::claims_of(&known).is_some_and(|earlier| alike(&earlier, &claims));
            return Ok(if known.token == token || (id.is_some() && asked_again()) {
                Ok(known.id)
            } else if id.is_some() {
                refused("this key has granted something else already: take a new key for a new request")
            } else {
                refused(format!("{} has already granted something else as {}", claims.iss, claims.jti))
            });
        }
        if tx.behind().is_some() {
            return Ok(refused(
                "the gateway's clock has gone back: nothing is granted until it is right (`tidegate doctor`)",
            ));
        }
        if id.is_none() && restored_at(tx.db())?.is_some_and(|restored| claims.iat <= restored.as_second()) {
            return Ok(refused("it was signed before this gateway was restored from a backup: get a new one"));
        }
        if id.is_none() && claims.iss == policy.gateway {
            return Ok(refused("this gateway's own grants are not imported: issue a new one"));
        }
        if let Err(why) = jws::fresh(&claims, now) {
            return Ok(Err(why.into()));
        }
        if let Some(entitlement) = policy.entitlements.get(&claims.entitlement) {
            let there = (entitlement, &claims.target);
            if let Some(holder) = exclusive::in_the_way(tx.db(), rules, &policy, there, &claims.sub, now)? {
                let until = holder.until.map(|until| format!(" until {until}")).unwrap_or_default();
                let (by, what, on) = (holder.identity, &claims.entitlement, &claims.target);
                return Ok(refused(format!(
                    "{what} on {on} is held by {by}{until}: have it requested, and it waits for its turn"
                )));
            }
        }
        let id = id.unwrap_or_else(GrantId::new);
        let detail = json!({ "by": by, "claims": claims });
        let event = Event::new(kind).identity(&claims.sub).target(&claims.target).grant(id).detail(detail);
        rows::insert(tx, id, &claims, token, by, event)?;
        reviews::demand(tx, &policy, id, &claims)?;
        Ok(Ok(id))
    })?
}

/// Revokes, then ends the live permits; both before anybody else's turn on this thread.
pub(super) fn revoke(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: GrantId,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let revoked = Revoked::by(by, reason, now);
    let written = writer.transact(now, |tx| {
        let row = rows::by_id(tx.db(), id)?;
        if row.as_ref().is_some_and(|row| row.revoked.is_some()) {
            return Ok(vec![id]);
        }
        let Some(claims) = row.as_ref().and_then(rows::claims_of) else {
            return rows::revoke(tx, id, None, &revoked).map(|()| vec![id]);
        };
        // With what extends it, and what it extends: who loses one loses all.
        let linked = linked(tx.db(), &claims.sub, id)?;
        rows::end_linked(tx, "grant.revoked", &linked, (&claims.sub, &claims.target), &revoked)?;
        Ok(linked)
    });
    // A ledger that cannot be written keeps no session alive.
    let ended = Ended::Revoked { by: revoked.by, reason: revoked.reason };
    written.as_deref().unwrap_or(&[id]).iter().for_each(|id| rules.end(*id, &ended));
    rules.requests_changed(); // somebody may be waiting for it
    written.map(drop)
}

pub(super) fn list(
    db: &Connection,
    rules: &Rules,
    listing: &Listing,
    now: Timestamp,
) -> Result<Vec<GrantView>, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(crate::store::fail)?;
    let rows = rows::list(&snapshot, listing)?;
    rows.into_iter().filter_map(|row| view(&snapshot, rules, row, now).transpose()).collect()
}

pub(super) fn show(
    db: &Connection,
    rules: &Rules,
    id: GrantId,
    now: Timestamp,
) -> Result<Option<GrantView>, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(crate::store::fail)?;
    rows::by_id(&snapshot, id)?.map_or(Ok(None), |row| view(&snapshot, rules, row, now))
}

fn view(db: &Connection, rules: &Rules, row: GrantRow, now: Timestamp) -> Result<Option<GrantView>, StoreError> {
    let agrees = agrees(db, "grants", &row.id.to_string())?;
    Ok(match jws::verify(&row.token, &rules.policy(), rules.own()) {
        Ok(verified) if agrees => {
            let state = row.standing(&verified.claims, now);
            let ends = jws::at(row.end(&verified.claims));
            Some(GrantView { id: row.id, claims: verified.claims, state, ends, revoked: row.revoked })
        }
        _ => {
            // What was revoked stays that, whatever became of its entitlement.
            let revoked = agrees && row.revoked.is_some();
            let state = if revoked { GrantState::Revoked } else { GrantState::Invalid };
            let claims = rows::claims_of(&row);
            claims.map(|claims| {
                let ends = jws::at(row.end(&claims));
                GrantView { id: row.id, claims, state, ends, revoked: row.revoked }
            })
        }
    })
}

/// The grant with this id, or prefix or suffix of its digits.
pub(super) fn find(db: &Connection, id: &str) -> Result<GrantId, GrantError> {
    pick::one(rows::ids(db)?, id, GrantId::to_string).map_err(|not_one| GrantError::NotFound(not_one.sentence("grant")))
}
