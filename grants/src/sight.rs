//! Who may see what others do: all of it, or what some people do on some targets.

use crate::{
    entitlement::Selector,
    identity::Identity,
    name::{GroupName, IdentityName, TargetName},
    policy::Policy,
};
use std::collections::BTreeSet;

/// Auditors of a part: an `[[auditor]]`. Those of everything are a role of the gateway ([`Policy::auditors`]).
#[derive(Debug, Clone)]
pub struct Auditor {
    /// What the configuration calls it.
    pub name: String,
    /// Who they are: members of any of these groups.
    pub groups: BTreeSet<GroupName>,
    /// What happens there. `None`: everywhere.
    pub targets: Option<Selector>,
    /// What members of any of these groups do. `None`: whoever does it.
    pub people: Option<BTreeSet<GroupName>>,
    /// Public keys, beside those that every recording is sealed for.
    pub recipients: Vec<String>,
    /// The same, of those who may see what was typed.
    pub keystroke_recipients: Vec<String>,
}

impl Auditor {
    fn sees(&self, policy: &Policy, person: &IdentityName, target: &TargetName) -> bool {
        let is_of = |groups: &BTreeSet<GroupName>| {
            policy.identities.get(person).is_some_and(|person| !person.groups.is_disjoint(groups))
        };
        let is_at = |selector: &Selector| match selector {
            Selector::Names(names) => names.contains(target),
            Selector::Labels(_) => policy.targets.get(target).is_some_and(|target| selector.selects(target)),
        };
        self.people.as_ref().is_none_or(is_of) && self.targets.as_ref().is_none_or(is_at)
    }

    fn view(&self, policy: &Policy) -> View {
        let targets = self.targets.as_ref().map(|selector| match selector {
            // Those that are no longer in the configuration, too: what was done there was done.
            Selector::Names(names) => names.clone(),
            Selector::Labels(_) => {
                let targets = policy.targets.values().filter(|target| selector.selects(target));
                targets.map(|target| target.name.clone()).collect()
            }
        });
        let people = self.people.as_ref().map(|groups| {
            let people = policy.identities.values().filter(|person| !person.groups.is_disjoint(groups));
            people.map(|person| person.name.clone()).collect()
        });
        View { people, targets }
    }
}

/// What of all that is done somebody may see. Each of its views is enough.
#[must_use = "what may be seen depends on it"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight(Vec<View>);

/// What some people do on some targets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    /// `None`: whoever does it.
    people: Option<BTreeSet<IdentityName>>,
    /// `None`: everywhere.
    targets: Option<BTreeSet<TargetName>>,
}

impl View {
    fn sees(&self, person: &IdentityName, target: &TargetName) -> bool {
        self.people.as_ref().is_none_or(|people| people.contains(person))
            && self.targets.as_ref().is_none_or(|targets| targets.contains(target))
    }
}

impl Sight {
    /// Everything.
    pub fn all() -> Self {
        Self(vec![View { people: None, targets: None }])
    }

    /// What this person does.
    pub fn own(person: &IdentityName) -> Self {
        Self(vec![View { people: Some([person.clone()].into()), targets: None }])
    }

    /// With what another sees.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether it is everything.
    pub fn is_all(&self) -> bool {
        self.0.iter().any(|view| view.people.is_none() && view.targets.is_none())
    }

    /// Whether it is nothing at all.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what this person does there is within it.
    pub fn sees(&self, person: &IdentityName, target: &TargetName) -> bool {
        self.0.iter().any(|view| view.sees(person, target))
    }

    /// The only one whose doings are within it, where it is one person's.
    pub(crate) fn only(&self) -> Option<&IdentityName> {
        let [View { people: Some(people), .. }] = self.0.as_slice() else { return None };
        people.iter().next().filter(|_| people.len() == 1)
    }
}

impl Policy {
    /// What this person may see as an auditor.
    pub fn audits(&self, person: &Identity) -> Sight {
        if !person.groups.is_disjoint(&self.auditors) {
            return Sight::all();
        }
        let theirs = self.scoped_auditors.iter().filter(|auditor| !person.groups.is_disjoint(&auditor.groups));
        Sight(theirs.map(|auditor| auditor.view(self)).collect())
    }

    /// What this person may see of others', as who runs the gateway or as an auditor.
    pub fn oversees(&self, person: &Identity) -> Sight {
        if person.groups.is_disjoint(&self.admins) { self.audits(person) } else { Sight::all() }
    }

    /// Whether its members are more than people who ask: an admin's or an auditor's group.
    pub fn is_role(&self, group: &GroupName) -> bool {
        self.admins.contains(group)
            || self.auditors.contains(group)
            || self.scoped_auditors.iter().any(|auditor| auditor.groups.contains(group))
    }

    /// Auditors of a part who may see what this person does there.
    pub fn auditors_of(&self, person: &IdentityName, target: &TargetName) -> impl Iterator<Item = &Auditor> {
        self.scoped_auditors.iter().filter(move |auditor| auditor.sees(self, person, target))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fixture::policy;

    fn auditor(groups: &str, targets: Option<Selector>, people: Option<&str>) -> Auditor {
        Auditor {
            name: groups.to_owned(),
            groups: [groups.parse().unwrap()].into(),
            targets,
            people: people.map(|group| [group.parse().unwrap()].into()),
            recipients: Vec::new(),
            keystroke_recipients: Vec::new(),
        }
    }

    fn person(name: &str, group: &str) -> Identity {
        let groups = [group.parse().unwrap()].into();
        Identity { name: name.parse().unwrap(), groups, ssh_keys: Vec::new(), unix_user: None }
    }

    #[test]
    fn an_auditor_of_a_part_sees_these_people_on_these_targets_and_no_others() {
        let mut policy = policy();
        let (person_of, target) =
            (|name: &str| name.parse::<IdentityName>().unwrap(), |name: &str| name.parse().unwrap());
        let named = Selector::Names([target("web-1"), target("gone")].into());
        policy.scoped_auditors = vec![
            auditor("web", Some(named), None),
            auditor("team", None, Some("sre")),
            auditor("none", None, Some("nobody")),
        ];
        let known = policy.identities.values().find(|person| person.groups.iter().any(|it| it.as_str() == "sre"));
        let member = known.unwrap().name.clone();

        let web = policy.audits(&person("wanda", "web"));
        assert!(web.sees(&member, &target("web-1")) && web.sees(&person_of("whoever"), &target("gone")));
        assert!(!web.sees(&member, &target("orders")) && !web.is_all() && !web.is_nothing());
        let team = policy.audits(&person("tom", "team"));
        assert!(team.sees(&member, &target("orders")) && !team.sees(&person_of("whoever"), &target("orders")));
        let both = web.and(team);
        assert!(both.sees(&member, &target("orders")) && both.sees(&person_of("whoever"), &target("web-1")));
        assert!(!policy.audits(&person("nora", "none")).sees(&member, &target("web-1")));
        assert!(
            policy.audits(&person("eve", "sre")).is_nothing() && policy.oversees(&person("eve", "sre")).is_nothing()
        );
        assert!(policy.is_role(&"team".parse().unwrap()) && !policy.is_role(&"sre".parse().unwrap()));
        let whose: Vec<_> = policy.auditors_of(&member, &target("web-1")).map(|it| it.name.as_str()).collect();
        assert_eq!(whose, ["web", "team"]);
    }

    #[test]
    fn a_label_selects_the_targets_that_have_it_now() {
        let mut policy = policy();
        let first = policy.targets.values_mut().next().unwrap();
        first.labels = [("tier".to_owned(), "gold".to_owned())].into();
        let name = first.name.clone();
        let gold = Selector::Labels([("tier".to_owned(), "gold".to_owned())].into());
        policy.scoped_auditors = vec![auditor("gold", Some(gold), None)];
        let sight = policy.audits(&person("greta", "gold"));
        assert!(sight.sees(&"alice".parse().unwrap(), &name));
        let others: Vec<_> = policy.targets.keys().filter(|other| **other != name).collect();
        assert!(others.iter().all(|other| !sight.sees(&"alice".parse().unwrap(), other)));
    }
}
