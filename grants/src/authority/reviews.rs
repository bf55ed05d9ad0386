//! Reviews of what nobody had to approve: owed with the grant, signed by somebody else.

use super::{Authority, Denied, GrantError, permit::Rules, requests, rows};
use crate::{
    entitlement::Entitlement,
    grant::{Claims, jws},
    name::{GrantId, IdentityName},
    pick,
    policy::Policy,
    review::{ReviewSigned, ReviewState, ReviewView},
    store::{
        StoreError, fail,
        reviews::{self, ReviewRow, TABLE},
        writer::{Tx, Writer, agrees},
    },
    text::{LINE, line},
};
use jiff::Timestamp;
use rusqlite::Connection;

impl Authority {
    /// Reviews, those that are owed first: all, or what this identity may see: admins all, auditors what they audit, others their own.
    pub async fn reviews(&self, by: Option<&IdentityName>) -> Result<Vec<ReviewView>, StoreError> {
        let (rules, by) = (self.rules.clone(), by.cloned());
        self.store.read(move |db| list(db, &rules, by.as_ref())).await
    }

    /// Signs the one review with this id, or prefix or suffix of it, and says what was found.
    ///
    /// # Errors
    /// [`GrantError::NotFound`]: none that they may see. [`GrantError::Refused`]: it is their own, they may not, or nothing was found.
    pub async fn sign_review(
        &self,
        by: &IdentityName,
        id: &str,
        note: String,
        now: Timestamp,
    ) -> Result<ReviewView, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.clone(), id.to_owned());
        self.store.run(move |writer| sign(writer, &rules, &by, &id, &note, now)).await?
    }
}

/// With a grant, in its transaction: a review, if it is of the kind that owes one. However it was granted.
pub(super) fn demand(tx: &mut Tx<'_>, policy: &Policy, id: GrantId, claims: &Claims) -> Result<(), StoreError> {
    if !policy.entitlements.get(&claims.entitlement).is_some_and(Entitlement::breaks_glass) {
        return Ok(());
    }
    let row = ReviewRow {
        id,
        identity: claims.sub.clone(),
        target: claims.target.clone(),
        entitlement: claims.entitlement.clone(),
        reason: claims.reason.clone(),
        opened: tx.now(),
        until: jws::at(claims.exp),
        signed: None,
    };
    reviews::demand(tx, &row)
}

fn sign(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: &str,
    note: &str,
    now: Timestamp,
) -> Result<ReviewView, GrantError> {
    let (policy, note) = (rules.policy(), line(note, LINE));
    let refused = |why: &str| Err(GrantError::Refused(why.to_owned()));
    if note.trim().is_empty() {
        return refused("say what you found: a review needs a note");
    }
    writer.transact(now, |tx| {
        requests::settled((|| {
            requests::sane(tx, by)?;
            let seen = visible(reviews::list(tx.db())?, &policy, Some(by));
            let found = pick::one(seen, id, |row| row.id.to_string());
            let row = found.map_err(|not_one| GrantError::NotFound(not_one.sentence("review")))?;
            if row.identity == *by {
                return refused("nobody signs the review of what they did themselves");
            }
            if !tx.agrees(TABLE, &row.id.to_string())? {
                return refused(&Denied::Untrusted.to_string());
            }
            if let Some(signed) = &row.signed {
                return refused(&format!("{} has signed it already", signed.by));
            }
            if going_on(tx.db(), rules, &row, now)? {
                return refused(
                    "it is not over yet: end it first (`tidegate grant revoke`), or come back when it has ended",
                );
            }
            let signed = ReviewSigned { at: now, by: by.clone(), note: note.clone() };
            reviews::sign(tx, &row, &signed)?;
            Ok(view(tx.db(), ReviewRow { signed: Some(signed), ..row })?)
        })())
    })?
}

/// Whether something may still be done with the grant.
fn going_on(db: &Connection, rules: &Rules, row: &ReviewRow, now: Timestamp) -> Result<bool, StoreError> {
    let good = rows::by_id(db, row.id)?.is_some_and(|grant| grant.revoked.is_none()) && now < row.until;
    Ok(good || reviews::sessions(db, row.id)?.into_iter().any(|session| rules.is_live(session)))
}

/// Whoever runs or audits the gateway sees what they oversee, and may sign what is not their own.
fn visible(rows: Vec<ReviewRow>, policy: &Policy, by: Option<&IdentityName>) -> Vec<ReviewRow> {
    let Some(by) = by else { return rows };
    let Some(person) = policy.identities.get(by) else { return Vec::new() };
    let seen = policy.oversees(person);
    rows.into_iter().filter(|row| row.identity == *by || seen.sees(&row.identity, &row.target)).collect()
}

fn list(db: &Connection, rules: &Rules, by: Option<&IdentityName>) -> Result<Vec<ReviewView>, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(fail)?;
    let rows = visible(reviews::list(&snapshot)?, &rules.policy(), by);
    rows.into_iter().map(|row| view(&snapshot, row)).collect()
}

fn view(db: &Connection, row: ReviewRow) -> Result<ReviewView, StoreError> {
    let state = match (agrees(db, TABLE, &row.id.to_string())?, &row.signed) {
        (false, _) => ReviewState::Invalid,
        (true, Some(_)) => ReviewState::Signed,
        (true, None) => ReviewState::Owed,
    };
    let sessions = reviews::sessions(db, row.id)?;
    let ReviewRow { id, identity, target, entitlement, reason, opened, until, signed } = row;
    Ok(ReviewView { id, identity, target, entitlement, reason, opened, until, state, sessions, signed })
}
