//! `[[entitlement]]`: what groups may ask for, on which targets, and on which terms.

use super::{
    asking::asking,
    conditions::conditions,
    gateway::groups,
    glass,
    keeps::keeps,
    section::{Section, Spot, TextSpot, Whole},
    targets::Targets,
    value::{self, DURATION_FIX},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    time::Duration,
};
use tidegate_grants::{
    Entitlement, EntitlementName, Files, ForwardRules, InvalidName, Keeps, Kind, Leftovers, Mfa, Results, RoleName,
    TargetName, Terms,
    entitlement::Selector,
    forward::{InvalidRule, Rule},
};

/// Keys of entitlements that are for one protocol alone.
pub(super) const SSH_KEYS: [&str; 3] = ["logins", "files", "forward"];
pub(super) const POSTGRES_KEYS: [&str; 8] =
    ["databases", "roles", "inherit", "owner", "leftovers", "max_connections", "results", "mask"];

/// All entitlements. What was faulty is left out, and has said so.
pub(super) fn entitlements(
    whole: &Whole<'_>,
    targets: &Targets,
    recorded: &Keeps,
) -> BTreeMap<EntitlementName, Entitlement> {
    let mut entitlements = BTreeMap::new();
    for section in whole.sections("entitlement") {
        let name = section
            .need("name", section.text("name"), "write name = \"shell\"")
            .and_then(|name| name.parse(str::parse::<EntitlementName>, "choose such a name"));
        let groups = section.need("groups", section.texts("groups").map(|_| ()), GROUPS_FIX).map(|()| {
            let groups = groups(&section, "groups");
            if groups.is_empty() {
                section.fault("groups", "names no group: nobody could ever ask", GROUPS_FIX);
            }
            groups
        });
        let selector = selector(&section, targets, whole.has_inventories());
        let terms = terms(&section, recorded);
        if let (Some(selector), Some(terms)) = (&selector, &terms) {
            fits(selector, terms, targets);
        }
        let max_duration = section
            .need("max_duration", section.text("max_duration"), DURATION_FIX)
            .and_then(|longest| longest.parse(value::positive_duration, DURATION_FIX))
            .and_then(not_too_long);
        let idle_timeout = match section.text("idle_timeout") {
            Some(idle) => idle.parse(value::positive_duration, DURATION_FIX).map(|idle| Some(idle.value)),
            None => Some(None),
        };
        let asking = asking(&section);
        let mfa = mfa(&section);
        let conditions = conditions(&section);
        section.unknown();
        let Some(name) = name else { continue };
        if let Some(other) = name.seen("entitlement", name.value.as_str()) {
            let wrong = format!("is the name of another entitlement already ({other})");
            name.fault(wrong, "give each entitlement a name of its own");
            continue;
        }
        let terms = terms.zip(max_duration).zip(idle_timeout);
        if let (
            Some(groups),
            Some(selector),
            Some(((mut terms, max_duration), idle_timeout)),
            Some(asking),
            Some(mfa),
            Some(conditions),
        ) = (groups, selector, terms, asking, mfa, conditions)
        {
            if asking.as_ref().is_some_and(|asking| !glass::held(&section, asking, mfa, max_duration)) {
                continue;
            }
            if asking.as_ref().is_some_and(|asking| asking.break_glass)
                && !section.has("results")
                && let Terms::Postgres { keeps, .. } = &mut terms
            {
                keeps.results = Results::All;
            }
            let (name, targets) = (name.value, selector.value);
            let entitlement = Entitlement {
                name: name.clone(),
                groups,
                targets,
                terms,
                max_duration,
                idle_timeout,
                asking,
                mfa,
                conditions,
            };
            entitlements.insert(name, entitlement);
        }
    }
    entitlements
}

const GROUPS_FIX: &str = "list who may ask, like [\"sre\"]";
const TARGETS_FIX: &str = "write a list of names, [\"orders\"], or labels, { env = \"prod\" }";

fn not_too_long(longest: Spot<'_, Duration>) -> Option<Duration> {
    if longest.value > Duration::from_secs(30 * 24 * 60 * 60) {
        longest.fault("is longer than 30 days: that is a standing permission", "write a duration that a session needs");
        return None;
    }
    Some(longest.value)
}

/// Targets by their labels.
pub(super) fn labels<'a>(section: &Section<'a>, fix: &str) -> Option<Spot<'a, Selector>> {
    let pairs = section.pairs("targets")?;
    if pairs.value.is_empty() {
        pairs.fault("names no label: that would be every target", fix);
        return None;
    }
    let labels = pairs.value.iter().map(|(key, value)| ((*key).to_owned(), value.value.to_owned())).collect();
    Some(pairs.with(Selector::Labels(labels)))
}

fn selector<'a>(section: &Section<'a>, targets: &Targets, may_come: bool) -> Option<Spot<'a, Selector>> {
    if section.is_table("targets") {
        return labels(section, TARGETS_FIX);
    }
    let list = section.need("targets", section.texts("targets"), TARGETS_FIX)?;
    let place = list.with(());
    if list.value.is_empty() {
        list.fault("names no target", TARGETS_FIX);
        return None;
    }
    let mut names = BTreeSet::new();
    for item in list.value {
        let Some(name) = item.parse(str::parse::<TargetName>, "write the name of a [[target]]") else { continue };
        // What an inventory lists comes and goes; that it is not there now is a note.
        if targets.by_name.contains_key(&name.value) || may_come {
            names.insert(name.value);
        } else if !name.is_there("target", name.value.as_str()) {
            let near = value::nearest(name.value.as_str(), targets.by_name.keys().map(TargetName::as_str));
            name.fault(format!("there is no target {:?}", name.value.as_str()), or_write("a [[target]]", near));
        }
    }
    Some(place.with(Selector::Names(names)))
}

/// What to do about a name that nothing has.
pub(super) fn or_write(what: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("did you mean {near:?}? Else write {what} of this name"),
        None => format!("write {what} of this name, or correct it"),
    }
}

/// What it is for is told by its terms: logins for SSH, databases and roles for PostgreSQL.
fn terms<'a>(section: &Section<'a>, recorded: &Keeps) -> Option<Terms> {
    let ssh = section.has("logins");
    let postgres = POSTGRES_KEYS.iter().any(|key| section.has(key));
    match (ssh, postgres) {
        (true, false) => {
            section.pass_over(&POSTGRES_KEYS);
            let logins = names(section, "logins", "list accounts on the targets, like [\"deploy\"]");
            let files = match section.text("files") {
                Some(files) => files_of(&files),
                None => Some(Files::Both),
            };
            let forward = forward_rules(section);
            Some(Terms::Ssh { logins: logins?, files: files?, forward: forward? })
        }
        (false, true) => {
            section.pass_over(&SSH_KEYS);
            let wrong = "is for SSH, and this entitlement has databases or roles, which are for PostgreSQL";
            section.misplaced(&["files", "forward"], wrong, "take it out");
            postgres_terms(section, recorded)
        }
        (true, true) => {
            section.pass_over(&SSH_KEYS);
            let (wrong, fix) = (
                "is for PostgreSQL, and this entitlement has logins, which are for SSH",
                "make two entitlements of it",
            );
            section.misplaced(&POSTGRES_KEYS, wrong, fix);
            None
        }
        (false, false) => {
            let fix = "write logins = [\"deploy\"] for SSH, or databases and roles for PostgreSQL";
            section.fault("logins", "is missing, and databases with roles too: it opens nothing", fix);
            None
        }
    }
}

/// `None` has said why.
fn mfa(section: &Section<'_>) -> Option<Mfa> {
    let Some(mfa) = section.text("mfa") else { return Some(Mfa::None) };
    match mfa.value {
        "none" => Some(Mfa::None),
        "request" => Some(Mfa::Request),
        "session" => Some(Mfa::Session),
        _ => {
            mfa.fault("is none of \"none\", \"request\" and \"session\"", "write one of them");
            None
        }
    }
}

fn files_of(files: &TextSpot<'_>) -> Option<Files> {
    match files.value {
        "none" => Some(Files::None),
        "download" => Some(Files::Download),
        "upload" => Some(Files::Upload),
        "both" => Some(Files::Both),
        _ => {
            files.fault("is none of \"none\", \"download\", \"upload\" and \"both\"", "write one of them");
            None
        }
    }
}

/// `None` has said why.
fn forward_rules(section: &Section<'_>) -> Option<ForwardRules> {
    const FIX: &str =
        "write rules like [\"localhost:8000-8999\", \"db-1:5432\", \"[fd00::7]:443\", \"unix:/run/app.sock\"]";
    let Some(list) = section.texts("forward") else {
        return Some(ForwardRules::default());
    };
    let rules: Vec<Option<Rule>> = list
        .value
        .into_iter()
        .map(|item| {
            let wrong = match item.value.parse::<Rule>() {
                Ok(rule) => return Some(rule),
                Err(wrong) => wrong,
            };
            let fix = if matches!(wrong, InvalidRule::NotYet(_)) { "take it out" } else { FIX };
            item.fault(format!("{:?}: {wrong}", item.value), fix);
            None
        })
        .collect();
    rules.into_iter().collect()
}

fn postgres_terms(section: &Section<'_>, recorded: &Keeps) -> Option<Terms> {
    let databases = names(section, "databases", "list databases, like [\"shop\"]");
    let roles = names(section, "roles", "list what the ephemeral role is made a member of, like [\"shop_reader\"]");
    let owner = match section.text("owner") {
        Some(owner) => {
            Some(owner.parse(str::parse::<RoleName>, "write the NOLOGIN role that shall own what is made")?.value)
        }
        None => None,
    };
    let leftovers = match section.text("leftovers") {
        Some(leftovers) => leftovers_of(&leftovers),
        None => Some(Leftovers::Quarantine),
    };
    let max_connections = match section.integer("max_connections") {
        Some(most) => {
            let number = u16::try_from(most.value).ok().filter(|most| (1..=1000).contains(most));
            if number.is_none() {
                most.fault("is not between 1 and 1000", "write how many connections one login may open at once");
            }
            number
        }
        None => Some(10),
    };
    let keeps = keeps(section, recorded);
    Some(Terms::Postgres {
        databases: databases?,
        roles: roles?,
        inherit: section.boolean("inherit").is_none_or(|inherit| inherit.value),
        owner,
        leftovers: leftovers?,
        max_connections: max_connections?,
        keeps: keeps?,
    })
}

fn leftovers_of(leftovers: &TextSpot<'_>) -> Option<Leftovers> {
    match leftovers.value {
        "quarantine" => Some(Leftovers::Quarantine),
        "drop" => Some(Leftovers::Drop),
        _ => {
            leftovers.fault("is neither \"quarantine\" nor \"drop\"", "write one of them");
            None
        }
    }
}

/// A list of names that may not be empty. `None` has said why.
fn names<T: FromStr<Err = InvalidName> + Ord>(
    section: &Section<'_>,
    key: &'static str,
    fix: &str,
) -> Option<BTreeSet<T>> {
    let list = section.need(key, section.texts(key), fix)?;
    if list.value.is_empty() {
        list.fault("is empty", fix);
        return None;
    }
    let names: Vec<Option<T>> =
        list.value.into_iter().map(|item| item.parse(str::parse::<T>, fix).map(|name| name.value)).collect();
    names.into_iter().collect()
}

/// Targets that are named must be of the kind that the terms are for. (Labels may reach both: the others are not opened.)
fn fits(selector: &Spot<'_, Selector>, terms: &Terms, targets: &Targets) {
    let Selector::Names(names) = &selector.value else { return };
    let (kind, has, wants) = match terms {
        Terms::Ssh { .. } => (Kind::Ssh, "logins, which are for SSH", "databases and roles"),
        Terms::Postgres { .. } => (Kind::Postgres, "databases and roles, which are for PostgreSQL", "logins"),
    };
    for name in names {
        if targets.by_name.get(name).is_some_and(|target| target.kind != kind) {
            let wrong = format!("{name} is of the other kind: this entitlement has {has}");
            selector.fault(wrong, format!("make an entitlement of its own for {name}, with {wants}"));
        }
    }
}
