//! What auditors run: verification and listing straight from the file, read-only, beside a running gateway or without.

use super::{FILE, StoreError, fail, file_error, marker::Made, migrations, open_to_read, parsed, unreadable};
use crate::{
    ledger::{Described, Entry, Event, Verdict, chain::ENTRY, verify::inspect},
    reference::Reference,
};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row};
use std::path::Path;

/// Verifies a store's ledger and every row of state against it, read-only, without a running gateway (`ledger verify`).
pub fn verify(dir: &Path, public: [u8; 32]) -> Result<Verdict, StoreError> {
    // Before the snapshot: a gateway that runs beside us counts on.
    let made = Made::read(dir);
    let db = open(dir)?;
    let snapshot = db.unchecked_transaction().map_err(fail)?;
    // A store without a ledger is a fault to name, not an error.
    if let Err(newer @ StoreError::TooNew { .. }) = migrations::refuse_newer(&snapshot) {
        return Err(newer);
    }
    let mut found = inspect(&snapshot, &public, None);
    found.faults.extend(made.and_then(|made| made.fault(&snapshot)));
    Ok(found.into())
}

/// The last `count` entries (all, if none), oldest first, read-only, without a running gateway (`ledger tail`).
pub fn read(dir: &Path, count: Option<u64>) -> Result<Vec<Entry>, StoreError> {
    tail(&open(dir)?, count)
}

pub(super) fn open(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(FILE);
    // SQLite would say only "unable to open database file".
    std::fs::metadata(&path).map_err(|e| match Made::read(dir) {
        Some(_) => StoreError::Damaged(format!("{}: {e}, but store.made says that there was a store", path.display())),
        None => file_error(&path, &e),
    })?;
    let db = open_to_read(&path).map_err(fail)?;
    let readable = db.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()));
    if readable.is_ok() || dir.join(format!("{FILE}-wal")).exists() {
        return readable.map(|()| db).map_err(fail);
    }
    // A copy on read-only media: without a place for the WAL's index, but with no WAL either.
    let uri = format!("file:{}?immutable=1", escaped(&path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags).map_err(fail)
}

/// A path inside a URI (RFC 3986 section 2.1).
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    let one = |b: &u8| if plain(*b) { char::from(*b).to_string() } else { format!("%{b:02X}") };
    path.as_os_str().as_bytes().iter().map(one).collect()
}

/// The last entries over all chains, oldest first.
pub(crate) fn tail(db: &Connection, count: Option<u64>) -> Result<Vec<Entry>, StoreError> {
    let count = count.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)); // -1: no limit
    let sql = format!("SELECT {ENTRY}, hash FROM ledger ORDER BY place DESC LIMIT ?1");
    let mut statement = db.prepare(&sql).map_err(fail)?;
    let rows = statement.query_map([count], from_row).map_err(fail)?;
    let mut entries = rows.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    entries.reverse();
    Ok(entries)
}

/// Up to so many entries of one chain behind this one, oldest first.
pub(crate) fn after(db: &Connection, node: &str, seq: u64, most: u32) -> Result<Vec<Entry>, StoreError> {
    let sql = format!("SELECT {ENTRY}, hash FROM ledger WHERE node = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
    let mut statement = db.prepare_cached(&sql).map_err(fail)?;
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let rows = statement.query_map(rusqlite::params![node, seq, most], from_row).map_err(fail)?;
    rows.collect::<Result<Vec<_>, _>>().map_err(fail)
}

/// When entries of these kinds were written, from then on, oldest first.
pub(crate) fn moments_of(db: &Connection, kinds: &[String], since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
    let sql = "SELECT at FROM ledger WHERE kind = ?1 ORDER BY place";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let mut moments = Vec::new();
    for kind in kinds {
        let rows = statement.query_map([kind], |row| parsed::<Timestamp>(row, "at")).map_err(fail)?;
        moments.extend(rows.collect::<Result<Vec<_>, _>>().map_err(fail)?.into_iter().filter(|at| *at >= since));
    }
    moments.sort_unstable();
    Ok(moments)
}

/// How many entries about one visit are looked at: what a session was refused over and over says nothing new.
const MOST_OF_A_VISIT: u32 = 64;

/// What was refused of the visit with this reference, oldest first.
pub(crate) fn refused(db: &Connection, reference: Reference) -> Result<Vec<Entry>, StoreError> {
    // The words that say no come first, and are found without a look into each entry.
    let sql = format!(
        "SELECT {ENTRY}, hash FROM ledger WHERE kind IN ('session.denied', 'session.cut', 'session.failed', \
         'door.refused', 'forward.refused', 'files.refused', 'channel.refused') AND json_extract(detail, '$.ref') = ?1 \
         ORDER BY place DESC LIMIT {MOST_OF_A_VISIT}"
    );
    let mut statement = db.prepare_cached(&sql).map_err(fail)?;
    let rows = statement.query_map([reference.to_string()], from_row).map_err(fail)?;
    let mut entries = rows.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    entries.reverse();
    Ok(entries)
}

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let (table, key, digest) = (row.get("row_table")?, row.get("row_key")?, row.get("row_digest")?);
    let described = match (table, key, digest) {
        (Some(table), Some(key), Some(digest)) => Some(Described { table, key, digest }),
        _ => None,
    };
    Ok(Entry {
        node: row.get("node")?,
        seq: row.get::<_, i64>("seq")?.try_into().map_err(unreadable)?,
        at: parsed(row, "at")?,
        config: row.get("config")?,
        event: Event {
            kind: row.get("kind")?,
            session: perhaps(row, "session")?,
            identity: row.get("identity")?,
            target: perhaps(row, "target")?,
            grant: perhaps(row, "grant_id")?,
            lease: perhaps(row, "lease")?,
            detail: serde_json::from_str(&row.get::<_, String>("detail")?).map_err(unreadable)?,
        },
        row: described,
        prev: row.get("prev")?,
        hash: row.get("hash")?,
    })
}

fn perhaps<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(unreadable)).transpose()
}
