//! `tidegate backup` and `tidegate restore`

use super::print;
use crate::{
    backup::{self, With},
    config,
};
use std::{fmt::Write as _, path::Path, process::ExitCode};

pub(super) fn make(named: Option<&Path>, file: &Path, with: With) -> anyhow::Result<ExitCode> {
    let config = config::load(&config::locate(named)?)?;
    let made = backup::make(&config, file, with)?;
    let mut out = format!("{}: {} ledger entries as of {}", file.display(), made.entries, made.at);
    if made.recordings > 0 {
        write!(out, ", {} recording(s)", made.recordings)?;
    }
    out.push('\n');
    let keys = if made.keys {
        "the gateway's keys are in it, for the auditors' keys alone: restore takes --identity FILE\n"
    } else {
        "the gateway's keys are not in it: without them nobody can go on with this state (--with-keys, or keep state/keys elsewhere)\n"
    };
    out.push_str(keys);
    print(&out)
}

pub(super) fn restore(file: &Path, into: &Path, identity: Option<&Path>) -> anyhow::Result<ExitCode> {
    let manifest = backup::restore(file, into, identity)?;
    let shown = into.display();
    let mut out = format!("{shown}: the store as of {}, {} ledger entries\n", manifest.at, manifest.entries);
    match (manifest.keys, identity) {
        (true, Some(_)) => {}
        (true, None) => {
            writeln!(out, "its keys were left out: restore with --identity FILE, or put your own into {shown}/keys")?
        }
        (false, _) => writeln!(out, "no keys were in it: put the gateway's into {shown}/keys (0700, files 0600)")?,
    }
    out.push_str(
        "what was revoked, used or changed since then is not known in it: when the gateway starts, all grants are revoked and all\n\
         passwords void; issue them anew. Leases of then are torn down. Afterwards: tidegate lease sweep (accounts made since\n\
         then have no lease here), tidegate doctor\n",
    );
    print(&out)
}
