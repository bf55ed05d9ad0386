//! `tidegate recording reindex`: an index beside each recording that has none, or one that is not of it as it is now.
//!
//! What always holds: only what verifies is indexed, so that an index never says what was not recorded; what cannot be is counted
//! and named.

use super::{
    keeping,
    recording::{folder, judge, known},
    state_dir, verification_key,
};
use crate::{api::How, cli::Reindex, text::plain};
use anyhow::Context as _;
use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};
use tidegate_recorder::{
    index::{self, IndexError},
    keys::Identities,
    storage::{self, Entry, State},
    verify::ReadError,
};

pub(super) fn run(named: Option<&Path>, wanted: &Reindex) -> anyhow::Result<ExitCode> {
    let identities = Identities::from_file(&wanted.identity)?;
    let (folder, state) = (folder(named)?, state_dir(named)?);
    let key = verification_key(if wanted.key.is_some() { Path::new("") } else { &state }, wanted.key.as_deref())?;
    let known = known(&state).ok();
    let entries = if wanted.recordings.is_empty() {
        storage::list(&folder).with_context(|| folder.display().to_string())?.entries
    } else {
        let found = wanted.recordings.iter().map(|recording| storage::find(&folder, recording));
        found.collect::<Result<Vec<Entry>, _>>()?
    };
    keeping::note(named, How::Indexed, None, None);
    let (mut made, mut fresh, mut faults) = (0, 0, 0);
    for entry in entries.iter().filter(|entry| entry.state != State::Live) {
        if index::is_fresh(&entry.path) {
            fresh += 1;
            continue;
        }
        let forged = judge(&entry.path, &key, known.as_ref()).err().filter(|fault| fault.forged);
        let outcome = match forged {
            Some(fault) => Err(fault.line),
            None => index::make(&entry.path, &identities).map_err(why),
        };
        match outcome {
            Ok(_) => made += 1,
            Err(why) => {
                faults += 1;
                writeln!(io::stderr(), "{}", plain(&format!("{}: not indexed: {why}", entry.path.display())))?;
            }
        }
    }
    super::print(&format!("{made} indexed, {fresh} had a fresh index, {faults} could not be indexed\n"))?;
    Ok(ExitCode::from(u8::from(faults > 0)))
}

fn why(error: IndexError) -> String {
    match error {
        IndexError::Read(ReadError::NoKey) => "this key does not open it".to_owned(),
        other => other.to_string(),
    }
}
