//! What is allowed and yet cannot be what was meant: terms that nobody can ask for, a target that nothing opens, a person
//! who cannot come in. `check` says each, with the place to look at; a configuration with them is in force all the same,
//! since half of it may be on its way.

use super::{
    fault::Findings,
    gateway::{Doors, Roles},
    section::Whole,
    value::nearest,
};
use crate::{elsewhere::Workload, notify::Channel, text::plain};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidegate_grants::{
    Auditor, Entitlement, EntitlementName, Event, GroupName, Identity, IdentityName, Kind, Target, TargetName, Terms,
    TrustedIssuer, entitlement::Selector, forward::Rule, when::When,
};

/// All that a configuration says about who may do what.
pub(super) struct Said<'a> {
    pub(super) people: &'a BTreeMap<IdentityName, Identity>,
    pub(super) roles: &'a Roles,
    pub(super) doors: Option<&'a Doors>,
    pub(super) targets: &'a BTreeMap<TargetName, Target>,
    pub(super) entitlements: &'a BTreeMap<EntitlementName, Entitlement>,
    pub(super) issuers: &'a BTreeMap<String, TrustedIssuer>,
    pub(super) notify: &'a [Arc<Channel>],
    /// Who comes by another way than a key of the configuration.
    pub(super) workloads: &'a [Arc<Workload>],
    /// Groups that people have who log in at the OpenID provider.
    pub(super) guests: BTreeSet<GroupName>,
    /// Whom the configuration ties to such a login.
    pub(super) tied: BTreeSet<IdentityName>,
}

/// Each with its place, one line each.
pub(super) fn notes(said: &Said<'_>, whole: &Whole<'_>, findings: &Findings) -> Vec<String> {
    let mut notes = Notes { list: Vec::new(), findings };
    roles(said, whole, &mut notes);
    said.roles.scoped.iter().for_each(|auditor| auditors(said, auditor, whole.has_inventories(), &mut notes));
    people(said, &mut notes);
    said.entitlements.values().for_each(|entitlement| entitled(said, entitlement, &mut notes));
    targets(said, &mut notes);
    issuers(said, &mut notes);
    notes.list
}

struct Notes<'a> {
    list: Vec<String>,
    findings: &'a Findings,
}

impl Notes<'_> {
    /// Of an entry: `what` is its table, `key` what is odd about it.
    fn of(&mut self, what: &'static str, name: &str, key: &str, odd: &str) {
        let place = self.findings.first(what, name).map(|place| format!("{place}: ")).unwrap_or_default();
        self.list.push(format!("{place}{what}[{}]{key}: {}", plain(name), plain(odd)));
    }
}

impl Said<'_> {
    fn members(&self, groups: &BTreeSet<GroupName>) -> Vec<&Identity> {
        self.people.values().filter(|person| !person.groups.is_disjoint(groups)).collect()
    }

    /// A group of somebody's that one which nobody is in may be meant to be.
    fn like(&self, group: &GroupName) -> String {
        let groups: BTreeSet<&str> = self.people.values().flat_map(|p| &p.groups).map(GroupName::as_str).collect();
        let near = nearest(group.as_str(), groups.into_iter());
        near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
    }
}

fn roles(said: &Said<'_>, whole: &Whole<'_>, notes: &mut Notes<'_>) {
    let place = whole.main.place_of("roles").map(|place| format!("{place}: ")).unwrap_or_default();
    let mut say = |odd: String| notes.list.push(format!("{place}roles.{odd}"));
    let admins = said.members(&said.roles.admin);
    if admins.is_empty() {
        say("admin: nobody is an admin of this gateway, so nobody can issue a grant".to_owned());
    } else if !admins.iter().any(|person| person.unix_user.is_some()) {
        say("admin: no admin has a unix_user, so nobody can use the admin commands".to_owned());
    }
    for (role, groups) in [("admin", &said.roles.admin), ("auditor", &said.roles.auditor)] {
        for group in groups.iter().filter(|group| said.members(&BTreeSet::from([(*group).clone()])).is_empty()) {
            say(format!("{role}: nobody is in {group}{}", said.like(group)));
        }
    }
}

fn auditors(said: &Said<'_>, auditor: &Auditor, may_come: bool, notes: &mut Notes<'_>) {
    for (key, groups) in [(".groups", Some(&auditor.groups)), (".people", auditor.people.as_ref())] {
        for group in groups.into_iter().flatten() {
            if said.members(&BTreeSet::from([group.clone()])).is_empty() {
                let odd = format!("nobody is in {group}{}", said.like(group));
                notes.of("auditor", &auditor.name, key, &odd);
            }
        }
    }
    if let Some(Selector::Names(names)) = &auditor.targets {
        for name in names.iter().filter(|name| !may_come && !said.targets.contains_key(*name)) {
            let odd = format!("there is no target {name} now: they see what was done on it, and nothing new");
            notes.of("auditor", &auditor.name, ".targets", &odd);
        }
    }
}

fn people(said: &Said<'_>, notes: &mut Notes<'_>) {
    let named: BTreeSet<&GroupName> = (said.entitlements.values().flat_map(|entitlement| &entitlement.groups))
        .chain(said.roles.named().flat_map(|(_, groups)| groups))
        .chain(said.roles.scoped.iter().flat_map(|auditor| auditor.people.iter().flatten()))
        .collect();
    let vouched = said.doors.is_none_or(|doors| !doors.vouching.user_ca.is_empty());
    for person in said.people.values() {
        let workload = said.workloads.iter().any(|workload| workload.name == person.name);
        if person.ssh_keys.is_empty()
            && person.unix_user.is_none()
            && !vouched
            && !workload
            && !said.tied.contains(&person.name)
        {
            let odd =
                "has no ssh_keys and no unix_user, and there is no ssh.user_ca: nobody can come in under this name";
            notes.of("user", person.name.as_str(), "", odd);
        }
        if !person.groups.iter().any(|group| named.contains(group)) {
            let odd = "no entitlement and no role names a group of theirs, so nothing can be granted to them";
            notes.of("user", person.name.as_str(), ".groups", odd);
        }
    }
}

/// What a condition names that there is not: it would hold for nobody.
fn nameless(said: &Said<'_>, when: &When) -> Vec<String> {
    let known =
        |group: &GroupName| said.guests.contains(group) || !said.members(&BTreeSet::from([group.clone()])).is_empty();
    let odd = |(kind, name): (String, String)| match kind.as_str() {
        "Group" => match name.parse::<GroupName>() {
            Ok(group) if known(&group) => None,
            Ok(group) => Some(format!("nobody is in {group}{}", said.like(&group))),
            Err(_) => Some(format!("{name:?} is no name of a group")),
        },
        "Target" => {
            let there = said.targets.keys().any(|target| target.as_str() == name);
            let near = nearest(&name, said.targets.keys().map(TargetName::as_str));
            let like = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            (!there).then(|| format!("there is no target {name:?}{like}"))
        }
        _ => None,
    };
    when.names().into_iter().filter_map(odd).collect()
}

fn entitled(said: &Said<'_>, entitlement: &Entitlement, notes: &mut Notes<'_>) {
    let name = entitlement.name.as_str();
    if said.members(&entitlement.groups).is_empty() && said.guests.is_disjoint(&entitlement.groups) {
        let groups: Vec<&str> = entitlement.groups.iter().map(GroupName::as_str).collect();
        let like = entitlement.groups.iter().map(|group| said.like(group)).find(|like| !like.is_empty());
        let odd = format!("nobody can get it: no user is in {}{}", groups.join(" or "), like.unwrap_or_default());
        notes.of("entitlement", name, ".groups", &odd);
    }
    for (number, rule) in (1..).zip(entitlement.asking.iter().flat_map(|asking| &asking.levels)) {
        let (may, must) = (said.members(&rule.from).len(), usize::try_from(rule.count).unwrap_or(usize::MAX));
        if may < must && said.guests.is_disjoint(&rule.from) {
            let odd = format!("nobody can get it by asking: level {number} needs {must}, and {may} are in its groups");
            notes.of("entitlement", name, ".approvals", &odd);
        }
    }
    if let Some(when) = &entitlement.conditions.when {
        for odd in nameless(said, when) {
            notes.of("entitlement", name, ".when", &odd);
        }
    }
    if entitlement.breaks_glass() {
        broken_glass(said, entitlement, notes);
    }
    if let Terms::Ssh { forward, .. } = &entitlement.terms {
        let dangers = |rule: Rule| rule.dangers().into_iter().map(move |danger| format!("{rule} {danger}"));
        forward.rules().flat_map(dangers).for_each(|danger| notes.of("entitlement", name, ".forward", &danger));
    }
    let kind = kind_of(&entitlement.terms);
    let (fit, unfit): (Vec<&Target>, Vec<&Target>) =
        said.targets.values().filter(|target| entitlement.reaches(target)).partition(|target| target.kind == kind);
    if let (true, Selector::Labels(labels)) = (fit.is_empty(), &entitlement.targets) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
        let of = match kind {
            Kind::Ssh => "ssh",
            Kind::Postgres => "postgres",
        };
        let odd = format!("it opens nothing: no target of kind {of:?} has the labels {{ {} }}", labels.join(", "));
        notes.of("entitlement", name, ".targets", &odd);
    }
    if let Selector::Names(names) = &entitlement.targets {
        for missing in names.iter().filter(|target| !said.targets.contains_key(target)) {
            let near = nearest(missing.as_str(), said.targets.keys().map(|name| name.as_str()));
            let like = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            let odd = format!("there is no target {missing} now{like}; an inventory may list it yet");
            notes.of("entitlement", name, ".targets", &odd);
        }
    }
    for target in unfit {
        let odd = format!("{} has the labels, but is of the other kind", target.name);
        notes.of("entitlement", name, ".targets", &odd);
    }
}

/// What breaks the glass is worth as much as those who hear of it and look at it afterwards.
fn broken_glass(said: &Said<'_>, entitlement: &Entitlement, notes: &mut Notes<'_>) {
    let mut say = |odd: &str| notes.of("entitlement", entitlement.name.as_str(), ".break_glass", odd);
    let broken = Event::new("review.demanded");
    if !said.notify.iter().flat_map(|channel| &channel.kinds).any(|kind| kind.includes(&broken)) {
        say("nobody is told when the glass is broken: write a [[notify]] with kinds = [\"break_glass\"]");
    }
    let reviewers = said.members(&said.roles.admin.union(&said.roles.auditor).cloned().collect());
    let alone = |holder: &&Identity| reviewers.iter().all(|reviewer| reviewer.name == holder.name);
    if said.members(&entitlement.groups).iter().any(alone) {
        say("somebody may break the glass, and nobody else could sign the review: make another admin or an auditor");
    }
}

fn targets(said: &Said<'_>, notes: &mut Notes<'_>) {
    for target in said.targets.values() {
        let name = target.name.as_str();
        if !said.entitlements.values().any(|it| it.reaches(target) && kind_of(&it.terms) == target.kind) {
            notes.of("target", name, "", "no entitlement reaches it, so nobody can ever open it");
        }
        let Some(doors) = said.doors else { continue };
        let shut = match target.kind {
            Kind::Ssh if doors.ssh.is_none() => "[ssh]",
            Kind::Postgres if doors.postgres.is_none() => "[postgres]",
            _ => continue,
        };
        notes.of("target", name, ".kind", &format!("there is no door to it: write {shut} with listen"));
    }
}

fn issuers(said: &Said<'_>, notes: &mut Notes<'_>) {
    for issuer in said.issuers.values() {
        for name in &issuer.entitlements {
            let Some(entitlement) = said.entitlements.get(name) else { continue };
            if said.members(&entitlement.groups).is_empty() {
                let odd = format!("it may grant {name}, which nobody can get: no user is in its groups");
                notes.of("issuer", &issuer.name, ".entitlements", &odd);
            }
        }
    }
}

fn kind_of(terms: &Terms) -> Kind {
    match terms {
        Terms::Ssh { .. } => Kind::Ssh,
        Terms::Postgres { .. } => Kind::Postgres,
    }
}
