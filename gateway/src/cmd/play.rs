//! `tidegate recording play`: in the player where there is a terminal, from beginning to end elsewhere.

use super::{
    keeping,
    recording::{attest, path},
};
use crate::{api::How, cli::Play, player};
use anyhow::{Context as _, ensure};
use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::Duration,
};
use tidegate_recorder::{
    keys::Identities,
    play::{Player, Settings},
    replay::Reel,
};

pub(super) fn run(named: Option<&Path>, wanted: &Play) -> anyhow::Result<ExitCode> {
    let path = path(named, &wanted.recording)?;
    attest(named, &path, wanted.key.as_deref(), wanted.unverified)?;
    let identities = Identities::from_file(&wanted.identity)?;
    let reel = Reel::new(&path, &identities, wanted.keystrokes).with_context(|| path.display().to_string())?;
    let watched = !wanted.plain && io::stdout().is_terminal() && io::stdin().is_terminal();
    ensure!(
        watched || (!wanted.keystrokes && wanted.copy.is_none()),
        "--keystrokes and --copy need a terminal; recording export --keystrokes writes what was typed into a file"
    );
    ensure!(
        !wanted.keystrokes || reel.shows_keystrokes(),
        "this key does not open what was typed in this session; play it without --keystrokes"
    );
    let replay = reel.open()?;
    keeping::note(named, How::Played, Some(&path), None);
    let from = wanted.at.map(|at| at.since(replay.header().start)).unwrap_or_default();
    let &Play { speed, idle_limit, channel, .. } = wanted;
    if watched {
        let copy = wanted.copy.clone();
        return player::play(reel, &player::Options { speed, idle_limit, from, channel, copy });
    }
    through(Player::new(replay, Settings { speed, idle_limit, view: view(), channel, from }))
}

/// This terminal, columns and rows.
pub(super) fn view() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// From beginning to end: into a pipe without pauses, where nobody is watching.
fn through(player: Player) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let watched = out.is_terminal();
    for step in player {
        let step = step?;
        if watched && step.delay > Duration::ZERO {
            out.flush()?;
            sleep(step.delay);
        }
        out.write_all(&step.bytes)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
