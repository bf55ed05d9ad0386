//! What leaves the store so that it can be proven elsewhere: an export, the signed heads, and the proof of single entries.

use super::{
    HeadSigner, Store, StoreError, fail,
    offline::{from_row, open},
    unreadable,
};
use crate::ledger::{
    Entry, SignedTree,
    chain::{self, ENTRY},
    proof::{Anchors, Countersignature, Countersigned, Exported, SignedHead},
    tree,
    verify::STATE,
};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, types::Value};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// Gives every entry from behind this place on to `each`, oldest first, and then the signed heads: one moment of the store.
/// Returns the last place.
///
/// # Errors
/// The store cannot be read, or the error of `each`.
pub fn export<E: From<StoreError>>(
    dir: &Path,
    behind: u64,
    mut each: impl FnMut(Exported) -> Result<(), E>,
) -> Result<(u64, Vec<SignedHead>), E> {
    let db = open(dir)?;
    let snapshot = db.unchecked_transaction().map_err(fail)?;
    let sql = format!("SELECT {ENTRY}, hash FROM ledger WHERE place > ?1 ORDER BY place");
    let mut statement = snapshot.prepare(&sql).map_err(fail)?;
    let mut rows = statement.query([i64::try_from(behind).unwrap_or(i64::MAX)]).map_err(fail)?;
    let mut last = behind;
    while let Some(row) = rows.next().map_err(fail)? {
        let exported = exported(row).map_err(fail)?;
        last = exported.place;
        each(exported)?;
    }
    Ok((last, heads(&snapshot)?))
}

/// Holds a store's ledger against the heads that went to an anchor; every fault.
pub fn hold_to(dir: &Path, anchors: &Anchors) -> Result<Vec<String>, StoreError> {
    let db = open(dir)?;
    let mut found = db.prepare("SELECT hash FROM ledger WHERE node = ?1 AND seq = ?2").map_err(fail)?;
    let mut faults = anchors.faults.clone();
    for head in anchors.heads() {
        let place = (&head.node, i64::try_from(head.seq).unwrap_or(i64::MAX));
        let hash: Option<String> = found.query_row(place, |row| row.get(0)).optional().map_err(fail)?;
        faults.extend(Anchors::fault(head, hash.as_deref()));
    }
    Ok(faults)
}

/// An entry, and how it is proven to be in the tree of its chain.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Included {
    /// The entry.
    #[serde(flatten)]
    pub exported: Exported,
    /// The path to its tree's root, hex.
    pub path: Vec<String>,
}

/// All entries that `about` picks, each with its proof, and what the proofs lead to: a freshly signed tree of each chain, or the newest
/// that went to the anchor; then of those that were entered after it, the ones that may stand `aside` are left out. One moment of the store.
///
/// # Errors
/// [`StoreError::Damaged`]: an entry is not what it was, or the ledger not the one of the anchor. [`StoreError::Refused`]: what went to the
/// anchor ends before.
pub fn prove(
    dir: &Path,
    signer: &HeadSigner,
    now: Timestamp,
    anchors: Option<&Anchors>,
    aside: impl Fn(&Entry) -> bool,
    about: impl Fn(&Exported) -> bool,
) -> Result<(Vec<Included>, Vec<SignedTree>), StoreError> {
    let mut chains: BTreeMap<String, Vec<[u8; 32]>> = BTreeMap::new();
    let (mut picked, mut trees) = (Vec::new(), Vec::new());
    export(dir, 0, |exported| {
        let entry = &exported.entry;
        let hash = HEXLOWER.decode(entry.hash.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let damaged = || StoreError::Damaged(format!("ledger {}/{}: the row was changed", entry.node, entry.seq));
        let chain = chains.entry(entry.node.clone()).or_default();
        chain.push(hash.filter(|_| entry.seq == chain.len() as u64 + 1).ok_or_else(damaged)?);
        if about(&exported) {
            picked.push(exported);
        }
        Ok::<_, StoreError>(())
    })?;
    if let Some(anchors) = anchors {
        let newest = |node: &str| anchors.newest_tree(node).map_or(0, |tree| tree.seq);
        if picked.iter().any(|it| anchors.newest_tree(&it.entry.node).is_none()) {
            return Err(StoreError::Refused(
                "the heads of the anchor have no roots: those of an [[anchor]] have, a peer's have not",
            ));
        }
        picked.retain(|it| it.entry.seq <= newest(&it.entry.node) || !aside(&it.entry));
        if picked.iter().any(|it| it.entry.seq > newest(&it.entry.node)) {
            return Err(StoreError::Refused("no head of the anchor is as new as this yet: wait for the next"));
        }
        chains.retain(|node, _| picked.iter().any(|it| it.entry.node == *node));
        for (node, hashes) in &mut chains {
            let Some(tree) = anchors.newest_tree(node) else { continue };
            hashes.truncate(usize::try_from(tree.seq).unwrap_or(usize::MAX));
            if !tree.is_over(hashes) {
                let why = format!("ledger {node}/{}: it is not the one whose root went to the anchor", tree.seq);
                return Err(StoreError::Damaged(why));
            }
            trees.push(tree.clone());
        }
    } else {
        for (node, hashes) in &chains {
            trees.push(SignedTree::sign(signer, node, hashes, now.to_string())?);
        }
    }
    let proven = |exported: Exported| {
        let hashes = chains.get(&exported.entry.node).map(Vec::as_slice).unwrap_or_default();
        let index = usize::try_from(exported.entry.seq - 1).unwrap_or(usize::MAX);
        Included { path: tree::path(hashes, index), exported }
    };
    Ok((picked.into_iter().map(proven).collect(), trees))
}

/// A row of state as it stands: the ledger has its digest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StateRow {
    /// Its table.
    pub table: String,
    /// Its key as text.
    pub key: String,
    /// Its columns in their order.
    pub columns: Vec<(String, Column)>,
}

/// What stands in a column. The store has no others.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

impl StateRow {
    /// The digest that the ledger's last entry about it must have.
    pub fn digest(&self) -> String {
        let value = |column: &Column| match column {
            Column::Null => Value::Null,
            Column::Integer(number) => Value::Integer(*number),
            Column::Text(text) => Value::Text(text.clone()),
        };
        let columns: Vec<_> = self.columns.iter().map(|(name, column)| (name.as_str(), value(column))).collect();
        chain::columns_digest(&self.table, columns.iter().map(|(name, value)| (*name, value.into())))
    }

    /// The text of a column.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.columns.iter().find(|(column, _)| column == name).and_then(|(_, column)| match column {
            Column::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

/// A row of `grants`, `sessions` or `leases`; `None` if there is no such row.
pub fn state_row(dir: &Path, table: &str, key: &str) -> Result<Option<StateRow>, StoreError> {
    let known = STATE.iter().find(|(name, column, _)| *name == table && *column == "id");
    let (table, ..) = known.ok_or_else(|| StoreError::Database(format!("no table {table} that is known by an id")))?;
    let db = open(dir)?;
    let mut statement = db.prepare(&format!("SELECT * FROM {table} WHERE id = ?1")).map_err(fail)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let read = |row: &Row<'_>| -> rusqlite::Result<Vec<(String, Column)>> {
        let column = |(index, name): (usize, &String)| {
            let value = match row.get(index)? {
                Value::Null => Column::Null,
                Value::Integer(number) => Column::Integer(number),
                Value::Text(text) => Column::Text(text),
                Value::Real(_) | Value::Blob(_) => return Err(rusqlite::Error::InvalidQuery),
            };
            Ok((name.clone(), value))
        };
        names.iter().enumerate().map(column).collect()
    };
    let columns = statement.query_row([key], read).optional().map_err(fail)?;
    Ok(columns.map(|columns| StateRow { table: (*table).to_owned(), key: key.to_owned(), columns }))
}

impl Store {
    /// The signed heads of all chains.
    pub async fn heads(&self) -> Result<Vec<SignedHead>, StoreError> {
        self.read(heads).await
    }

    /// Another gateway's head, with our word that we saw it. Whether it holds is the caller's to know.
    pub async fn countersign(
        &self,
        head: SignedHead,
        gateway: &str,
        now: Timestamp,
    ) -> Result<Countersigned, StoreError> {
        let (gateway, at) = (gateway.to_owned(), now.to_string());
        self.run(move |writer| {
            let signature = chain::countersign(writer.signer(), &head, &gateway, &at)?;
            Ok(Countersigned { head, countersigned: Countersignature { gateway, at, signature } })
        })
        .await?
    }

    /// Signs our head anew if it is older than this, though nothing was added: so whoever has it knows that nothing was.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: what is there does not verify, and nothing is signed.
    pub async fn renew_head(&self, life: Duration, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |writer| writer.renew_head(life, now)).await?
    }
}

fn heads(db: &Connection) -> Result<Vec<SignedHead>, StoreError> {
    let mut statement = db.prepare("SELECT node, seq, hash, at, signature FROM heads ORDER BY node").map_err(fail)?;
    let rows = statement.query_map([], |row| {
        let seq: i64 = row.get(1)?;
        let seq = seq.try_into().map_err(unreadable)?;
        Ok(SignedHead {
            node: row.get(0)?,
            seq,
            hash: row.get(2)?,
            at: row.get(3)?,
            signature: row.get(4)?,
            tree: None,
        })
    });
    rows.map_err(fail)?.collect::<Result<_, _>>().map_err(fail)
}

fn exported(row: &Row<'_>) -> rusqlite::Result<Exported> {
    let place: i64 = row.get("place")?;
    Ok(Exported::new(place.try_into().map_err(unreadable)?, from_row(row)?, row.get("detail")?))
}
