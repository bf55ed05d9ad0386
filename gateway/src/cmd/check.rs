//! `tidegate check`

use super::print;
use crate::{
    config::{
        self,
        inventory::{Listings, look},
        summary,
    },
    text::plain,
};
use anyhow::Context as _;
use std::{fmt::Write as _, io, path::Path, process::ExitCode};
use tidegate_ca::Keys;

/// Prints every fault and exits 1, or the summary.
/// With `inventory`, what inventories list now is looked at: their programs run.
pub(super) fn run(named: Option<&Path>, inventory: bool) -> anyhow::Result<ExitCode> {
    let file = config::locate(named)?;
    let config = if inventory { looked(&file)? } else { config::load(&file)? };
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

fn looked(file: &Path) -> anyhow::Result<config::Config> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut listings = Listings::new();
    for inventory in config::inventories(file)? {
        let found = runtime.block_on(look(&inventory, jiff::Timestamp::now()));
        let found = found.map_err(|wrong| anyhow::anyhow!("inventory[{}]: {}", inventory.name, plain(&wrong)))?;
        listings.insert(inventory.name, found);
    }
    Ok(config::load_with(file, listings)?)
}
