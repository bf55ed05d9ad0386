//! Proving a bundle, with the public key alone.
//!
//! What always holds: a bundle is intact only if it is, byte for byte, the archive that its signed list describes, and all that is
//! claimed in it follows from signatures in it. Nothing is sized by what an archive claims: what is read into memory has a
//! bound, and a recording is read as it streams by.

use super::{
    EVIDENCE, Evidence, FORMAT, LIST, List, Part, RECORDING,
    claims::Claim,
    hex, is_signed,
    make::{Digested, append},
};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};
use tidegate_grants::ledger::SignedTree;
use tidegate_recorder::verify::{Verdict, verify_from};

/// The list, the pages and the JSON: each.
const LONGEST: u64 = 256 << 20;

/// What was found.
pub(crate) struct Proven {
    /// Every fault; empty: intact.
    pub(crate) faults: Vec<String>,
    /// What it shows, if its JSON could be read and is what was signed.
    pub(crate) claims: Vec<Claim>,
    /// The session.
    pub(crate) session: String,
    /// Its recording breaks off.
    pub(crate) cut: bool,
    /// What the proofs of its entries lead to.
    pub(crate) trees: Vec<SignedTree>,
}

/// What the parts are.
#[derive(Default)]
struct Contents {
    list: Vec<u8>,
    evidence: Vec<u8>,
    parts: Vec<Part>,
    recording: Option<Result<Verdict, String>>,
}

/// Proves a bundle's file. An archive that cannot be read is a fault, not an error.
pub(crate) fn prove(file: &Path, key: &VerifyingKey) -> io::Result<Proven> {
    let mut proven =
        Proven { faults: Vec::new(), claims: Vec::new(), session: String::new(), cut: false, trees: Vec::new() };
    let contents = match read(file, key) {
        Ok(contents) => contents,
        Err(error) => {
            proven.faults.push(format!("the archive cannot be read: {error}"));
            return Ok(proven);
        }
    };
    let Some(list) = listed(&contents.list, key, &mut proven.faults) else { return Ok(proven) };
    compare(&list.parts, &contents.parts, &mut proven.faults);
    if proven.faults.is_empty() && !is_canonical(file, &list, contents.list.len() as u64)? {
        proven.faults.push("bytes of the archive between its parts, or behind them, were changed".to_owned());
    }
    // What is not what was signed is not looked into: it could be made to fill the memory.
    if part(&contents.parts) != part(&list.parts) {
        return Ok(proven);
    }
    let Ok(evidence) = serde_json::from_slice::<Evidence>(&contents.evidence) else {
        proven.faults.push(format!("{EVIDENCE}: it cannot be read"));
        return Ok(proven);
    };
    proven.session.clone_from(&evidence.session);
    entries(&evidence, key, &mut proven.faults);
    rows(&evidence, &mut proven.faults);
    recording(&evidence, contents.recording.as_ref(), &mut proven.faults);
    proven.cut = matches!(&contents.recording, Some(Ok(verdict)) if !verdict.is_complete());
    if proven.faults.is_empty() {
        proven.claims = evidence.claims();
        proven.trees = evidence.trees;
    }
    Ok(proven)
}

/// The one with the JSON.
fn part(parts: &[Part]) -> Option<&Part> {
    parts.iter().find(|part| part.name == EVIDENCE)
}

fn read(file: &Path, key: &VerifyingKey) -> io::Result<Contents> {
    let mut contents = Contents::default();
    for entry in tar::Archive::new(BufReader::new(File::open(file)?)).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut digest = Sha256::new();
        let bytes = if name == RECORDING {
            let mut tee = Tee { from: entry, digest: &mut digest, bytes: 0 };
            let verdict = verify_from(&mut tee, key).map_err(|error| error.to_string());
            contents.recording = Some(verdict);
            io::copy(&mut tee, &mut io::sink())?; // behind a bad frame nothing was read
            tee.bytes
        } else {
            let mut text = Vec::new();
            let read = entry.by_ref().take(LONGEST).read_to_end(&mut text)? as u64;
            digest.update(&text);
            match name.as_str() {
                LIST => contents.list = text,
                EVIDENCE => contents.evidence = text,
                _ => {}
            }
            read
        };
        if name != LIST {
            contents.parts.push(Part { name, bytes, sha256: hex(&digest.finalize()) });
        }
    }
    Ok(contents)
}

/// What is read, and its digest.
struct Tee<'a, R> {
    from: R,
    digest: &'a mut Sha256,
    bytes: u64,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.digest.update(buffer.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

fn listed(text: &[u8], key: &VerifyingKey, faults: &mut Vec<String>) -> Option<List> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let (list, signature) = text.split_once('\n').unwrap_or_default();
    let signature = signature.strip_suffix('\n').unwrap_or_default();
    if !is_signed(key, list.as_bytes(), signature) {
        faults.push(format!("{LIST}: it is not signed by this key, so nothing is proven"));
        return None;
    }
    match serde_json::from_str::<List>(list) {
        Ok(list) if list.format == FORMAT => Some(list),
        _ => {
            faults.push(format!("{LIST}: a format that this program does not read"));
            None
        }
    }
}

fn compare(listed: &[Part], found: &[Part], faults: &mut Vec<String>) {
    let by_name: BTreeMap<&str, &Part> = found.iter().map(|part| (part.name.as_str(), part)).collect();
    for part in listed {
        match by_name.get(part.name.as_str()) {
            None => faults.push(format!("{}: it is missing", part.name)),
            Some(other) if *other != part => faults.push(format!("{}: it was changed", part.name)),
            Some(_) => {}
        }
    }
    if faults.is_empty() && listed != found {
        faults.push("there is more in it than its list says, or in another order".to_owned());
    }
}

/// Whether the file is the archive that these parts make: so that no byte of it is without proof.
fn is_canonical(file: &Path, list: &List, list_bytes: u64) -> io::Result<bool> {
    let (mut made, mut found) = (Sha256::new(), Sha256::new());
    let mut archive = tar::Builder::new(Digested(&mut made));
    let sizes = [(LIST, list_bytes)].into_iter().chain(list.parts.iter().map(|part| (part.name.as_str(), part.bytes)));
    let mut parts = tar::Archive::new(BufReader::new(File::open(file)?));
    for ((name, bytes), entry) in sizes.zip(parts.entries()?) {
        append(&mut archive, name, bytes, entry?)?;
    }
    archive.finish()?;
    drop(archive);
    io::copy(&mut File::open(file)?, &mut Digested(&mut found))?;
    Ok(made.finalize() == found.finalize())
}

fn entries(evidence: &Evidence, key: &VerifyingKey, faults: &mut Vec<String>) {
    let good: Vec<_> = evidence.trees.iter().filter(|tree| tree.holds(&key.to_bytes())).collect();
    if good.len() != evidence.trees.len() {
        faults.push("a tree of the ledger is not signed by this key".to_owned());
    }
    if evidence.entries.is_empty() {
        faults.push("no entry of the ledger is in it".to_owned());
    }
    for included in &evidence.entries {
        let entry = &included.exported.entry;
        let name = format!("ledger {}/{}", entry.node, entry.seq);
        if !included.exported.is_consistent() {
            faults.push(format!("{name}: the entry was changed"));
        } else if !good
            .iter()
            .any(|tree| tree.node == entry.node && tree.includes(entry.seq, &entry.hash, &included.path))
        {
            faults.push(format!("{name}: nothing proves that it is in the ledger"));
        }
    }
}

fn rows(evidence: &Evidence, faults: &mut Vec<String>) {
    for row in &evidence.rows {
        let mut described = evidence.entries.iter().filter_map(|included| included.exported.entry.row.as_ref());
        let last = described.rfind(|known| (&known.table, &known.key) == (&row.table, &row.key));
        if last.is_none_or(|known| known.digest != row.digest()) {
            faults.push(format!("{} {}: not the row that the ledger describes", row.table, row.key));
        }
    }
}

fn recording(evidence: &Evidence, verdict: Option<&Result<Verdict, String>>, faults: &mut Vec<String>) {
    let sealed = evidence.own("recording.sealed").last();
    let left = evidence.recovered().and_then(|left| left.detail.get("head")?.as_str());
    match (verdict, sealed) {
        (None, _) if !evidence.redacted => faults.push("the recording is missing".to_owned()),
        (None, _) => {}
        (Some(Err(error)), _) => faults.push(format!("{RECORDING}: {error}")),
        (Some(Ok(verdict)), _) if verdict.header.session != evidence.session => {
            faults.push(format!("{RECORDING}: of another session, {}", verdict.header.session));
        }
        (Some(Ok(verdict)), Some(sealed)) => {
            let head = sealed.detail.get("head").and_then(serde_json::Value::as_str);
            if !verdict.is_complete() || head != Some(verdict.head.as_str()) {
                faults.push(format!("{RECORDING}: not the one that the ledger has: {verdict}"));
            }
        }
        (Some(Ok(verdict)), None) if left.is_some_and(|head| head != verdict.head) => {
            faults.push(format!("{RECORDING}: not what was there of it when its gateway came back: {verdict}"));
        }
        // It breaks off: its own signatures say how far it is proven.
        (Some(Ok(verdict)), None) if matches!(verdict.outcome, tidegate_recorder::verify::Outcome::Bad { .. }) => {
            faults.push(format!("{RECORDING}: {verdict}"));
        }
        (Some(Ok(_)), None) => {}
    }
}
