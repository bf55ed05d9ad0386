//! `[[group]]`: groups whose members are members of others, too.
//!
//! What always holds: it is resolved here, once, so nothing else knows of it: whoever is in a group is in all that it is in. A group that
//! is in itself, by however many others, is refused, and the circle is named.

use super::{
    gateway::groups,
    section::{Section, Whole},
};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_grants::GroupName;

const FIX: &str = "write [[group]] with name = \"oncall\" and groups = [\"sre\"]: whoever is in oncall is in sre too";

/// Which groups are in which.
#[derive(Debug, Default)]
pub(super) struct Nested(BTreeMap<GroupName, BTreeSet<GroupName>>);

impl Nested {
    /// These, and all that they are in.
    pub(super) fn all_of(&self, direct: BTreeSet<GroupName>) -> BTreeSet<GroupName> {
        let (mut all, mut new) = (BTreeSet::new(), Vec::from_iter(direct));
        while let Some(group) = new.pop() {
            new.extend(self.0.get(&group).into_iter().flatten().cloned());
            all.insert(group);
            new.retain(|group| !all.contains(group));
        }
        all
    }

    /// The way from a group back to itself, if there is one: the shortest.
    fn circle(&self, from: &GroupName) -> Option<Vec<&GroupName>> {
        let (first, _) = self.0.get_key_value(from)?;
        let (mut ways, mut seen) = (vec![vec![first]], BTreeSet::new());
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                for next in way.last().and_then(|last| self.0.get(*last)).into_iter().flatten() {
                    let way: Vec<&GroupName> = way.iter().copied().chain([next]).collect();
                    if next == from {
                        return Some(way);
                    }
                    if seen.insert(next) {
                        longer.push(way);
                    }
                }
            }
            ways = longer;
        }
        None
    }
}

/// All of them. What was faulty is left out, and has said so.
pub(super) fn nested(whole: &Whole<'_>) -> Nested {
    let (mut nested, mut told) = (Nested::default(), BTreeSet::new());
    let mut sections: Vec<(GroupName, Section<'_>)> = Vec::new();
    for section in whole.sections("group") {
        let name =
            section.need("name", section.text("name"), FIX).and_then(|name| name.parse(str::parse::<GroupName>, FIX));
        section.need("groups", section.texts("groups").map(|_| ()), FIX);
        let within = groups(&section, "groups");
        section.unknown();
        let Some(name) = name else { continue };
        if let Some(other) = name.seen("group", name.value.as_str()) {
            name.fault(format!("is the name of another [[group]] already ({other})"), "write its groups into one");
            continue;
        }
        nested.0.insert(name.value.clone(), within);
        sections.push((name.value, section));
    }
    let mut circular = Vec::new();
    for (name, section) in &sections {
        let Some(circle) = nested.circle(name).filter(|_| !told.contains(name)) else { continue };
        told.extend(circle.iter().copied().cloned());
        let shown: Vec<&str> = circle.iter().map(|group| group.as_str()).collect();
        section.fault("groups", format!("goes in a circle: {}", shown.join(" in ")), "take one of them out");
        circular.push(name.clone());
    }
    circular.iter().for_each(|name| drop(nested.0.remove(name)));
    nested
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<GroupName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn who_is_in_a_group_is_in_all_that_it_is_in() {
        let within = [("a", &["b", "c"][..]), ("b", &["d"]), ("c", &["d"]), ("e", &["a"])];
        let nested = Nested(within.map(|(name, groups)| (name.parse().unwrap(), names(groups))).into());
        for (direct, all) in [
            (&["a"][..], &["a", "b", "c", "d"][..]),
            (&["b"], &["b", "d"]),
            (&["d", "x"], &["d", "x"]),
            (&["e"], &["a", "b", "c", "d", "e"]),
            (&[], &[]),
        ] {
            assert_eq!(nested.all_of(names(direct)), names(all), "{direct:?}");
        }
        assert!(within.iter().all(|(name, _)| nested.circle(&name.parse().unwrap()).is_none()));
    }

    #[test]
    fn a_circle_is_found_from_each_of_its_groups_and_from_no_other() {
        let within = [("a", &["b"][..]), ("b", &["c", "x"]), ("c", &["b"]), ("s", &["s"])];
        let nested = Nested(within.map(|(name, groups)| (name.parse().unwrap(), names(groups))).into());
        let circle = |name: &str| {
            let found = nested.circle(&name.parse().unwrap());
            found.map(|way| way.iter().map(|group| group.as_str()).collect::<Vec<_>>().join(">"))
        };
        assert_eq!(circle("a"), None);
        assert_eq!((circle("b").as_deref(), circle("c").as_deref()), (Some("b>c>b"), Some("c>b>c")));
        assert_eq!(circle("s").as_deref(), Some("s>s"));
        assert_eq!(nested.all_of(names(&["c"])), names(&["b", "c", "x"]), "even a circle ends");
    }
}
