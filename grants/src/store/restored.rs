//! A copy of the store for a backup, and what a store that came out of one may do.
//!
//! What always holds: nothing that a backup holds opens anything by itself. What was revoked, used or voided after it was made
//! is not known in it, so before a restored store serves anybody, every grant and token in it is revoked, every login from elsewhere over and every password
//! gone, with entries of their own; and a grant from outside that was signed before then is not taken in again.

use super::{
    FILE, StoreError, fail, file_error,
    marker::Marker,
    offline,
    writer::{Tx, Writer},
};
use crate::{
    grant::Revoked,
    ledger::Event,
    name::{IdentityName, TargetName},
    request::RequestState,
};
use jiff::Timestamp;
use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
    params,
};
use serde_json::{Value, json};
use std::{fs, io, path::Path, time::Duration};

/// In a state directory that came out of a backup and has not served yet: the backup's manifest.
pub const RESTORED: &str = "restored";
const EVENT: &str = "store.restored";
/// A lock on the store is a matter of milliseconds.
const TRIES: u32 = 200;
const BETWEEN: Duration = Duration::from_millis(50);
/// Who revokes.
const BY: &str = "restore";

/// Copies one moment of the store in `dir` into another directory, also while a gateway writes to it.
///
/// # Errors
/// [`StoreError`]: it cannot be read, or the copy cannot be written.
pub fn copy(dir: &Path, into: &Path) -> Result<(), StoreError> {
    let from = offline::open(dir)?;
    let path = into.join(FILE);
    super::make_private(&path)?;
    let mut to = Connection::open(&path).map_err(fail)?;
    whole(&from, &mut to)?;
    // One file, without a log beside it.
    to.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(fail)?;
    let node: String =
        to.query_row("SELECT node FROM ledger ORDER BY place DESC LIMIT 1", [], |row| row.get(0)).map_err(fail)?;
    Marker::create(into, &node, &to).map_err(|error| file_error(into, &error))?;
    Ok(())
}

/// All pages in one step, so that no writer comes between; tried again while somebody holds a lock.
fn whole(from: &Connection, to: &mut Connection) -> Result<(), StoreError> {
    const ALL: i32 = -1;
    let backup = Backup::new(from, to).map_err(fail)?;
    for _ in 0..TRIES {
        if backup.step(ALL).map_err(fail)? == StepResult::Done {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
    }
    Err(StoreError::Database("the store is locked by somebody".to_owned()))
}

/// Before a store that came out of a backup serves anybody. Done once: the marker goes when it is in the ledger.
pub(super) fn void(writer: &mut Writer, dir: &Path) -> Result<(), StoreError> {
    let marker = dir.join(RESTORED);
    let manifest = match fs::read_to_string(&marker) {
        Ok(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file_error(&marker, &error)),
    };
    let now = Timestamp::now();
    let grants = writer.transact(now, |tx| {
        let grants = revoke_all(tx)?;
        let passwords = void_all(tx)?;
        let tokens = revoke_tokens(tx)?;
        super::guests::end_all(tx, None, "restored from a backup: log in anew", now)?;
        // One that was denied or taken back since the backup would be open again: who still wants it asks again.
        let requests = cancel_requests(tx)?;
        // One that was spent since the backup would be good again.
        let codes = super::factors::void_recovery(tx)?;
        let detail = json!({
            "backup": manifest, "grants": grants, "passwords": passwords, "tokens": tokens, "requests": requests,
            "recovery_codes": codes,
        });
        tx.append(Event::new(EVENT).detail(detail))?;
        Ok(grants)
    })?;
    tracing::warn!(grants, "this state came out of a backup: all its grants are revoked, issue them anew");
    fs::remove_file(&marker).map_err(|error| file_error(&marker, &error))?;
    super::sync(dir)
}

fn revoke_all(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let open: Vec<(String, IdentityName, TargetName)> = {
        let sql = "SELECT id, identity, target FROM grants WHERE revoked_at IS NULL AND exp > ?1";
        let mut statement = tx.db().prepare(sql).map_err(fail)?;
        let rows = statement
            .query_map([tx.now().as_second()], |row| {
                Ok((row.get("id")?, super::parsed(row, "identity")?, super::parsed(row, "target")?))
            })
            .map_err(fail)?;
        rows.collect::<Result<_, _>>().map_err(fail)?
    };
    let (at, reason) = (tx.now().to_string(), "restored from a backup: issue it anew");
    for (id, identity, target) in &open {
        let mut event = Event::new("grant.revoked").identity(identity).target(target);
        event.grant = id.parse().ok();
        let event = event.detail(json!({ "by": BY, "reason": reason }));
        let sql = "UPDATE grants SET revoked_at = ?2, revoked_by = ?3, revoked_reason = ?4 WHERE id = ?1";
        tx.change(("grants", id), event, |db| db.prepare_cached(sql)?.execute(params![id, at, BY, reason]))?;
    }
    Ok(open.len())
}

/// A store of a format without requests has none.
fn cancel_requests(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let why = Some("restored from a backup: ask again".to_owned());
    let revoked = Revoked { at: tx.now(), by: BY.to_owned(), reason: why };
    let open = super::requests::open(tx.db())?;
    for row in &open {
        let (id, (identity, target)) = (row.wanted.id, row.of());
        let detail = json!({ "request": id, "by": revoked.by, "reason": revoked.reason });
        let event = Event::new("request.cancelled").identity(identity).target(target).detail(detail);
        super::requests::decide(tx, id, RequestState::Cancelled, &revoked, None, event)?;
    }
    Ok(open.len())
}

/// A store of a format without tokens has none.
fn revoke_tokens(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let (by, reason) = (BY.to_owned(), Some("restored from a backup: make a new one".to_owned()));
    super::tokens::revoke_all(tx, None, &Revoked { at: tx.now(), by, reason }, tx.now())
}

fn void_all(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let whose: Vec<IdentityName> = {
        let mut statement = tx.db().prepare("SELECT DISTINCT identity FROM passwords").map_err(fail)?;
        let rows = statement.query_map([], |row| super::parsed(row, "identity")).map_err(fail)?;
        rows.collect::<Result<_, _>>().map_err(fail)?
    };
    let now = tx.now();
    whose.iter().try_fold(0, |count, identity| Ok(count + super::passwords::void_all(tx, identity, now)?))
}

/// When this store last came out of a backup.
pub(crate) fn restored_at(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT max(at) FROM ledger WHERE kind = ?1";
    let at: Option<String> = db.query_row(sql, [EVENT], |row| row.get(0)).map_err(fail)?;
    Ok(at.and_then(|at| at.parse().ok()))
}
