//! `tidegate recording hold`, `release`, `holds` and `recover`.

use super::{client, moment, print, print_json, recording::is_within, state_dir, verification_key};
use crate::{
    api::{
        AcceptBody, How, OpenedBody,
        client::{Client, Unreachable, segment},
    },
    cli::{self, Hold},
    keeping::fates,
    text::{self, plain},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use tidegate_grants::SessionId;
use tidegate_recorder::verify::{Outcome, verify};

/// A gateway that hangs keeps no auditor from a recording.
const TO_NOTE: Duration = Duration::from_secs(3);

/// `what` is `hold` or `release`.
pub(super) fn hold(named: Option<&Path>, remote: &cli::Remote, what: &str, hold: &Hold) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/recordings/{}/{what}", segment(&hold.recording));
    let body = AcceptBody { reason: hold.reason.clone() };
    let done: crate::api::RecordingHeld = client(named, remote)?.post(&path, &body)?;
    print(&format!("{}\n", done.session))
}

/// Has the ledger say that this was opened, where its gateway runs. A recording that lies elsewhere is opened where nobody can know of it,
/// and so is one whose gateway does not run.
pub(super) fn note(named: Option<&Path>, how: How, recording: Option<&Path>, what: Option<String>) {
    let Ok(state) = state_dir(named) else { return };
    let session = match recording {
        None => None,
        Some(path) => {
            let ours = is_within(path, &state.join(crate::config::RECORDINGS));
            match path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).filter(|_| ours) {
                Some(session) => Some(session),
                None => return,
            }
        }
    };
    let Ok(client) = Client::new(&state) else { return };
    let noted: anyhow::Result<Option<SessionId>> =
        client.post_within("/v1/recordings/opened", &OpenedBody { how, session, what }, TO_NOTE);
    match noted {
        Err(error) if !error.is::<Unreachable>() => {
            // Who has file and key can read it anyway: this only says that it was not written down.
            let _ = writeln!(io::stderr(), "{}", plain(&format!("not in the ledger: {error:#}")));
        }
        _ => {}
    }
}

/// One that is held, as the list shows it.
#[derive(serde::Serialize)]
struct Held {
    session: String,
    identity: String,
    target: String,
    by: String,
    reason: String,
}

/// From the ledger, without a gateway.
pub(super) fn holds(named: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let mut held = Vec::new();
    for (session, fate) in fates(&state_dir(named)?)? {
        let Some(detail) = fate.held else { continue };
        let text = |name: &str| detail.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let (by, reason) = (text("by"), text("reason"));
        let begun = fate.begun.as_ref();
        let identity = begun.and_then(|begun| begun.identity.clone()).unwrap_or_default();
        let target = begun.and_then(|begun| begun.target.as_ref()).map(ToString::to_string).unwrap_or_default();
        held.push(Held { session: session.to_string(), identity, target, by, reason });
    }
    if json {
        return print_json(&held);
    }
    let row = |held: &Held| {
        [&held.session, &held.identity, &held.target, &held.by, &held.reason].map(|text| plain(text).into_owned())
    };
    let rows: Vec<_> = held.iter().map(row).collect();
    print(&text::table(["SESSION", "IDENTITY", "TARGET", "HELD BY", "REASON"], &rows))
}

/// What is there of a recording that breaks off, part by part. Nothing is written and nothing is chained anew.
pub(super) fn recover(named: Option<&Path>, file: &Path, key: Option<&Path>) -> anyhow::Result<ExitCode> {
    let key = match key {
        Some(_) => verification_key(Path::new(""), key)?,
        None => verification_key(&state_dir(named)?, None)?,
    };
    let verdict = verify(file, &key)?;
    let mut out = String::new();
    writeln!(out, "{}", plain(&format!("{}: {verdict}", file.display())))?;
    let proven = verdict.proven;
    match verdict.proven_until {
        Some(at) if proven > 0 => writeln!(out, "PROVEN      frames 1 to {proven}, signed at {}", moment(at))?,
        _ => writeln!(out, "PROVEN      nothing")?,
    }
    if verdict.frames > proven {
        let from = proven + 1;
        writeln!(
            out,
            "NOT PROVEN  frames {from} to {}: chained to what is proven, and signed by nothing; since the ledger has their hash \
             (recording.recovered), not changed after that",
            verdict.frames
        )?;
    }
    match verdict.outcome {
        Outcome::Truncated { torn, .. } if torn > 0 => {
            writeln!(out, "TORN        {torn} bytes of a frame that was being written")?
        }
        Outcome::Bad { frame, fault } => {
            writeln!(out, "CHANGED     frame {frame}: {fault}; nothing from there on counts")?
        }
        Outcome::Truncated { .. } | Outcome::Complete => {}
    }
    print(&out)?;
    Ok(match verdict.outcome {
        Outcome::Complete => ExitCode::SUCCESS,
        Outcome::Truncated { .. } => ExitCode::from(4),
        Outcome::Bad { .. } => ExitCode::from(1),
    })
}
