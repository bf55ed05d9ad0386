//! `tidegate verify`: what a file proves, with the public key alone.
//!
//! What always holds: nothing of a gateway is needed, and nothing that a file says of itself is believed before the key
//! vouches for it. What kind of file it is, its first bytes say, not its name.

use super::{print, print_json, state_dir, verification_key};
use crate::{
    cli,
    evidence::{self, Proven},
    text::plain,
};
use anyhow::{Context as _, ensure};
use ed25519_dalek::VerifyingKey;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};
use tidegate_grants::{
    SessionId,
    ledger::proof::{Anchors, Countersigned, Found, SignedHead, Walk},
};
use tidegate_recorder::verify::{Outcome, verify as verify_recording};

/// An entry is at most some 300 KiB.
const LONGEST_LINE: u64 = 4 << 20;
/// A year of heads, one a minute.
const LONGEST_ANCHOR: u64 = 256 << 20;
/// How a recording begins.
const RECORDING: &[u8] = b"tgrec\r\n\x1a";

/// What was found of one file. The worst decides how the program exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// All of it is proven.
    Intact,
    /// What is there is as it was written, but there was more.
    Cut,
    /// Not as it was written, or not by this key.
    Changed,
}

/// One file.
#[derive(Debug, serde::Serialize)]
pub(super) struct Proof {
    file: PathBuf,
    state: State,
    /// Sentences, the verdict first.
    lines: Vec<String>,
}

pub(super) fn run(named: Option<&Path>, arguments: &cli::Verify) -> anyhow::Result<ExitCode> {
    let key = match &arguments.key {
        Some(_) => verification_key(Path::new(""), arguments.key.as_deref())?,
        None => verification_key(&state_dir(named).context("name the verification key with --key")?, None)?,
    };
    let (anchors, seen) = read_anchors(&arguments.anchors, &arguments.witnesses, &key)?;
    let mut proofs = Vec::new();
    for named in &arguments.files {
        let mut whose = BTreeMap::new();
        for file in recordings_below(named)? {
            let (mut state, mut lines, session) =
                prove(&file, &key, (&anchors, &seen)).with_context(|| file.display().to_string())?;
            let fault =
                session.filter(|_| named.is_dir()).and_then(|session| misplaced(&file, session, state, &mut whose));
            if let Some(fault) = fault {
                (state, lines) = (State::Changed, [fault].into_iter().chain(lines).collect());
            }
            proofs.push(Proof { file, state, lines });
        }
    }
    if arguments.json.json {
        print_json(&proofs)?;
    } else {
        print(&shown(&proofs)?)?;
    }
    Ok(match proofs.iter().map(|proof| proof.state).max() {
        Some(State::Intact) => ExitCode::SUCCESS,
        None => ExitCode::from(1), // nothing was proven
        Some(State::Cut) => ExitCode::from(4),
        Some(State::Changed) => ExitCode::from(1),
    })
}

fn shown(proofs: &[Proof]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for proof in proofs {
        let (first, rest) = proof.lines.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        writeln!(out, "{}", plain(&format!("{}: {first}", proof.file.display())))?;
        for line in rest {
            writeln!(out, "  {}", plain(line))?;
        }
    }
    if proofs.is_empty() {
        out.push_str("there is no recording here: nothing is proven\n");
    }
    Ok(out)
}

/// Why a recording cannot be the one that belongs here: none has another session's name, and whole ones are each of another session.
fn misplaced(file: &Path, session: String, state: State, whose: &mut BTreeMap<String, PathBuf>) -> Option<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if stem != session && stem.parse::<SessionId>().is_ok() {
        return Some(format!("NOT intact: SWAPPED, this is the recording of session {session}"));
    }
    let other = if state == State::Intact { whose.insert(session.clone(), file.to_owned()) } else { None };
    other.map(|other| format!("NOT intact: {} is of session {session} too", other.display()))
}

/// The heads that went to anchors, of all these files, and what the owners of these keys say of them.
pub(super) fn read_anchors(
    files: &[PathBuf],
    witnesses: &[PathBuf],
    key: &VerifyingKey,
) -> anyhow::Result<(Anchors, Vec<String>)> {
    let mut text = String::new();
    for file in files {
        let open = File::open(file).with_context(|| file.display().to_string())?;
        open.take(LONGEST_ANCHOR).read_to_string(&mut text).with_context(|| file.display().to_string())?;
        text.push('\n');
    }
    let mut anchors = Anchors::read(&text, &key.to_bytes());
    if !files.is_empty() && anchors.heads().next().is_none() && anchors.faults.is_empty() {
        anchors.faults.push("there is no head of a ledger in the anchor: nothing is proven against it".to_owned());
    }
    let mut seen = Vec::new();
    // What no witness has seen has no time that anybody vouches for.
    let newest: BTreeMap<&str, &SignedHead> = anchors.heads().map(|head| (head.node.as_str(), head)).collect();
    for SignedHead { node, seq, at, .. } in newest.values().filter(|_| witnesses.is_empty()) {
        seen.push(format!("the newest head of the anchor is {node}/{seq}, signed at {at}"));
    }
    let mut keys = Vec::new();
    for file in witnesses {
        let (witness, whose) = (verification_key(Path::new(""), Some(file))?, file.display());
        ensure!(witness != *key, "{whose}: this is the key of the ledger itself, and nobody is a witness of their own");
        let newest = anchors.seen_by(&witness.to_bytes());
        let none = newest.is_empty().then(|| format!("no head of the anchor is countersigned by {whose}"));
        for (node, Countersigned { head, countersigned }) in newest {
            let (gateway, at) = (&countersigned.gateway, &countersigned.at);
            seen.push(format!("{whose} ({gateway}) has seen it up to {node}/{} at {at}", head.seq));
        }
        anchors.faults.extend(none);
        keys.push(witness.to_bytes());
    }
    if !keys.is_empty() {
        anchors.must_be_seen_by(&keys);
    }
    Ok((anchors, seen))
}

/// A file, or all recordings in a directory, by name.
fn recordings_below(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let mut found = Vec::new();
    for item in fs::read_dir(file).with_context(|| file.display().to_string())? {
        let item = item?;
        let (path, kind) = (item.path(), item.file_type()?);
        if kind.is_dir() {
            found.extend(recordings_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "tgr") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What was found, the verdict first, and of which session it is a recording, if it is one that can be believed.
fn prove(
    file: &Path,
    key: &VerifyingKey,
    (anchors, seen): (&Anchors, &[String]),
) -> anyhow::Result<(State, Vec<String>, Option<String>)> {
    let mut first = Vec::new();
    File::open(file)?.take(512).read_to_end(&mut first)?;
    let (state, mut lines, session) = if first.starts_with(RECORDING) {
        recording(file, key)
    } else if first.get(257..262) == Some(b"ustar") {
        let (state, lines) = bundle(file, key, anchors)?;
        return Ok((state, lines, None));
    } else {
        // Whatever else it is, no line of it is an entry, and that is said.
        let (state, mut lines) = ledger(file, key, anchors)?;
        if state == State::Intact {
            lines.extend_from_slice(seen);
        }
        return Ok((state, lines, None));
    };
    if anchors.heads().next().is_some() || !anchors.faults.is_empty() {
        lines.push("the anchor was not asked: it knows the ledger, and evidence".to_owned());
    }
    Ok((state, lines, session))
}

fn recording(file: &Path, key: &VerifyingKey) -> (State, Vec<String>, Option<String>) {
    let verdict = match verify_recording(file, key) {
        Ok(verdict) => verdict,
        Err(error) => return (State::Changed, vec![format!("NOT intact: {error}")], None),
    };
    let header = &verdict.header;
    let whose = format!(
        "session {} of {}, {} on {}, from {}",
        header.session, header.identity, header.access, header.target, header.start
    );
    let (state, word) = match verdict.outcome {
        Outcome::Complete => (State::Intact, "intact"),
        Outcome::Truncated { .. } => (State::Cut, "NOT whole"),
        Outcome::Bad { .. } => (State::Changed, "NOT intact"),
    };
    // Before a signature held, nothing that the header says is worth a line.
    let proven = (verdict.proven > 0).then_some(whose);
    let mut lines = vec![format!("{word}: recording, {verdict}")];
    lines.extend(proven);
    lines.push(format!("head {}: what the ledger's entry recording.sealed says of a whole one", verdict.head));
    (state, lines, (verdict.proven > 0).then_some(verdict.header.session))
}

fn bundle(file: &Path, key: &VerifyingKey, anchors: &Anchors) -> anyhow::Result<(State, Vec<String>)> {
    let Proven { mut faults, claims, session, cut, trees } = evidence::prove(file, key)?;
    let mut anchored = Vec::new();
    faults.extend(anchors.faults.iter().cloned());
    let asked = anchors.heads().next().is_some();
    if asked && trees.is_empty() {
        faults.push("nothing in it leads to a root of the anchor".to_owned());
    }
    for tree in trees.iter().filter(|_| asked) {
        match anchors.has_tree(tree) {
            Ok(at) => {
                anchored.push(format!("ANCHORED  its entries are of the ledger whose root went to the anchor at {at}"))
            }
            Err(why) => faults.push(why),
        }
    }
    if faults.is_empty() {
        let lines = claims.iter().map(|claim| format!("{:9} {}", claim.word.text(), claim.what));
        let (state, word) =
            if cut { (State::Cut, "NOT whole: its recording breaks off;") } else { (State::Intact, "intact:") };
        let verdict = format!("{word} evidence of session {session}; what each line rests on is said before it");
        return Ok((state, [verdict].into_iter().chain(anchored).chain(lines).collect()));
    }
    let verdict = format!("NOT intact: evidence, {} fault(s)", faults.len());
    Ok((State::Changed, [verdict].into_iter().chain(faults).collect()))
}

fn ledger(file: &Path, key: &VerifyingKey, anchors: &Anchors) -> anyhow::Result<(State, Vec<String>)> {
    let mut walk = Walk::new(key.to_bytes(), anchors);
    let mut reader = BufReader::new(File::open(file)?);
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        walk.line(String::from_utf8_lossy(&line).trim_end());
    }
    let Found { entries, heads, left, faults } = walk.end();
    let mut lines = Vec::new();
    let upto = heads.iter().map(|head| format!("{}/{} signed at {}", head.node, head.seq, head.at));
    let upto = upto.collect::<Vec<_>>().join(", ");
    if faults.is_empty() {
        lines.push(format!("intact: ledger, {entries} entries, up to {upto}"));
        let anchored = anchors.heads().count();
        lines.extend((anchored > 0).then(|| format!("the {anchored} heads of the anchor are in it")));
        return Ok((State::Intact, lines));
    }
    lines.push(format!(
        "NOT intact: ledger, {} fault(s); {entries} entries are in chains that hold to their end",
        faults.len()
    ));
    lines.extend(faults);
    lines.extend(left.iter().map(ToString::to_string));
    Ok((State::Changed, lines))
}
