//! The verbs of the control shell. Each one is a pure answer: text for stdout, text for stderr, an exit status.

use super::{Ssh, line::plain};
use crate::refusal::Refusal;
use secrecy::ExposeSecret;
use serde_json::json;
use tidegate_grants::{Denied, Entitlement, Identity, Kind, Policy, Target, TargetName, Terms};

/// Longest command line.
const LONGEST: usize = 4096;

/// What a verb answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) exit: u32,
}

impl Reply {
    fn text(out: String) -> Self {
        Self { out, ..Self::default() }
    }

    pub(super) fn fault(exit: u32, sentence: &str) -> Self {
        Self { err: format!("tidegate: {}\n", plain(sentence)), exit, ..Self::default() }
    }

    fn usage(sentence: &str) -> Self {
        Self::fault(2, &format!("{sentence} (`help` lists what there is)"))
    }

    fn refused(refusal: &Refusal) -> Self {
        let err = super::line::sentence(refusal, false).replace("\r\n", "\n");
        Self { err, exit: refusal.exit, ..Self::default() }
    }

    fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(text) => Self::text(format!("{text}\n")),
            Err(error) => Self::fault(1, &error.to_string()),
        }
    }
}

/// Tells words apart by spaces. There is no quoting, so nothing can be quoted wrongly.
pub(super) fn words(command: &[u8]) -> Result<Vec<String>, Reply> {
    if command.len() > LONGEST {
        return Err(Reply::usage("that command is too long"));
    }
    let text = command.trim_ascii();
    if !text.iter().all(|b| (0x20..=0x7e).contains(b)) {
        return Err(Reply::usage("a command is plain words with spaces between them"));
    }
    let text = String::from_utf8_lossy(text);
    Ok(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

const HELP: &str = "\
ssh LOGIN@TARGET@gate            opens a session (also scp, sftp, rsync, git)
ssh LOGIN~ENTITLEMENT@TARGET@gate  the same, where several of your grants fit

help                             this
whoami [--json]                  who you are here, and your groups
targets [--json]                 what you may ask for
grants [--json]                  what you have been granted
password TARGET                  a short-lived password for psql
";

/// Verbs of the contract that do not work yet.
const LATER: [&str; 10] =
    ["cert", "request", "requests", "approve", "deny", "revoke", "sessions", "kill", "play", "config"];

/// Runs one command line.
pub(super) async fn run(ssh: &Ssh, identity: &Identity, words: &[String]) -> Reply {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let policy = ssh.gate.authority.policy();
    match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => Reply::text(HELP.to_owned()),
        ["whoami"] => Reply::text(whoami(identity)),
        ["whoami", "--json"] => Reply::json(&json!({ "name": identity.name, "groups": identity.groups })),
        ["targets"] => Reply::text(targets(&policy, identity)),
        ["targets", "--json"] => Reply::json(&targets_json(&policy, identity)),
        ["grants"] => grants(ssh, identity, false).await,
        ["grants", "--json"] => grants(ssh, identity, true).await,
        ["password", target] => password(ssh, &policy, identity, target).await,
        ["password", ..] => Reply::usage("type: password TARGET"),
        [verb @ ("help" | "whoami" | "targets" | "grants"), ..] => {
            Reply::usage(&format!("{verb} takes nothing but --json"))
        }
        [verb, ..] if LATER.contains(verb) => Reply::fault(1, &format!("{verb} is not supported yet")),
        [..] => Reply::usage("there is no such command"),
    }
}

fn whoami(identity: &Identity) -> String {
    let groups: Vec<&str> = identity.groups.iter().map(|group| group.as_str()).collect();
    format!("{}\ngroups: {}\n", identity.name, groups.join(", "))
}

/// Targets with what this identity may ask for on them; the others do not exist here.
fn visible<'a>(
    policy: &'a Policy,
    identity: &'a Identity,
) -> impl Iterator<Item = (&'a Target, Vec<&'a Entitlement>)> + 'a {
    let all = policy.targets.values();
    all.map(move |target| (target, policy.open_to(identity, target).collect::<Vec<_>>()))
        .filter(|(_, entitlements)| !entitlements.is_empty())
}

fn openings(terms: &Terms) -> (&'static str, Vec<&str>) {
    match terms {
        Terms::Ssh { logins, .. } => ("logins", logins.iter().map(|login| login.as_str()).collect()),
        Terms::Postgres { databases, .. } => ("databases", databases.iter().map(|name| name.as_str()).collect()),
    }
}

fn targets(policy: &Policy, identity: &Identity) -> String {
    let mut text = String::new();
    for (target, entitlements) in visible(policy, identity) {
        let kind = match target.kind {
            Kind::Ssh => "ssh",
            Kind::Postgres => "postgres",
        };
        text.push_str(&format!("{} ({kind})\n", target.name));
        for entitlement in entitlements {
            let (what, names) = openings(&entitlement.terms);
            text.push_str(&format!("  {}: {what} {}\n", entitlement.name, names.join(", ")));
        }
    }
    text
}

fn targets_json(policy: &Policy, identity: &Identity) -> serde_json::Value {
    let entitlement = |entitlement: &Entitlement| {
        let (what, names) = openings(&entitlement.terms);
        json!({ "name": entitlement.name, what: names, "max_duration_s": entitlement.max_duration.as_secs() })
    };
    visible(policy, identity)
        .map(|(target, entitlements)| {
            let entitlements: Vec<_> = entitlements.into_iter().map(entitlement).collect();
            json!({ "name": target.name, "kind": target.kind, "entitlements": entitlements })
        })
        .collect()
}

async fn grants(ssh: &Ssh, identity: &Identity, as_json: bool) -> Reply {
    let all = match ssh.gate.authority.grants(ssh.gate.now()).await {
        Ok(all) => all,
        Err(error) => return Reply::refused(&Refusal::from(&error)),
    };
    let own: Vec<_> = all.into_iter().filter(|grant| grant.claims.sub == identity.name).collect();
    if as_json {
        return Reply::json(&own);
    }
    let line = |grant: &tidegate_grants::GrantView| {
        let claims = &grant.claims;
        let state = format!("{:?}", grant.state).to_lowercase();
        let until = jiff::Timestamp::from_second(claims.exp).map(|at| at.to_string()).unwrap_or_default();
        format!("{}  {}  {}  {state}  until {until}\n", grant.id.short(), claims.target, claims.entitlement)
    };
    Reply::text(own.iter().map(line).collect())
}

async fn password(ssh: &Ssh, policy: &Policy, identity: &Identity, target: &str) -> Reply {
    let Ok(name) = target.parse::<TargetName>() else {
        return Reply::usage("that is no target name");
    };
    let Some((target, entitlements)) = visible(policy, identity).find(|(target, _)| target.name == name) else {
        return Reply::refused(&Refusal::from(&Denied::UnknownTarget(name)));
    };
    if target.kind != Kind::Postgres {
        return Reply::fault(1, &format!("{name} takes no password; type: ssh LOGIN@{name}@gate"));
    }
    let (password, expires) = match ssh.passwords.issue(&identity.name, &name, ssh.gate.now()).await {
        Ok(issued) => issued,
        Err(denied) => return Reply::refused(&Refusal::from(&denied)),
    };
    let databases = entitlements.iter().flat_map(|entitlement| openings(&entitlement.terms).1);
    let database = databases.into_iter().next().unwrap_or("DATABASE");
    let mut err = format!("good until {expires}\n");
    if let Some((host, port)) = ssh.postgres.as_deref().and_then(|address| address.rsplit_once(':')) {
        let host = host.trim_matches(['[', ']']);
        err.push_str(&format!(
            "psql \"host={host} port={port} dbname={name}/{database} user={} sslmode=verify-full\"\n",
            identity.name
        ));
    }
    Reply { out: format!("{}\n", password.expose_secret()), err, exit: 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_are_told_apart_by_spaces_alone() {
        assert_eq!(words(b"  password   orders\n").unwrap(), ["password", "orders"]);
        assert_eq!(words(b"a\"b c\"").unwrap(), ["a\"b", "c\""]);
        assert!(words(b"").unwrap().is_empty());
    }

    #[test]
    fn control_characters_make_no_command() {
        for command in [&b"help\x1b[2J"[..], b"password\torders", b"a\0b", b"caf\xc3\xa9", &[b'a'; 5000]] {
            assert_eq!(words(command).unwrap_err().exit, 2);
        }
    }

    #[test]
    fn a_fault_never_carries_control_characters() {
        let reply = Reply::fault(1, "bad \x1b]0;title\x07");
        assert_eq!(reply.err, "tidegate: bad \\u{1b}]0;title\\u{7}\n");
    }
}
