//! `tidegate check`

use super::print;
use crate::{
    config::{self, summary},
    text::plain,
};
use anyhow::Context as _;
use std::{fmt::Write as _, io, path::Path, process::ExitCode};
use tidegate_ca::Keys;

/// Prints every fault and exits 1, or the summary.
pub(super) fn run(named: Option<&Path>) -> anyhow::Result<ExitCode> {
    let file = config::locate(named)?;
    let config = config::load(&file)?;
    let mut out = summary::summary(&config);
    for note in &config.notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    let keys = config.state_dir.join("keys");
    match std::fs::read_dir(&keys) {
        Ok(_) => config.no_own_authority(&Keys::open(&keys).context("the gateway's keys")?)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            writeln!(out, "note: {} does not exist yet: `tidegate init` makes the gateway's keys", keys.display())?;
        }
        Err(error) => writeln!(out, "note: the keys were not looked at: {}: {error}", keys.display())?,
    }
    writeln!(out, "{}: no faults", plain(&file.display().to_string()))?;
    print(&out)
}
