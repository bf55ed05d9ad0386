//! Other gateways, whose ledgers' heads this one keeps and countersigns: `[[peer]]`. Two that do so for each other are two that one
//! intruder must hold.
//!
//! Each asks the other's status, which shows its signed heads to anybody where `api.show_heads` says so. What always holds: a head is kept only if the peer's own key
//! signed it, and never one that is older than what is kept, or another of the same number: that is said wherever people look, and in
//! our own ledger. What is kept is an anchor's file, which `ledger verify --anchor` takes, with our countersignature in each line.

use crate::anchor::{Anchored, LONGEST_ANSWER, get};
use anyhow::{Context as _, ensure};
use hyper::Uri;
use jiff::Timestamp;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tidegate_grants::{Event, ledger::proof::SignedHead};
use tidegate_proxy::gate::Gate;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

/// Below the state directory: a file for each peer.
const FOLDER: &str = "peers";
/// A peer that does not answer by then is asked again later.
const DEADLINE: Duration = Duration::from_secs(10);
/// Chains of one peer.
const MOST: usize = 64;
/// A head of the same number is written down again after so long: until then the peer was there, and did nothing.
const AGAIN: Duration = Duration::from_secs(3600);
/// Of the file of a peer, its end is read.
const TAIL: u64 = 1 << 20;

/// One `[[peer]]`.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// Its API.
    pub(crate) url: Uri,
    /// Who signs its certificate; else the system's authorities.
    pub(crate) ca: Option<PathBuf>,
    /// What it signs its heads with.
    pub(crate) public_key: [u8; 32],
    pub(crate) every: Duration,
}

/// What of a status is of use here; the rest is the business of other versions.
#[derive(Deserialize)]
struct Shown {
    heads: Vec<SignedHead>,
}

/// The newest head of each of its chains.
type Newest = BTreeMap<String, SignedHead>;

/// Asks it again and again, for ever.
pub(crate) async fn keep(peer: Peer, gate: Gate, state: PathBuf, standing: Anchored) {
    let file = state.join(FOLDER).join(format!("{}.jsonl", peer.name));
    let (read, public) = (file.clone(), peer.public_key);
    let mut newest = spawn_blocking(move || remembered(&read, &public)).await.unwrap_or_default();
    let mut told = None;
    let mut tick = interval(peer.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let outcome = look(&peer, &gate, &file, &mut newest).await;
        if let Err(error) = &outcome {
            let why = format!("{error:#}");
            tracing::error!(peer = peer.name, why, "a peer's heads were not taken");
            // Not that it could not be asked, and once.
            if error.is::<Diverged>() && told.as_ref() != Some(&why) {
                let detail = serde_json::json!({ "peer": peer.name, "why": why });
                match gate.store.append(Event::new("peer.diverged").detail(detail), gate.now()).await {
                    Ok(()) => told = Some(why),
                    Err(error) => tracing::error!(%error, "what is wrong with a peer could not be written"),
                }
            }
        }
        standing.note(&peer.name, outcome.map(|()| gate.now()).map_err(|error| format!("{error:#}")));
    }
}

async fn look(peer: &Peer, gate: &Gate, file: &Path, newest: &mut Newest) -> anyhow::Result<()> {
    let address = format!("{}/v1/status", peer.url.to_string().trim_end_matches('/'));
    let answer = timeout(DEADLINE, get(&address.parse()?, peer.ca.as_deref())).await;
    let answer = answer.map_err(|_| anyhow::anyhow!("no answer within {DEADLINE:?}"))??;
    ensure!(answer.len() < LONGEST_ANSWER, "its status is too long");
    let Shown { heads } =
        serde_json::from_slice(&answer).context("its status shows no heads: it takes api.show_heads = true there")?;
    ensure!(!heads.is_empty(), "its ledger has no head");
    ensure!(heads.len() <= MOST, "it shows more than {MOST} chains");
    for head in &heads {
        let known = newest.get(&head.node);
        if !is_new(known, head, &peer.public_key)? {
            continue;
        }
        let countersigned = gate.store.countersign(head.clone(), &gate.name, gate.now()).await?;
        let (file, line) = (file.to_owned(), serde_json::to_string(&countersigned)?);
        spawn_blocking(move || append(&file, &line)).await?.context("its head could not be written down")?;
        newest.insert(head.node.clone(), head.clone());
    }
    // One that is shown no longer was there.
    let gone = newest.keys().find(|node| !heads.iter().any(|head| head.node == **node));
    gone.map_or(Ok(()), |node| Err(Diverged(format!("its chain {node} is no longer there")).into()))
}

/// Why it is not the ledger that it was.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Diverged(String);

/// Whether it is to be written down.
fn is_new(known: Option<&SignedHead>, head: &SignedHead, public: &[u8; 32]) -> Result<bool, Diverged> {
    let SignedHead { node, seq, hash, at, .. } = head;
    if !head.holds(public) {
        return Err(Diverged(format!("the head of its chain {node} is not signed by its key")));
    }
    let Some(known) = known else { return Ok(true) };
    if *seq < known.seq {
        let had = known.seq;
        let why =
            format!("its chain {node} ends at {seq}, and was at {had} at {}: an older store was put back", known.at);
        return Err(Diverged(why));
    }
    if *seq == known.seq && *hash != known.hash {
        return Err(Diverged(format!("its chain {node} has another entry {seq} than it had at {}", known.at)));
    }
    let later = || -> Option<bool> {
        let (at, before): (Timestamp, Timestamp) = (at.parse().ok()?, known.at.parse().ok()?);
        Some(Duration::try_from(at.duration_since(before)).is_ok_and(|passed| passed >= AGAIN))
    };
    Ok(*seq > known.seq || later().unwrap_or(false))
}

/// What was kept before.
fn remembered(file: &Path, public: &[u8; 32]) -> Newest {
    let mut newest = Newest::new();
    let Ok(text) = tail(file) else { return newest };
    for line in text.lines() {
        // The first is half a line, if it was cut.
        let Ok(head) = serde_json::from_str::<SignedHead>(line) else { continue };
        if head.holds(public) && newest.get(&head.node).is_none_or(|known| known.seq <= head.seq) {
            newest.insert(head.node.clone(), head);
        }
    }
    newest
}

fn tail(file: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_peers_file_without_a_whole_line_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peers/b.jsonl");
        assert!(remembered(&file, &[0; 32]).is_empty());
        append(&file, "{\"node\":").unwrap();
        append(&file, "\u{fffd}").unwrap();
        assert!(remembered(&file, &[0; 32]).is_empty());
    }
}
