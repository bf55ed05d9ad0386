//! Rows of the tables of requests and approvals. What a row says is believed only where its ledger entry agrees, and its
//! terms only where their digest does.

use super::{StoreError, fail, migrations::has_table, parsed, unreadable, writer::Tx};
use crate::{
    grant::Revoked,
    ledger::Event,
    name::{GrantId, IdentityName, RequestId, TargetName},
    request::{Approval, RequestDigest, RequestState, Wanted},
};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

/// Ledger entries and digests go by this.
pub(crate) const TABLE: &str = "requests";
/// The same.
pub(crate) const APPROVALS: &str = "approvals";

/// One request as stored.
#[derive(Debug, Clone)]
pub(crate) struct RequestRow {
    pub(crate) wanted: Wanted,
    pub(crate) digest: RequestDigest,
    pub(crate) opened: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) state: RequestState,
    pub(crate) decided: Option<Revoked>,
    pub(crate) grant: Option<GrantId>,
}

impl RequestRow {
    /// Who asks, and on which target.
    pub(crate) fn of(&self) -> (&IdentityName, &TargetName) {
        (&self.wanted.identity, &self.wanted.target)
    }

    /// Where it stands at this moment: what was not decided in time is over, whether or not that was written down yet.
    pub(crate) fn state_at(&self, now: Timestamp) -> RequestState {
        if self.state == RequestState::Open && now >= self.expires { RequestState::Expired } else { self.state }
    }
}

/// The key of an approval's row.
pub(crate) fn approval_key(request: RequestId, by: &IdentityName) -> String {
    format!("{request}/{by}")
}

pub(crate) fn insert(tx: &mut Tx<'_>, row: &RequestRow, terms: &str, event: Event) -> Result<(), StoreError> {
    let key = row.wanted.id.to_string();
    let sql = "INSERT INTO requests (id, identity, target, terms, digest, opened, expires, state) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    tx.change((TABLE, &key), event, |db| {
        db.prepare_cached(sql)?.execute(params![
            key,
            row.wanted.identity.as_str(),
            row.wanted.target.as_str(),
            terms,
            row.digest.as_str(),
            row.opened.to_string(),
            row.expires.to_string(),
            row.state.as_str(),
        ])
    })
}

/// It is over.
pub(crate) fn decide(
    tx: &mut Tx<'_>,
    id: RequestId,
    state: RequestState,
    decided: &Revoked,
    grant: Option<GrantId>,
    event: Event,
) -> Result<(), StoreError> {
    let key = id.to_string();
    let sql = "UPDATE requests SET state = ?2, decided_at = ?3, decided_by = ?4, decided_reason = ?5, grant_id = ?6 \
               WHERE id = ?1";
    tx.change((TABLE, &key), event, |db| {
        let (at, grant) = (decided.at.to_string(), grant.map(|grant| grant.to_string()));
        db.prepare_cached(sql)?.execute(params![key, state.as_str(), at, decided.by, decided.reason, grant])
    })
}

pub(crate) fn approve(tx: &mut Tx<'_>, id: RequestId, yes: &Approval, event: Event) -> Result<(), StoreError> {
    let sql = "INSERT INTO approvals (request, approver, digest, at, level, proof, signature) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.change((APPROVALS, &approval_key(id, &yes.by)), event, |db| {
        db.prepare_cached(sql)?.execute(params![
            id.to_string(),
            yes.by.as_str(),
            yes.digest.as_str(),
            yes.at.to_string(),
            yes.level,
            yes.proof.as_str(),
            yes.signature,
        ])
    })
}

/// Newest first. A store of a format without requests has none; a row that cannot be read is none.
pub(crate) fn all(db: &Connection) -> Result<Vec<RequestRow>, StoreError> {
    select(db, "SELECT * FROM requests ORDER BY id DESC", [])
}

/// Those that nobody has decided, as the rows say.
pub(crate) fn open(db: &Connection) -> Result<Vec<RequestRow>, StoreError> {
    select(db, "SELECT * FROM requests WHERE state = 'open' ORDER BY id", [])
}

/// Those of one identity, newest first.
pub(crate) fn of(db: &Connection, identity: &IdentityName) -> Result<Vec<RequestRow>, StoreError> {
    select(db, "SELECT * FROM requests WHERE identity = ?1 ORDER BY id DESC", [identity.as_str()])
}

/// Those of one identity that nobody has decided, newest first.
pub(crate) fn open_of(db: &Connection, identity: &IdentityName) -> Result<Vec<RequestRow>, StoreError> {
    let sql = "SELECT * FROM requests WHERE identity = ?1 AND state = 'open' ORDER BY id DESC";
    select(db, sql, [identity.as_str()])
}

/// When somebody opened the last request but so many.
pub(crate) fn opened_before(
    db: &Connection,
    identity: &IdentityName,
    later: u32,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT * FROM requests WHERE identity = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2";
    Ok(select(db, sql, params![identity.as_str(), later])?.pop().map(|row| row.opened))
}

pub(crate) fn by_id(db: &Connection, id: RequestId) -> Result<Option<RequestRow>, StoreError> {
    Ok(select(db, "SELECT * FROM requests WHERE id = ?1", [id.to_string()])?.pop())
}

fn select(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<RequestRow>, StoreError> {
    if !has_table(db, TABLE).map_err(fail)? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map(params, from_row).map_err(fail)?;
    let readable = |row: rusqlite::Result<RequestRow>| {
        row.inspect_err(|error| tracing::error!(%error, "a request cannot be read")).ok()
    };
    Ok(rows.filter_map(readable).collect())
}

/// In the order in which they were given.
pub(crate) fn approvals(db: &Connection, id: RequestId) -> Result<Vec<Approval>, StoreError> {
    let sql = "SELECT * FROM approvals WHERE request = ?1 ORDER BY at, approver";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map([id.to_string()], approval).map_err(fail)?;
    let readable = |row: rusqlite::Result<Approval>| {
        row.inspect_err(|error| tracing::error!(%error, "an approval cannot be read")).ok()
    };
    Ok(rows.filter_map(readable).collect())
}

fn approval(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        by: parsed(row, "approver")?,
        at: parsed(row, "at")?,
        level: row.get("level")?,
        proof: parsed(row, "proof")?,
        digest: RequestDigest::stored(row.get("digest")?),
        signature: row.get("signature")?,
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let terms: String = row.get("terms")?;
    let digest: String = row.get("digest")?;
    let wanted: Wanted = serde_json::from_str(&terms).map_err(unreadable)?;
    let (id, identity): (RequestId, IdentityName) = (parsed(row, "id")?, parsed(row, "identity")?);
    if RequestDigest::of(&terms).as_str() != digest || wanted.id != id || wanted.identity != identity {
        return Err(unreadable(std::io::Error::other("its terms are not those of its digest")));
    }
    let at: Option<String> = row.get("decided_at")?;
    let decided = match at {
        None => None,
        Some(at) => Some(Revoked {
            at: at.parse().map_err(unreadable)?,
            by: row.get::<_, Option<String>>("decided_by")?.unwrap_or_default(),
            reason: row.get("decided_reason")?,
        }),
    };
    let grant: Option<String> = row.get("grant_id")?;
    Ok(RequestRow {
        wanted,
        digest: RequestDigest::stored(digest),
        opened: parsed(row, "opened")?,
        expires: parsed(row, "expires")?,
        state: parsed(row, "state")?,
        decided,
        grant: grant.map(|grant| grant.parse().map_err(unreadable)).transpose()?,
    })
}
