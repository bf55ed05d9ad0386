//! `tidegate lock …`

use super::{Json, duration};
use clap::{Args, Subcommand};
use std::time::Duration;
use tidegate_grants::{IdentityName, TargetName};

#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    /// Keep somebody out, or everybody from a target or from all of them, whatever grants say; live sessions end. Prints the lock's id
    Add(AddLock),
    /// List locks, newest first, those too that are over
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Remove a lock: what it kept out may come in again
    Remove {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddLock {
    #[command(flatten)]
    pub(crate) what: Locking,
    /// Why; whoever is kept out is told
    #[arg(long)]
    pub(crate) reason: String,
    /// Over by itself after so long, e.g. 2h [default: when somebody removes it]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with = "until")]
    pub(crate) duration: Option<Duration>,
    /// Over by itself at this time, e.g. 2026-11-30T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<jiff::Timestamp>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Locking {
    /// This person: no sessions, no `ssh gate`, no API
    #[arg(long)]
    pub(crate) user: Option<IdentityName>,
    /// This target, for everybody
    #[arg(long)]
    pub(crate) target: Option<TargetName>,
    /// Every target, for everybody
    #[arg(long)]
    pub(crate) all: bool,
}
