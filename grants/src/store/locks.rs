//! Rows of the table of locks. One that cannot be read is an error, and an error denies: else a damaged row would open what it locks.

use super::{Store, StoreError, fail, migrations::has_table, parsed, unreadable, writer::Tx};
use crate::{
    grant::Revoked,
    ledger::Event,
    lock::{LockScope, Locked},
    name::{IdentityName, LockId},
};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::json;

/// Ledger entries and digests go by this.
pub(crate) const TABLE: &str = "locks";

/// One lock as stored.
#[derive(Debug, Clone)]
pub(crate) struct LockRow {
    pub(crate) lock: Locked,
    pub(crate) created_at: Timestamp,
    pub(crate) removed: Option<Revoked>,
}

impl LockRow {
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.removed.is_none() && self.lock.until.is_none_or(|until| now < until)
    }
}

pub(crate) fn insert(tx: &mut Tx<'_>, row: &LockRow) -> Result<(), StoreError> {
    let Locked { id, scope, reason, by, until } = &row.lock;
    let (key, (what, name)) = (id.to_string(), scope.parts());
    let detail = json!({ "lock": key, "scope": scope, "by": by, "reason": reason, "until": until });
    let sql = "INSERT INTO locks (id, what, name, reason, created_at, created_by, until) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    tx.change((TABLE, &key), about("lock.added", scope).detail(detail), |db| {
        let until = until.map(|until| until.to_string());
        let at = row.created_at.to_string();
        db.prepare_cached(sql)?.execute(params![key, what, name, reason, at, by.as_str(), until])
    })
}

pub(crate) fn remove(tx: &mut Tx<'_>, row: &LockRow, removed: &Revoked) -> Result<(), StoreError> {
    let key = row.lock.id.to_string();
    let detail = json!({ "lock": key, "scope": row.lock.scope, "by": removed.by, "reason": removed.reason });
    let sql = "UPDATE locks SET removed_at = ?2, removed_by = ?3, removed_reason = ?4 WHERE id = ?1";
    tx.change((TABLE, &key), about("lock.removed", &row.lock.scope).detail(detail), |db| {
        db.prepare_cached(sql)?.execute(params![key, removed.at.to_string(), removed.by, removed.reason])
    })
}

fn about(kind: &str, scope: &LockScope) -> Event {
    match scope {
        LockScope::User(name) => Event::new(kind).identity(name),
        LockScope::Target(name) => Event::new(kind).target(name),
        LockScope::All => Event::new(kind),
    }
}

/// Those that hold at this moment, oldest first. A store of a format without locks has none.
pub(crate) fn holding(db: &Connection, now: Timestamp) -> Result<Vec<LockRow>, StoreError> {
    if !has_table(db, TABLE).map_err(fail)? {
        return Ok(Vec::new());
    }
    let mut rows = select(db, "SELECT * FROM locks WHERE removed_at IS NULL ORDER BY id")?;
    rows.retain(|row| row.holds(now));
    Ok(rows)
}

/// All of them, newest first.
pub(crate) fn list(db: &Connection) -> Result<Vec<LockRow>, StoreError> {
    select(db, "SELECT * FROM locks ORDER BY id DESC")
}

fn select(db: &Connection, sql: &str) -> Result<Vec<LockRow>, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map([], from_row).map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<LockRow> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let time = |column: &str| text(column)?.map(|at| at.parse::<Timestamp>().map_err(unreadable)).transpose();
    let scope = match row.get::<_, String>("what")?.as_str() {
        "user" => LockScope::User(parsed(row, "name")?),
        "target" => LockScope::Target(parsed(row, "name")?),
        _ => LockScope::All,
    };
    let (id, by): (LockId, IdentityName) = (parsed(row, "id")?, parsed(row, "created_by")?);
    let removed = match time("removed_at")? {
        None => None,
        Some(at) => Some(Revoked { at, by: text("removed_by")?.unwrap_or_default(), reason: text("removed_reason")? }),
    };
    let lock = Locked { id, scope, reason: row.get("reason")?, by, until: time("until")? };
    Ok(LockRow { lock, created_at: parsed(row, "created_at")?, removed })
}

impl Store {
    /// How many locks keep somebody out at this moment.
    pub async fn locks_held(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.read(move |db| Ok(holding(db, now)?.len())).await
    }
}
