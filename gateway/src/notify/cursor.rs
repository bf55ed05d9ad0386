//! Where a channel is in the ledger: a small file of its own, `state/notify/NAME.json`, replaced whole.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// So many dead letters are kept; of more than that the ledger alone knows (`notify.dead`).
const MOST_DEAD: usize = 1000;

/// Where one channel is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The last entry that it is done with.
    pub(super) seq: u64,
    /// The one that is being tried, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failing: Option<Failing>,
    /// What was given up, oldest first.
    #[serde(default)]
    pub(super) dead: Vec<Dead>,
    /// What was given up and is to be tried again, oldest first.
    #[serde(default)]
    pub(super) again: Vec<u64>,
}

/// An entry that was not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failing {
    pub(super) seq: u64,
    /// Since the first try.
    pub(super) since: Timestamp,
    pub(super) tries: u32,
    pub(super) error: String,
}

/// An entry that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Dead {
    /// Its number in the ledger.
    pub(crate) seq: u64,
    /// What happened.
    pub(crate) kind: String,
    /// When.
    pub(crate) at: Timestamp,
    /// Why nobody was told.
    pub(crate) error: String,
}

impl Cursor {
    pub(super) fn at(seq: u64) -> Self {
        Self { seq, ..Self::default() }
    }

    /// Done with this entry: told, or given up.
    pub(super) fn done(&mut self, seq: u64) {
        self.failing = None;
        self.again.retain(|again| *again != seq);
        self.seq = self.seq.max(seq);
        let excess = self.dead.len().saturating_sub(MOST_DEAD - 1);
        self.dead.drain(..excess);
    }

    /// Takes what was given up again.
    pub(super) fn revive(&mut self) {
        self.again.extend(self.dead.drain(..).map(|dead| dead.seq));
        self.again.sort_unstable();
        self.again.dedup();
    }

    /// `None`: it is a new channel.
    pub(super) fn read(folder: &Path, name: &str) -> io::Result<Option<Self>> {
        match fs::read(folder.join(format!("{name}.json"))) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whole or not at all, and on disk.
    pub(super) fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (new, file) = (folder.join(format!(".{name}.new")), folder.join(format!("{name}.json")));
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        out.sync_all()?;
        fs::rename(new, file)?;
        fs::File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_comes_back_once_and_its_place_in_the_ledger_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Cursor::read(dir.path(), "ops").unwrap(), None);
        let mut cursor = Cursor::at(40);
        let dead =
            |seq| Dead { seq, kind: "lease.held".to_owned(), at: Timestamp::UNIX_EPOCH, error: "gone".to_owned() };
        cursor.done(42);
        cursor.dead.extend([dead(42), dead(41)]);
        cursor.revive();
        assert_eq!((cursor.again.clone(), cursor.dead.len(), cursor.seq), (vec![41, 42], 0, 42));
        cursor.done(41);
        cursor.write(dir.path(), "ops").unwrap();
        assert_eq!(Cursor::read(dir.path(), "ops").unwrap(), Some(cursor.clone()));
        assert_eq!((cursor.again, cursor.seq), (vec![42], 42));
        fs::write(dir.path().join("ops.json"), "{").unwrap();
        assert!(Cursor::read(dir.path(), "ops").is_err(), "what cannot be read is not a new channel");
    }
}
