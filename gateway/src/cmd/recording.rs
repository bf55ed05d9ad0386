//! `tidegate recording …`: on files, without a gateway (but for what is held).

use super::{keeping, moment, print, print_json, short, state_dir, verification_key};
use crate::{
    api::How,
    cli::{self, RecordingCommand},
    keeping::DELETED,
    recovered::RECOVERED,
    text::{self, plain},
};
use anyhow::Context as _;
use ed25519_dalek::VerifyingKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};
use tidegate_recorder::{
    storage,
    verify::{Outcome, verify},
};

pub(super) fn run(named: Option<&Path>, remote: &cli::Remote, command: RecordingCommand) -> anyhow::Result<ExitCode> {
    match command {
        RecordingCommand::List { json } => list(named, json.json),
        RecordingCommand::Verify { recordings, all, key } => verify_all(named, &recordings, all, key.as_deref()),
        RecordingCommand::Play(wanted) => super::play::run(named, &wanted),
        RecordingCommand::Export(wanted) => super::export::run(named, &wanted),
        RecordingCommand::Hold(hold) => keeping::hold(named, remote, "hold", &hold),
        RecordingCommand::Release(hold) => keeping::hold(named, remote, "release", &hold),
        RecordingCommand::Holds { json } => keeping::holds(named, json.json),
        RecordingCommand::Recover { file, key } => keeping::recover(named, &file, key.as_deref()),
        RecordingCommand::Search(search) => super::search::run(named, &search),
        RecordingCommand::Reindex(wanted) => super::reindex::run(named, &wanted),
    }
}

pub(super) fn folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    Ok(state_dir(named)?.join(crate::config::RECORDINGS))
}

/// With the id that the contract puts first. A session has one recording, so its id is the session's.
#[derive(serde::Serialize)]
struct Listed<'a> {
    id: &'a str,
    #[serde(flatten)]
    entry: &'a storage::Entry,
}

impl<'a> From<&'a storage::Entry> for Listed<'a> {
    fn from(entry: &'a storage::Entry) -> Self {
        Self { id: &entry.session, entry }
    }
}

fn list(named: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let folder = folder(named)?;
    let listing = storage::list(&folder).with_context(|| folder.display().to_string())?;
    keeping::note(named, How::Listed, None, None);
    for warning in &listing.warnings {
        let line = format!("{}: {}", warning.path.display(), warning.fault);
        writeln!(io::stderr(), "{}", plain(&line))?;
    }
    if json {
        return print_json(&listing.entries.iter().map(Listed::from).collect::<Vec<_>>());
    }
    let row = |entry: &storage::Entry| {
        [
            short(&entry.session),
            entry.identity.clone(),
            entry.target.clone(),
            entry.protocol.clone(),
            moment(entry.start),
            entry.end.map(moment).unwrap_or_default(),
            entry.state.to_string(),
            entry.frames.to_string(),
            entry.bytes.to_string(),
        ]
    };
    let rows: Vec<[String; 9]> = listing.entries.iter().map(row).collect();
    print(&text::table(
        ["SESSION", "IDENTITY", "TARGET", "PROTOCOL", "START", "END", "STATE", "FRAMES", "BYTES"],
        &rows,
    ))
}

/// A file, or the session whose id is, begins or ends with this.
pub(super) fn path(named: Option<&Path>, recording: &str) -> anyhow::Result<PathBuf> {
    let file = Path::new(recording);
    if file.is_file() {
        return Ok(file.to_owned());
    }
    Ok(storage::find(&folder(named)?, recording)?.path)
}

/// What the ledger says of recordings, and where they are.
pub(super) struct Known {
    folder: PathBuf,
    /// Sessions whose recording was deleted by a rule, as the ledger says.
    deleted: BTreeSet<String>,
    /// Session → hash of the last frame, once sealed. Those that only started must be there as well.
    recordings: BTreeMap<String, Option<String>>,
    /// Session → hash of the last whole frame when its gateway came back, of those that have no end.
    recovered: BTreeMap<String, String>,
}

pub(super) fn known(state: &Path) -> anyhow::Result<Known> {
    let (mut recordings, mut recovered, mut deleted) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for entry in tidegate_grants::store::read(state, None)? {
        let Some(session) = entry.event.session.map(|session| session.to_string()) else { continue };
        match entry.event.kind.as_str() {
            "recording.started" => {
                recordings.entry(session).or_insert(None);
            }
            "recording.sealed" => {
                let head = entry.event.detail.get("head").and_then(serde_json::Value::as_str);
                recordings.insert(session, head.map(str::to_owned));
            }
            RECOVERED => {
                let head = entry.event.detail.get("head").and_then(serde_json::Value::as_str);
                recovered.extend(head.map(|head| (session, head.to_owned())));
            }
            DELETED => drop(deleted.insert(session)),
            _ => {}
        }
    }
    Ok(Known { folder: state.join(crate::config::RECORDINGS), deleted, recordings, recovered })
}

fn verify_all(named: Option<&Path>, recordings: &[String], all: bool, key: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut paths = Vec::new();
    let mut faults = Vec::new();
    // Files by name, with a key by name: nothing of this gateway is needed.
    let apart = key.is_some() && !all && recordings.iter().all(|recording| Path::new(recording).is_file());
    let known = if apart { None } else { Some(known(&state_dir(named)?)?) };
    if all {
        let folder = folder(named)?;
        let listing = storage::list(&folder).with_context(|| folder.display().to_string())?;
        let warning = |w: storage::Warning| format!("{}: {}", w.path.display(), w.fault);
        faults.extend(listing.warnings.into_iter().map(warning));
        let missing = |session: &&String| !listing.entries.iter().any(|entry| entry.session == **session);
        let gone = |session: &String| format!("session {session}: the ledger knows its recording, and it is gone");
        let deleted = |session: &&String| known.as_ref().is_some_and(|known| known.deleted.contains(*session));
        let known = known.iter().flat_map(|known| known.recordings.keys());
        faults.extend(known.filter(missing).filter(|session| !deleted(session)).map(gone));
        paths.extend(listing.entries.into_iter().map(|entry| entry.path));
    }
    for recording in recordings {
        paths.push(path(named, recording)?);
    }
    let key = match key {
        Some(_) => verification_key(Path::new(""), key)?,
        None => verification_key(&state_dir(named)?, None)?,
    };
    let mut out = String::new();
    for path in &paths {
        let found = judge(path, &key, known.as_ref());
        let line = found.as_ref().unwrap_or_else(|fault| &fault.line);
        writeln!(out, "{}", plain(&format!("{}: {line}", path.display())))?;
        faults.extend(found.err().map(|_| String::new()));
    }
    for fault in faults.iter().filter(|fault| !fault.is_empty()) {
        writeln!(out, "{}", plain(fault))?;
    }
    print(&out)?;
    Ok(ExitCode::from(u8::from(!faults.is_empty())))
}

/// Why a recording is not whole.
pub(super) struct Fault {
    pub(super) line: String,
    /// It is not what was recorded; else it only breaks off.
    pub(super) forged: bool,
}

/// Whole, by its own signatures; and, where the ledger is at hand, in its own place and as the ledger has it. An auditor may
/// have files and key alone.
pub(super) fn judge(path: &Path, key: &VerifyingKey, known: Option<&Known>) -> Result<String, Fault> {
    let forged = |line: String| Fault { line, forged: true };
    let verdict = verify(path, key).map_err(|error| forged(error.to_string()))?;
    let session = &verdict.header.session;
    let its_name = path.file_stem().and_then(|stem| stem.to_str()) == Some(session.as_str());
    // A copy elsewhere may be called what its owner likes.
    if !its_name && known.is_some_and(|known| is_within(path, &known.folder)) {
        return Err(forged(format!("SWAPPED: this is the recording of session {session}")));
    }
    match known.and_then(|known| known.recordings.get(session)) {
        Some(Some(head)) if verdict.is_complete() && *head != verdict.head => {
            Err(forged(format!("BAD: complete, but not the recording that the ledger has for session {session}")))
        }
        _ if verdict.is_complete() => Ok(verdict.to_string()),
        Some(Some(_)) => Err(forged(format!("CUT: the ledger has the seal of the whole recording: {verdict}"))),
        _ if known.and_then(|known| known.recovered.get(session)).is_some_and(|head| *head != verdict.head) => {
            Err(forged(format!(
                "BAD: changed since its gateway came back and wrote into the ledger what was there: {verdict}"
            )))
        }
        _ => Err(Fault { line: verdict.to_string(), forged: matches!(verdict.outcome, Outcome::Bad { .. }) }),
    }
}

pub(super) fn is_within(path: &Path, folder: &Path) -> bool {
    matches!((path.canonicalize(), folder.canonicalize()), (Ok(path), Ok(folder)) if path.starts_with(&folder))
}

/// Says on stderr what the recording is worth before it is shown, and refuses what is not what was recorded.
pub(super) fn attest(named: Option<&Path>, path: &Path, key: Option<&Path>, unverified: bool) -> anyhow::Result<()> {
    // An auditor's own machine has neither a configuration nor a ledger: their absence is no fault.
    let state = state_dir(named).ok();
    let at_hand = match (key, &state) {
        (Some(_), _) => Some(verification_key(Path::new(""), key)?),
        (None, Some(state)) => verification_key(state, None).ok(),
        (None, None) => None,
    };
    let Some(at_hand) = at_hand else {
        writeln!(io::stderr(), "not verified: no verification key is at hand; name one with --key")?;
        return Ok(());
    };
    let known = state.filter(|_| key.is_none()).and_then(|state| known(&state).ok());
    let found = judge(path, &at_hand, known.as_ref());
    let line = found.as_ref().unwrap_or_else(|fault| &fault.line);
    writeln!(io::stderr(), "{}", plain(&format!("{}: {line}", path.display())))?;
    let forged = found.is_err_and(|fault| fault.forged);
    anyhow::ensure!(
        unverified || !forged,
        "this recording is not shown, since it does not verify; --unverified shows it"
    );
    Ok(())
}
