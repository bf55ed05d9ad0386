//! What the policy says to somebody who wants something, and which key of the configuration said it. Pure: for `policy explain`
//! and an admin's own table of cases.

use crate::{
    entitlement::Entitlement,
    factor::Mfa,
    identity::Identity,
    name::{EntitlementName, IdentityName, TargetName},
    panel::{Panel, Standing},
    policy::Policy,
    target::Target,
    when::{Device, Facts, Judged},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is granted at once to whoever asks.
    Allow,
    /// Others must say yes, or an admin or an outside issuer must grant it.
    Ask,
    /// It is refused.
    Deny,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        })
    }
}

/// One step of the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The key of the configuration that it goes by.
    pub key: String,
    /// Whether it speaks for it.
    pub fits: bool,
    /// What it says.
    pub says: String,
    /// Where that is written, for whom the file is at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// What somebody wants, where and when. What is left out is not known.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who.
    pub user: &'a IdentityName,
    /// On which target.
    pub target: &'a TargetName,
    /// Of which entitlement.
    pub entitlement: &'a EntitlementName,
    /// When.
    pub at: Timestamp,
    /// From where.
    pub from: Option<IpAddr>,
    /// With which ticket.
    pub ticket: Option<&'a str>,
    /// By what.
    pub device: Option<&'a Device>,
}

/// The whole decision; its last step decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What comes of it.
    pub outcome: Outcome,
    /// In the order in which they are looked at.
    pub steps: Vec<Step>,
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Whether it fits.
    fn step(&mut self, key: String, fits: bool, says: impl Into<String>) -> bool {
        self.0.push(Step { key, fits, says: says.into(), place: None });
        fits
    }

    fn end(self, outcome: Outcome) -> Explained {
        Explained { outcome, steps: self.0 }
    }
}

fn names<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What the policy says to this identity about this entitlement on this target at that moment.
pub fn explain(policy: &Policy, question: &Question<'_>) -> Explained {
    let Question { user, target, entitlement, .. } = *question;
    let mut steps = Steps::default();
    let Some(identity) = policy.identities.get(user) else {
        steps.step(format!("user[{user}]"), false, "there is no such user");
        return steps.end(Outcome::Deny);
    };
    let Some(there) = policy.targets.get(target) else {
        steps.step(format!("target[{target}]"), false, "there is no such target");
        return steps.end(Outcome::Deny);
    };
    let Some(terms) = policy.entitlements.get(entitlement) else {
        steps.step(format!("entitlement[{entitlement}]"), false, "there is no such entitlement");
        return steps.end(Outcome::Deny);
    };
    let key = |key: &str| format!("entitlement[{entitlement}].{key}");
    let says = format!("for {}; {user} is in {}", names(&terms.groups), names(&identity.groups));
    if !steps.step(key("groups"), terms.is_for(identity), says) {
        return steps.end(Outcome::Deny);
    }
    let reaches = terms.reaches(there);
    let says = if reaches { format!("reaches {target}") } else { format!("does not reach {target}") };
    if !steps.step(key("targets"), reaches, says) {
        return steps.end(Outcome::Deny);
    }
    if !conditions(&mut steps, key, (identity, there, terms), question) {
        return steps.end(Outcome::Deny);
    }
    let outcome = asked(&mut steps, key, policy, terms, question);
    steps.end(outcome)
}

/// Whether hours and condition hold.
fn conditions(
    steps: &mut Steps,
    key: impl Fn(&str) -> String,
    (identity, target, terms): (&Identity, &Target, &Entitlement),
    question: &Question<'_>,
) -> bool {
    let Question { at, from: source, ticket, device, .. } = *question;
    if let Some(hours) = &terms.conditions.hours {
        let open = hours.until(at);
        let says = match (open, hours.next(at)) {
            (Some(until), _) => format!("{hours}: open until {until}"),
            (None, Some(next)) => format!("{hours}: shut at {at}, open next from {next}"),
            (None, None) => format!("{hours}: shut at {at}"),
        };
        if !steps.step(key("hours"), open.is_some(), says) {
            return false;
        }
    }
    let Some(when) = &terms.conditions.when else { return true };
    let (holds, says) = match when.judge(&Facts { identity, target, at, source, ticket, device }) {
        Judged::Holds => (true, format!("{when}: holds")),
        Judged::Fails => (false, format!("{when}: does not hold")),
        Judged::Unknown(why) => {
            let more = "what is not said does not hold: say more of the address, the ticket or the key";
            (false, format!("{when}: cannot be told ({why}); {more}"))
        }
    };
    steps.step(key("when"), holds, says)
}

/// Who must say yes.
fn asked(
    steps: &mut Steps,
    key: impl Fn(&str) -> String,
    policy: &Policy,
    terms: &Entitlement,
    question: &Question<'_>,
) -> Outcome {
    let Question { user, at, .. } = *question;
    if terms.asks_with_a_factor() || terms.mfa == Mfa::Session {
        let says = if terms.asks_with_a_factor() {
            "asked for with a second factor only"
        } else {
            "opens with a second factor only"
        };
        steps.step(key("mfa"), true, says);
    }
    let Some(asking) = &terms.asking else {
        steps.step(key("approvals"), true, "not there: only `grant issue` or an imported grant opens it");
        return Outcome::Ask;
    };
    for (number, rule) in (1..).zip(&asking.levels) {
        let panel = Panel { policy, asking, requester: user, opened: at, now: at };
        let may = names(panel.members(rule));
        let says = format!("level {number}: {} of {} ({}), {}", rule.count, names(&rule.from), may, rule.proof);
        steps.step(key("approvals"), true, says);
        if panel.standing(&[]) == Standing::Stuck(number) {
            steps.step(key("approvals"), false, format!("level {number} can never be met: too few may say yes"));
            return Outcome::Deny;
        }
    }
    if asking.break_glass {
        steps.step(key("break_glass"), true, "breaks the glass: granted at once, and somebody else must review it");
        return Outcome::Allow;
    }
    if asking.levels.is_empty() {
        steps.step(key("approvals"), true, "no level: granted at once to whoever asks");
        return Outcome::Allow;
    }
    Outcome::Ask
}
