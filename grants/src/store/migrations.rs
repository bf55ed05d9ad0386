//! The store's format, and how an older one becomes the present one.
//!
//! What always holds: a store of an older format is first verified whole *in its own format*, and migrated only if it is
//! trusted, by the one connection that writes, in one transaction that also enters each step in the ledger
//! (`store.migrated`). So a gateway killed at any instruction leaves the old format or the new one, a store that was
//! tampered with stays as it was found (and opens for teardown), and what is migrated was vouched for before and is after.
//!
//! Which format a store has is what its ledger says, and the ledger is signed. Rules for a new migration: it is a new file in
//! `migrations/`, never an edit of an old one, and [`verify::STATE`](crate::ledger::verify) says since when its tables exist.
//! If it changes tables that have rows, the digests of those rows change with it, so [`upgrade`] must then enter those rows anew.

use super::{
    StoreError, fail,
    writer::{Tx, Writer},
};
use crate::ledger::{Event, verify};
use jiff::Timestamp;
use refinery::{Migration, Target};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

mod embedded {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    refinery::embed_migrations!("migrations");
}

/// Where refinery keeps what was applied.
const HISTORY: &str = "refinery_schema_history";

/// All that this program knows, oldest first.
fn known() -> Vec<Migration> {
    let mut known = embedded::migrations::runner().get_migrations().clone();
    known.sort_by_key(Migration::version);
    known
}

fn format_of(migration: &Migration) -> u32 {
    u32::try_from(migration.version()).unwrap_or(0)
}

/// The newest format that this program knows.
pub(crate) fn newest() -> u32 {
    known().last().map_or(0, format_of)
}

/// Makes the tables of a new store, in this format. Refuses one that a newer program has written.
pub(crate) fn run(db: &mut Connection, format: u32) -> Result<(), StoreError> {
    if has_table(db, "ledger").map_err(fail)? {
        // Its history may have been tampered with, which verification names; refinery would just refuse to open.
        return refuse_newer(db);
    }
    let runner = embedded::migrations::runner().set_target(Target::Version(format.try_into().unwrap_or_default()));
    runner.run(db).map_err(|error| StoreError::Database(error.to_string()))?;
    Ok(())
}

/// The format that the ledger says, if it says one.
pub(crate) fn format(db: &Connection) -> rusqlite::Result<Option<u32>> {
    let sql = "SELECT row_key FROM ledger WHERE row_table = ?1 ORDER BY place DESC LIMIT 1";
    let found: Option<String> = db.query_row(sql, [HISTORY], |row| row.get(0)).optional()?;
    Ok(found.and_then(|format| format.parse().ok()))
}

/// A newer program would have entered its migration in the ledger. A number that the ledger does not know is an edit.
pub(crate) fn refuse_newer(db: &Connection) -> Result<(), StoreError> {
    let (found, known) = (format(db).map_err(fail)?.unwrap_or(0), newest());
    if found > known { Err(StoreError::TooNew { found, known }) } else { Ok(()) }
}

/// Brings a store of an older format to this one, if it is trusted.
pub(crate) fn upgrade(writer: &mut Writer, format: u32, now: Timestamp) -> Result<(), StoreError> {
    let steps = known();
    writer.transact(now, |tx| {
        let Some(from) = self::format(tx.db()).map_err(fail)?.filter(|from| *from < format) else { return Ok(()) };
        if tx.trusted().is_err() {
            tracing::error!(from, "the store stays in its old format: it does not agree with its ledger");
            return Ok(());
        }
        for step in steps.iter().filter(|step| (from + 1..=format).contains(&format_of(step))) {
            take(tx, step)?;
            tracing::info!(from, to = format_of(step), "the store was brought to a newer format");
        }
        Ok(())
    })
}

/// One step: its SQL, and the row that refinery would write, both entered in the ledger.
fn take(tx: &mut Tx<'_>, step: &Migration) -> Result<(), StoreError> {
    let format = format_of(step);
    let sql = step.sql().ok_or(StoreError::Refused("a migration without its SQL"))?;
    let event = || Event::new("store.migrated").detail(json!({ "format": format.to_string() }));
    tx.change((verify::SCHEMA, verify::SCHEMA_KEY), event(), |db| db.execute_batch(sql).map(|()| 0))?;
    let (at, checksum) = (tx.now().to_string(), step.checksum().to_string());
    let insert = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (?1, ?2, ?3, ?4)";
    tx.change((HISTORY, &format.to_string()), event(), |db| {
        db.execute(insert, params![format, step.name(), at, checksum])
    })
}

pub(crate) fn has_table(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1", [name], |row| {
        row.get::<_, i64>(0).map(|n| n > 0)
    })
}
