//! Other gateways, whose ledgers' heads this one keeps and countersigns: `[[peer]]`. Two that do so for each other are two that one
//! intruder must hold.
//!
//! Each asks the other's status, which shows its signed heads to anybody where `api.show_heads` says so. What always holds: a head is kept
//! only if the peer's own key signed it, and never one that is older than what is kept, or another of the same number. A peer that
//! shows one stays in disgrace until a human takes the word of it away (`NAME.diverged`): then no head of its is kept. What is kept is
//! an anchor's file, which `ledger verify --anchor` takes, with our countersignature in each line.

use crate::{
    anchor::{LONGEST_ANSWER, Standings, get},
    text::plain,
};
use anyhow::{Context as _, bail, ensure};
use hyper::Uri;
use jiff::Timestamp;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, ErrorKind, Read, Seek as _, SeekFrom, Write as _},
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
/// Chains of one peer, of all times.
const MOST: usize = 64;
/// A head of the same number is written down again after so long: until then the peer was there, and did nothing.
const AGAIN: Duration = Duration::from_secs(3600);
/// Names and times in a head.
const LONGEST: usize = 64;
/// The file of a peer grows no larger: about a year of a head a minute. `ledger verify` reads as much of an anchor.
const FULL: u64 = 256 << 20;

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

/// What is known of a peer.
struct Known {
    peer: Peer,
    /// Its heads.
    file: PathBuf,
    /// Why it is in disgrace, while it is.
    word: PathBuf,
    newest: Newest,
    /// The ledger has that it diverged.
    told: bool,
}

/// Asks it again and again, for ever.
pub(crate) async fn keep(peer: Peer, gate: Gate, state: PathBuf, standing: Standings) {
    let place = |end: &str| state.join(FOLDER).join(format!("{}.{end}", peer.name));
    let (file, word) = (place("jsonl"), place("diverged"));
    let mut tick = interval(peer.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known { peer, file, word, newest: Newest::new(), told: false };
    let mut read = false;
    loop {
        tick.tick().await;
        let outcome = async {
            if !read {
                let (file, public) = (known.file.clone(), known.peer.public_key);
                known.newest = spawn_blocking(move || remembered(&file, &public)).await??;
                read = true;
            }
            known.look(&gate).await
        };
        let outcome: anyhow::Result<()> = outcome.await;
        if let Err(error) = &outcome {
            tracing::error!(peer = known.peer.name, error = format!("{error:#}"), "a peer's heads were not taken");
        }
        let outcome = outcome.map(|()| gate.now()).map_err(|error| plain(&format!("{error:#}")).into_owned());
        standing.note(&known.peer.name, outcome);
    }
}

impl Known {
    async fn look(&mut self, gate: &Gate) -> anyhow::Result<()> {
        match fs::read_to_string(&self.word) {
            Ok(why) => {
                bail!("{}: move {} and {} away to begin anew", why.trim(), self.word.display(), self.file.display())
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("what is known of it"),
            Err(_) => {}
        }
        if !self.file.try_exists().context("what was kept of it")? {
            self.newest.clear(); // somebody has moved it away
        }
        let Err(diverged) = self.take(gate).await? else { return Ok(()) };
        let why = line(&diverged.to_string());
        if !self.told {
            let detail = serde_json::json!({ "peer": self.peer.name, "why": why });
            gate.store.append(Event::new("peer.diverged").detail(detail), gate.now()).await?;
            self.told = true;
        }
        append(&self.word, &format!("{}: {why}", gate.now())).context("that it diverged could not be written down")?;
        self.told = false; // the word says so from here on
        bail!("{why}")
    }

    /// What it shows, if that follows from what it has shown before.
    async fn take(&mut self, gate: &Gate) -> anyhow::Result<Result<(), Diverged>> {
        let address = format!("{}/v1/status", self.peer.url.to_string().trim_end_matches('/'));
        let answer = timeout(DEADLINE, get(&address.parse()?, self.peer.ca.as_deref())).await;
        let answer = answer.map_err(|_| anyhow::anyhow!("no answer within {DEADLINE:?}"))??;
        let shown = serde_json::from_slice(&answer);
        let Shown { heads } = shown.context("its status shows no heads: it takes api.show_heads = true there")?;
        let mut new = Vec::new();
        for head in heads {
            let head = SignedHead { tree: None, ..head }; // which is neither signed with it nor bounded
            ensure!(head.node.len() <= LONGEST && head.at.len() <= LONGEST, "it shows a head that is none");
            match is_new(self.newest.get(&head.node), &head, &self.peer.public_key) {
                Ok(true) => new.push(head),
                Ok(false) => {}
                // With nothing known, it is another than the configuration means.
                Err(diverged) if self.newest.is_empty() => bail!("{diverged}"),
                Err(diverged) => return Ok(Err(diverged)),
            }
        }
        let all: BTreeSet<&String> = self.newest.keys().chain(new.iter().map(|head| &head.node)).collect();
        ensure!(!all.is_empty(), "its ledger has no head");
        ensure!(all.len() <= MOST, "it shows more than {MOST} chains");
        for head in new {
            let countersigned = gate.store.countersign(head.clone(), &gate.name, gate.now()).await?;
            let (file, text) = (self.file.clone(), serde_json::to_string(&countersigned)?);
            spawn_blocking(move || append(&file, &text)).await?.context("its head could not be written down")?;
            self.newest.insert(head.node.clone(), head);
        }
        Ok(Ok(()))
    }
}

/// What a peer says is on one line, and not long.
fn line(text: &str) -> String {
    plain(text).chars().take(300).collect()
}

/// Why it is not the ledger that it was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
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
fn remembered(file: &Path, public: &[u8; 32]) -> std::io::Result<Newest> {
    let mut newest = Newest::new();
    let file = match fs::File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(newest),
        file => file?,
    };
    for text in BufReader::new(file.take(FULL)).split(b'\n') {
        // One that broke off is none.
        let Ok(head) = serde_json::from_slice::<SignedHead>(&text?) else { continue };
        if head.holds(public) && newest.get(&head.node).is_none_or(|known| known.seq <= head.seq) {
            newest.insert(head.node.clone(), head);
        }
    }
    Ok(newest)
}

/// Without what broke off at its end.
fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let length = file.metadata()?.len();
    if length + line.len() as u64 >= FULL {
        return Err(std::io::Error::other("the file of this peer is full: move it away"));
    }
    let from = length.saturating_sub(u64::try_from(LONGEST_ANSWER).unwrap_or(u64::MAX));
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    Read::by_ref(&mut file).take(length - from).read_to_end(&mut end)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(from, |at| from + at as u64 + 1);
    if whole < length {
        file.set_len(whole)?;
    }
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    use std::sync::Arc;
    use tidegate_grants::{Store, store::HeadSigner};

    /// Heads of a store as it grows.
    async fn heads(dir: &Path, count: i64) -> (Vec<SignedHead>, [u8; 32]) {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let signer: HeadSigner = Arc::new(key);
        let store = Store::open(dir, "a", "c0ffee", signer, public).unwrap();
        let mut heads = Vec::new();
        for n in 0..count {
            let at = Timestamp::from_second(1_800_000_000 + 60 * n).unwrap();
            store.append(Event::new("test.said").detail(serde_json::json!({ "in": dir })), at).await.unwrap();
            heads.push(store.heads().await.unwrap().remove(0));
        }
        store.renew_head(Duration::from_secs(60), Timestamp::from_second(1_800_009_000).unwrap()).await.unwrap();
        heads.push(store.heads().await.unwrap().remove(0));
        (heads, public)
    }

    #[tokio::test]
    async fn a_head_is_taken_if_it_is_newer_and_one_that_goes_back_is_a_fault() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (heads, public) = heads(one.path(), 3).await;
        let (others, _) = self::heads(other.path(), 3).await;
        let of = |known: usize, head: &SignedHead| is_new(heads.get(known), head, &public).map_err(|Diverged(why)| why);
        assert_eq!(
            (is_new(None, &heads[0], &public), of(0, &heads[1]), of(1, &heads[1])),
            (Ok(true), Ok(true), Ok(false))
        );
        assert_eq!(of(2, &heads[3]), Ok(true), "the same entry, hours later: it was there, and did nothing");
        assert!(of(2, &heads[1]).unwrap_err().contains("an older store was put back"));
        assert!(of(1, &others[1]).unwrap_err().contains("another entry"));
        let forged = SignedHead { seq: 9, ..heads[2].clone() };
        assert!(of(2, &forged).unwrap_err().contains("is not signed by its key"));
    }

    #[tokio::test]
    async fn what_was_kept_is_read_again_and_a_line_that_broke_off_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (heads, public) = heads(&dir.path().join("store"), 2).await;
        let file = dir.path().join("peers/b.jsonl");
        assert!(remembered(&file, &public).unwrap().is_empty());
        append(&file, &serde_json::to_string(&heads[0]).unwrap()).unwrap();
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(b"{\"node\":\"a\",\"seq\":").unwrap();
        assert_eq!(remembered(&file, &public).unwrap()["a"], heads[0]);
        append(&file, &serde_json::to_string(&heads[1]).unwrap()).unwrap();
        assert_eq!(remembered(&file, &public).unwrap()["a"], heads[1]);
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
        fs::create_dir(dir.path().join("peers/c.jsonl")).unwrap();
        assert!(remembered(&dir.path().join("peers/c.jsonl"), &public).is_err(), "what cannot be read is not nothing");
    }
}
