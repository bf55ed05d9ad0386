//! `tidegate evidence`: on files, on the gateway's own host, because it is signed with the ledger key.

use super::{keeping, print, verification_key, verify::read_anchors};
use crate::{api::How, cli, config, evidence};
use anyhow::{anyhow, ensure};
use jiff::Timestamp;
use std::{path::Path, process::ExitCode};
use tidegate_grants::{SessionId, pick, store};
use tidegate_recorder::storage::{self, FindError, State};

pub(super) fn run(named: Option<&Path>, arguments: &cli::Evidence) -> anyhow::Result<ExitCode> {
    let config = config::load(&config::locate(named)?)?;
    let state = &config.state_dir;
    let session = find(state, &arguments.session)?.to_string();
    let recording = match storage::find(&state.join(config::RECORDINGS), &session) {
        Ok(entry) => {
            ensure!(
                entry.state != State::Live,
                "session {session} is live: its evidence is not complete before its end"
            );
            Some(entry.path)
        }
        // Refused before anything was recorded; a recording that is gone the ledger still knows.
        Err(FindError::None(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let anchors = match arguments.anchors.as_slice() {
        [] => None,
        files => {
            let (anchors, _) = read_anchors(files, &[], &verification_key(state, None)?)?;
            ensure!(anchors.faults.is_empty(), "{}", anchors.faults.join("; "));
            Some(anchors)
        }
    };
    keeping::note(named, How::Bundled, recording.as_deref(), arguments.redact.then(|| "redacted".to_owned()));
    let (gateway, redact, now) = (&config.policy.gateway, arguments.redact, Timestamp::now());
    let made = evidence::make(
        state,
        gateway,
        &session,
        recording.as_deref(),
        (redact, anchors.as_ref()),
        &arguments.output,
        now,
    )?;
    print(&format!(
        "{}: evidence of session {session}, {} entries of the ledger{}; prove it with `tidegate verify`\n",
        arguments.output.display(),
        made.entries.len(),
        if made.redacted { ", without its recording" } else { "" }
    ))
}

/// The one session that the ledger knows by this.
fn find(state: &Path, id: &str) -> anyhow::Result<SessionId> {
    let mut sessions: Vec<SessionId> = Vec::new();
    store::export(state, 0, |exported| {
        sessions.extend(exported.entry.event.session);
        anyhow::Ok(())
    })?;
    sessions.sort_unstable();
    sessions.dedup();
    pick::one(sessions, id, ToString::to_string).map_err(|fault| anyhow!(fault.sentence("session")))
}
