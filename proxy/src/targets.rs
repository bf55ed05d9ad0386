//! The targets of one protocol, as the configuration in force describes them. A reload replaces them whole.
//!
//! What always holds: whoever looked one up keeps what it saw, so that a session never changes its target half-way. And a
//! target that the configuration no longer names is still known to teardown: what sessions left there can be removed
//! until the gateway stops (and after that once the target is named again: leases are never forgotten).

use crate::issuer::TargetError;
use arc_swap::ArcSwap;
use std::{collections::BTreeMap, sync::Arc};
use tidegate_grants::TargetName;

/// Targets by name.
#[derive(Debug)]
pub struct Targets<T>(ArcSwap<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    named: BTreeMap<TargetName, Arc<T>>,
    /// No longer named.
    former: BTreeMap<TargetName, Arc<T>>,
}

impl<T> Targets<T> {
    /// As the configuration names them.
    pub fn new(named: BTreeMap<TargetName, T>) -> Self {
        Self(ArcSwap::from_pointee(Known { named: shared(named), former: BTreeMap::new() }))
    }

    /// For a session: only what is named now.
    pub fn named(&self, name: &TargetName) -> Result<Arc<T>, TargetError> {
        self.0.load().named.get(name).cloned().ok_or_else(|| TargetError::Unknown(name.to_string()))
    }

    /// For a teardown: also what was named before.
    pub fn known(&self, name: &TargetName) -> Result<Arc<T>, TargetError> {
        let known = self.0.load();
        let found = known.named.get(name).or_else(|| known.former.get(name));
        found.cloned().ok_or_else(|| TargetError::Unknown(name.to_string()))
    }

    /// Puts others in their place.
    pub fn replace(&self, named: BTreeMap<TargetName, T>) {
        let named = shared(named);
        self.0.rcu(|before| {
            let mut former = before.former.clone();
            former.extend(before.named.iter().map(|(name, target)| (name.clone(), target.clone())));
            former.retain(|name, _| !named.contains_key(name));
            Known { named: named.clone(), former }
        });
    }
}

fn shared<T>(targets: BTreeMap<TargetName, T>) -> BTreeMap<TargetName, Arc<T>> {
    targets.into_iter().map(|(name, target)| (name, Arc::new(target))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> BTreeMap<TargetName, String> {
        of.iter().map(|name| (name.parse().unwrap(), format!("{name}, of {}", of.len()))).collect()
    }

    #[test]
    fn a_target_that_is_no_longer_named_is_known_to_teardown_alone() {
        let targets = Targets::new(names(&["web-1", "web-2"]));
        let (one, two) = ("web-1".parse().unwrap(), "web-2".parse().unwrap());
        let seen = targets.named(&two).unwrap();
        targets.replace(names(&["web-1"]));
        assert_eq!(*targets.named(&one).unwrap(), "web-1, of 1");
        assert!(matches!(targets.named(&two), Err(TargetError::Unknown(_))));
        assert_eq!(targets.known(&two).unwrap(), seen);
        targets.replace(names(&[]));
        assert_eq!(*targets.known(&two).unwrap(), "web-2, of 2", "however long ago");
        targets.replace(names(&["web-2"]));
        assert_eq!(*targets.known(&two).unwrap(), "web-2, of 1", "named again");
    }
}
