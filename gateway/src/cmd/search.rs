//! `tidegate recording search`: over the recordings of a state directory, with an auditor's key, without a gateway.
//!
//! What always holds: a recording that was changed is named and not searched, so no line is shown that was not recorded; one
//! that this key does not open is counted, so that nobody takes silence for an answer.

use super::{
    keeping, moment, print, print_json,
    recording::{folder, judge, known},
    short, state_dir, verification_key,
};
use crate::{api::How, cli::Search, text::plain};
use anyhow::Context as _;
use regex::RegexBuilder;
use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};
use tidegate_recorder::{
    keys::Identities,
    replay,
    search::{self, Hit, Kind},
    storage::{self, Entry},
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
    let (mut found, mut sealed, mut count) = (Vec::new(), 0, 0);
    for entry in listing.entries.iter().filter(|entry| is_wanted(entry, wanted)) {
        if let Err(fault) = judge(&entry.path, &key, known.as_ref())
            && fault.forged
        {
            writeln!(
                io::stderr(),
                "{}: not searched: {}",
                plain(&entry.path.display().to_string()),
                plain(&fault.line)
            )?;
            continue;
        }
        let replay = match replay::open(&entry.path, &identities, false) {
            Err(ReadError::NoKey) => {
                sealed += 1;
                continue;
            }
            other => other.with_context(|| entry.path.display().to_string())?,
        };
        let kinds = kinds(wanted);
        for hit in search::Search::new(replay, kinds, |line: &str| pattern.is_match(line)) {
            let hit = hit.with_context(|| entry.path.display().to_string())?;
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
    if sealed > 0 {
        writeln!(io::stderr(), "{sealed} recording(s) were not searched: this key does not open them")?;
    }
    Ok(ExitCode::from(u8::from(count == 0)))
}

fn kinds(wanted: &Search) -> BTreeSet<Kind> {
    match wanted.kinds.is_empty() {
        true => [Kind::Text, Kind::Sql, Kind::File, Kind::Command].into(),
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
