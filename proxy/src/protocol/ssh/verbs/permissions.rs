//! `targets`, `grants` and `password`: what somebody may ask for, what they have, and the use of it with `psql`.

use super::{Arguments, Reply, Verb, Visitor};
use crate::{refusal::Refusal, text::table};
use secrecy::ExposeSecret;
use serde_json::json;
use tidegate_grants::{
    Denied, Entitlement, GrantView, Identity, Kind, Listing, Policy, Target, TargetName, Terms, authority::GrantError,
};

pub(super) const TARGETS: Verb = Verb {
    name: "targets",
    usage: "[--json]",
    about: "what you may ask for",
    more: "Each target with the entitlements that reach it, and the logins or databases of each.",
    words: 0..=0,
    flags: &["--json"],
    options: &[],
};

pub(super) const GRANTS: Verb = Verb {
    name: "grants",
    usage: "[--json]",
    about: "what you have been granted",
    more: "Newest first. Nothing opens without an active one.",
    words: 0..=0,
    flags: &["--json"],
    options: &[],
};

pub(super) const REVOKE: Verb = Verb {
    name: "revoke",
    usage: "GRANT [--reason WHY]",
    about: "give back a grant of yours",
    more: "GRANT is its id, or any unique first or last digits of it. Your sessions under it end.",
    words: 1..=1,
    flags: &[],
    options: &["--reason"],
};

pub(super) const PASSWORD: Verb = Verb {
    name: "password",
    usage: "TARGET",
    about: "a short-lived password for psql",
    more: "The password alone is on stdout. It is good at this target, from the first address that uses it, until the time\n\
           that stderr shows; a new one replaces it. Where something there asks for a second factor, so does this. `cert` gets a certificate instead.",
    words: 1..=1,
    flags: &[],
    options: &[],
};

/// Targets with what this identity may ask for on them; the others do not exist here.
pub(super) fn visible<'a>(
    policy: &'a Policy,
    identity: &'a Identity,
) -> impl Iterator<Item = (&'a Target, Vec<&'a Entitlement>)> + 'a {
    let all = policy.targets.values();
    all.map(move |target| (target, policy.open_to(identity, target).collect::<Vec<_>>()))
        .filter(|(_, entitlements)| !entitlements.is_empty())
}

/// The logins or databases that an entitlement opens.
pub(super) fn openings(terms: &Terms) -> (&'static str, Vec<&str>) {
    match terms {
        Terms::Ssh { logins, .. } => ("logins", logins.iter().map(|login| login.as_str()).collect()),
        Terms::Postgres { databases, .. } => ("databases", databases.iter().map(|name| name.as_str()).collect()),
    }
}

pub(super) fn targets(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    if arguments.has("--json") {
        return Reply::json(&targets_json(&visitor.policy, visitor.identity));
    }
    let mut text = String::new();
    for (target, entitlements) in visible(&visitor.policy, visitor.identity) {
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
    Reply::text(text)
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

pub(super) async fn grants(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let gate = &visitor.ssh.gate;
    let own = match gate.authority.grants(Listing::of(&visitor.identity.name), gate.now()).await {
        Ok(own) => own,
        Err(error) => return Reply::refused(&Refusal::from(&error)),
    };
    if arguments.has("--json") {
        return Reply::json(&own);
    }
    let row = |grant: &GrantView| {
        let claims = &grant.claims;
        [
            grant.id.short(),
            claims.target.to_string(),
            claims.entitlement.to_string(),
            format!("{:?}", grant.state).to_lowercase(),
            grant.ends.to_string(),
            claims.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = own.iter().map(row).collect();
    Reply::text(
        super::reviews::owed(visitor).await
            + &table(["ID", "TARGET", "ENTITLEMENT", "STATE", "UNTIL", "REASON"], &rows),
    )
}

pub(super) async fn revoke(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let (gate, id) = (&visitor.ssh.gate, arguments.word(0).unwrap_or_default());
    let reason = arguments.value("--reason").map(str::to_owned);
    match gate.authority.revoke_own(&visitor.identity.name, id, reason, gate.now()).await {
        Ok(id) => Reply::text(format!("revoked {id}\n")),
        Err(GrantError::Store(error)) => Reply::refused(&Refusal::from(&error)),
        Err(error) => Reply::fault(1, &format!("{error}; `grants` lists yours")),
    }
}

/// When the second factor was proven that the password will carry; asked for if something on the target needs it.
async fn factor(visitor: &Visitor<'_>, target: &TargetName) -> Result<Option<jiff::Timestamp>, Refusal> {
    let (gate, identity, source) = (&visitor.ssh.gate, &visitor.identity.name, visitor.source);
    let failed = |error| Refusal::from(&error);
    if gate.authority.wants_factor(identity, target, None, source, gate.now()).await.map_err(failed)? {
        super::factor::prove(visitor, &format!("{target}: ")).await?;
    }
    let found = gate.store.factor(identity).await.map_err(failed)?;
    Ok(found.and_then(|factor| factor.fresh(source, gate.now())))
}

pub(super) async fn password(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let (ssh, identity) = (visitor.ssh, visitor.identity);
    let Some(name) = arguments.word(0).and_then(|target| target.parse::<TargetName>().ok()) else {
        return Reply::usage("that is no target name");
    };
    let Some((target, entitlements)) = visible(&visitor.policy, identity).find(|(target, _)| target.name == name)
    else {
        return Reply::refused(&Refusal::from(&Denied::UnknownTarget(name)));
    };
    if target.kind != Kind::Postgres {
        return Reply::fault(1, &format!("{name} takes no password; type: ssh LOGIN@{name}@gate"));
    }
    let factor = match factor(visitor, &name).await {
        Ok(factor) => factor,
        Err(refusal) => return Reply::refused(&refusal),
    };
    let (password, expires) = match ssh.passwords.issue(&identity.name, &name, factor, ssh.gate.now()).await {
        Ok(issued) => issued,
        Err(denied) => return Reply::refused(&Refusal::from(&denied)),
    };
    let databases = entitlements.iter().flat_map(|entitlement| openings(&entitlement.terms).1);
    let database = databases.into_iter().next().unwrap_or("DATABASE");
    let mut err = format!("good until {expires}\n");
    if let Some((host, port)) = &ssh.postgres {
        err.push_str(&format!(
            "psql \"host={host} port={port} dbname={name}/{database} user={} sslmode=verify-full\"\n",
            identity.name
        ));
    }
    Reply { out: format!("{}\n", password.expose_secret()), err, ..Reply::default() }
}
