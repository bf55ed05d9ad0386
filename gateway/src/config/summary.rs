//! What `check` says about a configuration without faults: who may do what, and which keys and secrets are held, and
//! why (promise 7).

use super::{Config, Keeping, inventory::Origin, limits::write_limits, show_duration};
use crate::text::plain;
use std::{collections::BTreeSet, fmt::Write as _};
use tidegate_grants::{
    Asking, Auditor, Entitlement, Files, GroupName, Keeps, Leftovers, Mfa, Results, Terms,
    asking::{Clock, Escalation, LevelRule, Need},
    entitlement::Selector,
    grant::IssuerKey,
};
use tidegate_proxy::protocol::postgres::{Auth, PostgresTarget};

/// The whole summary, a few lines for each thing.
pub(crate) fn summary(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_summary(&mut out, config);
    out
}

fn write_summary(out: &mut String, config: &Config) -> std::fmt::Result {
    let policy = &config.policy;
    writeln!(out, "gateway {} (node {}), configuration {:.12}", policy.gateway, policy.node, policy.config)?;
    writeln!(out, "  state    {}", config.state_dir.display())?;
    let door = |at: Option<std::net::SocketAddr>| at.map_or_else(|| "off".to_owned(), |at| at.to_string());
    writeln!(out, "  ssh      {}", door(config.ssh))?;
    writeln!(
        out,
        "  postgres {} (passwords good for {})",
        door(config.postgres),
        show_duration(config.password_window)
    )?;
    writeln!(out, "  api      {}", door(config.api.as_ref().map(|api| api.listen)))?;
    writeln!(out, "  metrics  {}", door(config.metrics))?;
    write_limits(out, &config.limits, config.drain)?;
    writeln!(out, "  targets see {}", config.source_addresses.join(", "))?;
    for authority in &config.vouching.user_ca {
        let print = authority.fingerprint(ssh_key::HashAlg::Sha256);
        writeln!(out, "  user certificates of {print}: the one principal that is a user says who it is")?;
    }
    let recording = &config.recording;
    let durability = if recording.fsync { "fsync after each write" } else { "handed to the kernel" };
    writeln!(
        out,
        "  recordings for {} auditor key(s), streams up to {} bytes, {durability}",
        recording.recipients.len(),
        recording.stream_limit
    )?;
    if !recording.keystroke_recipients.is_empty() {
        writeln!(out, "  what is typed is for {} other key(s)", recording.keystroke_recipients.len())?;
    }
    for auditor in &policy.scoped_auditors {
        write_auditor(out, auditor)?;
    }
    if config.replay_window.is_zero() {
        writeln!(out, "  the gateway cannot read them (recording.replay_window)")?;
    } else {
        writeln!(
            out,
            "  the gateway can read them, all but keystrokes, until {} after a session, with keys in {}",
            show_duration(config.replay_window),
            config.state_dir.join(super::REPLAY).display()
        )?;
    }
    write_keeping(out, &config.keeping)?;
    writeln!(out, "{} user(s), {} target(s)", policy.identities.len(), policy.targets.len())?;
    for anchor in &config.anchors {
        let (every, to) = (show_duration(anchor.every), anchor.to.to_string());
        writeln!(out, "  anchor   {}, every {every}: {}", anchor.name, plain(&to))?;
    }
    for peer in &config.peers {
        let (every, url) = (show_duration(peer.every), peer.url.to_string());
        writeln!(
            out,
            "  peer     {}, every {every}: {}; its heads are kept and countersigned",
            peer.name,
            plain(&url)
        )?;
    }
    for inventory in &config.inventories {
        let known = config.listings.get(&inventory.name).map_or(0, |listing| listing.names().len());
        let every = show_duration(inventory.every);
        // Arguments may be nobody else's business.
        let from = match &inventory.from {
            Origin::Command { command, .. } => command.first().cloned().unwrap_or_default(),
            Origin::Directory(folder) => folder.display().to_string(),
        };
        writeln!(out, "  {known} of them listed by inventory {}, every {every}: {}", inventory.name, plain(&from))?;
    }
    for entitlement in policy.entitlements.values() {
        write_entitlement(out, entitlement)?;
    }
    for issuer in policy.issuers.values() {
        let counts = if issuer.counts_as_approval { ", counts as an approval" } else { "" };
        let names: Vec<&str> = issuer.entitlements.iter().map(|name| name.as_str()).collect();
        let (name, ttl) = (&issuer.name, show_duration(issuer.max_ttl));
        writeln!(out, "issuer {name}: may grant {} for up to {ttl}{counts}", names.join(", "))?;
    }
    for workload in &config.workloads {
        let claims: Vec<String> =
            workload.claims.iter().map(|(name, value)| format!("{} = {}", plain(name), plain(value))).collect();
        let (issuer, keys) = (plain(&workload.expected.issuer), &workload.expected.keys);
        writeln!(out, "workload {}: whoever {issuer} (keys: {keys}) says has {}", workload.name, claims.join(", "))?;
    }
    if let Some(oidc) = &config.oidc {
        let names = |here: &BTreeSet<GroupName>| here.iter().map(GroupName::as_str).collect::<Vec<_>>().join(" and ");
        let groups: Vec<String> =
            oidc.groups.iter().map(|(there, here)| format!("{} is {}", plain(there), names(here))).collect();
        let life = show_duration(oidc.life);
        writeln!(out, "people log in at {}, good for {life}; groups: {}", plain(&oidc.issuer), groups.join(", "))?;
    }
    for channel in &config.notify {
        let kinds: Vec<String> = channel.kinds.iter().map(ToString::to_string).collect();
        writeln!(out, "notify {}: told of {} by {}", channel.name, kinds.join(", "), channel.way)?;
    }
    write_secrets(out, config)
}

fn write_auditor(out: &mut String, auditor: &Auditor) -> std::fmt::Result {
    let names = |groups: &BTreeSet<GroupName>| groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
    let whose = auditor.people.as_ref().map_or("what anybody does".to_owned(), |of| format!("what {} do", names(of)));
    let at = auditor.targets.as_ref().map_or("everywhere".to_owned(), |targets| format!("on {}", selected(targets)));
    let keys = match (auditor.recipients.len(), auditor.keystroke_recipients.len()) {
        (0, 0) => "with no key of their own: recordings are closed to them".to_owned(),
        (keys, 0) => format!("with {keys} key(s) to its recordings"),
        (keys, typed) => format!("with {keys} key(s) to its recordings, {typed} to what is typed"),
    };
    writeln!(out, "  auditor  {}: {} see {whose} {at}, {keys}", auditor.name, names(&auditor.groups))
}

fn write_keeping(out: &mut String, keeping: &Keeping) -> std::fmt::Result {
    let kept = keeping.keep.map_or("for ever".to_owned(), |keep| format!("for {}", show_duration(keep)));
    let room = keeping.budget.map(|budget| format!(", in {} MiB at most", budget >> 20)).unwrap_or_default();
    writeln!(out, "  recordings are kept {kept}{room}")?;
    for rule in &keeping.rules {
        let names: Vec<&str> = rule.targets.iter().map(|name| name.as_str()).collect();
        let targets = if names.is_empty() { "all targets".to_owned() } else { names.join(", ") };
        let over = rule.protocol.map(|protocol| format!(" over {protocol}")).unwrap_or_default();
        writeln!(out, "  but of {targets}{over} for {}", show_duration(rule.keep))?;
    }
    Ok(())
}

fn selected(targets: &Selector) -> String {
    match targets {
        Selector::Names(names) => names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
        Selector::Labels(labels) => {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("targets with {}", labels.join(" and "))
        }
    }
}

fn write_entitlement(out: &mut String, entitlement: &Entitlement) -> std::fmt::Result {
    let join = |names: Vec<&str>| names.join(", ");
    let groups = join(entitlement.groups.iter().map(|group| group.as_str()).collect());
    let targets = selected(&entitlement.targets);
    let longest = show_duration(entitlement.max_duration);
    let idle =
        entitlement.idle_timeout.map(|idle| format!(", {} without use", show_duration(idle))).unwrap_or_default();
    let mfa = match entitlement.mfa {
        Mfa::None => "",
        Mfa::Request => ", asked for with a second factor",
        Mfa::Session => ", with a second factor",
    };
    let watched = if entitlement.conditions.watched { ", only while somebody watches" } else { "" };
    writeln!(out, "entitlement {}: {groups} on {targets}, up to {longest}{idle}{mfa}{watched}", entitlement.name)?;
    match &entitlement.terms {
        Terms::Ssh { logins, files, forward } => {
            writeln!(out, "  as {}", join(logins.iter().map(|login| login.as_str()).collect()))?;
            write_files(out, *files)?;
            if !forward.is_empty() {
                writeln!(out, "  with connections from the target to {forward}")?;
            }
        }
        Terms::Postgres { databases, roles, inherit, owner, leftovers, max_connections, keeps } => {
            let databases = join(databases.iter().map(|name| name.as_str()).collect());
            let roles = join(roles.iter().map(|name| name.as_str()).collect());
            let how = if *inherit { "with the privileges of" } else { "after SET ROLE with those of one of" };
            writeln!(out, "  in {databases}, {how} {roles}, {max_connections} connections at once")?;
            match (owner, leftovers) {
                (Some(owner), _) => writeln!(
                    out,
                    "  works as {owner}, which owns what is made: this grants all its privileges, to alter and drop what \
                     {owner} owns too"
                )?,
                (None, Leftovers::Quarantine) => writeln!(out, "  what a session makes is kept aside for a human")?,
                (None, Leftovers::Drop) => writeln!(out, "  what a session makes is dropped with its role")?,
            }
            write_keeps(out, keeps)?;
        }
    }
    if let Some(hours) = &entitlement.conditions.hours {
        writeln!(out, "  {hours} only")?;
    }
    if let Some(when) = &entitlement.conditions.when {
        writeln!(out, "  only when {}", plain(&when.to_string()))?;
    }
    if entitlement.conditions.exclusive {
        writeln!(out, "  one person at a time on each target; others wait for their turn")?;
    }
    if let Some(most) = entitlement.conditions.max_sessions {
        writeln!(out, "  {most} session(s) of one person at once")?;
    }
    if entitlement.asking.as_ref().is_some_and(|asking| asking.clock == Clock::FirstUse) {
        writeln!(out, "  the time of a grant starts with its first session, within a day")?;
    }
    write_asking(out, entitlement.asking.as_ref())
}

/// What its recordings have of results, and what never.
fn write_keeps(out: &mut String, keeps: &Keeps) -> std::fmt::Result {
    match keeps.results {
        Results::None => {}
        Results::Head => writeln!(out, "  the first rows of results are recorded")?,
        Results::All => writeln!(out, "  all rows of results are recorded")?,
    }
    if !keeps.masks.is_empty() {
        let masks: Vec<String> = keeps.masks.iter().map(ToString::to_string).collect();
        writeln!(out, "  values of {} are not written down", masks.join(", "))?;
    }
    Ok(())
}

/// Who must say yes.
fn write_asking(out: &mut String, asking: Option<&Asking>) -> std::fmt::Result {
    let Some(asking) = asking else {
        return writeln!(out, "  opens only by `tidegate grant issue` or an imported grant");
    };
    if asking.levels.is_empty() {
        writeln!(out, "  granted at once to whoever asks")?;
    }
    let names = |groups: &BTreeSet<GroupName>| groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(" or ");
    for (number, LevelRule { from, count, proof }) in (1..).zip(&asking.levels) {
        writeln!(out, "  level {number}: {count} of {} must approve ({proof})", names(from))?;
    }
    if let Some(Escalation { after, to }) = &asking.escalate {
        writeln!(out, "  after {} without a decision {} may approve too", show_duration(*after), names(to))?;
    }
    let ticket = asking.ticket.as_ref().map(|rule| {
        let known = if rule.check().is_some() { " that the ticket system knows" } else { "" };
        format!(", a ticket like {}{known}", plain(rule.pattern()))
    });
    let reason = if asking.reason == Need::Required { "a reason must be given" } else { "a reason may be given" };
    if asking.extend {
        writeln!(out, "  may be extended once, while its sessions go on")?;
    }
    if asking.break_glass {
        writeln!(out, "  breaks the glass: granted at once, and somebody else must review it")?;
    }
    writeln!(out, "  {reason}{}", ticket.unwrap_or_default())
}

/// A limit that a shell can go around must not be taken for more than it is.
fn write_files(out: &mut String, files: Files) -> std::fmt::Result {
    let may = match files {
        Files::Both => return Ok(()),
        Files::None => "are not moved",
        Files::Download => "may be downloaded, and nothing uploaded or changed,",
        Files::Upload => "may be uploaded and changed, and nothing downloaded,",
    };
    writeln!(
        out,
        "  files {may} over SFTP, scp and rsync; a shell or a command of the login can still print and write them"
    )
}

/// Every key and secret that the gateway holds, and why.
fn write_secrets(out: &mut String, config: &Config) -> std::fmt::Result {
    writeln!(out, "keys and secrets that the gateway holds, in {}:", config.state_dir.join("keys").display())?;
    for (file, why) in tidegate_ca::signer::FILES {
        writeln!(out, "  {file:<13} {why}")?;
    }
    for secret in &config.secrets {
        writeln!(out, "  {}: {}", secret.place, secret.why)?;
    }
    let attested = config.policy.issuers.values().filter(|issuer| matches!(issuer.key, IssuerKey::Hs256(_))).count();
    if attested > 0 {
        writeln!(out, "  (a grant under HS256 is attested, not signed: the gateway could have made it too)")?;
    }
    let scram = |target: &&PostgresTarget| matches!(target.auth, Auth::Scram(_));
    let names: Vec<&str> = config.postgres_targets.values().filter(scram).map(|target| target.name.as_str()).collect();
    let but =
        if names.is_empty() { String::new() } else { format!(" but that of {} (auth = \"scram\")", names.join(", ")) };
    writeln!(
        out,
        "  no password and no key of any target{but}: each session gets its own, and it ends with the session"
    )
}
