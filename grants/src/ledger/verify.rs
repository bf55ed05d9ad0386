//! Walks every chain back from its signed head and holds every row of state against what the ledger says of it.
//!
//! Backwards, because the head is what is signed: going from it, each good entry vouches for the one before, so a
//! changed entry is named itself and not its neighbour. Whatever cannot be read is a fault, never an error: a damaged
//! store must still open for teardown.

use super::{
    Verdict,
    chain::{self, ENTRY, ENTRY_COLUMNS, Head, ORIGIN, entry_hash, head_holds, row_digest},
};
use crate::store::migrations;
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The tables of state, each with its key as SQL and the format of the store since which it exists. Beside them there are
/// `ledger` and `heads`, which vouch for themselves, and the pseudo table [`SCHEMA`].
pub(crate) const STATE: [(&str, &str, u32); 15] = [
    ("grants", "id", 1),
    ("sessions", "id", 1),
    ("leases", "id", 1),
    ("passwords", "identity || '@' || target", 1),
    ("refinery_schema_history", "CAST(version AS TEXT)", 1),
    ("tokens", "id", 2),
    ("locks", "id", 3),
    ("requests", "id", 4),
    ("approvals", "request || '/' || approver", 4),
    ("factors", "identity", 5),
    ("password_factors", "password", 5),
    ("reviews", "id", 6),
    ("guests", "identity", 7),
    ("lent_keys", "key", 7),
    ("exchanges", "digest", 7),
];
/// The tables, indices and triggers themselves, as one row: a trigger that edits later is found before it fires.
pub(crate) const SCHEMA: &str = "schema";
/// The key of the one row of [`SCHEMA`].
pub(crate) const SCHEMA_KEY: &str = "main";
/// What stands in place of a digest once a row was written that had been tampered with before.
pub(crate) const DISPUTED: &str = "disputed";
/// What stands in place of a digest once the gateway itself has removed the row. (Nothing would do as well for us; but an entry that is
/// exported has all three, table, key and digest, or none, and is proven by its hash over them.)
pub(crate) const REMOVED: &str = "removed";
/// The kind of the entry that says what was found. It is a fault itself from then on, until a restore: else the
/// gateway's next signed head would heal what was done to the heads, and an edit that was taken back would be forgotten.
pub(crate) const DISTRUSTED: &str = "store.distrusted";
/// A gap in a chain names this many entries one by one, then the rest as a range.
const NAMED_ONE_BY_ONE: i64 = 20;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// Entries that hold.
    pub(crate) entries: u64,
    /// Every fault.
    pub(crate) faults: Vec<String>,
    /// Heads as signed, by node.
    pub(crate) heads: HashMap<String, Head>,
    /// Faults that entries of the kind [`DISTRUSTED`] name already, and those that they are themselves.
    pub(crate) noted: HashSet<String>,
    /// Leases whose row is not what the ledger says, with the place of the good entry that last described each.
    pub(crate) leases: Vec<(String, i64)>,
}

impl From<Inspection> for Verdict {
    fn from(found: Inspection) -> Self {
        Self { entries: found.entries, faults: found.faults }
    }
}

/// What the ledger last said of a row.
struct Known {
    digest: Option<String>,
    place: i64,
    good: bool,
}

/// Where the walk down one chain is.
struct Chain {
    /// The next entry to come, if known.
    seq: Option<i64>,
    /// Its hash, if an entry that holds (or the signed head) named it.
    hash: Option<String>,
}

#[derive(Default)]
struct Walk {
    found: Inspection,
    chains: BTreeMap<String, Chain>,
    known: HashMap<(String, String), Known>,
}

/// Checks everything, in the format that the ledger says. With `memory`, this node's head must be that one, whatever is
/// in the file.
pub(crate) fn inspect(db: &Connection, public: &[u8; 32], memory: Option<(&str, &Head)>) -> Inspection {
    let mut walk = Walk::default();
    if let Err(error) = walk.heads(db, public) {
        walk.found.faults.push(format!("heads: the table cannot be read: {error}"));
    }
    if let Some((node, head)) = memory
        && (head.seq > 0 || walk.chains.contains_key(node))
    {
        walk.hold_to(node, head);
    }
    if let Err(error) = walk.entries(db) {
        walk.found.faults.push(format!("ledger: the table cannot be read: {error}"));
    }
    // A ledger that says none is a fault itself; then every table is missed.
    let format = migrations::format(db).ok().flatten().unwrap_or(u32::MAX);
    for (table, key, _) in STATE.into_iter().filter(|(_, _, since)| *since <= format) {
        if let Err(error) = walk.table(db, table, key) {
            walk.found.faults.push(format!("{table}: the table cannot be read: {error}"));
        }
    }
    match schema_digest(db) {
        Ok(digest) => walk.row(SCHEMA, SCHEMA_KEY.to_owned(), &digest),
        Err(error) => walk.found.faults.push(format!("schema: it cannot be read: {error}")),
    }
    walk.leftover();
    walk.found
}

/// The digest of the whole schema.
pub(crate) fn schema_digest(db: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT coalesce(group_concat(type || char(0) || name || char(0) || tbl_name || char(0) || \
               coalesce(sql, ''), char(0) || char(0)), '') \
               FROM (SELECT * FROM sqlite_master ORDER BY type, name)";
    db.query_row(sql, [], |row| row_digest(SCHEMA, row, 0))
}

/// The digest of one row of state, `None` if there is no such row.
pub(crate) fn digest_of(db: &Connection, table: &str, key: &str) -> rusqlite::Result<Option<String>> {
    if table == SCHEMA {
        return schema_digest(db).map(Some);
    }
    let Some((_, column, _)) = STATE.iter().find(|(name, _, _)| *name == table) else { return Ok(None) };
    let sql = match *column {
        // By both columns, so that the primary key serves.
        "identity || '@' || target" => "SELECT * FROM passwords WHERE identity = substr(?1, 1, instr(?1, '@') - 1) \
                                        AND target = substr(?1, instr(?1, '@') + 1)"
            .to_owned(),
        column => format!("SELECT * FROM {table} WHERE {column} = ?1"),
    };
    db.prepare_cached(&sql)?.query_row([key], |row| row_digest(table, row, 0)).optional()
}

/// The digest that the ledger last gave for a row.
pub(crate) fn known_digest(db: &Connection, table: &str, key: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT row_digest FROM ledger WHERE row_table = ?1 AND row_key = ?2 ORDER BY place DESC LIMIT 1";
    let known: Option<Option<String>> = db.prepare_cached(sql)?.query_row([table, key], |row| row.get(0)).optional()?;
    Ok(known.flatten().filter(|digest| digest != REMOVED))
}

fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Integer(n) => Some(n.to_string()),
        ValueRef::Real(n) => Some(n.to_string()),
    })
}

impl Walk {
    fn fault(&mut self, text: String) {
        // Names come from rows that anybody may have edited.
        self.found.faults.push(crate::text::line(&text, crate::text::LINE));
    }

    fn heads(&mut self, db: &Connection, public: &[u8; 32]) -> rusqlite::Result<()> {
        let mut statement = db.prepare("SELECT node, seq, hash, at, signature FROM heads ORDER BY node")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let node = text(row, 0)?.unwrap_or_default();
            let head = Head { seq: row.get(1).unwrap_or(0), hash: text(row, 2)?.unwrap_or_default() };
            let (at, signature) = (text(row, 3)?.unwrap_or_default(), text(row, 4)?.unwrap_or_default());
            if head_holds(public, &node, &head, &at, &signature) {
                self.chains.insert(node.clone(), Chain { seq: Some(head.seq), hash: Some(head.hash.clone()) });
                self.found.heads.insert(node, head);
            } else {
                self.fault(format!("heads {node}: the row was changed"));
                self.chains.insert(node, Chain { seq: None, hash: None });
            }
        }
        Ok(())
    }

    /// What we remember wins over what the file says.
    fn hold_to(&mut self, node: &str, head: &Head) {
        match self.found.heads.get(node) {
            Some(stored) if stored == head => return,
            Some(_) => self.fault(format!("heads {node}: the row was changed")),
            None if self.chains.contains_key(node) => {}
            None => self.fault(format!("heads {node}: the row was deleted")),
        }
        self.chains.insert(node.to_owned(), Chain { seq: Some(head.seq), hash: Some(head.hash.clone()) });
    }

    fn entries(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut statement = db.prepare(&format!("SELECT {ENTRY}, hash FROM ledger ORDER BY place DESC"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.entry(row)?;
        }
        for (node, chain) in std::mem::take(&mut self.chains) {
            self.gap(&node, 1, chain.seq.unwrap_or(0));
        }
        Ok(())
    }

    fn entry(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let columns = (0..ENTRY_COLUMNS).map(|index| row.get_ref(index)).collect::<Result<Vec<_>, _>>()?;
        let computed = entry_hash(columns.into_iter());
        let place: i64 = row.get(0)?;
        let node = text(row, 1)?.unwrap_or_default();
        let seq: i64 = row.get(2)?;
        let (prev, hash) = (text(row, 15)?.unwrap_or_default(), text(row, 16)?.unwrap_or_default());
        let good = self.link(&node, seq, &prev, hash == computed, &hash);
        if good && text(row, 5)?.as_deref() == Some(DISTRUSTED) {
            self.distrusted(&node, seq, &text(row, 3)?.unwrap_or_default(), &text(row, 11)?.unwrap_or_default());
        }
        if let (Some(table), Some(key)) = (text(row, 12)?, text(row, 13)?) {
            let digest = text(row, 14)?.filter(|digest| digest != REMOVED);
            self.known.entry((table, key)).or_insert(Known { digest, place, good });
        }
        Ok(())
    }

    /// An entry that says what was found once.
    fn distrusted(&mut self, node: &str, seq: i64, at: &str, detail: &str) {
        #[derive(Default, serde::Deserialize)]
        struct Detail {
            faults: Vec<String>,
            count: usize,
        }
        let Detail { faults, count } = serde_json::from_str(detail).unwrap_or_default();
        let first = faults.first().map_or("", String::as_str);
        let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        self.fault(format!("ledger {node}/{seq}: at {at} the store did not agree with its ledger{more}: {first}"));
        self.found.noted.extend(self.found.faults.last().cloned());
        self.found.noted.extend(faults);
    }

    /// Fits one entry into its chain; says whether it holds.
    fn link(&mut self, node: &str, seq: i64, prev: &str, consistent: bool, hash: &str) -> bool {
        if !self.chains.contains_key(node) {
            self.fault(format!("heads {node}: the row was deleted"));
            self.chains.insert(node.to_owned(), Chain { seq: None, hash: None });
        }
        let Some(Chain { seq: next, hash: expected }) = self.chains.remove(node) else { return false };
        let next = next.unwrap_or(seq);
        if seq > next {
            // Out of its order: moved, added behind the head, or numbered anew. The walk goes on below.
            self.fault(format!("ledger {node}/{seq}: the row was changed or added"));
            self.chains.insert(node.to_owned(), Chain { seq: Some(next), hash: expected });
            return false;
        }
        self.gap(node, seq.saturating_add(1), next);
        let expected = expected.filter(|_| seq == next);
        let good = consistent && expected.is_none_or(|e| e == hash) && (seq != 1 || prev == ORIGIN);
        if good {
            self.found.entries += 1;
        } else {
            self.fault(format!("ledger {node}/{seq}: the row was changed"));
        }
        let hash = good.then(|| prev.to_owned());
        self.chains.insert(node.to_owned(), Chain { seq: Some(seq - 1), hash });
        good
    }

    /// Entries `first..=last` are missing.
    fn gap(&mut self, node: &str, first: i64, last: i64) {
        let one_by_one = last.min(first.saturating_add(NAMED_ONE_BY_ONE));
        for seq in (first..=one_by_one).rev() {
            self.fault(format!("ledger {node}/{seq}: the row was deleted"));
        }
        if one_by_one < last {
            self.fault(format!("ledger {node}/{} to {node}/{last}: the rows were deleted", one_by_one + 1));
        }
    }

    fn table(&mut self, db: &Connection, table: &str, key: &str) -> rusqlite::Result<()> {
        let mut statement = db.prepare(&format!("SELECT {key}, * FROM {table} ORDER BY 1"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let digest = row_digest(table, row, 1)?;
            self.row(table, text(row, 0)?.unwrap_or_default(), &digest);
        }
        Ok(())
    }

    /// Holds one row against what the ledger says of it.
    fn row(&mut self, table: &str, key: String, digest: &str) {
        let name = if table == SCHEMA { "schema".to_owned() } else { format!("{table} {key}") };
        let fault = match self.known.remove(&(table.to_owned(), key.clone())) {
            None | Some(Known { digest: None, .. }) => format!("{name}: the row was added"),
            Some(known) if known.digest.as_deref() == Some(digest) => return,
            Some(known) if known.digest.as_deref() == Some(DISPUTED) => {
                format!("{name}: the row had been changed or deleted before the gateway wrote it again")
            }
            Some(known) => {
                if table == "leases" && known.good {
                    self.found.leases.push((key, known.place));
                }
                format!("{name}: the row was changed")
            }
        };
        self.fault(fault);
    }

    /// What the ledger knows and no row was found for.
    fn leftover(&mut self) {
        let mut gone: Vec<_> =
            std::mem::take(&mut self.known).into_iter().filter(|(_, k)| k.digest.is_some()).collect();
        gone.sort_by_key(|(_, known)| known.place);
        for ((table, key), known) in gone {
            self.fault(format!("{table} {key}: the row was deleted"));
            if table == "leases" && known.good {
                self.found.leases.push((key, known.place));
            }
        }
    }
}

/// The last place, and the last number and hash of this node's chain, as the rows have it: where to go on when the
/// head is lost.
pub(crate) fn last_entry(db: &Connection, node: &str) -> rusqlite::Result<Option<Head>> {
    let sql = "SELECT seq, hash FROM ledger WHERE node = ?1 ORDER BY seq DESC LIMIT 1";
    db.query_row(sql, [node], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? })).optional()
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: chain::ORIGIN.to_owned() }
    }
}
