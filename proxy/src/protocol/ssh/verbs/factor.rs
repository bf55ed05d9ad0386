//! `mfa`, and the question for a code wherever a verb needs a second factor.

use super::{Arguments, Reply, Verb, Visitor};
use crate::{
    authenticate::FactorError,
    protocol::ssh::{flow::Item, line::FromClient},
    refusal::{Refusal, SIGN_WITH_KEY},
};
use std::time::Duration;
use tidegate_grants::factor::FRESH;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub(super) const MFA: Verb = Verb {
    name: "mfa",
    usage: "[--challenge | --signed]",
    about: "prove your second factor, before programs that cannot ask for it",
    more: "It asks for a code of your authenticator app, or a recovery code, on stdin. For ten minutes nothing that comes from\n\
           this address with your key is asked again: scp in a script, Ansible, psql with a new password.\n\
           With a security key that the configuration has for you, and that is not the key that you come with:\n\
           \u{20} ssh gate mfa --challenge | ssh-keygen -Y sign -n tidegate-mfa -f KEY | ssh gate mfa --signed\n\
           --challenge prints a line, --signed reads its signature from stdin: once, within two minutes, from the address that\n\
           the line was asked for from.",
    words: 0..=0,
    flags: &["--challenge", "--signed"],
    options: &[],
};

/// How long somebody may take to look at their phone.
const TO_TYPE: Duration = Duration::from_secs(120);
/// Nobody types more.
const LONGEST: usize = 256;

pub(super) async fn mfa(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let proven = match (arguments.has("--challenge"), arguments.has("--signed")) {
        (true, true) => return Reply::usage("--challenge comes before, and --signed after the signing"),
        (true, false) => return challenge(visitor),
        (false, true) => match visitor.signature("mfa --signed").await {
            Ok(armored) => by_key(visitor, &armored).await,
            Err(wrong) => return wrong,
        },
        (false, false) => prove(visitor, "").await,
    };
    match proven {
        Ok(()) => Reply::text(format!("proven; good from {} for {FRESH:#}\n", visitor.source)),
        Err(refusal) => Reply::refused(&refusal),
    }
}

fn challenge(visitor: &Visitor<'_>) -> Reply {
    let ssh = visitor.ssh;
    match ssh.factors.challenge(&visitor.identity.name, visitor.source, ssh.gate.now()) {
        Ok(line) => Reply::text(format!("{line}\n")),
        Err(error) => Reply::refused(&refused(&error)),
    }
}

/// Takes the signature of the line that they were given before.
async fn by_key(visitor: &Visitor<'_>, armored: &str) -> Result<(), Refusal> {
    let (ssh, identity, source) = (visitor.ssh, &visitor.identity.name, visitor.source);
    let Some(line) = ssh.factors.challenged(identity, source, ssh.gate.now()) else {
        return Err(Refusal::new("no line to sign was asked for from here within two minutes, or it was used already")
            .next(SIGN_WITH_KEY)
            .by("mfa")
            .ask_first());
    };
    let came_with = visitor.device.key.as_deref();
    let proven = ssh.gate.prove_by_key(identity, came_with, (&line, armored), source).await;
    proven.map_err(|error| Refusal::from(&error).by("mfa").ask_first())
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
