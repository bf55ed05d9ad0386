//! The store's format, and how an older one becomes the present one.
//!
//! Rules for a new migration: it is a new file in `migrations/`, never an edit of an old one. If it changes tables that
//! have rows, the digests of those rows change with it, so the same change must have them entered in the ledger anew,
//! after the old format was verified.

use super::{StoreError, fail};
use rusqlite::{Connection, OptionalExtension};

mod embedded {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    refinery::embed_migrations!("migrations");
}

/// The newest format that this program knows.
pub(crate) fn newest() -> u32 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .map_or(0, |v| u32::try_from(v).unwrap_or(0))
}

/// Makes the tables of a new store. Refuses one that a newer program has written.
pub(crate) fn run(db: &mut Connection) -> Result<(), StoreError> {
    if has_table(db, "ledger").map_err(fail)? {
        // Its history may have been tampered with, which verification names; refinery would just refuse to open.
        return refuse_newer(db);
    }
    embedded::migrations::runner().run(db).map_err(|error| StoreError::Database(error.to_string()))?;
    Ok(())
}

/// A newer program would have entered its migration in the ledger. A number that the ledger does not know is an edit.
pub(crate) fn refuse_newer(db: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT row_key FROM ledger WHERE row_table = 'refinery_schema_history' ORDER BY place DESC LIMIT 1";
    let found: Option<String> = db.query_row(sql, [], |row| row.get(0)).optional().map_err(fail)?;
    let (found, known) = (found.and_then(|v| v.parse().ok()).unwrap_or(0), newest());
    if found > known { Err(StoreError::TooNew { found, known }) } else { Ok(()) }
}

fn has_table(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1", [name], |row| {
        row.get::<_, i64>(0).map(|n| n > 0)
    })
}
