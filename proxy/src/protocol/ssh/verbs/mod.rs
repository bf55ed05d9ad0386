//! The verbs of the control shell, one file for each group of them.
//!
//! What always holds: a verb sees its [`Visitor`] and what was typed behind it, checked against its entry in [`VERBS`];
//! only what this identity may see exists for it, so somebody else's and nobody's look alike; what other people wrote
//! comes out without control characters ([`Reply`], [`text`](crate::text)).

mod about;
mod certificate;
mod config;
mod factor;
mod grammar;
mod lives;
mod permissions;
mod play;
mod reply;
mod requests;
mod reviews;
mod sessions;
mod stdin;
mod watch;

pub(super) use factor::refused;
pub(super) use grammar::words;
pub(super) use reply::Reply;

use super::{Ssh, line::Line};
use grammar::{Arguments, Verb};
use std::{net::IpAddr, sync::Arc};
use tidegate_grants::{Device, Identity, Policy};

/// Somebody in the control shell, and the channel that they are on.
pub(super) struct Visitor<'a> {
    pub(super) ssh: &'a Ssh,
    /// By the configuration in force.
    pub(super) identity: &'a Identity,
    /// By what they came in.
    pub(super) device: &'a Device,
    pub(super) policy: Arc<Policy>,
    /// From where.
    pub(super) source: IpAddr,
    pub(super) line: &'a Line,
    /// Columns and rows, on a terminal.
    pub(super) terminal: Option<(u32, u32)>,
    /// What comes on stdin is the verb's: there is no prompt that reads it.
    pub(super) own_stdin: bool,
}

/// What there is, in the order of `help`.
const VERBS: &[Verb] = &[
    about::HELP,
    about::WHOAMI,
    permissions::TARGETS,
    requests::REQUEST,
    requests::REQUESTS,
    requests::APPROVE,
    requests::DENY,
    requests::CANCEL,
    reviews::REVIEW,
    permissions::GRANTS,
    lives::EXTEND,
    lives::RETURN,
    permissions::REVOKE,
    permissions::PASSWORD,
    factor::MFA,
    certificate::CERT,
    sessions::SESSIONS,
    sessions::KILL,
    watch::WATCH,
    play::PLAY,
    config::CONFIG,
];

/// Runs one command line.
pub(super) async fn run(visitor: &Visitor<'_>, words: &[String]) -> Reply {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (verb, typed) = match words.split_first() {
        None => ("help", &[][..]),
        Some((&"--help" | &"-h", typed)) => ("help", typed),
        Some((verb, typed)) => (*verb, typed),
    };
    let Some(entry) = VERBS.iter().find(|entry| entry.name == verb) else {
        return Reply::usage("there is no such command");
    };
    match entry.arguments(typed) {
        Ok(arguments) => answer(visitor, entry.name, &arguments).await,
        Err(wrong) => wrong,
    }
}

async fn answer(visitor: &Visitor<'_>, verb: &str, arguments: &Arguments<'_>) -> Reply {
    match verb {
        "help" => about::help(visitor, arguments),
        "whoami" => about::whoami(visitor, arguments),
        "targets" => permissions::targets(visitor, arguments),
        "grants" => permissions::grants(visitor, arguments).await,
        "revoke" => permissions::revoke(visitor, arguments).await,
        "request" => requests::request(visitor, arguments).await,
        "requests" => requests::requests(visitor, arguments).await,
        "approve" => requests::approve(visitor, arguments).await,
        "deny" => requests::deny(visitor, arguments).await,
        "cancel" => requests::cancel(visitor, arguments).await,
        "extend" => lives::extend(visitor, arguments).await,
        "return" => lives::give_back(visitor, arguments).await,
        "review" => reviews::review(visitor, arguments).await,
        "password" => permissions::password(visitor, arguments).await,
        "mfa" => factor::mfa(visitor, arguments).await,
        "cert" => certificate::cert(visitor, arguments).await,
        "sessions" => sessions::sessions(visitor, arguments).await,
        "kill" => sessions::kill(visitor, arguments).await,
        "watch" => watch::watch(visitor, arguments).await,
        "play" => play::play(visitor, arguments).await,
        "config" => config::config(visitor, arguments),
        // VERBS is the only way here.
        _ => Reply::usage("there is no such command"),
    }
}
