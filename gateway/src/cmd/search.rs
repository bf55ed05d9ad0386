//! `tidegate recording search`: over the recordings of a state directory, with an auditor's key, without a gateway.
//!
//! What always holds: no line is shown of a recording that does not verify, and one that was read and was changed is named; one
//! that this key does not open is counted, so that nobody takes silence for an answer. Where a recording has a fresh index,
//! that answers for it, and the recording itself stays sealed; which have none is said.

use super::{
    keeping, moment,
    needles::needles,
    print, print_json,
    recording::{Fault, folder, judge, known},
    short, state_dir, verification_key,
};
use crate::{api::How, cli::Search, text::plain};
use anyhow::Context as _;
use regex::{Regex, RegexBuilder};
use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};
use tidegate_recorder::{
    index::{self, IndexError},
    keys::Identities,
    replay,
    search::{self, Hit, Kind},
    storage::{self, Entry, State},
    verify::ReadError,
};

/// A pattern is compiled to at most so many bytes.
const LARGEST_PATTERN: usize = 4 << 20;

/// One line.
#[derive(serde::Serialize)]
struct Found {
    session: String,
    identity: String,
    target: String,
    #[serde(flatten)]
    hit: Hit,
}

pub(super) fn run(named: Option<&Path>, wanted: &Search) -> anyhow::Result<ExitCode> {
    let pattern = RegexBuilder::new(&wanted.pattern)
        .case_insensitive(wanted.ignore_case)
        .size_limit(LARGEST_PATTERN)
        .build()
        .with_context(|| format!("{:?} is no regular expression", wanted.pattern))?;
    let identities = Identities::from_file(&wanted.identity)?;
    let folder = folder(named)?;
    let state = state_dir(named)?;
    let key = verification_key(if wanted.key.is_some() { Path::new("") } else { &state }, wanted.key.as_deref())?;
    let known = known(&state).ok();
    let listing = storage::list(&folder).with_context(|| folder.display().to_string())?;
    keeping::note(named, How::Searched, None, Some(wanted.pattern.clone()));
    let looking = Looking { kinds: kinds(wanted), needles: needles(&wanted.pattern), pattern, identities };
    let (mut found, mut sealed, mut read, mut count) = (Vec::new(), 0, 0, 0);
    for entry in listing.entries.iter().filter(|entry| is_wanted(entry, wanted)) {
        let answer = looking.look(entry, || judge(&entry.path, &key, known.as_ref()).map(drop))?;
        let hits = match answer {
            Answer::Indexed(hits) => hits,
            Answer::Read(hits) => {
                read += 1;
                hits
            }
            Answer::NoKey => {
                sealed += 1;
                continue;
            }
            Answer::Changed(fault) => {
                let line = format!("{}: not searched: {fault}", entry.path.display());
                writeln!(io::stderr(), "{}", plain(&line))?;
                continue;
            }
        };
        for hit in hits {
            if wanted.since.is_some_and(|since| hit.at < since) || wanted.until.is_some_and(|until| hit.at > until) {
                continue;
            }
            count += 1;
            let (session, identity, target) = (entry.session.clone(), entry.identity.clone(), entry.target.clone());
            let line = Found { session, identity, target, hit };
            if wanted.json.json {
                found.push(line)
            } else {
                print(&shown(&line))?;
            }
        }
    }
    if wanted.json.json {
        print_json(&found)?;
    }
    if read > 0 {
        let line = "recording(s) have no fresh index and were read whole: tidegate recording reindex makes one";
        writeln!(io::stderr(), "{read} {line}")?;
    }
    if sealed > 0 {
        writeln!(io::stderr(), "{sealed} recording(s) were not searched: this key does not open them")?;
    }
    Ok(ExitCode::from(u8::from(count == 0)))
}

/// What is looked for.
struct Looking {
    kinds: BTreeSet<Kind>,
    pattern: Regex,
    needles: Option<Vec<String>>,
    identities: Identities,
}

/// What a recording answers.
enum Answer {
    /// From its index.
    Indexed(Vec<Hit>),
    /// From itself.
    Read(Vec<Hit>),
    /// It is not for this key.
    NoKey,
    /// It is not what was recorded.
    Changed(String),
}

impl Looking {
    /// From its index, where there is one of it as it is now. Nothing is said of a recording before `judge` has verified it; where
    /// its index says that nothing is found there is nothing to verify.
    fn look(&self, entry: &Entry, judge: impl Fn() -> Result<(), Fault>) -> anyhow::Result<Answer> {
        let matches = |line: &str| self.pattern.is_match(line);
        let indexed = index::search(&entry.path, &self.identities, &self.kinds, self.needles.as_deref(), &matches);
        match indexed {
            Ok(hits) if hits.is_empty() => return Ok(Answer::Indexed(hits)),
            Err(IndexError::Read(ReadError::NoKey)) => return Ok(Answer::NoKey),
            _ => {}
        }
        match judge() {
            Err(fault) if fault.forged => return Ok(Answer::Changed(fault.line)),
            Err(fault) if entry.state != State::Live => {
                let line = format!("{}: searched as far as it goes: {}", entry.path.display(), fault.line);
                writeln!(io::stderr(), "{}", plain(&line))?;
            }
            _ => {}
        }
        if let Ok(hits) = indexed {
            return Ok(Answer::Indexed(hits));
        }
        let replay = match replay::open(&entry.path, &self.identities, false) {
            Err(ReadError::NoKey) => return Ok(Answer::NoKey),
            other => other.with_context(|| entry.path.display().to_string())?,
        };
        let hits = search::Search::new(replay, self.kinds.clone(), matches).collect::<Result<_, _>>();
        Ok(Answer::Read(hits.with_context(|| entry.path.display().to_string())?))
    }
}

fn kinds(wanted: &Search) -> BTreeSet<Kind> {
    match wanted.kinds.is_empty() {
        true => search::ALL.into(),
        false => wanted.kinds.iter().map(|kind| Kind::from(*kind)).collect(),
    }
}

fn is_wanted(entry: &Entry, wanted: &Search) -> bool {
    wanted.user.as_ref().is_none_or(|user| user.as_str() == entry.identity)
        && wanted.target.as_ref().is_none_or(|target| target.as_str() == entry.target)
        && wanted.until.is_none_or(|until| entry.start <= until)
        && wanted.since.is_none_or(|since| entry.end.is_none_or(|end| end >= since))
}

/// Who and where, when, and the line; `play --at` takes the seconds.
fn shown(found: &Found) -> String {
    let Found { session, identity, target, hit } = found;
    let kind = format!("{:?}", hit.kind).to_lowercase();
    let (at, seconds) = (moment(hit.at), hit.elapsed.as_secs_f64());
    let session = short(session);
    plain(&format!("{session}  {at}  {seconds:.3}  {identity}@{target}  {kind:7}  {}", hit.line)).into_owned() + "\n"
}
