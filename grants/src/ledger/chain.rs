//! The bytes that are hashed and signed.
//!
//! Everything is made of columns as SQLite holds them, so nothing can be changed in a row without changing its bytes.
//! One column is: a tag byte (0 null, 1 integer, 2 real, 3 text, 4 blob), its length as 8 bytes big-endian, its bytes
//! (integers and reals as 8 bytes big-endian). Since each part says how long it is, two different rows never give the
//! same bytes. Each use starts with its own prefix, so a hash made for one purpose never fits another.
//!
//! - row digest: SHA-256 of `tidegate row v1`, the table, then for each column its name and its value
//! - entry hash: SHA-256 of `tidegate ledger entry v1`, then the columns [`ENTRY`] in that order; `prev` is the `hash` of
//!   the entry before in the same chain, 64 zeros for the first
//! - signed head: Ed25519 over `tidegate ledger head v1`, then `node`, `seq`, `hash`, `at`
//! - countersignature: Ed25519 over `tidegate ledger countersignature v1`, then who saw it, when, and `node`, `seq`, `hash`, `at` and
//!   `signature` of the head that another gateway signed
//! - signed tree: Ed25519 over `tidegate ledger tree v1`, then `node`, `seq`, `hash`, `root`, `at`
//!
//! Digests and signatures are kept as lower-case hex, and only that spelling is accepted.

use super::proof::SignedHead;
use crate::store::{HeadSigner, StoreError};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};
use rusqlite::{Row, types::ValueRef};
use sha2::{Digest, Sha256};

/// The columns of an entry that its hash covers, in order. `hash` comes after them.
pub(crate) const ENTRY: &str = "place, node, seq, at, config, kind, session, identity, target, grant_id, lease, detail, \
                                row_table, row_key, row_digest, prev";
/// How many they are.
pub(crate) const ENTRY_COLUMNS: usize = 16;
/// What the first entry of a chain follows.
pub(crate) const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// How many entries the chain has.
    pub(crate) seq: i64,
    /// The hash of the last.
    pub(crate) hash: String,
}

/// Collects fields for a hash or a signature.
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    fn new(purpose: &str) -> Self {
        Self(Vec::new()).text(purpose)
    }

    fn part(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(mut self, text: &str) -> Self {
        self.part(3, text.as_bytes());
        self
    }

    fn value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.part(0, &[]),
            ValueRef::Integer(n) => self.part(1, &n.to_be_bytes()),
            ValueRef::Real(n) => self.part(2, &n.to_bits().to_be_bytes()),
            ValueRef::Text(bytes) => self.part(3, bytes),
            ValueRef::Blob(bytes) => self.part(4, bytes),
        }
    }

    fn hash(self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.0))
    }
}

/// The digest of a row of state: all columns of `row` from `first` on.
pub(crate) fn row_digest(table: &str, row: &Row<'_>, first: usize) -> rusqlite::Result<String> {
    let statement = row.as_ref();
    let column = |index| Ok((statement.column_name(index)?, row.get_ref(index)?));
    let columns: Vec<_> = (first..statement.column_count()).map(column).collect::<rusqlite::Result<_>>()?;
    Ok(columns_digest(table, columns.into_iter()))
}

/// The same, of columns by name.
pub(crate) fn columns_digest<'a>(table: &str, columns: impl Iterator<Item = (&'a str, ValueRef<'a>)>) -> String {
    let mut fields = Fields::new("tidegate row v1").text(table);
    for (name, value) in columns {
        fields.part(3, name.as_bytes());
        fields.value(value);
    }
    fields.hash()
}

/// A detail as an entry has it: keys in their order, whichever order `serde_json` keeps in this build. (Features of other crates decide
/// that, and who verifies may have another build.)
pub(crate) fn written(detail: &serde_json::Value) -> String {
    let mut detail = detail.clone();
    detail.sort_all_objects();
    detail.to_string()
}

/// The hash of an entry, from the columns [`ENTRY`].
pub(crate) fn entry_hash<'a>(columns: impl Iterator<Item = ValueRef<'a>>) -> String {
    let mut fields = Fields::new("tidegate ledger entry v1");
    columns.for_each(|column| fields.value(column));
    fields.hash()
}

fn head_message(node: &str, head: &Head, at: &str) -> Vec<u8> {
    let mut fields = Fields::new("tidegate ledger head v1").text(node);
    fields.value(ValueRef::Integer(head.seq));
    fields.text(&head.hash).text(at).0
}

fn tree_message(node: &str, head: &Head, root: &str, at: &str) -> Vec<u8> {
    let mut fields = Fields::new("tidegate ledger tree v1").text(node);
    fields.value(ValueRef::Integer(head.seq));
    fields.text(&head.hash).text(root).text(at).0
}

fn countersignature_message(head: &SignedHead, gateway: &str, at: &str) -> Vec<u8> {
    let mut fields = Fields::new("tidegate ledger countersignature v1").text(gateway).text(at).text(&head.node);
    fields.part(1, &head.seq.to_be_bytes());
    fields.text(&head.hash).text(&head.at).text(&head.signature).0
}

/// The signature of somebody else's head, hex.
pub(crate) fn countersign(
    signer: &HeadSigner,
    head: &SignedHead,
    gateway: &str,
    at: &str,
) -> Result<String, StoreError> {
    sign(signer, &countersignature_message(head, gateway, at))
}

/// Whether this is that signature.
pub(crate) fn countersignature_holds(
    public: &[u8; 32],
    head: &SignedHead,
    gateway: &str,
    at: &str,
    signature: &str,
) -> bool {
    is_signed(public, &countersignature_message(head, gateway, at), signature)
}

/// The signature of a head, hex.
pub(crate) fn sign_head(signer: &HeadSigner, node: &str, head: &Head, at: &str) -> Result<String, StoreError> {
    sign(signer, &head_message(node, head, at))
}

/// The signature of a tree's root, hex.
pub(crate) fn sign_tree(
    signer: &HeadSigner,
    node: &str,
    head: &Head,
    root: &str,
    at: &str,
) -> Result<String, StoreError> {
    sign(signer, &tree_message(node, head, root, at))
}

fn sign(signer: &HeadSigner, message: &[u8]) -> Result<String, StoreError> {
    let signature =
        signer.try_sign(message).map_err(|_| StoreError::Database("the ledger key did not sign".to_owned()))?;
    Ok(HEXLOWER.encode(&signature.to_bytes()))
}

/// Whether this is our signature of that head.
pub(crate) fn head_holds(public: &[u8; 32], node: &str, head: &Head, at: &str, signature: &str) -> bool {
    is_signed(public, &head_message(node, head, at), signature)
}

/// Whether this is our signature of that tree.
pub(crate) fn tree_holds(public: &[u8; 32], node: &str, head: &Head, root: &str, at: &str, signature: &str) -> bool {
    is_signed(public, &tree_message(node, head, root, at), signature)
}

fn is_signed(public: &[u8; 32], message: &[u8], signature: &str) -> bool {
    // Lower case only: an edited spelling of a good signature is an edit.
    let Some(bytes) = HEXLOWER.decode(signature.as_bytes()).ok().and_then(|b| <[u8; 64]>::try_from(b).ok()) else {
        return false;
    };
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_detail_is_written_in_the_order_of_its_keys_in_every_build() {
        let detail = json!({ "b": 1, "a": { "d": [{ "z": 1, "y": 2 }], "c": 2 } });
        assert_eq!(written(&detail), r#"{"a":{"c":2,"d":[{"y":2,"z":1}]},"b":1}"#);
    }
}
