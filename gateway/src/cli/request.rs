//! `tidegate request …`

use super::Json;
use crate::config::duration;
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};
use tidegate_grants::{DatabaseName, EntitlementName, Login, RoleName, TargetName};

#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// Ask for a grant; prints the request's id
    Ask(Ask),
    /// List requests, newest first: yours and those that you may approve; admins and auditors all
    List {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Show one request
    Show {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Only the one line that a signed approval signs
        #[arg(long, conflicts_with = "json")]
        line: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Say yes to a request; the last yes that was missing makes the grant
    Approve {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// What `ssh-keygen -Y sign -n tidegate-approval` made of the line of `request show --line`; - for stdin
        #[arg(long, value_name = "FILE|-")]
        signature: Option<PathBuf>,
    },
    /// Say no to a request
    Deny {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Why; who asked is told
        #[arg(long)]
        reason: String,
    },
    /// Take back a request of yours; admins: anybody's
    Cancel {
        /// Its id, or any unique prefix or suffix
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// On which target
    pub(crate) target: TargetName,
    /// Of which entitlement; needed where several can be asked for there
    #[arg(long)]
    pub(crate) entitlement: Option<EntitlementName>,
    /// For how long from the last approval, e.g. 30m [default: as long as the entitlement allows]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Why
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// The ticket
    #[arg(long)]
    pub(crate) ticket: Option<String>,
    /// Narrowed to this login
    #[arg(long)]
    pub(crate) login: Option<Login>,
    /// Narrowed to this database
    #[arg(long)]
    pub(crate) database: Option<DatabaseName>,
    /// Narrowed to this group role; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<RoleName>,
}
