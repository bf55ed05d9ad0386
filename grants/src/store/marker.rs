//! `DIR/store.made`: outside the database, that there is one, and how far its ledger had come.
//!
//! An emptied or lost database, or one without its last changes, agrees with itself. This file is what says that there
//! was more, so that a store with open leases never silently becomes a new one. It is written durably when the store is
//! made; the count is brought up to date after each commit without an fsync, so after a power cut it may be behind the
//! ledger, which is fine, but it is never ahead of it.

use super::FILE;
use jiff::Timestamp;
use rusqlite::Connection;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

const NAME: &str = "store.made";

/// What the file says.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// The last place in the ledger when it was last written.
    place: i64,
}

impl Made {
    /// `None` if no store was ever made here. What cannot be read counts as made.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = match fs::read(dir.join(NAME)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => String::new(),
        };
        Some(Self { place: text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(1) })
    }

    /// What the database lacks.
    pub(crate) fn fault(&self, db: &Connection) -> Option<String> {
        let last = last_place(db);
        let advice = "restore a backup with its own store.made; which leases are open on targets is not known here";
        match self.place {
            place if last >= place.max(1) => None,
            _ if last == 0 => {
                Some(format!("ledger: {NAME} says that there was one, but it is empty or lost: {advice}"))
            }
            place => Some(format!("ledger: {NAME} says that it had {place} places, but it ends at {last}: {advice}")),
        }
    }
}

/// The last place of the ledger; 0 if there is none, or it cannot be read.
fn last_place(db: &Connection) -> i64 {
    db.query_row("SELECT coalesce(max(place), 0) FROM ledger", [], |row| row.get(0)).unwrap_or(0)
}

/// The file, held open to keep the count.
#[derive(Debug)]
pub(crate) struct Marker(Option<File>);

impl Marker {
    /// Opens the one that is there.
    pub(crate) fn open(dir: &Path) -> Self {
        let file = OpenOptions::new().write(true).open(dir.join(NAME));
        Self(file.inspect_err(|error| tracing::error!(%error, "{NAME} cannot be kept up to date")).ok())
    }

    /// Makes it, durably: under another name first, so that there is never half of one.
    pub(crate) fn create(dir: &Path, node: &str, db: &Connection) -> io::Result<Self> {
        let draft = dir.join(format!("{NAME}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let what = format!("{FILE} of node {node}, first noted {}", Timestamp::now());
        writeln!(file, "{:020} places in the ledger of {what}", last_place(db))?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(NAME))?;
        File::open(dir)?.sync_all()?;
        Ok(Self(Some(file)))
    }

    /// None, for a directory that does not take one.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// After the commit of this place. In place and of one length, so it is never half written.
    pub(crate) fn keep(&self, place: i64) {
        if let Some(file) = &self.0
            && let Err(error) = file.write_all_at(format!("{place:020}").as_bytes(), 0)
        {
            tracing::error!(%error, "{NAME} could not be brought up to date");
        }
    }
}
