//! Rows of the table of tokens. A row that the ledger does not vouch for is no token.

use super::{StoreError, fail, migrations::has_table, parsed, unreadable, writer::Tx};
use crate::{
    grant::Revoked,
    ledger::Event,
    name::{IdentityName, TokenId},
    token::{TokenHash, TokenScope},
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

/// Ledger entries and digests go by this.
pub(crate) const TABLE: &str = "tokens";

/// One token as stored, but for its hash.
#[derive(Debug, Clone)]
pub(crate) struct TokenRow {
    pub(crate) id: TokenId,
    pub(crate) identity: IdentityName,
    pub(crate) label: String,
    pub(crate) scope: TokenScope,
    pub(crate) created_at: Timestamp,
    pub(crate) created_by: IdentityName,
    pub(crate) expires: Timestamp,
    pub(crate) revoked: Option<Revoked>,
}

pub(crate) fn insert(tx: &mut Tx<'_>, row: &TokenRow, hash: &TokenHash) -> Result<(), StoreError> {
    let key = row.id.to_string();
    let detail = json!({
        "token": key, "label": row.label, "scope": row.scope, "by": row.created_by, "expires": row.expires
    });
    let sql = "INSERT INTO tokens (id, identity, label, hash, scope, created_at, created_by, expires) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    tx.change((TABLE, &key), Event::new("token.issued").identity(&row.identity).detail(detail), |db| {
        db.prepare_cached(sql)?.execute(params![
            key,
            row.identity.as_str(),
            row.label,
            hash.as_str(),
            row.scope.as_str(),
            row.created_at.to_string(),
            row.created_by.as_str(),
            row.expires.to_string(),
        ])
    })
}

pub(crate) fn revoke(tx: &mut Tx<'_>, row: &TokenRow, revoked: &Revoked) -> Result<(), StoreError> {
    let key = row.id.to_string();
    let detail = json!({ "token": key, "by": revoked.by, "reason": revoked.reason });
    let sql = "UPDATE tokens SET revoked_at = ?2, revoked_by = ?3, revoked_reason = ?4 WHERE id = ?1";
    tx.change((TABLE, &key), Event::new("token.revoked").identity(&row.identity).detail(detail), |db| {
        db.prepare_cached(sql)?.execute(params![key, revoked.at.to_string(), revoked.by, revoked.reason])
    })
}

/// Revokes every token that is not revoked, of this identity or of all; how many had not expired. A store of a format without tokens
/// has none.
pub(crate) fn revoke_all(
    tx: &mut Tx<'_>,
    of: Option<&IdentityName>,
    revoked: &Revoked,
    now: Timestamp,
) -> Result<usize, StoreError> {
    if !has_table(tx.db(), TABLE).map_err(fail)? {
        return Ok(0);
    }
    let sql = "SELECT * FROM tokens WHERE revoked_at IS NULL AND (?1 IS NULL OR identity = ?1 OR created_by = ?1)";
    let all = select(tx.db(), sql, [of.map(IdentityName::as_str)])?;
    for row in &all {
        revoke(tx, row, revoked)?;
    }
    Ok(all.iter().filter(|row| now < row.expires).count())
}

/// The row of a token that has ended goes.
pub(crate) fn forget(tx: &mut Tx<'_>, token: TokenId) -> Result<(), StoreError> {
    let key = token.to_string();
    let event = Event::new("token.forgotten").detail(json!({ "token": key }));
    tx.remove((TABLE, &key), event, |db| db.prepare_cached("DELETE FROM tokens WHERE id = ?1")?.execute([&key]))
}

pub(crate) fn by_hash(db: &Connection, hash: &TokenHash) -> Result<Option<TokenRow>, StoreError> {
    let mut statement = db.prepare_cached("SELECT * FROM tokens WHERE hash = ?1").map_err(fail)?;
    statement.query_row([hash.as_str()], from_row).optional().map_err(fail)
}

pub(crate) fn by_id(db: &Connection, id: TokenId) -> Result<Option<TokenRow>, StoreError> {
    let mut statement = db.prepare_cached("SELECT * FROM tokens WHERE id = ?1").map_err(fail)?;
    statement.query_row([id.to_string()], from_row).optional().map_err(fail)
}

/// Newest first: all of them, or those of one identity.
pub(crate) fn list(db: &Connection, of: Option<&IdentityName>) -> Result<Vec<TokenRow>, StoreError> {
    let sql = "SELECT * FROM tokens WHERE ?1 IS NULL OR identity = ?1 ORDER BY id DESC";
    select(db, sql, [of.map(IdentityName::as_str)])
}

/// Rows that cannot be read are no tokens.
fn select(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<TokenRow>, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map(params, from_row).map_err(fail)?;
    let readable = |row: rusqlite::Result<TokenRow>| {
        row.inspect_err(|error| tracing::error!(%error, "a token cannot be read")).ok()
    };
    Ok(rows.filter_map(readable).collect())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    let at: Option<String> = row.get("revoked_at")?;
    let revoked = match at {
        None => None,
        Some(at) => Some(Revoked {
            at: at.parse().map_err(unreadable)?,
            by: row.get::<_, Option<String>>("revoked_by")?.unwrap_or_default(),
            reason: row.get("revoked_reason")?,
        }),
    };
    Ok(TokenRow {
        id: parsed(row, "id")?,
        identity: parsed(row, "identity")?,
        label: row.get("label")?,
        scope: parsed(row, "scope")?,
        created_at: parsed(row, "created_at")?,
        created_by: parsed(row, "created_by")?,
        expires: parsed(row, "expires")?,
        revoked,
    })
}
