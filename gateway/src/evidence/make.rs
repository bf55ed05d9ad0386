//! Putting a bundle together, from the files of a state directory.

use super::{EVIDENCE, Evidence, FORMAT, LIST, List, Part, README, RECORDING, SUMMARY, hex, message, page};
use crate::api::How;
use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::Signer as _;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};
use tidegate_ca::Keys;
use tidegate_grants::{
    ledger::{Entry, proof::Anchors},
    store::{self, HeadSigner},
};

/// Another session's of the same grant, which changed no row that is shown.
fn is_others(entry: &Entry, session: &str, ids: &BTreeSet<String>) -> bool {
    let shown = entry.row.as_ref().is_some_and(|row| ids.contains(&row.key));
    !shown && entry.event.session.is_some_and(|other| other.to_string() != session)
}

/// Ids by which entries are about this session: its own, its grant's, its leases', and its request's.
fn about(state: &Path, session: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut ids = BTreeSet::from([session.to_owned()]);
    let mut requests: Vec<(String, String)> = Vec::new();
    store::export(state, 0, |exported| {
        let event = &exported.entry.event;
        let request = event.detail.get("request").and_then(serde_json::Value::as_str);
        if let (Some(grant), Some(request)) = (event.grant, request) {
            requests.push((grant.to_string(), request.to_owned()));
        }
        if event.session.is_some_and(|id| id.to_string() == session) {
            ids.extend(event.grant.map(|id| id.to_string()));
            ids.extend(event.lease.map(|id| id.to_string()));
        }
        anyhow::Ok(())
    })?;
    ids.extend(
        requests.into_iter().filter(|(grant, _)| ids.contains(grant)).map(|(_, request)| request).collect::<Vec<_>>(),
    );
    Ok(ids)
}

fn concerns(entry: &Entry, ids: &BTreeSet<String>) -> bool {
    let event = &entry.event;
    let has = |id: &str| ids.contains(id);
    event.session.is_some_and(|id| has(&id.to_string()))
        || event.grant.is_some_and(|id| has(&id.to_string()))
        || event.lease.is_some_and(|id| has(&id.to_string()))
        || entry.row.as_ref().is_some_and(|row| has(&row.key))
        || event.detail.get("request").and_then(serde_json::Value::as_str).is_some_and(has)
}

/// Writes the bundle of this session, whose whole id this is. `recording`: its file, if there is one. `redact`: leave it out.
pub(crate) fn make(
    state: &Path,
    gateway: &str,
    session: &str,
    recording: Option<&Path>,
    (redact, anchors): (bool, Option<&Anchors>),
    file: &Path,
    now: Timestamp,
) -> anyhow::Result<Evidence> {
    let keys = Keys::open(&state.join("keys")).context("the gateway's ledger key, to sign the bundle with")?;
    let verdict = store::verify(state, keys.ledger.verifying_key().to_bytes())?;
    ensure!(
        verdict.intact(),
        "the store does not agree with its ledger, so this would prove nothing: run `tidegate ledger verify`"
    );
    let ids = about(state, session)?;
    let signer: HeadSigner = Arc::new(keys.ledger.clone());
    let (entries, trees) = store::prove(state, &signer, now, anchors, How::tells_of, |exported| {
        concerns(&exported.entry, &ids) && !is_others(&exported.entry, session, &ids)
    })?;
    ensure!(!entries.is_empty(), "the ledger knows nothing of session {session}");
    let mut rows = Vec::new();
    for table in ["requests", "grants", "sessions", "leases"] {
        for id in &ids {
            rows.extend(store::state_row(state, table, id)?);
        }
    }
    let recording = recording.filter(|_| !redact);
    let redacted = recording.is_none();
    let (session, gateway) = (session.to_owned(), gateway.to_owned());
    let evidence = Evidence { session, gateway, made: now, redacted, entries, trees, rows };
    ensure!(
        redact || !redacted || !evidence.is_recording_due(),
        "the ledger knows a recording of this session, no rule deleted it, and it is gone: see `tidegate recording verify --all`; \
         --redact makes the bundle without it"
    );
    write(&evidence, recording, &keys, file)?;
    // What the gateway wrote between one look and the next would not fit together.
    if let Some(fault) = super::prove(file, &keys.ledger.verifying_key())?.faults.first() {
        fs::remove_file(file)?;
        bail!(
            "the bundle does not prove itself, and was removed: {fault}; if the session is still being torn down, try again"
        );
    }
    Ok(evidence)
}

fn write(evidence: &Evidence, recording: Option<&Path>, keys: &Keys, file: &Path) -> anyhow::Result<()> {
    let claims = evidence.claims();
    let mut json = serde_json::to_vec_pretty(evidence)?;
    json.push(b'\n');
    let parts = [
        (README, page::readme(evidence, &claims).into_bytes()),
        (SUMMARY, page::summary(evidence, &claims).into_bytes()),
        (EVIDENCE, json),
    ];
    let mut named: Vec<Part> = parts
        .iter()
        .map(|(name, bytes)| Part {
            name: (*name).to_owned(),
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        })
        .collect();
    if let Some(path) = recording {
        let mut digest = Sha256::new();
        let bytes = io::copy(&mut File::open(path)?, &mut Digested(&mut digest))?;
        named.push(Part { name: RECORDING.to_owned(), bytes, sha256: hex(&digest.finalize()) });
    }
    let list = List { format: FORMAT, tidegate: env!("CARGO_PKG_VERSION").to_owned(), parts: named };
    let mut text = serde_json::to_vec(&list)?;
    let signature = keys.ledger.try_sign(&message(&text)).context("the ledger key did not sign")?;
    text.extend_from_slice(format!("\n{}\n", hex(&signature.to_bytes())).as_bytes());

    let shown = || file.display().to_string();
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).with_context(shown)?;
    let mut archive = tar::Builder::new(io::BufWriter::new(made));
    append(&mut archive, LIST, text.len() as u64, text.as_slice())?;
    for (name, bytes) in &parts {
        append(&mut archive, name, bytes.len() as u64, bytes.as_slice())?;
    }
    if let (Some(path), Some(part)) = (recording, list.parts.last()) {
        append(&mut archive, RECORDING, part.bytes, io::Read::take(File::open(path)?, part.bytes))?;
    }
    let made = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(made.sync_all()?)
}

/// One part, with nothing of this host in its head.
pub(super) fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    content: impl io::Read,
) -> io::Result<()> {
    let mut head = tar::Header::new_ustar();
    head.set_size(bytes);
    head.set_mode(0o644);
    head.set_mtime(0);
    archive.append_data(&mut head, name, content)
}

/// Takes a digest of what is written to it.
pub(super) struct Digested<'a>(pub(super) &'a mut Sha256);

impl Write for Digested<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
