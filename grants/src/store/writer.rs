//! The one connection that writes, and the one way to write: [`Writer::transact`].
//!
//! What always holds: a row of state and the ledger entry that describes it are committed together, with the chain's
//! new signed head. A row that does not match its ledger entry before it is written is never vouched for again
//! ([`DISPUTED`]), and a chain whose head was lost goes on behind a gap: so our own writing cannot heal what somebody
//! else tampered with.

use super::{
    HeadSigner, StoreError, clock, fail,
    marker::{Made, Marker},
    reserve::Reserve,
};
use crate::{
    ledger::{
        Event,
        chain::{ENTRY, Head, entry_hash, sign_head, written},
        verify::{self, DISPUTED, Inspection, REMOVED},
    },
    name::LeaseId,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use rusqlite::{
    Connection, OptionalExtension, Transaction, TransactionBehavior, params,
    types::{ToSqlOutput, Value, ValueRef},
};
use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// Past this, an event's detail is left out and only its size is kept.
const MOST_DETAIL: usize = 256 * 1024;
/// So many faults are written out in the ledger; `ledger verify` names them all.
const MOST_FAULTS: usize = 20;

/// Failed attempts at teardown that were not worth a ledger entry: how many in all, and the last error.
pub(crate) type Attempts = Arc<Mutex<HashMap<LeaseId, (u32, String)>>>;

/// What the chain needs.
pub(crate) struct Pen {
    pub(crate) node: String,
    pub(crate) config: Arc<ArcSwap<String>>,
    pub(crate) signer: HeadSigner,
    pub(crate) public: [u8; 32],
}

/// Whether the file is as we left it.
#[derive(Default)]
pub(crate) struct Trust {
    /// `PRAGMA data_version` when we last looked: it moves when another connection commits.
    version: i64,
    /// The files that we hold open.
    files: Files,
    /// Every fault that was found first. Empty: trusted.
    faults: Vec<String>,
    /// What was found and is not in the ledger yet.
    owed: Option<Inspection>,
}

/// Device and inode of the database and of its WAL: whoever replaces or removes one of them below SQLite does not move
/// `data_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Files {
    main: (u64, u64),
    wal: (u64, u64),
}

impl Files {
    fn of(path: &Path) -> Self {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Self { main: identity_of(path), wal: identity_of(Path::new(&wal)) }
    }

    /// What is not as it was `before`.
    fn faults(self, before: Self) -> impl Iterator<Item = String> {
        let main = (self.main != before.main).then_some("tidegate.db: the file was replaced or removed");
        let wal = (self.wal != before.wal).then_some("tidegate.db-wal: the file was replaced or removed");
        [main, wal].into_iter().flatten().map(str::to_owned)
    }
}

/// Lives on the store's thread.
pub(crate) struct Writer {
    db: Connection,
    path: PathBuf,
    pen: Pen,
    head: Head,
    trust: Trust,
    reserve: Reserve,
    marker: Marker,
    /// The latest time that an entry was written at, since somebody last said that the clock is right.
    latest: Timestamp,
    pub(crate) attempts: Attempts,
    /// Held as long as the connection; declared last, so released last.
    _lock: File,
}

impl Writer {
    /// Takes over a migrated database and verifies it whole.
    pub(crate) fn new(
        db: Connection,
        path: PathBuf,
        pen: Pen,
        attempts: Attempts,
        lock: File,
    ) -> Result<Self, StoreError> {
        let dir = path.parent().unwrap_or(&path).to_owned();
        let reserve = Reserve::open(&dir);
        let trust = Trust { version: data_version(&db).map_err(fail)?, ..Trust::default() };
        let main = identity_of(&path);
        let made = Made::read(&dir);
        let marker = if made.is_some() { Marker::open(&dir) } else { Marker::none() };
        let (head, latest) = (Head::default(), clock::latest(&db));
        let mut writer = Self { db, path, pen, head, trust, reserve, marker, latest, attempts, _lock: lock };
        let untouched = writer.untouched();
        // SQLite has made the WAL by now.
        writer.trust.files = Files { main, ..Files::of(&writer.path) };
        // Empty is new only where none was made before: an emptied store may have open leases.
        if untouched && made.is_none() {
            writer.transact(Timestamp::now(), |tx| tx.begin())?;
            writer.checkpoint();
            writer.marker =
                Marker::create(&dir, &writer.pen.node, &writer.db).map_err(|e| super::file_error(&dir, &e))?;
            return Ok(writer);
        }
        let mut found = verify::inspect(&writer.db, &writer.pen.public, None);
        if let Some(lost) = made.as_ref().and_then(|made| made.fault(&writer.db)) {
            found.faults.insert(0, lost); // the cause of all others, and the one that stays named
        }
        writer.head = writer.find_head(&found)?;
        writer.trust.faults.clone_from(&found.faults);
        writer.trust.owed = (!found.faults.is_empty()).then_some(found);
        writer.transact(Timestamp::now(), |_| Ok(()))?;
        if made.is_none() {
            // Of a version before the marker. It must open for teardown even if the marker cannot be written.
            let marker = Marker::create(&dir, &writer.pen.node, &writer.db);
            writer.marker = marker.unwrap_or_else(|error| {
                tracing::error!(%error, "store.made could not be written");
                Marker::none()
            });
        }
        Ok(writer)
    }

    /// A store that holds nothing yet: right after its tables were made.
    fn untouched(&self) -> bool {
        let sql = "SELECT (SELECT count(*) FROM ledger) + (SELECT count(*) FROM heads) + (SELECT count(*) FROM grants) \
                   + (SELECT count(*) FROM sessions) + (SELECT count(*) FROM leases) + (SELECT count(*) FROM passwords)";
        // A missing table is for verification to name.
        self.db.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|rows| rows == 0)
    }

    /// Where to go on writing. Without a good head, behind a gap of one that nothing can ever fill.
    fn find_head(&self, found: &Inspection) -> Result<Head, StoreError> {
        let node = &self.pen.node;
        let last = verify::last_entry(&self.db, node).map_err(fail)?;
        match (found.heads.get(node), last) {
            (Some(head), Some(last)) if last.seq <= head.seq => Ok(head.clone()),
            (Some(head), None) => Ok(head.clone()),
            (_, Some(last)) => Ok(Head { seq: last.seq.saturating_add(1), hash: last.hash }),
            // No entry at all, where there had been some.
            (None, None) if !found.faults.is_empty() => Ok(Head { seq: 1, ..Head::default() }),
            (None, None) => Ok(Head::default()),
        }
    }

    /// Runs `work` in one transaction, and once more with the reserve's space if the disk was full. If somebody else
    /// has written to the file, everything is verified again first.
    pub(crate) fn transact<T>(
        &mut self,
        now: Timestamp,
        work: impl Fn(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.reserve.renew();
        match self.attempt(now, &work) {
            Err(StoreError::Full) if self.reserve.release() => self.attempt(now, &work),
            other => other,
        }
    }

    fn attempt<T>(
        &mut self,
        now: Timestamp,
        work: &impl Fn(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let sql = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate).map_err(fail)?;
            let (version, files) = (data_version(&sql).map_err(fail)?, Files::of(&self.path));
            if version != self.trust.version || files != self.trust.files {
                let mut found = verify::inspect(&sql, &self.pen.public, Some((&self.pen.node, &self.head)));
                found.faults.extend(files.faults(self.trust.files));
                (self.trust.version, self.trust.files) = (version, files);
                found.faults.extend(self.trust.owed.take().into_iter().flat_map(|owed| owed.faults));
                if self.trust.faults.is_empty() {
                    self.trust.faults.clone_from(&found.faults);
                }
                self.trust.owed = (!found.faults.is_empty()).then_some(found);
            }
            let (pen, faults) = (&self.pen, self.trust.faults.as_slice());
            let mut tx =
                Tx { sql, pen, faults, head: self.head.clone(), now, latest: self.latest, wrote: None, renewed: false };
            // In a transaction of its own: our next commit signs a new head over whatever was tampered with, so the
            // trace must be on disk before that, even if `work` fails.
            let noting = self.trust.owed.is_some();
            let out = match &self.trust.owed {
                Some(found) => tx.take_note(found).map(|()| None)?,
                None => Some(work(&mut tx)?),
            };
            if let Some((head, place)) = tx.commit()? {
                self.latest = self.latest.max(now);
                self.head = head;
                self.marker.keep(place);
            }
            if noting {
                self.trust.owed = None;
            }
            if let Some(out) = out {
                return Ok(out);
            }
        }
    }

    /// Moves what the WAL holds into the main file, so that a lost WAL loses little.
    fn checkpoint(&self) {
        if let Err(error) = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the store could not be checkpointed");
        }
    }

    #[cfg(test)]
    pub(crate) fn data_version(&self) -> rusqlite::Result<i64> {
        data_version(&self.db)
    }

    /// From here on, `now` is believed, whatever was written before.
    pub(crate) fn accept_clock(&mut self, event: Event, now: Timestamp) -> Result<(), StoreError> {
        self.transact(now, |tx| tx.append(event.clone()))?;
        self.latest = now;
        Ok(())
    }

    /// Signs the head anew if that was done longer ago than this. What does not verify is not signed again.
    pub(crate) fn renew_head(&mut self, life: Duration, now: Timestamp) -> Result<(), StoreError> {
        self.transact(now, |tx| {
            tx.trusted()?;
            tx.renew(life)
        })
    }

    pub(crate) fn signer(&self) -> &HeadSigner {
        &self.pen.signer
    }

    /// Ok while store and ledger agree.
    pub(crate) fn trusted(&mut self) -> Result<(), StoreError> {
        self.transact(Timestamp::now(), |tx| Ok(tx.trusted()))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.checkpoint();
    }
}

fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA data_version", [], |row| row.get(0))
}

fn identity_of(path: &Path) -> (u64, u64) {
    std::fs::metadata(path).map_or((0, 0), |m| (m.dev(), m.ino()))
}

/// One transaction.
pub(crate) struct Tx<'a> {
    sql: Transaction<'a>,
    pen: &'a Pen,
    faults: &'a [String],
    head: Head,
    now: Timestamp,
    latest: Timestamp,
    /// The place of the last entry that was written.
    wrote: Option<i64>,
    /// The head was signed anew.
    renewed: bool,
}

impl Tx<'_> {
    /// For reading. Writing goes through [`Tx::change`].
    pub(crate) fn db(&self) -> &Connection {
        &self.sql
    }

    pub(crate) fn node(&self) -> &str {
        &self.pen.node
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// The time that the ledger was written at already, if it is later than now by more than a correction of the clock.
    pub(crate) fn behind(&self) -> Option<Timestamp> {
        clock::is_behind(self.now, self.latest).then_some(self.latest)
    }

    /// Ok while store and ledger agree.
    pub(crate) fn trusted(&self) -> Result<(), StoreError> {
        let Some(first) = self.faults.first() else { return Ok(()) };
        let more = match self.faults.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        Err(StoreError::Damaged(format!("{first}{more}")))
    }

    /// Whether this row is what the ledger says of it.
    pub(crate) fn agrees(&self, table: &str, key: &str) -> Result<bool, StoreError> {
        agrees(&self.sql, table, key)
    }

    /// Changes one row and enters what happened: the only way to write state.
    pub(crate) fn change(
        &mut self,
        (table, key): (&str, &str),
        event: Event,
        write: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
    ) -> Result<(), StoreError> {
        let digest = match self.written((table, key), write)? {
            (true, Some(digest)) => digest,
            _ => DISPUTED.to_owned(),
        };
        self.enter(event, Some((table, key, Some(&digest))))
    }

    /// Takes one row away and enters what happened: from then on there is none that the ledger vouches for.
    pub(crate) fn remove(
        &mut self,
        (table, key): (&str, &str),
        event: Event,
        write: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
    ) -> Result<(), StoreError> {
        let digest = if self.written((table, key), write)? == (true, None) { REMOVED } else { DISPUTED };
        self.enter(event, Some((table, key, Some(digest))))
    }

    /// Whether the row was untampered before this, and its digest since.
    fn written(
        &self,
        (table, key): (&str, &str),
        write: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
    ) -> Result<(bool, Option<String>), StoreError> {
        let untampered = self.agrees(table, key)?;
        write(&self.sql).map_err(fail)?;
        Ok((untampered, verify::digest_of(&self.sql, table, key).map_err(fail)?))
    }

    /// Enters what happened without a change of state.
    pub(crate) fn append(&mut self, event: Event) -> Result<(), StoreError> {
        self.enter(event, None)
    }

    fn enter(&mut self, event: Event, row: Option<(&str, &str, Option<&str>)>) -> Result<(), StoreError> {
        let mut detail = written(&event.detail);
        // A lease is rebuilt from its entries, so they are whole.
        if detail.len() > MOST_DETAIL && row.is_none() {
            detail = serde_json::json!({ "omitted_bytes": detail.len() }).to_string();
        }
        let place: i64 =
            self.sql.query_row("SELECT coalesce(max(place), 0) + 1 FROM ledger", [], |row| row.get(0)).map_err(fail)?;
        let seq = self.head.seq.saturating_add(1);
        let text = |t: Option<String>| t.map_or(Value::Null, Value::Text);
        let part = |part: Option<&str>| text(part.map(str::to_owned));
        let columns = [
            Value::Integer(place),
            Value::Text(self.pen.node.clone()),
            Value::Integer(seq),
            Value::Text(self.now.to_string()),
            Value::Text(self.pen.config.load().to_string()),
            Value::Text(crate::text::line(&event.kind, 64)),
            text(event.session.map(|id| id.to_string())),
            text(event.identity.map(|name| crate::text::line(&name, 64))),
            text(event.target.map(|name| name.to_string())),
            text(event.grant.map(|id| id.to_string())),
            text(event.lease.map(|id| id.to_string())),
            Value::Text(detail),
            part(row.map(|(table, _, _)| table)),
            part(row.map(|(_, key, _)| key)),
            part(row.and_then(|(_, _, digest)| digest)),
            Value::Text(self.head.hash.clone()),
        ];
        let hash = entry_hash(columns.iter().map(ValueRef::from));
        let values = columns.into_iter().chain([Value::Text(hash.clone())]).map(ToSqlOutput::Owned);
        let sql = format!("INSERT INTO ledger ({ENTRY}, hash) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
        let mut statement = self.sql.prepare_cached(&sql).map_err(fail)?;
        statement.execute(rusqlite::params_from_iter(values)).map_err(fail)?;
        drop(statement);
        self.head = Head { seq, hash };
        self.wrote = Some(place);
        Ok(())
    }

    /// The head, signed, and everything on disk; with the place of the last entry. `None` if there was nothing to write.
    fn commit(self) -> Result<Option<(Head, i64)>, StoreError> {
        let Some(place) = self.wrote else {
            if self.renewed { self.sql.commit() } else { self.sql.rollback() }.map_err(fail)?;
            return Ok(None);
        };
        let at = self.now.to_string();
        let signature = sign_head(&self.pen.signer, &self.pen.node, &self.head, &at)?;
        let sql = "INSERT OR REPLACE INTO heads (node, seq, hash, at, signature) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.sql.execute(sql, params![self.pen.node, self.head.seq, self.head.hash, at, signature]).map_err(fail)?;
        self.sql.commit().map_err(fail)?;
        Ok(Some((self.head, place)))
    }

    /// Signs the head anew if that was done longer ago than this.
    fn renew(&mut self, life: Duration) -> Result<(), StoreError> {
        let sql = "SELECT at FROM heads WHERE node = ?1 AND seq = ?2 AND hash = ?3";
        let which = params![self.pen.node, self.head.seq, self.head.hash];
        let signed: Option<String> = self.sql.query_row(sql, which, |row| row.get(0)).optional().map_err(fail)?;
        let Some(signed) = signed.and_then(|at| at.parse::<Timestamp>().ok()) else { return Ok(()) };
        if Duration::try_from(self.now.duration_since(signed)).is_ok_and(|old| old >= life) {
            let at = self.now.to_string();
            let signature = sign_head(&self.pen.signer, &self.pen.node, &self.head, &at)?;
            let sql = "UPDATE heads SET at = ?2, signature = ?3 WHERE node = ?1";
            self.sql.execute(sql, params![self.pen.node, at, signature]).map_err(fail)?;
            self.renewed = true;
        }
        Ok(())
    }

    /// The first entries of a new store: its format.
    fn begin(&mut self) -> Result<(), StoreError> {
        let versions: Vec<String> = {
            let sql = "SELECT CAST(version AS TEXT) FROM refinery_schema_history ORDER BY version";
            let mut statement = self.sql.prepare(sql).map_err(fail)?;
            let rows = statement.query_map([], |row| row.get(0)).map_err(fail)?;
            rows.collect::<Result<_, _>>().map_err(fail)?
        };
        for version in versions {
            let digest = verify::digest_of(&self.sql, "refinery_schema_history", &version).map_err(fail)?;
            let event = Event::new("store.migrated").detail(serde_json::json!({ "format": version }));
            self.enter(
                event,
                Some(("refinery_schema_history", &version, Some(digest.as_deref().unwrap_or(DISPUTED)))),
            )?;
        }
        let digest = verify::schema_digest(&self.sql).map_err(fail)?;
        self.enter(Event::new("store.created"), Some((verify::SCHEMA, verify::SCHEMA_KEY, Some(&digest))))
    }

    /// Says in the ledger what does not agree with it, for ever: verification counts the entry itself as a fault, so
    /// our own writing does not heal anything. What earlier entries said already is not said again. Puts back the
    /// leases that the ledger knows better.
    fn take_note(&mut self, found: &Inspection) -> Result<(), StoreError> {
        let faults = &found.faults;
        tracing::error!(?faults, "the store does not agree with its ledger: nothing opens");
        let news: Vec<_> = faults.iter().filter(|fault| !found.noted.contains(*fault)).collect();
        if !news.is_empty() {
            let some = news.get(..MOST_FAULTS).unwrap_or(&news);
            let detail = serde_json::json!({ "faults": some, "count": news.len() });
            self.append(Event::new(verify::DISTRUSTED).detail(detail))?;
        }
        for (id, place) in &found.leases {
            super::leases::restore(self, id, *place)?;
        }
        Ok(())
    }
}

/// Whether a row is what the ledger last said of it (or unknown to both).
pub(crate) fn agrees(db: &Connection, table: &str, key: &str) -> Result<bool, StoreError> {
    let row = verify::digest_of(db, table, key).map_err(fail)?;
    Ok(row == verify::known_digest(db, table, key).map_err(fail)?)
}
