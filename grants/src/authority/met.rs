//! Whether the condition (`when`) of an entitlement holds for somebody at the door, by what the policy in force says of them.

use super::{Ask, Denied};
use crate::{
    entitlement::Entitlement,
    policy::Policy,
    when::{Facts, Judged},
};
use jiff::Timestamp;

/// It has none, or it holds now. What cannot be evaluated denies.
pub(super) fn met(
    policy: &Policy,
    entitlement: &Entitlement,
    ask: &Ask,
    ticket: Option<&str>,
    now: Timestamp,
) -> Result<(), Denied> {
    let Some(when) = &entitlement.conditions.when else { return Ok(()) };
    let identity = policy.identities.get(&ask.identity);
    let Some((identity, target)) = identity.zip(policy.targets.get(&ask.target)) else {
        return Err(Denied::UnknownTarget(ask.target.clone()));
    };
    let (source, device) = (Some(ask.source), Some(&ask.device));
    match when.judge(&Facts { identity, target, at: now, source, ticket, device }) {
        Judged::Holds => return Ok(()),
        Judged::Fails => {}
        Judged::Unknown(why) => {
            tracing::warn!(entitlement = %entitlement.name, why, "a condition could not be evaluated, so it does not hold");
        }
    }
    Err(Denied::Unmet { target: ask.target.clone(), when: when.to_string() })
}
