//! The permit for `tidegate target test`: on an admin's word, for a session that carries no bytes of anybody.
//!
//! What always holds: its grant is revoked in the transaction that writes it, so that it opens nothing else: the permit of
//! this one session is in memory before anybody could use it, and dies after [`LIFE`].

use super::{
    Ask, GrantError, Permit,
    decide::{self, Active},
    permit::{Held, Rules},
    rows::{self, GrantRow},
};
use crate::{
    asking::Proof,
    entitlement::{Entitlement, Terms},
    grant::{Claims, Level, Revoked, jws},
    ledger::Event,
    name::{Access, GrantId, SessionId},
    policy::Policy,
    store::writer::Writer,
};
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::Instant;

/// A test takes seconds; one that hangs ends with its permit.
const LIFE: SignedDuration = SignedDuration::from_secs(120);

/// What is about to be tried, signed as every grant is.
pub(super) struct Trial {
    ask: Ask,
    entitlement: Entitlement,
    id: GrantId,
    claims: Claims,
    token: String,
}

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

/// Checks that an admin asks, and that some entitlement opens this login there: a test can do no more than a session.
pub(super) fn prepare(policy: &Policy, signer: &SigningKey, ask: Ask, now: Timestamp) -> Result<Trial, GrantError> {
    let (by, name) = (ask.identity.clone(), ask.target.clone());
    super::admin::must_be_admin(policy, &by, "test targets with").map_err(|_| {
        GrantError::Refused(format!("only admins test targets, and {by} is in none of their groups (roles.admin)"))
    })?;
    let Some(target) = policy.targets.get(&name) else {
        return Err(GrantError::NotFound(format!("there is no target {name} in the configuration")));
    };
    let reaching: Vec<&Entitlement> = policy.entitlements.values().filter(|e| e.reaches(target)).collect();
    let named = |e: &Entitlement| ask.entitlement.as_ref().is_none_or(|name| *name == e.name);
    let Some(entitlement) = reaching.iter().find(|e| e.includes(&ask.access) && named(e)) else {
        let logins: BTreeSet<String> = reaching.iter().flat_map(|e| logins(&e.terms)).collect();
        let logins: Vec<String> = logins.into_iter().collect();
        let there = if logins.is_empty() { "nothing".to_owned() } else { logins.join(", ") };
        let which =
            ask.entitlement.map_or_else(|| "no entitlement".to_owned(), |name| format!("no entitlement {name}"));
        return refused(format!("{which} opens {} on {name}; they open: {there}", ask.access));
    };
    let (id, iat) = (GrantId::new(), now.as_second());
    let claims = Claims {
        iss: policy.gateway.clone(),
        sub: by.clone(),
        aud: policy.gateway.clone(),
        jti: id.to_string(),
        iat,
        nbf: iat,
        exp: (now + LIFE).as_second(),
        target: name,
        entitlement: entitlement.name.clone(),
        login: match &ask.access {
            Access::Login(login) => Some(login.clone()),
            Access::Database(_) => None,
        },
        database: None,
        roles: None,
        reason: Some("a test of the target".to_owned()),
        ticket: None,
        approvals: vec![Level { by: by.to_string(), at: iat, level: 1, proof: Proof::Attested }],
        single_use: false,
        lasts: None,
    };
    let token = jws::sign(signer, &claims)?;
    let mut entitlement = (*entitlement).clone();
    entitlement.conditions.watched = false; // it carries nothing that could be watched
    Ok(Trial { ask, entitlement, id, claims, token })
}

fn logins(terms: &Terms) -> Vec<String> {
    match terms {
        Terms::Ssh { logins, .. } => logins.iter().map(ToString::to_string).collect(),
        Terms::Postgres { databases, .. } => databases.iter().map(|name| format!("database {name}")).collect(),
    }
}

/// Writes the grant, revokes it, and opens the session: one transaction.
pub(super) fn open(
    writer: &mut Writer,
    rules: &Arc<Rules>,
    trial: Trial,
    now: Timestamp,
    start: Instant,
) -> Result<Permit, GrantError> {
    let Trial { ask, entitlement, id, claims, token } = trial;
    let (policy, session) = (rules.policy(), SessionId::new());
    let held = writer.transact(now, |tx| {
        if tx.trusted().is_err() {
            return Ok(refused(super::Denied::Untrusted.to_string()));
        }
        match super::locks::open(tx, &ask.identity, &ask.target) {
            Ok(()) => {}
            Err(super::Denied::Store(error)) => return Err(error),
            Err(locked) => return Ok(refused(format!("{locked}; `tidegate lock list`"))),
        }
        let issued = Event::new("grant.issued").identity(&ask.identity).target(&ask.target).grant(id);
        let issued = issued.detail(json!({ "by": ask.identity, "claims": claims }));
        rows::insert(tx, id, &claims, &token, &ask.identity, issued)?;
        let reason = "for the test of the target alone, which is under way";
        let revoked = Revoked::by(&ask.identity, Some(reason), now);
        rows::revoke(tx, id, Some((&ask.identity, &ask.target)), &revoked)?;
        let row = GrantRow { id, token: token.clone(), revoked: Some(revoked), used: None };
        let active = Active { row, claims: claims.clone(), counts_as_approval: false };
        decide::open(tx, session, &ask, active, entitlement.clone()).map(|held| Ok(Held { trial: true, ..held }))
    })??;
    Ok(rules.admit(held, &policy, now, start))
}
