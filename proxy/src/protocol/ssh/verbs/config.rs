//! `config`: what goes into the person's own files, ready to redirect.
//!
//! What always holds: host keys are trusted under exactly the gateway's public names, never a pattern; every PostgreSQL
//! entry says `verify-full`; and the whole text, parts for other files commented out, is a valid `ssh_config`.

use super::{
    Arguments, Reply, Verb, Visitor,
    permissions::{openings, visible},
};
use std::collections::BTreeSet;
use tidegate_ca::Part;
use tidegate_grants::Kind;

pub(super) const CONFIG: Verb = Verb {
    name: "config",
    usage: "[ssh|known_hosts|postgres|ca] [--home DIR]",
    about: "what goes into ~/.ssh/config, known_hosts and pg_service.conf",
    more: "Without a part: the text for ~/.ssh/config, with the others as comments. One part at a time, ready to redirect:\n\n\
           ssh {gate} config ssh >> ~/.ssh/config\n\
           ssh {gate} config known_hosts >> ~/.ssh/known_hosts\n\
           ssh {gate} config ca > ~/.postgresql/{gate}-ca.pem\n\
           ssh {gate} config postgres --home \"$HOME\" >> ~/.pg_service.conf\n\n\
           DIR is your home folder on your own machine: PostgreSQL's clients do not expand ~ in pg_service.conf.",
    words: 0..=1,
    flags: &[],
    options: &["--home"],
};

pub(super) fn config(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let gate = visitor.policy.gateway.as_str();
    let home = match arguments.value("--home").map(folder) {
        Some(None) => return Reply::usage("--home is an absolute path of plain letters"),
        Some(home) => home,
        None => None,
    };
    let ca = home.map_or_else(|| format!("{gate}-ca.pem"), |home| format!("{home}/.postgresql/{gate}-ca.pem"));
    let (out, put) = match arguments.word(0) {
        None => match whole(visitor, &ca) {
            Ok(text) => (
                text,
                "the first part belongs into ~/.ssh/config; the comments below it say where the others do".to_owned(),
            ),
            Err(reply) => return reply,
        },
        Some("ssh") => (ssh(visitor), "this belongs at the beginning of ~/.ssh/config".to_owned()),
        Some("known_hosts") => match known_hosts(visitor) {
            Ok(line) => (line, "this belongs into ~/.ssh/known_hosts".to_owned()),
            Err(reply) => return reply,
        },
        Some("postgres") => {
            (postgres(visitor, &ca), format!("this belongs into ~/.pg_service.conf, and `config ca` into {ca}"))
        }
        Some("ca") => match public(visitor, Part::X509) {
            Ok(pem) => (pem, format!("this belongs into {ca}, which `config postgres` names as sslrootcert")),
            Err(reply) => return reply,
        },
        Some(_) => return Reply::usage(&format!("type: {}", CONFIG.typed())),
    };
    Reply { out, err: format!("{put}\n"), ..Reply::default() }
}

/// A path that means the same wherever it is written.
fn folder(text: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@:\\".contains(&b);
    (text.len() <= 256 && text.len() > 1 && text.bytes().all(plain)).then(|| text.trim_end_matches('/'))
}

fn public(visitor: &Visitor<'_>, part: Part) -> Result<String, Reply> {
    visitor.ssh.keys.show(part).map_err(|error| Reply::fault(1, &error.to_string()))
}

fn whole(visitor: &Visitor<'_>, ca: &str) -> Result<String, Reply> {
    let commented =
        |text: &str| text.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect::<String>();
    let mut text = ssh(visitor);
    text.push_str("\n# ~/.ssh/known_hosts (`config known_hosts`):\n");
    text.push_str(&commented(&known_hosts(visitor)?));
    let services = postgres(visitor, ca);
    if !services.is_empty() {
        text.push_str("\n# ~/.pg_service.conf (`config postgres`, with `config ca` for sslrootcert):\n");
        text.push_str(&commented(&services));
    }
    Ok(text)
}

/// Host names below the gate's are only for this file: they are never resolved. A master is shared by those who go to the same login on the same target, and by nobody else: hence `%r`.
fn ssh(visitor: &Visitor<'_>) -> String {
    let (ssh, gate) = (visitor.ssh, visitor.policy.gateway.as_str());
    let first = ssh.public_names.first().map_or(gate, String::as_str);
    let mut patterns = vec![gate];
    patterns.extend(ssh.public_names.iter().map(String::as_str).filter(|name| *name != gate));
    let below = format!("*.{gate}");
    patterns.push(&below);
    let common = format!(
        "# {gate}, for {}: ssh LOGIN@TARGET@{gate}\n\
         Host {}\n\
         \x20   HostName {first}\n\
         \x20   HostKeyAlias {first}\n\
         \x20   Port {}\n\
         \x20   StrictHostKeyChecking yes\n\
         \x20   ControlMaster auto\n\
         \x20   ControlPath ~/.ssh/{gate}-%r\n\
         \x20   ControlPersist 60\n",
        visitor.identity.name,
        patterns.join(" "),
        ssh.port
    );
    common + &hosts(visitor)
}

/// A host name of its own for each login, for programs that take no `@` in a user's name, e.g. Ansible, whose `~` would go
/// to the wrong home.
fn hosts(visitor: &Visitor<'_>) -> String {
    let mut logins = BTreeSet::new();
    for (target, entitlements) in visible(&visitor.policy, visitor.identity) {
        if target.kind == Kind::Ssh {
            let of_target = entitlements.iter().flat_map(|entitlement| openings(&entitlement.terms).1);
            logins.extend(of_target.map(|login| (target.name.as_str(), login)));
        }
    }
    let gate = &visitor.policy.gateway;
    let host = |(target, login)| format!("\nHost {login}.{target}.{gate}\n    User {login}@{target}\n");
    logins.into_iter().map(host).collect()
}

/// Our host CA under exactly our names, and no other.
fn known_hosts(visitor: &Visitor<'_>) -> Result<String, Reply> {
    let ssh = visitor.ssh;
    let mut names: Vec<String> = ssh.public_names.clone();
    if ssh.port != 22 {
        names.extend(ssh.public_names.iter().map(|name| format!("[{name}]:{}", ssh.port)));
    }
    let key = public(visitor, Part::SshHost)?;
    let key: Vec<&str> = key.split_whitespace().take(2).collect();
    Ok(format!("@cert-authority {} {}\n", names.join(","), key.join(" ")))
}

/// A service for each database that they may ask for, named like it.
fn postgres(visitor: &Visitor<'_>, ca: &str) -> String {
    let Some((host, port)) = &visitor.ssh.postgres else { return String::new() };
    let mut services = BTreeSet::new();
    for (target, entitlements) in visible(&visitor.policy, visitor.identity) {
        if target.kind == Kind::Postgres {
            let databases = entitlements.iter().flat_map(|entitlement| openings(&entitlement.terms).1);
            services.extend(databases.map(|database| format!("{}/{database}", target.name)));
        }
    }
    let user = &visitor.identity.name;
    let service = |name: &String| {
        format!(
            "[{name}]\nhost={host}\nport={port}\ndbname={name}\nuser={user}\nsslmode=verify-full\nsslrootcert={ca}\n\n"
        )
    };
    services.iter().map(service).collect::<String>().trim_end().to_owned() + if services.is_empty() { "" } else { "\n" }
}
