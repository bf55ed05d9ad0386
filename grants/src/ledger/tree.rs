//! A Merkle tree over the entries of one chain, as RFC 6962 section 2.1 has it: that one entry is in the ledger can be
//! proven by some twenty hashes, without showing what stands beside it.
//!
//! A leaf is the hash of an entry. The root is signed with the ledger key together with the head that it belongs to, so
//! whoever holds an export or an anchor can see that both speak of the same ledger.

use super::chain::{self, Head};
use crate::store::{HeadSigner, StoreError};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

type Node = [u8; 32];

/// The root over a chain up to a head, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTree {
    /// Whose chain.
    pub node: String,
    /// How many entries.
    pub seq: u64,
    /// Hash of the last, hex.
    pub hash: String,
    /// The root, hex.
    pub root: String,
    /// When it was signed, RFC 3339.
    pub at: String,
    /// Ed25519, hex.
    pub signature: String,
}

impl SignedTree {
    /// Over the hashes of all entries from the first.
    pub(crate) fn sign(signer: &HeadSigner, node: &str, hashes: &[Node], at: String) -> Result<Self, StoreError> {
        let hash = hashes.last().map_or_else(|| chain::ORIGIN.to_owned(), |last| HEXLOWER.encode(last));
        let (seq, root) = (hashes.len() as u64, HEXLOWER.encode(&root(hashes)));
        let head = Head { seq: i64::try_from(seq).unwrap_or(i64::MAX), hash: hash.clone() };
        let signature = chain::sign_tree(signer, node, &head, &root, &at)?;
        Ok(Self { node: node.to_owned(), seq, hash, root, at, signature })
    }

    /// Whether it is over exactly these entries.
    pub(crate) fn is_over(&self, hashes: &[Node]) -> bool {
        let last = hashes.last().map(|last| HEXLOWER.encode(last));
        self.seq == hashes.len() as u64
            && last.as_ref() == Some(&self.hash)
            && HEXLOWER.encode(&root(hashes)) == self.root
    }

    /// Whether this key signed it.
    pub fn holds(&self, public: &[u8; 32]) -> bool {
        let Ok(seq) = i64::try_from(self.seq) else { return false };
        let head = Head { seq, hash: self.hash.clone() };
        chain::tree_holds(public, &self.node, &head, &self.root, &self.at, &self.signature)
    }

    /// Whether the entry of this number and hash is in it, by the path that [`path`] gave.
    pub fn includes(&self, seq: u64, hash: &str, path: &[String]) -> bool {
        let decode = |text: &str| HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| Node::try_from(bytes).ok());
        let path: Option<Vec<Node>> = path.iter().map(|text| decode(text)).collect();
        let (Some(hash), Some(path), Some(index)) = (decode(hash), path, seq.checked_sub(1)) else { return false };
        climb(index, self.seq, leaf(&hash), &path).is_some_and(|root| HEXLOWER.encode(&root) == self.root)
    }
}

/// The tree over a chain that grows: its whole parts from the left, the largest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Growing {
    size: u64,
    parts: Vec<(u32, Node)>,
}

impl Growing {
    /// How many entries.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// One entry more, by its hash.
    pub(crate) fn push(&mut self, hash: &Node) {
        let (mut height, mut node) = (0, leaf(hash));
        while let Some((_, left)) = self.parts.pop_if(|(of, _)| *of == height) {
            (height, node) = (height + 1, join(&left, &node));
        }
        self.parts.push((height, node));
        self.size += 1;
    }

    /// The root as it is now.
    pub(crate) fn root(&self) -> Node {
        let mut parts = self.parts.iter().rev().map(|(_, node)| *node);
        let last = parts.next().unwrap_or_else(|| root(&[]));
        parts.fold(last, |right, left| join(&left, &right))
    }
}

/// The path from the entry of this index (from 0) to the root, hex.
pub(crate) fn path(hashes: &[Node], index: usize) -> Vec<String> {
    let mut up = Vec::new();
    let (mut part, mut index) = (hashes, index);
    while part.len() > 1 && index < part.len() {
        let (left, right) = part.split_at(below(part.len()));
        let sibling = if index < left.len() { right } else { left };
        up.push(HEXLOWER.encode(&root(sibling)));
        (part, index) = if index < left.len() { (left, index) } else { (right, index - left.len()) };
    }
    up.reverse();
    up
}

/// The largest power of two that is smaller than this.
fn below(length: usize) -> usize {
    length.next_power_of_two() / 2
}

fn leaf(hash: &Node) -> Node {
    Sha256::new().chain_update([0]).chain_update(hash).finalize().into()
}

fn join(left: &Node, right: &Node) -> Node {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

fn root(hashes: &[Node]) -> Node {
    match hashes {
        [] => Sha256::digest([]).into(),
        [one] => leaf(one),
        many => {
            let (left, right) = many.split_at(below(many.len()));
            join(&root(left), &root(right))
        }
    }
}

/// RFC 9162 section 2.1.3.2.
fn climb(index: u64, size: u64, leaf: Node, path: &[Node]) -> Option<Node> {
    let (mut index, mut last) = (index, size.checked_sub(1).filter(|last| index <= *last)?);
    let mut node = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if index % 2 == 1 || index == last {
            node = join(sibling, &node);
            while index % 2 == 0 && index != 0 {
                (index, last) = (index / 2, last / 2);
            }
        } else {
            node = join(&node, sibling);
        }
        (index, last) = (index / 2, last / 2);
    }
    (last == 0).then_some(node)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_entry_of_every_size_is_proven_and_no_other_by_its_path() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let (signer, public): (HeadSigner, _) = (Arc::new(key.clone()), key.verifying_key().to_bytes());
        let all: Vec<Node> = (0..40_u8).map(|n| Sha256::digest([n]).into()).collect();
        for size in 1..all.len() {
            let tree = SignedTree::sign(&signer, "a", &all[..size], "2026-11-22T00:00:00Z".to_owned()).unwrap();
            assert!(tree.holds(&public));
            for index in 0..size {
                let (up, hash) = (path(&all[..size], index), HEXLOWER.encode(&all[index]));
                let seq = index as u64 + 1;
                assert!(tree.includes(seq, &hash, &up), "{index} of {size}");
                assert!(!tree.includes(seq, &HEXLOWER.encode(&all[size]), &up), "one that is not in it");
                assert!(!tree.includes(seq + 1, &hash, &up), "in another place");
            }
            let other = SignedTree { root: HEXLOWER.encode(&all[size]), ..tree.clone() };
            let longer = SignedTree { seq: tree.seq + 1, ..tree };
            assert!(!other.holds(&public) && !longer.holds(&public));
        }
    }

    #[test]
    fn a_tree_that_grew_has_the_root_of_one_that_was_made_at_once() {
        let all: Vec<Node> = (0..200_u8).map(|n| Sha256::digest([n]).into()).collect();
        let mut growing = Growing::default();
        for size in 0..all.len() {
            assert_eq!((growing.size(), growing.root()), (size as u64, root(&all[..size])));
            growing.push(&all[size]);
        }
    }

    #[test]
    fn the_empty_tree_and_a_known_one_have_the_roots_of_the_rfc() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(HEXLOWER.encode(&root(&[])), empty);
        let (one, two) = ([1; 32], [2; 32]);
        assert_eq!(root(&[one, two]), join(&leaf(&one), &leaf(&two)));
    }
}
