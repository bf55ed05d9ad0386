//! `[[auditor]]`: who may see what some people do on some targets. Those of everything are `roles.auditor`.

use super::{
    entitlements::labels,
    gateway::{groups, recipients},
    section::{Section, Whole},
    value::{self, PLAIN_NAME_FIX},
};
use std::collections::BTreeSet;
use tidegate_grants::{Auditor, TargetName, entitlement::Selector};

const GROUPS_FIX: &str = "list the auditors' groups, like [\"shop-audit\"]";
const PEOPLE_FIX: &str = "list the groups whose sessions they may see, like [\"sre\"]";
const TARGETS_FIX: &str =
    "write a list of names, [\"orders\"], also of targets that are no more, or labels, { env = \"prod\" }";

/// All of them. What was faulty is left out, and has said so.
pub(super) fn auditors(whole: &Whole<'_>) -> Vec<Auditor> {
    let apart = whole.main.section("recording").is_some_and(|recording| recording.has("keystroke_recipients"));
    whole.main.sections("auditor").iter().filter_map(|section| auditor(section, apart)).collect()
}

/// `apart`: keystrokes are for others than the rest.
fn auditor(section: &Section<'_>, apart: bool) -> Option<Auditor> {
    let name = section.need("name", section.text("name"), "write name = \"shop\"");
    let name = name.and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
    let who = section.need("groups", section.texts("groups").map(|_| ()), GROUPS_FIX);
    let who = who.and_then(|()| some_groups(section, "groups", GROUPS_FIX));
    let people = match section.texts("people") {
        Some(_) => some_groups(section, "people", PEOPLE_FIX).map(Some),
        None => Some(None),
    };
    let targets = targets(section);
    if !section.has("people") && !section.has("targets") {
        let wrong = "is missing, and people too: whoever sees everything is an auditor of the gateway";
        section.fault("targets", wrong, "write targets or people, or name the groups in roles.auditor");
    }
    let keys = recipients(section, "recipients");
    let keystroke_keys = recipients(section, "keystroke_recipients");
    if !apart {
        let wrong = "says who may see what was typed, and recording.keystroke_recipients does not: whoever opens a recording does";
        section.misplaced(&["keystroke_recipients"], wrong, "write that, too, or take this out");
    }
    section.unknown();
    let name = name?;
    if let Some(other) = name.seen("auditor", &name.value) {
        let wrong = format!("is the name of another [[auditor]] already ({other})");
        name.fault(wrong, "give each a name of its own");
        return None;
    }
    Some(Auditor {
        name: name.value,
        groups: who?,
        targets: targets?,
        people: people?,
        recipients: keys?,
        keystroke_recipients: keystroke_keys?,
    })
}

/// At least one.
fn some_groups(section: &Section<'_>, key: &'static str, fix: &str) -> Option<BTreeSet<tidegate_grants::GroupName>> {
    let groups = groups(section, key);
    if groups.is_empty() {
        section.fault(key, "names no group", fix);
        return None;
    }
    Some(groups)
}

fn targets(section: &Section<'_>) -> Option<Option<Selector>> {
    if section.is_table("targets") {
        return labels(section, TARGETS_FIX).map(|selector| Some(selector.value));
    }
    let Some(list) = section.texts("targets") else { return Some(None) };
    if list.value.is_empty() {
        list.fault("names no target", TARGETS_FIX);
        return None;
    }
    let names = list.value.into_iter().map(|name| name.parse(str::parse::<TargetName>, TARGETS_FIX));
    names.map(|name| name.map(|name| name.value)).collect::<Option<_>>().map(|names| Some(Selector::Names(names)))
}
