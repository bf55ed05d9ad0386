//! `mfa`, and the question for a code wherever a verb needs a second factor.

use super::{Arguments, Reply, Verb, Visitor};
use crate::{authenticate::FactorError, protocol::ssh::flow::Item, protocol::ssh::line::FromClient, refusal::Refusal};
use std::time::Duration;
use tidegate_grants::factor::FRESH;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub(super) const MFA: Verb = Verb {
    name: "mfa",
    usage: "",
    about: "prove your second factor, before programs that cannot ask for it",
    more: "It asks for a code of your authenticator app, or a recovery code, on stdin. For ten minutes nothing that comes from\n\
           this address with your key is asked again: scp in a script, Ansible, psql with a new password.",
    words: 0..=0,
    flags: &[],
    options: &[],
};

/// How long somebody may take to look at their phone.
const TO_TYPE: Duration = Duration::from_secs(120);
/// Nobody types more.
const LONGEST: usize = 256;

pub(super) async fn mfa(visitor: &Visitor<'_>, _: &Arguments<'_>) -> Reply {
    match prove(visitor, "").await {
        Ok(()) => Reply::text(format!("proven; good from {} for {FRESH:#}\n", visitor.source)),
        Err(refusal) => Reply::refused(&refusal),
    }
}

/// Asks for a code, and takes it. `what` needs it.
pub(super) async fn prove(visitor: &Visitor<'_>, what: &str) -> Result<(), Refusal> {
    let (ssh, identity) = (visitor.ssh, &visitor.identity.name);
    let needed = || {
        Refusal::new(format!("{what}a second factor is needed, and no code came"))
            .next("type it when asked: `ssh gate mfa`")
            .by("mfa")
            .ask_first()
    };
    if !visitor.own_stdin && visitor.terminal.is_none() {
        return Err(needed());
    }
    visitor.line.stderr(format!("{what}code of your authenticator app, or a recovery code: ").into_bytes()).await;
    let typed = timeout(TO_TYPE, line(visitor)).await.ok().flatten().filter(|typed| !typed.is_empty());
    if visitor.terminal.is_some() {
        visitor.line.stderr(b"\r\n".to_vec()).await;
    }
    let typed = typed.ok_or_else(needed)?;
    let checked = ssh.factors.check(identity, visitor.source, &typed, ssh.gate.now()).await;
    checked.map_err(|error| refused(&error))
}

/// What was wrong with a code.
pub(in super::super) fn refused(error: &FactorError) -> Refusal {
    if let FactorError::Ours(cause) = error {
        tracing::error!(cause, "a second factor could not be checked");
    }
    Refusal::new(error.to_string()).by("mfa").ask_first()
}

/// One line of stdin; `None`: there was none.
async fn line(visitor: &Visitor<'_>) -> Option<Zeroizing<String>> {
    let mut typed = Zeroizing::new(Vec::new());
    loop {
        match visitor.line.up.pop().await {
            Item::Data { bytes, .. } => {
                visitor.line.up.settle(bytes.len());
                for byte in bytes.iter().copied() {
                    match byte {
                        b'\r' | b'\n' => return String::from_utf8(typed.to_vec()).ok().map(Zeroizing::new),
                        0x03 | 0x04 if visitor.terminal.is_some() => return None,
                        0x08 | 0x7f => drop(typed.pop()),
                        _ if typed.len() >= LONGEST => return None,
                        byte => typed.push(byte),
                    }
                }
            }
            Item::Event(FromClient::Eof) => return String::from_utf8(typed.to_vec()).ok().map(Zeroizing::new),
            Item::Event(FromClient::Close) | Item::Overrun => return None,
            Item::Event(_) => {}
        }
    }
}
