//! Guests: people whom the configuration does not name, and who logged in elsewhere; and SSH keys that are good for a while.
//!
//! What always holds: whom the configuration names is no guest, and nobody becomes them by a login elsewhere that the configuration
//! does not tie to them; a guest has no role in the gateway itself, only what entitlements give the groups; what a guest is, and
//! what a lent key opens, ends by itself.

use crate::{
    identity::Identity,
    name::{GroupName, IdentityName},
    policy::Policy,
};
use jiff::Timestamp;
use std::{collections::BTreeSet, sync::Arc};

/// Somebody who logged in elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The name that records carry.
    pub identity: IdentityName,
    /// Where they logged in.
    pub issuer: String,
    /// Who they are there, for ever.
    pub subject: String,
    /// What entitlements go by.
    pub groups: BTreeSet<GroupName>,
    /// Since when.
    pub since: Timestamp,
    /// Not at or after.
    pub ends: Timestamp,
}

/// An SSH key that says for a while who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentKey {
    /// As `ALGORITHM BASE64`.
    pub key: String,
    /// Whose.
    pub identity: IdentityName,
    /// By what it came: `oidc` or `workload`.
    pub how: String,
    /// Since when.
    pub since: Timestamp,
    /// Not at or after.
    pub ends: Timestamp,
}

/// What a login elsewhere came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Where they logged in.
    pub issuer: String,
    /// Who they are there, for ever.
    pub subject: String,
    /// Who they are here.
    pub identity: IdentityName,
    /// The configuration names them, and ties this subject to them: their groups are there.
    pub declared: bool,
    /// A guest's groups.
    pub groups: BTreeSet<GroupName>,
    /// When the login is over.
    pub ends: Timestamp,
}

/// All guests and lent keys, as far as the ledger vouches for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Guests {
    pub(crate) people: Vec<Guest>,
    pub(crate) keys: Vec<LentKey>,
}

impl Guests {
    /// The configuration's policy, with those who are here at this moment.
    pub(crate) fn join(&self, base: &Arc<Policy>, now: Timestamp) -> Arc<Policy> {
        let (people, keys) = (self.people.iter(), self.keys.iter());
        let people: Vec<_> = people.filter(|guest| now < guest.ends).collect();
        let keys: Vec<_> = keys.filter(|lent| now < lent.ends).collect();
        if people.is_empty() && keys.is_empty() {
            return base.clone();
        }
        let mut policy = Policy::clone(base);
        for guest in people {
            let name = guest.identity.clone();
            let groups = guest.groups.iter().filter(|group| !base.is_role(group)).cloned().collect();
            let identity = Identity { name: name.clone(), groups, ssh_keys: Vec::new(), unix_user: None };
            policy.identities.entry(name).or_insert(identity);
        }
        for lent in keys {
            // A key says who somebody is: what the configuration says of it goes first.
            let known = policy.identities.values().any(|identity| identity.ssh_keys.contains(&lent.key));
            if let Some(identity) = policy.identities.get_mut(&lent.identity).filter(|_| !known) {
                identity.ssh_keys.push(lent.key.clone());
            }
        }
        Arc::new(policy)
    }

    /// Whether somebody's time ended after the first and not after the second of these.
    pub(crate) fn ended_between(&self, then: Timestamp, now: Timestamp) -> bool {
        let ends = self.people.iter().map(|guest| guest.ends).chain(self.keys.iter().map(|lent| lent.ends));
        // The other way round, too, where the clock was set back.
        ends.into_iter().any(|end| (then < end) != (now < end))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::fixture::{after, now, policy};

    fn guest(name: &str, groups: &[&str]) -> Guest {
        Guest {
            identity: name.parse().unwrap(),
            issuer: "https://login.example.com".to_owned(),
            subject: format!("subject-of-{name}"),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            since: now(),
            ends: after(60),
        }
    }

    fn lent(key: &str, name: &str) -> LentKey {
        let (how, identity) = ("oidc".to_owned(), name.parse().unwrap());
        LentKey { key: key.to_owned(), identity, how, since: now(), ends: after(60) }
    }

    #[test]
    fn a_guest_is_somebody_else_than_whom_the_configuration_names_and_has_no_role() {
        let base = Arc::new(policy());
        let admin = base.admins.first().unwrap().as_str().to_owned();
        let people = vec![guest("zoe", &["sre", &admin]), guest("alice", &["sre", &admin])];
        let guests = Guests { people, keys: vec![lent("ssh-ed25519 AAAA", "zoe"), lent("ssh-ed25519 BBBB", "nobody")] };
        let joined = guests.join(&base, now());
        let zoe = &joined.identities[&"zoe".parse().unwrap()];
        assert_eq!(zoe.groups, [GroupName::try_from("sre".to_owned()).unwrap()].into());
        assert_eq!(zoe.ssh_keys, ["ssh-ed25519 AAAA"]);
        let alice: IdentityName = "alice".parse().unwrap();
        assert_eq!(joined.identities[&alice].groups, base.identities[&alice].groups);
        assert_eq!(joined.identities.len(), base.identities.len() + 1);
    }

    #[test]
    fn a_key_of_somebodys_is_not_lent_to_another() {
        let mut base = policy();
        let bob: IdentityName = "bob".parse().unwrap();
        base.identities.get_mut(&bob).unwrap().ssh_keys.push("ssh-ed25519 AAAA".to_owned());
        let guests = Guests { people: vec![guest("zoe", &[])], keys: vec![lent("ssh-ed25519 AAAA", "zoe")] };
        let joined = guests.join(&Arc::new(base), now());
        assert!(joined.identities[&"zoe".parse().unwrap()].ssh_keys.is_empty());
    }

    #[test]
    fn guests_and_keys_end_by_time() {
        let base = Arc::new(policy());
        let guests = Guests { people: vec![guest("zoe", &[])], keys: vec![lent("ssh-ed25519 AAAA", "alice")] };
        assert!(Arc::ptr_eq(&guests.join(&base, after(60)), &base));
        assert!(!guests.ended_between(now(), after(59)) && guests.ended_between(now(), after(60)));
        assert!(!guests.ended_between(after(60), after(61)) && guests.ended_between(after(61), now()));
    }
}
