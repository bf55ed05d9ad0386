//! Rows of the table of grants.

use crate::{
    grant::{Claims, GrantState, Revoked, jws},
    ledger::Event,
    listing::{Listing, WITHIN},
    name::{GrantId, IdentityName, SessionId, TargetName},
    store::{StoreError, fail, parsed, unreadable, writer::Tx},
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

/// So many ended grants are looked at to say why there is none.
const LATEST_ENDED: i64 = 8;
/// So many grants of one identity on one target are looked at; nobody has more by honest means.
const MOST_ACTIVE: i64 = 256;

/// One grant as stored.
#[derive(Debug, Clone)]
pub(super) struct GrantRow {
    pub(super) id: GrantId,
    pub(super) token: String,
    pub(super) revoked: Option<Revoked>,
    /// The session that used it, if it is good for one; that with which its time started, if it has one of its own.
    pub(super) used: Option<(Timestamp, SessionId)>,
}

impl GrantRow {
    /// When it ends, given claims that were verified, in seconds since 1970.
    pub(super) fn end(&self, claims: &Claims) -> i64 {
        claims.end(self.used.map(|(at, _)| at))
    }

    /// Where it stands, given claims that were verified.
    pub(super) fn standing(&self, claims: &Claims, now: Timestamp) -> GrantState {
        let second = now.as_second();
        if self.revoked.is_some() {
            GrantState::Revoked
        } else if self.end(claims) <= second {
            GrantState::Expired
        } else if claims.single_use && self.used.is_some() {
            GrantState::Used
        } else if second < claims.nbf {
            GrantState::Pending
        } else {
            GrantState::Active
        }
    }
}

/// Grants of this identity on this target: all that have not ended, and the latest that have. What the columns say is
/// only a way to find them; rows that cannot be read open nothing.
pub(super) fn candidates(
    db: &Connection,
    identity: &IdentityName,
    target: &TargetName,
    now: Timestamp,
) -> Result<Vec<GrantRow>, StoreError> {
    let select = |compare: &str| {
        format!(
            "SELECT * FROM grants WHERE identity = ?1 AND target = ?2 AND exp {compare} ?3 ORDER BY exp DESC LIMIT ?4"
        )
    };
    let mut found = Vec::new();
    for (compare, limit) in [(">", MOST_ACTIVE), ("<=", LATEST_ENDED)] {
        let mut statement = db.prepare_cached(&select(compare)).map_err(fail)?;
        let rows = statement
            .query_map(params![identity.as_str(), target.as_str(), now.as_second(), limit], from_row)
            .map_err(fail)?;
        found.extend(rows.filter_map(Result::ok));
    }
    Ok(found)
}

/// Those of anybody on this target that have neither ended nor been revoked, oldest first.
pub(super) fn good_on(db: &Connection, target: &TargetName, now: Timestamp) -> Result<Vec<GrantRow>, StoreError> {
    let sql = "SELECT * FROM grants WHERE target = ?1 AND exp > ?2 AND revoked_at IS NULL ORDER BY id";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map(params![target.as_str(), now.as_second()], from_row).map_err(fail)?;
    Ok(rows.filter_map(Result::ok).collect())
}

/// What the ledger says once of a grant that ends soon.
pub(super) const ENDING: &str = "grant.ending";

/// Those that end by then, as far as columns say, or whose time started with their first session, and of which it was not yet said.
pub(super) fn ending(db: &Connection, now: Timestamp, until: Timestamp) -> Result<Vec<GrantRow>, StoreError> {
    let sql = "SELECT * FROM grants WHERE exp > ?1 AND (exp <= ?2 OR used_at IS NOT NULL) AND revoked_at IS NULL AND NOT EXISTS \
               (SELECT 1 FROM ledger WHERE row_table = 'grants' AND row_key = grants.id AND kind = ?3) ORDER BY id";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map(params![now.as_second(), until.as_second(), ENDING], from_row).map_err(fail)?;
    Ok(rows.filter_map(Result::ok).collect())
}

/// All of them, newest first.
pub(super) fn list(db: &Connection, listing: &Listing) -> Result<Vec<GrantRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT * FROM grants WHERE {WITHIN}")).map_err(fail)?;
    let named = |row: &Row<'_>| {
        let whose = parsed::<IdentityName>(row, "identity").ok().zip(parsed::<TargetName>(row, "target").ok());
        Ok((whose, from_row(row)?))
    };
    let rows = statement.query_map(listing.bounds(), named).map_err(fail)?;
    let part = listing.part(rows, |(whose, _)| whose.as_ref().map(|(identity, target)| (identity, target)));
    Ok(part.into_iter().map(|(_, row)| row).collect())
}

pub(super) fn by_id(db: &Connection, id: GrantId) -> Result<Option<GrantRow>, StoreError> {
    let mut statement = db.prepare_cached("SELECT * FROM grants WHERE id = ?1").map_err(fail)?;
    statement.query_row([id.to_string()], from_row).optional().map_err(fail)
}

/// Those of an identity that have not ended, with their targets, whoever issued them.
pub(super) fn open_of(
    db: &Connection,
    identity: &IdentityName,
    now: Timestamp,
) -> Result<Vec<(GrantId, TargetName)>, StoreError> {
    let sql = "SELECT id, target FROM grants WHERE identity = ?1 AND exp > ?2 AND revoked_at IS NULL";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement
        .query_map(params![identity.as_str(), now.as_second()], |row| Ok((parsed(row, "id")?, parsed(row, "target")?)))
        .map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

/// The grant with this `iss` and `jti`, and its token.
pub(super) fn by_jti(db: &Connection, iss: &str, jti: &str) -> Result<Option<GrantRow>, StoreError> {
    let mut statement = db.prepare_cached("SELECT * FROM grants WHERE iss = ?1 AND jti = ?2").map_err(fail)?;
    statement.query_row([iss, jti], from_row).optional().map_err(fail)
}

pub(super) fn ids(db: &Connection) -> Result<Vec<GrantId>, StoreError> {
    let mut statement = db.prepare_cached("SELECT id FROM grants").map_err(fail)?;
    let rows = statement.query_map([], |row| parsed(row, "id")).map_err(fail)?;
    Ok(rows.filter_map(Result::ok).collect())
}

pub(super) fn insert(
    tx: &mut Tx<'_>,
    id: GrantId,
    claims: &Claims,
    token: &str,
    by: &IdentityName,
    event: Event,
) -> Result<(), StoreError> {
    let (key, at) = (id.to_string(), tx.now().to_string());
    let sql = "INSERT INTO grants (id, iss, jti, identity, target, exp, token, added_at, added_by) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    tx.change(("grants", &key), event, |db| {
        db.prepare_cached(sql)?.execute(params![
            key,
            claims.iss,
            claims.jti,
            claims.sub.as_str(),
            claims.target.as_str(),
            claims.exp,
            token,
            at,
            by.as_str(),
        ])
    })
}

/// Takes a grant back; the ledger says whose it was and where, as far as that is known.
pub(super) fn revoke(
    tx: &mut Tx<'_>,
    id: GrantId,
    of: Option<(&IdentityName, &TargetName)>,
    revoked: &Revoked,
) -> Result<(), StoreError> {
    end(tx, "grant.revoked", id, of, revoked)
}

/// The same, by another word.
fn end(
    tx: &mut Tx<'_>,
    kind: &str,
    id: GrantId,
    of: Option<(&IdentityName, &TargetName)>,
    revoked: &Revoked,
) -> Result<(), StoreError> {
    let mut event = Event::new(kind).grant(id);
    if let Some((identity, target)) = of {
        event = event.identity(identity).target(target);
    }
    let event = event.detail(json!({ "by": revoked.by, "reason": revoked.reason }));
    let key = id.to_string();
    let sql = "UPDATE grants SET revoked_at = ?2, revoked_by = ?3, revoked_reason = ?4 WHERE id = ?1";
    tx.change(("grants", &key), event, |db| {
        db.prepare_cached(sql)?.execute(params![key, revoked.at.to_string(), revoked.by, revoked.reason])
    })
}

/// Ends by this word those of linked grants that are not over by such a word yet.
pub(super) fn end_linked(
    tx: &mut Tx<'_>,
    kind: &str,
    linked: &[GrantId],
    of: (&IdentityName, &TargetName),
    revoked: &Revoked,
) -> Result<(), StoreError> {
    for id in linked {
        if by_id(tx.db(), *id)?.is_some_and(|row| row.revoked.is_none()) {
            end(tx, kind, *id, Some(of), revoked)?;
        }
    }
    Ok(())
}

pub(super) fn mark_used(tx: &mut Tx<'_>, id: GrantId, session: SessionId, event: Event) -> Result<(), StoreError> {
    let (key, at) = (id.to_string(), tx.now().to_string());
    let sql = "UPDATE grants SET used_at = ?2, used_by = ?3 WHERE id = ?1";
    tx.change(("grants", &key), event, |db| db.prepare_cached(sql)?.execute(params![key, at, session.to_string()]))
}

/// Says something of a row that stays as it is: the entry names it.
pub(super) fn touch(tx: &mut Tx<'_>, id: GrantId, event: Event) -> Result<(), StoreError> {
    let key = id.to_string();
    tx.change(("grants", &key), event, |db| {
        db.prepare_cached("UPDATE grants SET id = id WHERE id = ?1")?.execute(params![key])
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<GrantRow> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let revoked = match text("revoked_at")? {
        None => None,
        Some(at) => Some(Revoked {
            at: at.parse().map_err(unreadable)?,
            by: text("revoked_by")?.unwrap_or_default(),
            reason: text("revoked_reason")?,
        }),
    };
    let used = match (text("used_at")?, text("used_by")?) {
        (Some(at), Some(by)) => Some((at.parse().map_err(unreadable)?, by.parse().map_err(unreadable)?)),
        _ => None,
    };
    Ok(GrantRow { id: parsed(row, "id")?, token: row.get("token")?, revoked, used })
}

/// What a grant that does not verify says of itself.
pub(super) fn claims_of(row: &GrantRow) -> Option<Claims> {
    jws::unverified(&row.token)
}
