//! Rows of the table of reviews. One that cannot be read is an error: a review that is owed must not vanish from the lists.

use super::{Store, StoreError, fail, migrations::has_table, parsed, unreadable, writer::Tx};
use crate::{
    ledger::Event,
    name::{EntitlementName, GrantId, IdentityName, SessionId, TargetName},
    review::ReviewSigned,
};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::json;

/// Ledger entries and digests go by this.
pub(crate) const TABLE: &str = "reviews";

/// One review as stored.
#[derive(Debug, Clone)]
pub(crate) struct ReviewRow {
    /// The grant's id too.
    pub(crate) id: GrantId,
    pub(crate) identity: IdentityName,
    pub(crate) target: TargetName,
    pub(crate) entitlement: EntitlementName,
    pub(crate) reason: Option<String>,
    pub(crate) opened: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) signed: Option<ReviewSigned>,
}

/// From now on it is owed.
pub(crate) fn demand(tx: &mut Tx<'_>, row: &ReviewRow) -> Result<(), StoreError> {
    let key = row.id.to_string();
    let detail = json!({ "entitlement": row.entitlement, "reason": row.reason, "until": row.until });
    let sql = "INSERT INTO reviews (id, identity, target, entitlement, reason, opened, until) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.change((TABLE, &key), about("review.demanded", row).detail(detail), |db| {
        db.prepare_cached(sql)?.execute(params![
            key,
            row.identity.as_str(),
            row.target.as_str(),
            row.entitlement.as_str(),
            row.reason,
            row.opened.to_string(),
            row.until.to_string(),
        ])
    })
}

/// It is owed no longer.
pub(crate) fn sign(tx: &mut Tx<'_>, row: &ReviewRow, signed: &ReviewSigned) -> Result<(), StoreError> {
    let key = row.id.to_string();
    let detail = json!({ "by": signed.by, "note": signed.note, "proof": "attested" });
    let sql = "UPDATE reviews SET signed_at = ?2, signed_by = ?3, note = ?4 WHERE id = ?1";
    tx.change((TABLE, &key), about("review.signed", row).detail(detail), |db| {
        db.prepare_cached(sql)?.execute(params![key, signed.at.to_string(), signed.by.as_str(), signed.note])
    })
}

fn about(kind: &str, row: &ReviewRow) -> Event {
    Event::new(kind).identity(&row.identity).target(&row.target).grant(row.id)
}

/// Those that are owed, then the others; newest first. A store of a format without reviews has none.
pub(crate) fn list(db: &Connection) -> Result<Vec<ReviewRow>, StoreError> {
    if !has_table(db, TABLE).map_err(fail)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT * FROM reviews ORDER BY signed_at IS NOT NULL, id DESC";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map([], from_row).map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

/// The sessions of a grant, oldest first.
pub(crate) fn sessions(db: &Connection, grant: GrantId) -> Result<Vec<SessionId>, StoreError> {
    let mut statement = db.prepare_cached("SELECT id FROM sessions WHERE grant_id = ?1 ORDER BY id").map_err(fail)?;
    let rows = statement.query_map([grant.to_string()], |row| parsed(row, "id")).map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ReviewRow> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let signed = match (text("signed_at")?, text("signed_by")?) {
        (None, _) => None,
        (Some(at), by) => Some(ReviewSigned {
            at: at.parse().map_err(unreadable)?,
            by: by.unwrap_or_default().parse().map_err(unreadable)?,
            note: text("note")?.unwrap_or_default(),
        }),
    };
    Ok(ReviewRow {
        id: parsed(row, "id")?,
        identity: parsed(row, "identity")?,
        target: parsed(row, "target")?,
        entitlement: parsed(row, "entitlement")?,
        reason: text("reason")?,
        opened: parsed(row, "opened")?,
        until: parsed(row, "until")?,
        signed,
    })
}

impl Store {
    /// How many reviews are owed.
    pub async fn reviews_owed(&self) -> Result<usize, StoreError> {
        self.read(|db| Ok(list(db)?.iter().filter(|row| row.signed.is_none()).count())).await
    }
}
