//! The evidence bundle: one file with all that proves a session, for somebody who trusts neither the gateway nor its admins.
//!
//! A tar archive whose parts a signed list names with their digests. What always holds: every entry of the ledger in it comes
//! with the path to a tree that the ledger key signed, every row with the digest that such an entry gives, the recording
//! with its own signatures and the head that the ledger has. What rests on the gateway's word alone is called *attested*,
//! line by line, in the words that [`claims`] finds and nobody else.

pub(crate) mod claims;
mod make;
mod page;
mod prove;

pub(crate) use make::make;
pub(crate) use prove::{Proven, prove};

use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_grants::{
    ledger::SignedTree,
    store::{Included, StateRow},
};

/// Of this archive.
const FORMAT: u32 = 1;
const DOMAIN: &[u8] = b"tidegate evidence v1\0";
const LIST: &str = "list.json";
const README: &str = "README";
const SUMMARY: &str = "summary.html";
const EVIDENCE: &str = "evidence.json";
const RECORDING: &str = "recording.tgr";

/// What a program reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// The session's id.
    pub(crate) session: String,
    /// The gateway's name.
    pub(crate) gateway: String,
    /// When this was put together.
    pub(crate) made: Timestamp,
    /// The recording was left out.
    pub(crate) redacted: bool,
    /// Entries of the ledger about this session, its grant, leases and request, oldest first, each with its proof.
    pub(crate) entries: Vec<Included>,
    /// What the proofs lead to.
    pub(crate) trees: Vec<SignedTree>,
    /// The rows of the session, its grant and its leases with their receipts.
    pub(crate) rows: Vec<StateRow>,
}

/// What is in the archive, and signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct List {
    format: u32,
    tidegate: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    name: String,
    bytes: u64,
    sha256: String,
}

/// The signature stands behind the list, as hex on a line of its own.
fn message(list: &[u8]) -> Vec<u8> {
    [DOMAIN, list].concat()
}

fn is_signed(key: &VerifyingKey, list: &[u8], signature: &str) -> bool {
    let bytes: Option<Vec<u8>> = (0..signature.len() / 2)
        .map(|at| signature.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    let signature = bytes.filter(|_| signature.len() == 128).and_then(|bytes| Signature::from_slice(&bytes).ok());
    signature.is_some_and(|signature| key.verify_strict(&message(list), &signature).is_ok())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}
