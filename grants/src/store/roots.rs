//! The roots of the trees over our chains, which go to anchors: a tree grows with its chain, and no entry is read twice for it.

use super::{Store, StoreError, fail};
use crate::ledger::{
    chain::{self, Head},
    proof::{SignedHead, SignedRoot},
    tree::Growing,
};
use data_encoding::HEXLOWER;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Mutex;

/// Entries that are read at once: others read, too.
const BATCH: u32 = 10_000;

/// How far each chain's tree has grown, and the hash of its last entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Roots(Arc<Mutex<BTreeMap<String, (Growing, String)>>>);

impl Store {
    /// The same head, with the root of the tree over all entries up to it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: the store does not verify, or the head is of other entries.
    pub async fn rooted(&self, head: SignedHead) -> Result<SignedHead, StoreError> {
        let other = || StoreError::Damaged(format!("ledger {}/{}: it is not what the head is of", head.node, head.seq));
        let mut roots = self.roots.0.lock().await;
        let known = roots.get(&head.node).filter(|(growing, _)| growing.size() <= head.seq);
        let (mut growing, mut last) = known.cloned().unwrap_or_default();
        while growing.size() < head.seq {
            for hash in self.hashes(&head, growing.size()).await? {
                let bytes = HEXLOWER.decode(hash.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
                growing.push(&bytes.ok_or_else(other)?);
                last = hash;
            }
        }
        if last != head.hash {
            roots.remove(&head.node);
            return Err(other());
        }
        let root = HEXLOWER.encode(&growing.root());
        if roots.get(&head.node).is_none_or(|(known, _)| known.size() <= growing.size()) {
            roots.insert(head.node.clone(), (growing, last));
        }
        drop(roots);
        self.run(move |writer| {
            writer.trusted()?;
            let of = Head { seq: i64::try_from(head.seq).unwrap_or(i64::MAX), hash: head.hash.clone() };
            let signature = chain::sign_tree(writer.signer(), &head.node, &of, &root, &head.at)?;
            Ok(SignedHead { tree: Some(SignedRoot { root, signature }), ..head })
        })
        .await?
    }

    /// The next entries' hashes behind this number, none beyond the head; at least one.
    async fn hashes(&self, head: &SignedHead, behind: u64) -> Result<Vec<String>, StoreError> {
        let (node, from) = (head.node.clone(), i64::try_from(behind).unwrap_or(i64::MAX));
        let most = u32::try_from(head.seq.saturating_sub(behind)).unwrap_or(BATCH).min(BATCH);
        let rows: Vec<(i64, String)> = self
            .read(move |db| {
                let sql = "SELECT seq, hash FROM ledger WHERE node = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
                let mut statement = db.prepare_cached(sql).map_err(fail)?;
                let rows =
                    statement.query_map((node, from, most), |row| Ok((row.get(0)?, row.get(1)?))).map_err(fail)?;
                rows.collect::<Result<_, _>>().map_err(fail)
            })
            .await?;
        if rows.is_empty() || !(from + 1..).zip(&rows).all(|(seq, (found, _))| seq == *found) {
            return Err(StoreError::Damaged(format!("ledger {}/{}: the rows are missing", head.node, behind + 1)));
        }
        Ok(rows.into_iter().map(|(_, hash)| hash).collect())
    }
}
